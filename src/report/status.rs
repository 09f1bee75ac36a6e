//! Where an experiment stands: a line, a table of tasks, and the trials of those that have something to tell.

use nemo_core::rundir::{Cause, Params};

use super::fit::hang;
use super::grid::{ColumnFit, Grid, TextCell};
use super::reasons::reasons;
use super::table::{cause, coloured};
use super::{INDENT, Page};
use crate::humanize::{age, count, metric};
use crate::status::{ExperimentStatus, Status, TaskStatus, TrialStatus};

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
        if task.trials.len() > 1 || task.trials.iter().any(is_telling) {
            parts.push(format!("{}\n{}", task.name, trials(task, page)));
        }
    }
    parts.extend(reasons(status).iter().map(|reason| line(reason)));
    parts.join("\n")
}

/// Whether there is more to a task's only trial than its state.
fn is_telling(trial: &TrialStatus) -> bool {
    !trial.metrics.is_empty() || trial.step.is_some() || trial.attempts.len() > 1
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
            TextCell::from(pairs(&trial.metrics)),
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
    let known = || task.trials.iter().filter_map(|trial| trial.params.as_ref());
    let Some(first) = known().next().filter(|_| task.trials.len() > 1) else { return Vec::new() };
    let same = |(name, value): &(&String, &serde_json::Value)| {
        known().all(|params| params.get(*name) == Some(*value))
    };
    first.iter().filter(same).map(|(name, _)| name.clone()).collect()
}

/// Those that tell a trial from others; `?` where they are unknown.
fn parameters(trial: &TrialStatus, constant: &[String]) -> String {
    let shown = |params| pairs(&without(params, constant));
    trial.params.as_ref().map_or_else(|| "?".to_owned(), shown)
}

fn without(params: &Params, names: &[String]) -> Params {
    params
        .iter()
        .filter(|(name, _)| !names.contains(name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// `1`, or `9: 7 time limit, preempted`.
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
        (n, causes) => format!(
            "{n}: {}",
            causes
                .iter()
                .map(|(of, times)| match times {
                    1 => cause(*of).to_owned(),
                    times => format!("{times} {}", cause(*of)),
                })
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// `lr=0.1 width=32`; nested names are joined by dots.
fn pairs(values: &serde_json::Map<String, serde_json::Value>) -> String {
    values.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn pair((name, value): (&String, &serde_json::Value)) -> String {
    match value {
        serde_json::Value::Object(nested) => {
            let nested = pairs(nested);
            nested.split(' ').map(|pair| format!("{name}.{pair}")).collect::<Vec<_>>().join(" ")
        }
        serde_json::Value::String(text) => format!("{name}={text}"),
        value => format!("{name}={}", metric(value)),
    }
}
