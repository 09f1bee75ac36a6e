//! Where the trials of a task on the local executor stand.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::exit;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{Cause, requests};

use super::{
    AssessedState, AttemptStatus, Certainty, Remedy, State, StatusInputs, TaskStatus, TrialFiles,
    TrialStatus, attempts, status, trial, waiting,
};
use crate::experiment::{Dependency, On, Task};
use crate::journal::{self, LastRetry};
use crate::process::Liveness;
use crate::store::Stored;

/// All trials of a task, as the runner's record and their own folders tell. `parents`: the tasks before it.
pub(super) fn trials(
    task: &Task,
    sources: &StatusInputs<'_>,
    held: &BTreeMap<&str, BTreeSet<u32>>,
    parents: &[TaskStatus],
) -> Vec<TrialStatus> {
    let retries = journal::last_retries(&sources.stored.journal, &task.name);
    let last = last_words(task, &sources.runner.records, &retries);
    let held = held.get(&*task.name);
    let none = BTreeMap::new();
    let files = sources.files.get(&task.name).unwrap_or(&none);
    let nothing = TrialFiles::default();
    let trial = |index| {
        let files = files.get(&index).unwrap_or(&nothing);
        let mut attempts = attempts::from_files(files);
        let mut said = state(files, last.get(&index).copied(), sources);
        let is_held =
            said.state == State::Pending && held.is_some_and(|trials| trials.contains(&index));
        let outside = is_held.then(|| outside(task, index, sources)).flatten();
        let is_over_outside = outside.is_some();
        said = outside.unwrap_or(said);
        let LocalVerdict { mut state, mut reason, remedy } = said;
        if state == State::Blocked && reason.is_none() {
            reason = Some(blocked_by(task, parents, index));
        }
        let waits = matches!(state, State::Pending | State::Preempted);
        if waits && let Some(pause) = requests::pause(&sources.requests, &task.name, index) {
            state = State::Paused;
            reason = Some(waiting::paused(&sources.stored.id, pause));
        } else if state == State::Preempted && remedy.is_none() {
            state = trial::between_attempts(&attempts);
        }
        let is_over = state.is_final() || matches!(state, State::Preempted | State::Paused);
        close_all_but_the_last(&mut attempts);
        if let Some(last) = attempts.last_mut().filter(|last| is_over && last.cause.is_none()) {
            // Nobody could write its end: killed with the machine, or by -9.
            last.cause = Some(match state {
                State::Completed => Cause::Completed,
                State::Cancelled => Cause::Cancelled,
                _ if sources.runner.rebooted => Cause::NodeFailure,
                _ => Cause::Failed,
            });
            last.reason.clone_from(&reason);
        }
        let is_final = is_over_outside || is_recorded(files, last.get(&index).copied());
        let certainty = if is_final { Certainty::Final } else { Certainty::Open };
        let standing = AssessedState { state, reason, certainty, remedy };
        status(index, standing, None, files, attempts)
    };
    (0..task.n_trials).map(trial).collect()
}

/// What a trial waits for in vain.
fn blocked_by(task: &Task, parents: &[TaskStatus], index: u32) -> String {
    trial::never_satisfied(task, parents, index)
        .unwrap_or_else(|| "its dependency can never be satisfied".to_owned())
}

/// What becomes of a trial that needs others which have no job since the experiment waits: it may be cancelled meanwhile, or
/// blocked till another experiment is retried. The runner leaves no word of that, which nothing would take back after the retry.
fn outside(task: &Task, index: u32, sources: &StatusInputs<'_>) -> Option<LocalVerdict> {
    if requests::is_cancelled(&sources.requests, &task.name, index) {
        return Some((State::Cancelled, None).into());
    }
    sources.lost_outside.clone().map(|why| (State::Blocked, Some(why)).into())
}

/// The trials that have no job as long as an experiment waits for others, by task: those of its first tasks on Slurm, and what
/// needs them.
pub fn held_by_others(stored: &Stored) -> BTreeMap<&str, BTreeSet<u32>> {
    let Stored { experiment, journal, .. } = stored;
    let mut held: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    if experiment.after.is_empty() {
        return held;
    }
    // Each task comes after those that it waits for.
    for task in &experiment.tasks {
        let own = match task.after.as_slice() {
            [] if experiment.is_local(task) => BTreeSet::new(),
            [] => journal::unplanned(journal, task).iter().collect(),
            after => after.iter().flat_map(|dependency| below(task, dependency, &held)).collect(),
        };
        held.insert(&task.name, own);
    }
    held
}

/// The trials of a task that need one of those that are held.
fn below(
    task: &Task,
    dependency: &Dependency,
    held: &BTreeMap<&str, BTreeSet<u32>>,
) -> BTreeSet<u32> {
    let parent = held.get(&*dependency.task).filter(|trials| !trials.is_empty());
    match (dependency.on, parent) {
        (On::Each, Some(trials)) => trials.clone(),
        (On::Ok, Some(_)) => (0..task.n_trials).collect(),
        (On::Ok | On::Each | On::Any | On::Failed, _) => BTreeSet::new(),
    }
}

/// Whether the harness or the runner wrote down that no more comes.
fn is_recorded(files: &TrialFiles, last: Option<&RunnerRecord>) -> bool {
    use RunnerRecord::{Dropped, NotStarted};
    let is_given_up = matches!(last, Some(Dropped { .. } | NotStarted { .. }));
    is_given_up || trial::last_end(files).and_then(trial::final_end).is_some()
}

/// What became of a trial whose record has no end, though its harness had one: a word that was lost with the disk.
fn ended(exit_code: Option<i32>) -> (State, Option<String>) {
    let code = exit_code.and_then(|code| u8::try_from(code).ok());
    let state = match code {
        Some(exit::DONE) => State::Completed,
        Some(exit::CANCELLED) => State::Cancelled,
        Some(exit::TIMEOUT) => State::Timeout,
        Some(exit::FAILED) => State::Failed,
        _ => {
            let reason = "its harness ended several times without a record";
            return (State::Failed, Some(reason.to_owned()));
        }
    };
    let code = exit_code.unwrap_or_default();
    (state, Some(format!("its record has no end; its harness exited with code {code}")))
}

/// An attempt that another followed is over, whether or not somebody could write so.
fn close_all_but_the_last(attempts: &mut [AttemptStatus]) {
    let Some((_, earlier)) = attempts.split_last_mut() else { return };
    for attempt in earlier.iter_mut().filter(|attempt| attempt.cause.is_none()) {
        attempt.cause = Some(Cause::Failed);
        attempt.reason = Some("the harness was killed before it could record the end".to_owned());
    }
}

/// The runner's last word on each trial of a task, since it was retried.
fn last_words<'a>(
    task: &Task,
    records: &'a [RunnerRecord],
    retries: &BTreeMap<u32, LastRetry<'_>>,
) -> BTreeMap<u32, &'a RunnerRecord> {
    let mut last = BTreeMap::new();
    let mut known = 0;
    let is_of_now =
        |trial: &u32, known: u32| retries.get(trial).is_none_or(|it| it.generation <= known);
    for record in records {
        match record {
            RunnerRecord::Started { task: of, trial, .. }
            | RunnerRecord::Ended { task: of, trial, .. }
            | RunnerRecord::Dropped { task: of, trial, .. }
            | RunnerRecord::NotStarted { task: of, trial, .. } => {
                if *of == task.name && is_of_now(trial, known) {
                    last.insert(*trial, record);
                }
            }
            RunnerRecord::Runner { generation, .. } => known = *generation,
            RunnerRecord::Finished { .. } => {}
        }
    }
    last
}

/// Where a trial stands, why, and what brings it back.
struct LocalVerdict {
    state: State,
    reason: Option<String>,
    remedy: Option<Remedy>,
}

impl From<(State, Option<String>)> for LocalVerdict {
    fn from((state, reason): (State, Option<String>)) -> Self {
        Self { state, reason, remedy: None }
    }
}

/// What the records say, and whether somebody is there to go on with it.
fn state(
    files: &TrialFiles,
    last: Option<&RunnerRecord>,
    sources: &StatusInputs<'_>,
) -> LocalVerdict {
    if let Some(verdict) = trial::last_end(files).and_then(trial::final_end) {
        return verdict.into();
    }
    match last {
        Some(RunnerRecord::Dropped { cancelled: true, .. }) => (State::Cancelled, None).into(),
        Some(RunnerRecord::Dropped { cancelled: false, .. }) => (State::Blocked, None).into(),
        Some(RunnerRecord::NotStarted { reason, .. }) => {
            (State::Failed, Some(reason.clone())).into()
        }
        // A harness outlives its runner, and writes its own end.
        Some(RunnerRecord::Started { .. }) if files.alive == Some(true) => {
            (State::Running, None).into()
        }
        last => match sources.runner.liveness {
            Some(Liveness::Dead) => without_runner(files, last, sources),
            liveness => beside_runner(last, liveness.is_some() || sources.submitting, sources),
        },
    }
}

/// The runner will go on with it, or has yet to be started.
fn beside_runner(
    last: Option<&RunnerRecord>,
    will_run: bool,
    sources: &StatusInputs<'_>,
) -> LocalVerdict {
    if will_run {
        let state = match last {
            Some(RunnerRecord::Started { .. }) => State::Running,
            Some(RunnerRecord::Ended { .. }) => State::Preempted,
            _ => State::Pending,
        };
        return (state, None).into();
    }
    let id = &sources.stored.id;
    let reason = format!("was not started: `nemo-slurm submit --continue {id}` continues it");
    (State::Pending, Some(reason)).into()
}

/// Whether a harness has written a record of the trial since it was retried last.
fn has_begun(files: &TrialFiles) -> bool {
    let first = files.retried_from.unwrap_or(0);
    files.attempts.iter().any(|record| record.attempt() >= first)
}

/// The runner is gone before this trial was over: another one goes on with it, once somebody starts that.
fn without_runner(
    files: &TrialFiles,
    last: Option<&RunnerRecord>,
    sources: &StatusInputs<'_>,
) -> LocalVerdict {
    let again = format!("`nemo-slurm submit --continue {}` starts", sources.stored.id);
    let why = if sources.runner.rebooted {
        format!("the machine was restarted: {again} its runner again")
    } else {
        format!("its runner is gone: {again} it again")
    };
    let state = match last {
        // Its harness may live, and write its first record in a moment.
        Some(RunnerRecord::Started { .. }) if !has_begun(files) => State::Pending,
        Some(RunnerRecord::Started { .. }) => State::Failed,
        Some(RunnerRecord::Ended { exit_code, .. }) if trial::last_end(files).is_none() => {
            return ended(*exit_code).into();
        }
        Some(RunnerRecord::Ended { .. }) => State::Preempted,
        _ => State::Pending,
    };
    LocalVerdict { state, reason: Some(why), remedy: Some(Remedy::StartRunner) }
}
