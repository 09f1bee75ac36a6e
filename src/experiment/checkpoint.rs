//! `[task.<name>.checkpoint]`: how a program is asked to save, how often, and which checkpoints stay.

use std::path::PathBuf;

use nemo_core::rundir::{Every, Keep, NO_SIGNAL, SAVE_SIGNALS, save_signal};

use super::problem_report::{KeyPosition, ProblemReport, listed, nearest};
use super::reader::{Field, Section};
use super::tasks::{self, CommandDraft};
use super::toml_tree::TomlValue;

/// The section as written.
pub(super) struct CheckpointDraft {
    /// Where none is written, the profile has one.
    pub(super) signal: Option<String>,
    /// Its default depends on the executor.
    pub(super) lead: Option<(u64, KeyPosition)>,
    pub(super) every: Option<Every>,
    pub(super) keep: Keep,
    /// Patterns of the program's own paths.
    pub(super) from: Vec<(String, KeyPosition)>,
    /// Where the program looks for its checkpoint.
    pub(super) restore_to: Option<(String, KeyPosition)>,
    /// A folder in memory of the node.
    pub(super) tier: Option<(PathBuf, KeyPosition)>,
    /// What takes the checkpoints of the program.
    pub(super) command: Option<CommandDraft>,
    /// What goes on from one, in place of the program.
    pub(super) resume: Option<CommandDraft>,
}

/// Reads the section of a task.
pub(super) fn read(task: &mut Section<'_>, report: &mut ProblemReport) -> CheckpointDraft {
    let mut saving = CheckpointDraft {
        signal: None,
        lead: None,
        every: None,
        keep: Keep::default(),
        from: Vec::new(),
        restore_to: None,
        tier: None,
        command: None,
        resume: None,
    };
    let Some(mut section) = task.take_section("checkpoint", report) else { return saving };
    let signal = section.take("signal");
    saving.signal = signal.as_ref().and_then(|field| signal_in(field, report));
    saving.command = section.take("command").and_then(|field| tasks::command(&field, report));
    saving.resume = section.take("resume").and_then(|field| tasks::command(&field, report));
    if let Some(signal) = signal.filter(|_| saving.command.is_some()) {
        report
            .problem(
                &signal.key_place,
                "`command` takes the checkpoints, so no signal asks for them",
            )
            .hint("remove `signal`; the command may send one itself, to `$NEMO_PID`");
    }
    let lead = section.take("lead");
    saving.lead = lead.and_then(|field| Some((field.duration(report)?, field.place)));
    saving.every = section.take("every").and_then(|field| every(&field, report));
    let from = section.take("from").map(|field| field.one_or_more()).unwrap_or_default();
    saving.from = from.iter().filter_map(|field| path(field, report)).collect();
    saving.restore_to = section.take("restore_to").and_then(|field| restore_to(&field, report));
    saving.tier = section.take("tier").and_then(|field| tier(&field, report));
    if let Some(keep) = section.take_section("keep", report) {
        saving.keep = read_keep(keep, report);
    }
    section.finish(report);
    saving
}

fn path(field: &Field<'_>, report: &mut ProblemReport) -> Option<(String, KeyPosition)> {
    let text = field.text_as("a path, or a list of paths", report)?;
    Some((text, field.place.clone()))
}

/// A folder of the node.
fn tier(field: &Field<'_>, report: &mut ProblemReport) -> Option<(PathBuf, KeyPosition)> {
    let text = field.text_as("the path of a folder in memory, such as \"/dev/shm\"", report)?;
    if !text.starts_with('/') || text.contains('{') {
        report
            .problem(&field.place, format!("{text:?} is no folder of the node"))
            .hint("write a path from the top, such as \"/dev/shm\": each trial gets a folder of its own there");
        return None;
    }
    Some((PathBuf::from(text), field.place.clone()))
}

/// One path; wildcards in it would name several.
fn restore_to(field: &Field<'_>, report: &mut ProblemReport) -> Option<(String, KeyPosition)> {
    let text = field.text_as("a path", report)?;
    if text.trim_matches('/').is_empty() || text.contains(['*', '?']) {
        report
            .problem(&field.place, format!("{text:?} is not one path"))
            .hint("write the file that the program looks for, or the folder with a `/` at its end");
        return None;
    }
    Some((text, field.place.clone()))
}

/// A signal, with or without `SIG`, or the word for none.
fn signal_in(field: &Field<'_>, report: &mut ProblemReport) -> Option<String> {
    let names = listed(SAVE_SIGNALS.into_iter().chain([NO_SIGNAL]));
    let text = field.text_as(&format!("one of {names}"), report)?;
    if text == NO_SIGNAL {
        return Some(text);
    }
    let signal = save_signal(&text);
    if signal.is_none() {
        report.problem(&field.place, format!("expected one of {names}, found {text:?}"));
    }
    signal.map(str::to_owned)
}

/// `"auto"`, `"500 steps"`, or a duration.
fn every(field: &Field<'_>, report: &mut ProblemReport) -> Option<Every> {
    let text = match field.value {
        TomlValue::Text(text) => text.trim(),
        TomlValue::Integer(number) => return without_unit(&number.to_string(), field, report),
        _ => return Some(Every::Seconds(field.duration(report)?)),
    };
    if text == "auto" {
        return Some(Every::Auto);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return without_unit(text, field, report);
    }
    let number =
        text.strip_suffix("steps").or_else(|| text.strip_suffix("step")).map(str::trim_end);
    let Some(number) = number else {
        return seconds_unless_steps_are_meant(text, field, report).map(Every::Seconds);
    };
    let steps = number.parse().ok().filter(|&steps: &u64| steps > 0);
    if steps.is_none() {
        report
            .problem(&field.place, format!("{text:?} is not a number of steps"))
            .hint("write for example \"500 steps\", \"10m\" or \"auto\"");
    }
    steps.map(Every::Steps)
}

/// A duration; `10 stepz` is none, and not meant as one either.
fn seconds_unless_steps_are_meant(
    text: &str,
    field: &Field<'_>,
    report: &mut ProblemReport,
) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || nearest(unit.trim_start(), ["steps"]).is_none() {
        return field.duration(report);
    }
    report
        .problem(&field.place, format!("{text:?} is not a number of steps"))
        .hint(format!("did you mean \"{number} steps\"?"));
    None
}

/// Steps or a time: a number alone may mean either.
fn without_unit(number: &str, field: &Field<'_>, report: &mut ProblemReport) -> Option<Every> {
    report.problem(&field.place, "`every` needs a unit").hint(format!(
        "write \"{number} steps\", or a time such as \"{number}s\" or \"{number}m\""
    ));
    None
}

/// What is not said keeps its default.
fn read_keep(mut section: Section<'_>, report: &mut ProblemReport) -> Keep {
    let default = Keep::default();
    let mut number = |name, default| {
        let field = section.take(name);
        let number =
            field.and_then(|field| field.integer::<u32>("a whole number from 0 on", report));
        number.unwrap_or(default)
    };
    let keep = Keep {
        trial_latest: number("trial_latest", default.trial_latest),
        trial_best: number("trial_best", default.trial_best),
        experiment_best: number("experiment_best", default.experiment_best),
    };
    section.finish(report);
    keep
}
