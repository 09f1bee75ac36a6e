//! Where an experiment stands: a line, a table of tasks, and the trials of those that have something to tell.

use nemo_core::rundir::{Cause, Params};
use serde_json::Value;

use super::fit::hang;
use super::grid::{ColumnFit, Grid, TextCell};
use super::reasons::reasons;
use super::table::{cause, coloured};
use super::{INDENT, Page};
use crate::humanize::{age, count, metric};
use crate::status::{ExperimentStatus, Status, TaskStatus, TrialStatus};
use crate::summary::flatten;

/// How many trials of a task are shown one by one; more are counted only.
const SHOWN_TRIALS: usize = 50;

/// The whole experiment.
#[must_use]
pub fn status_table(status: &Status, page: &Page) -> String {
    let line = |text: &str| hang(text, page.width, INDENT);
    let mut parts = vec![line(&headline(&status.experiment, page.now))];
    parts.extend(status.warnings.iter().map(|warning| line(&format!("warning: {warning}"))));
    parts.push(tasks(&status.tasks, page));
    for task in &status.tasks {
        if !task.trials.is_empty() {
            parts.push(format!("{}\n{}", task.name, trials(task, page)));
        }
    }
    parts.extend(reasons(status, page));
    parts.join("\n")
}

fn headline(experiment: &ExperimentStatus, now: f64) -> String {
    let reason =
        experiment.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let age = age(experiment.created, now);
    format!("{} is {}{reason} (submitted {age})", experiment.id, experiment.state.as_str())
}

fn tasks(tasks: &[TaskStatus], page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("task", ColumnFit::Whole),
        ("state", ColumnFit::Whole),
        ("trials", ColumnFit::Whole),
        ("", ColumnFit::Words),
    ]);
    for task in tasks {
        let counts: Vec<String> =
            task.counts.iter().map(|(state, n)| format!("{n} {}", state.as_str())).collect();
        grid.row([
            TextCell::from(&task.name),
            coloured(task.state),
            TextCell::from(task.trials.len()),
            TextCell::from(counts.join(", ")),
        ]);
    }
    grid.lines(page).join("\n")
}

fn trials(task: &TaskStatus, page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("trial", ColumnFit::Whole),
        ("state", ColumnFit::Whole),
        ("parameters", ColumnFit::Words),
        ("step", ColumnFit::Whole),
        ("metrics", ColumnFit::Words),
        ("attempts", ColumnFit::Words),
        ("job", ColumnFit::Spare(0)),
        ("", ColumnFit::Whole),
    ]);
    let constant = constants(task);
    for trial in task.trials.iter().take(SHOWN_TRIALS) {
        grid.row([
            TextCell::from(trial.index),
            coloured(trial.state),
            TextCell::from(parameters(trial, &constant)),
            TextCell::from(trial.step.map_or_else(String::new, |step| step.to_string())),
            TextCell::from(metrics(trial)),
            TextCell::from(attempts_in_words(trial)),
            TextCell::from(trial.slurm_job.as_deref().unwrap_or("")),
            TextCell::from(if task.best == Some(trial.index) { "best" } else { "" }),
        ]);
    }
    let mut lines = grid.without_empty().lines(page);
    let hidden = task.trials.len().saturating_sub(SHOWN_TRIALS);
    if hidden > 0 {
        lines.push(format!("… and {} more; `--json` shows all", count(hidden, "trial")));
    }
    lines.join("\n")
}

/// The parameters that are the same in every trial, and tell nothing in a table.
fn constants(task: &TaskStatus) -> Vec<String> {
    let known: Vec<&Params> =
        task.trials.iter().filter_map(|trial| trial.params.as_ref()).collect();
    let Some(first) = known.first().filter(|_| task.trials.len() > 1) else { return Vec::new() };
    let constant = first
        .iter()
        .filter(|(name, value)| known.iter().all(|params| params.get(*name) == Some(*value)));
    constant.map(|(name, _)| name.clone()).collect()
}

/// Those that tell a trial from others; `?` where they are unknown.
fn parameters(trial: &TrialStatus, constant: &[String]) -> String {
    let params = trial.params.as_ref();
    params.map_or_else(|| "?".to_owned(), |params| pairs(&without(params, constant)))
}

fn without(params: &Params, names: &[String]) -> Params {
    params
        .iter()
        .filter(|(name, _)| !names.contains(name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// `1`, or `9 (7 time limit, 1 preempted)`: how many there were, and how many of them ended so.
fn attempts_in_words(trial: &TrialStatus) -> String {
    let mut causes: Vec<(Cause, usize)> = Vec::new();
    let ended = trial.attempts.iter().filter_map(|attempt| attempt.cause);
    for cause in ended.filter(|cause| *cause != Cause::Completed) {
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, times)) => *times += 1,
            None => causes.push((cause, 1)),
        }
    }
    match (trial.attempts.len(), causes.as_slice()) {
        (0, _) => String::new(),
        (n, []) => n.to_string(),
        (1, [(of, _)]) => format!("1 ({})", cause(*of)),
        (n, causes) => {
            let ends = causes.iter().map(|(of, times)| format!("{times} {}", cause(*of)));
            format!("{n} ({})", ends.collect::<Vec<_>>().join(", "))
        }
    }
}

/// `loss=0.2513 acc=0.9`.
fn metrics(trial: &TrialStatus) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name}={}", metric(value));
    trial.metrics.iter().map(pair).collect::<Vec<_>>().join(" ")
}

/// `lr=0.1 model.width=32`.
pub(super) fn pairs(params: &Params) -> String {
    flatten(params).into_iter().map(parameter_text).collect::<Vec<_>>().join(" ")
}

/// One parameter, as in `lr=0.1`: as it was written, for a rounded one would look like another.
#[must_use]
pub fn parameter_text((name, value): (String, &Value)) -> String {
    match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_shown_as_they_were_written() {
        let check = |params: Value, expected| {
            assert_eq!(pairs(params.as_object().unwrap()), expected, "{params}");
        };
        check(json!({ "lr": 0.000_123_456, "seed": 20_261_130 }), "lr=0.000123456 seed=20261130");
        check(json!({ "lr": 1.0, "n": 1, "flag": true, "x": null }), "lr=1.0 n=1 flag=true x=null");
        check(json!({ "model": { "kind": "a b", "width": 8 } }), "model.kind=a b model.width=8");
        let trial = crate::status::sample_trial(0, crate::status::State::Running);
        let values = json!({ "loss": 0.123_456 }).as_object().cloned().unwrap();
        assert_eq!(metrics(&TrialStatus { metrics: values, ..trial }), "loss=0.1235");
    }
}
