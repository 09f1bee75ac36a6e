//! `[task.<name>.retry]`: which failures are retried by themselves, how often, and with what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::growth::Growth;
use super::problem_report::{ProblemReport, choices};
use super::reader::{Field, Section};
use super::toml_tree::TomlValue;
use crate::trial_error::ErrorClass;

/// The rules of a task by the class of a failure; `failed` is of all classes that have none of their own.
pub type RetryRules = BTreeMap<String, RetryRule>;

/// The name of the rule for all other failures.
const FAILED: &str = "failed";

/// How failures of one class are retried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRule {
    /// How often, at most.
    pub times: u32,
    /// The memory that is asked for then: `x1.5` or `64G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<String>,
    /// The time of a segment: `x2` or `4h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// The rule for a class, and its name. What would only fail again needs a rule of its own.
#[must_use]
pub fn rule_for(rules: &RetryRules, class: ErrorClass) -> Option<(&str, &RetryRule)> {
    let general = || rules.get_key_value(FAILED).filter(|_| !class.would_fail_again());
    let (name, rule) = rules.get_key_value(class.as_str()).or_else(general)?;
    Some((name, rule))
}

/// Reads the section of a task.
pub(super) fn read(task: &mut Section<'_>, report: &mut ProblemReport) -> RetryRules {
    let names = ErrorClass::ALL.map(ErrorClass::as_str);
    let mut rules = RetryRules::new();
    let mut open = Vec::new();
    for field in task.take_fields("retry", report) {
        if field.name != FAILED && !names.contains(&field.name) {
            let known = names.into_iter().chain([FAILED]);
            let message = format!("`{}` is not a failure class", field.name);
            let hint = choices(field.name, "the classes are", known);
            report.problem(&field.key_place, message).hint(hint);
        } else if let Some((rule, has_number)) = rule(&field, report) {
            open.extend((!has_number).then(|| field.name.to_owned()));
            rules.insert(field.name.to_owned(), rule);
        }
    }
    let general = rules.get(FAILED).filter(|rule| rule.times > 0).map_or(1, |rule| rule.times);
    for name in open {
        rules.entry(name).and_modify(|rule| rule.times = general);
    }
    rules
}

/// A rule, and whether it says how often.
fn rule(field: &Field<'_>, report: &mut ProblemReport) -> Option<(RetryRule, bool)> {
    let count = "a whole number from 1 on";
    if let TomlValue::Integer(_) = field.value {
        let times = field.positive(report)?.get();
        return Some((RetryRule { times, ..RetryRule::default() }, true));
    }
    if !matches!(field.value, TomlValue::Table(_)) {
        field.wrong(&format!("{count}, or a table such as {{ mem = \"x1.5\" }}"), report);
        return None;
    }
    let mut section = field.section(report)?;
    let times = section.take("times").and_then(|field| field.positive(report));
    let mem = growth(section.take("mem"), Growth::of_memory, "\"x1.5\" or \"64G\"", report);
    let time = growth(section.take("time"), Growth::of_time, "\"x2\" or \"4h\"", report);
    section.finish(report);
    let rule = RetryRule { times: times.map_or(0, std::num::NonZeroU32::get), mem, time };
    Some((rule, times.is_some()))
}

fn growth(
    field: Option<Field<'_>>,
    parse: fn(&str) -> Option<Growth>,
    example: &str,
    report: &mut ProblemReport,
) -> Option<String> {
    let field = field?;
    let text = field.text_as(&format!("a text such as {example}"), report)?;
    if parse(&text).is_none() {
        report
            .problem(&field.place, format!("{text:?} is no amount that a retry can ask for"))
            .hint(format!("write for example {example}"));
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::experiment::load;

    fn rules(text: &str) -> Result<RetryRules, String> {
        let text = format!("name = \"a\"\n[task.t]\nrun = \"true\"\nretry = {text}\n");
        let loaded = load(&text, Path::new("exp.toml"), &[], None);
        loaded.map(|mut it| it.experiment.tasks.remove(0).retry).map_err(|it| it.to_string())
    }

    #[test]
    fn a_class_has_its_own_rule_or_that_of_all() {
        let rules =
            rules("{ failed = 2, out_of_memory = { mem = \"x1.5\" }, hung = { times = 5 } }");
        let rules = rules.unwrap();
        let shown = |class| {
            let (name, rule) = rule_for(&rules, class)?;
            Some(format!("{name} {} {:?}", rule.times, rule.mem))
        };
        assert_eq!(shown(ErrorClass::Crash).unwrap(), "failed 2 None");
        assert_eq!(shown(ErrorClass::OutOfMemory).unwrap(), "out_of_memory 2 Some(\"x1.5\")");
        assert_eq!(shown(ErrorClass::Hung).unwrap(), "hung 5 None");
        assert_eq!(shown(ErrorClass::MissingModule), None);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let refused = |text: &str, expected: &str| {
            let error = rules(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        refused("{ out_of_memroy = 1 }", "out_of_memory");
        refused("{ failed = 0 }", "1");
        refused("{ failed = \"twice\" }", "whole number");
        refused("{ out_of_memory = { mem = \"more\" } }", "x1.5");
        refused("{ time_limit = { mem = \"8G\", tiem = \"x2\" } }", "tiem");
        refused("3", "table");
    }
}
