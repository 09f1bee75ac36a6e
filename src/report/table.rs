//! Tables that fit the terminal, and read the same without colour.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use super::reasons::reasons;
use crate::words::{age, count, duration, metric};
use nemo_harness::rundir::Params;

use crate::plan::{JobArray, Plan, Relation};
use crate::status::{AttemptStatus, ExperimentStatus, State, Status, TaskStatus, TrialStatus};

/// How many trials of a task are shown one by one; more are counted only.
const SHOWN_TRIALS: usize = 50;

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let header = header.iter().map(|title| Cell::new(title.to_uppercase()));
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if nobody_wants_colour() {
        table.force_no_tty();
    }
    table
}

/// A table as text, without blanks at the ends of lines.
pub(super) fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// [`comfy_table`] looks for a terminal; `NO_COLOR` is ours to heed.
#[expect(clippy::disallowed_methods, reason = "an edge: the terminal's habits are read here")]
fn nobody_wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn coloured(state: State) -> Cell {
    let colour = match state {
        State::Completed => Color::Green,
        State::Failed | State::Timeout => Color::Red,
        State::Running => Color::Cyan,
        State::Preempted | State::Paused | State::Unknown => Color::Yellow,
        State::Pending | State::Cancelled | State::Blocked => Color::Reset,
    };
    let cell = Cell::new(state.as_str());
    if colour == Color::Reset { cell } else { cell.fg(colour) }
}

/// The whole experiment: a line, a table of tasks, and the trials of those that have several.
#[must_use]
pub fn status_table(status: &Status, now: f64) -> String {
    let mut parts = vec![headline(&status.experiment, now)];
    parts.extend(
        status
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning} (what is shown may be old)")),
    );
    parts.push(tasks(&status.tasks));
    for task in &status.tasks {
        let is_telling =
            |trial: &TrialStatus| !trial.metrics.is_empty() || trial.attempts.len() > 1;
        if task.trials.len() > 1 || task.trials.iter().any(is_telling) {
            parts.push(format!("{}\n{}", task.name, trials(task)));
        }
    }
    parts.extend(reasons(status));
    parts.join("\n")
}

fn headline(experiment: &ExperimentStatus, now: f64) -> String {
    let reason =
        experiment.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let age = age(experiment.created, now);
    format!("{} is {}{reason} (submitted {age})", experiment.id, experiment.state.as_str())
}

fn tasks(tasks: &[TaskStatus]) -> String {
    let mut table = table(&["task", "state", "trials", ""]);
    for task in tasks {
        let counts: Vec<String> =
            task.counts.iter().map(|(state, n)| format!("{n} {}", state.as_str())).collect();
        table.add_row(vec![
            Cell::new(&task.name),
            coloured(task.state),
            Cell::new(task.trials.len()),
            Cell::new(counts.join(", ")),
        ]);
    }
    text(&table)
}

fn trials(task: &TaskStatus) -> String {
    let mut table =
        table(&["trial", "state", "parameters", "step", "metrics", "attempts", "job", ""]);
    let constant = constants(task);
    for trial in task.trials.iter().take(SHOWN_TRIALS) {
        table.add_row(vec![
            Cell::new(trial.index),
            coloured(trial.state),
            Cell::new(pairs(&without(&trial.params, &constant))),
            Cell::new(trial.step.map_or_else(String::new, |step| step.to_string())),
            Cell::new(pairs(&trial.metrics)),
            Cell::new(attempts_in_words(trial)),
            Cell::new(trial.slurm_job.as_deref().unwrap_or("")),
            Cell::new(if task.best == Some(trial.index) { "best" } else { "" }),
        ]);
    }
    let hidden = task.trials.len().saturating_sub(SHOWN_TRIALS);
    if hidden == 0 {
        return text(&table);
    }
    format!("{}\n… and {} more; `--json` shows all", text(&table), count(hidden, "trial"))
}

/// The parameters that are the same in every trial, and tell nothing in a table.
fn constants(task: &TaskStatus) -> Vec<String> {
    let Some(first) = task.trials.first() else { return Vec::new() };
    if task.trials.len() == 1 {
        return Vec::new();
    }
    let same = |(name, value): &(&String, &serde_json::Value)| {
        task.trials.iter().all(|trial| trial.params.get(*name) == Some(*value))
    };
    first.params.iter().filter(same).map(|(name, _)| name.clone()).collect()
}

fn without(params: &Params, names: &[String]) -> Params {
    params
        .iter()
        .filter(|(name, _)| !names.contains(name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// `1`, or `3: preempted, time_limit`.
fn attempts_in_words(trial: &TrialStatus) -> String {
    let causes: Vec<&str> = trial
        .attempts
        .iter()
        .filter_map(|attempt| attempt.cause)
        .filter(|cause| *cause != nemo_harness::rundir::Cause::Completed)
        .map(cause)
        .collect();
    match (trial.attempts.len(), causes.as_slice()) {
        (0, _) => String::new(),
        (n, []) => n.to_string(),
        (n, causes) => format!("{n}: {}", causes.join(", ")),
    }
}

/// `lr=0.1 width=32`; nested names are joined by dots.
fn pairs(values: &serde_json::Map<String, serde_json::Value>) -> String {
    let one = |(name, value): (&String, &serde_json::Value)| match value {
        serde_json::Value::Object(nested) => {
            let nested = pairs(nested);
            nested.split(' ').map(|pair| format!("{name}.{pair}")).collect::<Vec<_>>().join(" ")
        }
        serde_json::Value::String(text) => format!("{name}={text}"),
        value => format!("{name}={}", metric(value)),
    };
    values.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Every attempt of every trial.
#[must_use]
pub fn attempts_table(status: &Status) -> String {
    let mut table = table(&[
        "trial",
        "attempt",
        "cause",
        "ran",
        "node",
        "from",
        "saved",
        "job",
        "what happened",
    ]);
    for task in &status.tasks {
        for trial in &task.trials {
            for attempt in &trial.attempts {
                table.add_row(attempt_row(&format!("{}/{}", task.name, trial.index), attempt));
            }
        }
    }
    text(&table)
}

fn attempt_row(trial: &str, attempt: &AttemptStatus) -> Vec<String> {
    let ran = match (attempt.start, attempt.end) {
        (Some(start), Some(end)) => duration(end - start),
        _ => String::new(),
    };
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![
        trial.to_owned(),
        number(attempt.number.map(u64::from)),
        how_it_ended(attempt).to_owned(),
        ran,
        text(&attempt.node),
        number(attempt.resume_step),
        number(attempt.checkpoint_step),
        text(&attempt.slurm_job),
        text(&attempt.reason),
    ]
}

fn how_it_ended(attempt: &AttemptStatus) -> &'static str {
    match (attempt.cause, &attempt.reason) {
        (Some(known), _) => cause(known),
        (None, Some(_)) => "unknown",
        (None, None) => "running",
    }
}

fn cause(cause: nemo_harness::rundir::Cause) -> &'static str {
    use nemo_harness::rundir::Cause;
    match cause {
        Cause::Completed => "completed",
        Cause::Failed => "failed",
        Cause::Preempted => "preempted",
        Cause::TimeLimit => "time limit",
        Cause::NodeFailure => "node failure",
        Cause::Cancelled => "cancelled",
        Cause::OutOfMemory => "out of memory",
        Cause::Restart => "asked to restart",
        Cause::Superseded => "superseded",
        Cause::Hung => "hung",
        Cause::Paused => "paused",
    }
}

/// Experiments, newest first.
#[must_use]
pub fn list_table(experiments: &[ExperimentStatus], now: f64) -> String {
    let mut table = table(&["experiment", "state", "submitted", "folder"]);
    for experiment in experiments {
        table.add_row(vec![
            Cell::new(&experiment.id),
            coloured(experiment.state),
            Cell::new(age(experiment.created, now)),
            Cell::new(&experiment.dir),
        ]);
    }
    text(&table)
}

/// The arrays of a plan in their order.
#[must_use]
pub fn plan_table(plan: &Plan) -> String {
    let mut table = table(&["", "task", "trials", "array", "starts"]);
    for (place, array) in plan.arrays.iter().enumerate() {
        let last = array.trials.get() - 1;
        let throttle = array.throttle.map_or_else(String::new, |n| format!("%{n}"));
        table.add_row(vec![
            (place + 1).to_string(),
            array.task.clone(),
            format!("{}–{}", array.offset, array.offset + last),
            format!("0-{last}{throttle}"),
            after(array),
        ]);
    }
    text(&table)
}

fn after(array: &JobArray) -> String {
    let one = |edge: &crate::plan::Edge| {
        let kind = match edge.on {
            Relation::AfterOk => "afterok",
            Relation::AfterNotOk | Relation::AnyAfterNotOk => "afternotok",
            Relation::AfterAny => "afterany",
            Relation::AfterCorr => "aftercorr",
        };
        format!("{kind}:#{}", edge.array + 1)
    };
    match (array.after.is_empty(), array.held) {
        (true, true) => "when all is submitted".to_owned(),
        (true, false) => "at once".to_owned(),
        (false, _) => array.after.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
