//! `[task.<name>.rehearse]`: what a rehearsal passes over.

use serde::{Deserialize, Serialize};

use super::problem_report::ProblemReport;
use super::reader::{Field, Section};

/// What a rehearsal does not compare, or not exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RehearsalRules {
    /// Patterns of files, and of names in them, that are not compared.
    pub ignore: Vec<String>,
    /// Patterns of arrays, files and metrics that may differ as much as undisturbed runs do, ten times over.
    pub noise: Vec<String>,
}

impl RehearsalRules {
    /// Whether everything is compared.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

pub(super) fn read(section: &mut Section<'_>, report: &mut ProblemReport) -> RehearsalRules {
    let mut rules = RehearsalRules::default();
    let Some(field) = section.take("rehearse") else { return rules };
    let Some(mut own) = field.section(report) else { return rules };
    for (key, patterns) in [("ignore", &mut rules.ignore), ("noise", &mut rules.noise)] {
        if let Some(field) = own.take(key) {
            *patterns =
                field.one_or_more().iter().filter_map(|item| pattern(item, report)).collect();
        }
    }
    own.finish(report);
    rules
}

fn pattern(item: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let text = item.text(report)?;
    if let Err(error) = glob::Pattern::new(&text) {
        report
            .problem(&item.place, format!("{text:?} is no pattern of names: {}", error.msg))
            .hint("write for example \"*.log\", \"plots/*\" or \"config.*\"");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::experiment::load;

    #[test]
    fn patterns_are_read_and_a_wrong_one_is_named() {
        let rules = |text: &str| {
            let file =
                format!("name = \"x\"\n[task.t]\nrun = \"true\"\n[task.t.rehearse]\n{text}\n");
            let loaded = load(&file, Path::new("exp.toml"), &[], None);
            loaded.map(|mut it| it.experiment.tasks.remove(0).rehearse).map_err(|it| it.to_string())
        };
        let read = rules("ignore = [\"*.log\"]\nnoise = \"model.*\"").unwrap();
        assert_eq!((read.ignore, read.noise), (vec!["*.log".into()], vec!["model.*".into()]));
        let wrong = rules("ignore = [\"a[\"]").unwrap_err();
        assert!(wrong.contains("\"a[\" is no pattern of names"), "{wrong}");
    }
}
