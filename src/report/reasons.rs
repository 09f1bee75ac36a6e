//! Why trials are not well: each reason once, with the trials that it is about, and what their programs said.

use super::fit::hang;
use super::{INDENT, Page};
use crate::humanize::{count, ranges};
use crate::status::{Status, TaskStatus, TrialStatus};
use crate::trial_error::{ErrorClass, TrialError};

/// How many reasons are shown; more are counted only.
const SHOWN: usize = 10;

/// Trials with the same reason, or the same error.
struct ReasonGroup<'a> {
    task: &'a str,
    trials: Vec<u32>,
    first: &'a TrialStatus,
    key: String,
}

/// A text for each reason, in the order of the trials that it came first for.
pub(super) fn reasons(status: &Status, page: &Page) -> Vec<String> {
    let groups: Vec<ReasonGroup<'_>> = status.tasks.iter().flat_map(of_task).collect();
    let shown = groups.iter().take(SHOWN);
    let mut texts: Vec<String> = shown.map(|group| text(group, page)).collect();
    let hidden = groups.len().saturating_sub(SHOWN);
    if hidden > 0 {
        texts.push(format!("… and {}; `--json` shows all", count(hidden, "more reason")));
    }
    texts
}

fn of_task(task: &TaskStatus) -> Vec<ReasonGroup<'_>> {
    let mut groups: Vec<ReasonGroup<'_>> = Vec::new();
    for trial in &task.trials {
        let Some(key) = key(trial) else { continue };
        if let Some(group) = groups.iter_mut().find(|group| group.key == key) {
            group.trials.push(trial.index);
        } else {
            let trials = vec![trial.index];
            groups.push(ReasonGroup { task: &task.name, trials, first: trial, key });
        }
    }
    groups
}

/// Equal for those that failed in the same way, though the reasons tell different times and steps.
fn key(trial: &TrialStatus) -> Option<String> {
    match &trial.error {
        Some(error) => Some(error.kind()),
        None => trial.reason.clone(),
    }
}

/// `train/3: why`, as a target is written, or `train, trials 0-3, 7: why`; below it what the program said.
fn text(group: &ReasonGroup<'_>, page: &Page) -> String {
    let trials = match group.trials.as_slice() {
        [trial] => format!("{}/{trial}", group.task),
        trials => format!("{}, trials {}", group.task, ranges(trials)),
    };
    let error = group.first.error.as_ref();
    let why = group.first.reason.as_ref().or(error.map(|error| &error.message));
    let why = why.map_or("", String::as_str);
    let mut lines = vec![hang(&format!("{trials}: {why}"), page.width, INDENT)];
    if let Some(error) = error.filter(|error| tells_more(error, why)) {
        let width = page.width.map(|width| width.saturating_sub(INDENT));
        let said = hang(&error_text(error, why), width, INDENT);
        lines.extend(said.lines().map(|line| format!("{}{line}", " ".repeat(INDENT))));
    }
    lines.join("\n")
}

/// Whether an error says anything that the reason does not.
fn tells_more(error: &TrialError, why: &str) -> bool {
    let is_named = !matches!(error.class, ErrorClass::Crash | ErrorClass::Unknown);
    is_named || error.place().is_some() || !why.contains(&error.message)
}

/// `missing_module (train.py:3): ModuleNotFoundError: …`; the message only if the reason does not tell it.
fn error_text(error: &TrialError, why: &str) -> String {
    let place = error.place().map_or_else(String::new, |place| format!(" ({place})"));
    let message =
        if why.contains(&error.message) { String::new() } else { format!(": {}", error.message) };
    format!("{}{place}{message}", error.class.as_str())
}
