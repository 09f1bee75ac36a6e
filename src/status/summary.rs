//! From trials to tasks to the whole.

use std::collections::BTreeMap;

use nemo_core::rundir::ExperimentDir;
use nemo_core::scope::Scope;

use super::{State, Status, StatusInputs, TaskStatus, TrialStatus, trial};
use crate::experiment::{On, Task};
use crate::journal;

/// Counts a task's trials and says where it stands.
pub(super) fn task_status(
    task: &Task,
    dir: &ExperimentDir,
    trials: Vec<TrialStatus>,
) -> TaskStatus {
    let attempts = || trials.iter().flat_map(|trial| &trial.attempts);
    let start = attempts().filter_map(|attempt| attempt.start).reduce(f64::min);
    let end = attempts().filter_map(|attempt| attempt.end).reduce(f64::max);
    let is_over = trials.iter().all(|trial| trial.state.is_final());
    let mut status = TaskStatus {
        name: task.name.clone(),
        state: State::Pending,
        counts: BTreeMap::new(),
        executor: task.executor.clone(),
        dir: dir.task(&task.name).0.to_string_lossy().into_owned(),
        start,
        end: end.filter(|_| is_over),
        best: best_trial(task, &trials),
        trials,
    };
    recount(&mut status);
    status
}

/// Counts again after trials were left out.
pub fn recount(task: &mut TaskStatus) {
    task.counts = counts(task.trials.iter().map(|trial| trial.state));
    task.state = combined(&task.counts);
}

/// Where trials stand, taken together.
#[must_use]
pub fn state_of(states: impl Iterator<Item = State>) -> State {
    combined(&counts(states))
}

fn counts(states: impl Iterator<Item = State>) -> BTreeMap<State, u32> {
    let mut counts = BTreeMap::new();
    states.for_each(|state| *counts.entry(state).or_default() += 1);
    counts
}

/// The trials that somebody means, each with its task.
pub fn meant<'a>(
    status: &'a Status,
    scope: &'a Scope,
) -> impl Iterator<Item = (&'a str, &'a TrialStatus)> {
    let tasks = status.tasks.iter().filter(|task| scope.covers_task(&task.name));
    let trials = tasks.flat_map(|task| task.trials.iter().map(|trial| (&*task.name, trial)));
    trials.filter(|(_, trial)| scope.covers_trial(trial.index))
}

/// The trial whose last value of the task's metric is the best; the earlier one of equals. One that failed is the best
/// only among others that failed.
#[must_use]
pub fn best_trial(task: &Task, trials: &[TrialStatus]) -> Option<u32> {
    let sound = trials.iter().filter(|trial| trial.state != State::Failed);
    best_of(task, sound).or_else(|| best_of(task, trials.iter()))
}

fn best_of<'t>(task: &Task, trials: impl Iterator<Item = &'t TrialStatus>) -> Option<u32> {
    let metric = task.metric_spec()?;
    let value = |trial: &TrialStatus| trial.metrics.get(&metric.name)?.as_f64();
    metric.best(trials.filter_map(|trial| Some((trial.index, value(trial)?))))
}

/// One state for many: what still goes on comes first, then what went wrong.
fn combined(counts: &BTreeMap<State, u32>) -> State {
    use State::{
        Blocked, Cancelled, Completed, Failed, Paused, Pending, Preempted, Running, Timeout,
        Unknown,
    };
    let has = |state: &State| counts.contains_key(state);
    let first = |states: &[State]| states.iter().copied().find(has);
    let all_final = counts.keys().all(|state| state.is_final());
    if all_final {
        return first(&[Failed, Timeout, Cancelled, Blocked]).unwrap_or(Completed);
    }
    // A part that is over and a part that waits: the whole is under way.
    let begun = has(&Running) || counts.keys().any(|state| state.is_final());
    match first(&[Running, Unknown, Preempted, Paused, Pending]) {
        Some(Pending) if begun => Running,
        Some(state) => state,
        None => Completed,
    }
}

/// The state of an experiment by those of its tasks, and why.
pub(super) fn whole(sources: &StatusInputs<'_>, tasks: &[TaskStatus]) -> (State, Option<String>) {
    let mut counts: BTreeMap<State, u32> = BTreeMap::new();
    for (task, status) in sources.stored.experiment.tasks.iter().zip(tasks) {
        if !was_not_needed(task, status, tasks) {
            *counts.entry(status.state).or_default() += 1;
        }
    }
    let state = combined(&counts);
    let refused = journal::refusal(&sources.stored.journal);
    let refused = refused.filter(|_| state != State::Completed).map(trial::refused);
    let interrupted = || interrupted(sources).filter(|_| !state.is_final());
    (state, refused.or_else(interrupted))
}

/// What to type where the process that submitted it is gone before all was submitted.
fn interrupted(sources: &StatusInputs<'_>) -> Option<String> {
    let stored = sources.stored;
    // A line that can't be read may be the one that says that all was submitted. A retry is continued by `poll`.
    let is_known = stored.damage.is_none() && !stored.is_wrapped();
    let is_open = !journal::is_generation_complete(&stored.journal, 0) && !sources.submitting;
    (is_known && is_open).then(|| {
        let id = &stored.id;
        format!("its submission was interrupted: `nemo-slurm submit --continue {id}` continues it")
    })
}

/// A task for the case of a failure that did not come is no loss.
#[must_use]
pub fn was_not_needed(task: &Task, status: &TaskStatus, tasks: &[TaskStatus]) -> bool {
    status.state == State::Blocked
        && task.after.iter().any(|after| {
            let mut parents = tasks.iter().filter(|parent| parent.name == after.task);
            after.on == On::Failed && parents.any(|parent| parent.state == State::Completed)
        })
}
