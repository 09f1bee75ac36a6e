//! `[[task.<name>.log_policy]]`: what a line of the output leads to.

use nemo_core::rundir::{LogAction, LogPolicy};

use super::problem_report::ProblemReport;
use super::reader::{Field, Section};

const ACTIONS: [(&str, LogAction); 3] = [
    ("exclude_node", LogAction::ExcludeNode),
    ("stop_restarting", LogAction::StopRestarting),
    ("label", LogAction::Label),
];

/// Reads the policies of a task.
pub(super) fn read(section: &mut Section<'_>, report: &mut ProblemReport) -> Vec<LogPolicy> {
    let Some(field) = section.take("log_policy") else { return Vec::new() };
    let mut policies: Vec<LogPolicy> = Vec::new();
    for item in field.one_or_more() {
        let Some(policy) = policy(&item, report) else { continue };
        if policies.iter().any(|other| other.name == policy.name) {
            let message = format!("there are two log policies named `{}`", policy.name);
            report.problem(&item.place, message).hint("give each policy its own name");
        }
        policies.push(policy);
    }
    policies
}

fn policy(item: &Field<'_>, report: &mut ProblemReport) -> Option<LogPolicy> {
    let mut section = item.section(report)?;
    let name = section.take("name");
    let pattern = section.take("pattern");
    let action = section.take("action");
    section.finish(report);
    let (Some(name), Some(pattern), Some(action)) = (name, pattern, action) else {
        report.problem(&item.place, "a log policy needs `name`, `pattern` and `action`").hint(
            "write for example `name = \"ECC error\"`, `pattern = 'uncorrectable ECC'`, `action = \"exclude_node\"`",
        );
        return None;
    };
    let action = action.word(&ACTIONS, report);
    let name = name.text(report);
    let text = pattern.text_as("a string with a regular expression", report)?;
    if let Err(error) = regex_lite::Regex::new(&text) {
        let message = format!("the pattern is not a regular expression: {error}");
        report.problem(&pattern.place, message);
    }
    Some(LogPolicy { name: name?, pattern: text, action: action? })
}
