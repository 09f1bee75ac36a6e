//! Where the trials of a task on the local executor stand.

use std::collections::BTreeMap;

use nemo_core::exit;
use nemo_core::rundir::Cause;
use nemo_core::rundir::runner::RunnerRecord;

use super::{
    AssessedState, AttemptStatus, Certainty, State, StatusInputs, TrialFiles, TrialStatus,
    attempts, status, trial, waiting,
};
use crate::experiment::Task;
use crate::process::Liveness;

/// All trials of a task, as the runner's record and their own folders tell.
pub(super) fn trials(task: &Task, sources: &StatusInputs<'_>) -> Vec<TrialStatus> {
    let last = last_words(task, &sources.runner.records);
    let none = BTreeMap::new();
    let files = sources.files.get(&task.name).unwrap_or(&none);
    let nothing = TrialFiles::default();
    let trial = |index| {
        let files = files.get(&index).unwrap_or(&nothing);
        let mut attempts = attempts::from_files(files);
        let (mut state, mut reason) = state(files, last.get(&index).copied(), sources);
        let waits = matches!(state, State::Pending | State::Preempted);
        if waits && let Some(wish) = waiting::pause(&task.name, index, &sources.requests) {
            state = State::Paused;
            reason = Some(waiting::paused(&sources.stored.id, wish));
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
        let is_final = is_recorded(files, last.get(&index).copied());
        let certainty = if is_final { Certainty::Final } else { Certainty::Open };
        let standing = AssessedState { state, reason, certainty, remedy: None };
        status(index, standing, None, files, attempts)
    };
    (0..task.n_trials).map(trial).collect()
}

/// Whether the harness or the runner wrote down that no more comes.
fn is_recorded(files: &TrialFiles, last: Option<&RunnerRecord>) -> bool {
    use RunnerRecord::{Dropped, NotStarted};
    let is_given_up = matches!(last, Some(Dropped { .. } | NotStarted { .. }));
    is_given_up || trial::last_end(&files.attempts).and_then(trial::final_end).is_some()
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

/// The runner's last word on each trial of a task.
fn last_words<'a>(task: &Task, records: &'a [RunnerRecord]) -> BTreeMap<u32, &'a RunnerRecord> {
    let mut last = BTreeMap::new();
    for record in records {
        match record {
            RunnerRecord::Started { task: of, trial, .. }
            | RunnerRecord::Ended { task: of, trial, .. }
            | RunnerRecord::Dropped { task: of, trial, .. }
            | RunnerRecord::NotStarted { task: of, trial, .. } => {
                if *of == task.name {
                    last.insert(*trial, record);
                }
            }
            RunnerRecord::Runner { .. } | RunnerRecord::Finished { .. } => {}
        }
    }
    last
}

fn state(
    files: &TrialFiles,
    last: Option<&RunnerRecord>,
    sources: &StatusInputs<'_>,
) -> (State, Option<String>) {
    if let Some(verdict) = trial::last_end(&files.attempts).and_then(trial::final_end) {
        return verdict;
    }
    let will_run = match sources.runner.liveness {
        Some(Liveness::Alive | Liveness::Elsewhere) => true,
        None => sources.submitting,
        Some(Liveness::Dead) => false,
    };
    let go_on = format!("`nemo-slurm submit --continue {}` continues it", sources.stored.id);
    let why = if sources.runner.rebooted {
        "the machine was restarted"
    } else {
        "the local runner is gone"
    };
    match last {
        Some(RunnerRecord::Dropped { cancelled: true, .. }) => (State::Cancelled, None),
        Some(RunnerRecord::Dropped { cancelled: false, .. }) => {
            (State::Blocked, Some("its dependency can never be satisfied".to_owned()))
        }
        Some(RunnerRecord::NotStarted { reason, .. }) => (State::Failed, Some(reason.clone())),
        // A harness outlives its runner, and writes its own end.
        Some(RunnerRecord::Started { .. }) if files.alive == Some(true) => (State::Running, None),
        Some(RunnerRecord::Started { .. }) if will_run => (State::Running, None),
        Some(RunnerRecord::Started { .. }) => (State::Failed, Some(format!("{why}: {go_on}"))),
        Some(RunnerRecord::Ended { .. }) if will_run => (State::Preempted, None),
        Some(RunnerRecord::Ended { exit_code, .. }) => ended(*exit_code),
        _ if will_run => (State::Pending, None),
        _ if sources.runner.liveness.is_none() => {
            (State::Pending, Some(format!("was not started: {go_on}")))
        }
        // Nobody cancelled it, but nothing will come by itself.
        _ => (State::Blocked, Some(format!("{why}: {go_on}"))),
    }
}
