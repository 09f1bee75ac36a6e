//! Where one trial on Slurm stands.

use nemo_core::rundir::{AttemptEnd, AttemptRecord, Next};

use super::attempts::has_run;
use super::finality::{Certainty, StateSource};
use super::slurm_view::SlurmRows;
use super::{
    AttemptStatus, QueryResult, Remedy, RememberedState, State, StatusInputs, TaskStatus,
    TrialFiles, TrialStatus, start_failure, waiting,
};
use crate::experiment::{On, Task};
use crate::journal;
use crate::slurm::exit::JobExit;
use crate::slurm::{AccountRow, JobPhase, JobState, QueueRow};

/// All that is known of one trial.
pub(super) struct TrialEvidence<'a> {
    pub(super) task: &'a Task,
    pub(super) index: u32,
    pub(super) seen: &'a SlurmRows<'a>,
    pub(super) files: &'a TrialFiles,
    pub(super) sources: &'a StatusInputs<'a>,
    /// The tasks before this one.
    pub(super) parents: &'a [TaskStatus],
}

impl TrialEvidence<'_> {
    /// What was known at the last look.
    pub(super) fn earlier(&self) -> Option<&RememberedState> {
        self.sources.earlier.get(&self.task.name)?.get(&self.index)
    }
}

/// Where a trial stands, why, and what that is known from.
#[derive(Debug)]
pub(super) struct TrialVerdict {
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) basis: StateSource,
    /// What it is instead, once that is certain.
    pub(super) once_certain: Option<(State, String)>,
    /// What `nemo-slurm poll` does about it.
    pub(super) remedy: Option<Remedy>,
}

impl TrialVerdict {
    /// What our own record says, or what follows from it.
    fn recorded(state: State, reason: Option<String>) -> Self {
        Self::of(state, reason, StateSource::Record)
    }

    /// What may change.
    fn open(state: State, reason: Option<String>) -> Self {
        Self::of(state, reason, StateSource::Open)
    }

    fn of(state: State, reason: Option<String>, basis: StateSource) -> Self {
        Self { state, reason, basis, once_certain: None, remedy: None }
    }
}

/// Decides by the strongest witness: the harness's own word on a final end, then the queue, then what was certain
/// before, then accounting.
///
/// A job that could not be requeued is not lost: `poll` does it.
pub(super) fn state(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    let verdict = by_witness(evidence, attempts);
    if verdict.basis == StateSource::Record {
        return verdict;
    }
    let is_ended = matches!(verdict.state, State::Failed | State::Completed | State::Timeout);
    if evidence.files.requeue_wanted && is_ended {
        let what = "could not be requeued: `nemo-slurm poll` requeues it";
        let verdict = TrialVerdict::open(State::Preempted, Some(what.to_owned()));
        return TrialVerdict { remedy: Some(Remedy::Requeue), ..verdict };
    }
    // What is damaged may have been the word that the trial is over: then a person must look first.
    let may_run = evidence.files.damage.is_none() && is_known_to_slurm(evidence);
    if is_ended && verdict.state != State::Completed && may_run {
        let requeued = |reason| format!("{reason}; `nemo-slurm poll` requeues it");
        let reason = verdict.reason.map(requeued);
        return TrialVerdict { reason, remedy: Some(Remedy::Requeue), ..verdict };
    }
    verdict
}

/// Whether Slurm still knows a job that has ended, and could run it again.
fn is_known_to_slurm(evidence: &TrialEvidence<'_>) -> bool {
    evidence.seen.queue.is_some_and(|row| row.state.phase_in_queue() == JobPhase::Ended)
}

fn by_witness(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    let end = last_end(&evidence.files.attempts);
    if let Some((state, reason)) = end.and_then(final_end) {
        return TrialVerdict::recorded(state, reason);
    }
    if evidence.seen.job.is_none() {
        return not_submitted(evidence);
    }
    let is_over = |row: &QueueRow| row.state.phase_in_queue() == JobPhase::Ended;
    let verdict = match evidence.seen.queue {
        Some(row) if !is_over(row) => in_queue(evidence, row, end, attempts),
        row => match evidence.earlier().filter(|earlier| earlier.certainty == Certainty::Final) {
            Some(earlier) => return TrialVerdict::recorded(earlier.state, earlier.reason.clone()),
            None => match row {
                Some(row) => ended_in_queue(evidence, row, attempts),
                None => out_of_queue(evidence, end, attempts),
            },
        },
    };
    let both = evidence.sources.queue.is_whole() && evidence.sources.accounts.is_whole();
    let basis = match verdict.basis {
        StateSource::Agreed if !both => StateSource::Silence,
        basis => basis,
    };
    TrialVerdict { basis, ..verdict }
}

/// What `squeue` does not show.
fn out_of_queue(
    evidence: &TrialEvidence<'_>,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let is_silent = evidence.sources.queue.trouble().is_some();
    match evidence.seen.accounts.last() {
        // What squeue can't say now, sacct may; but a row that is not final may have been overtaken.
        Some(row) if is_silent && row.state.is_final() => ended(evidence, row, attempts),
        _ if is_silent => remembered(evidence, end, attempts),
        // Accounting lags behind the controller, never heard of the end, or knows better.
        Some(row) if row.state.phase() != JobPhase::Ended => contradicted(row),
        Some(row) => ended(evidence, row, attempts),
        None => vanished(evidence, attempts),
    }
}

/// The end of the last attempt, if it has one.
pub(super) fn last_end(records: &[AttemptRecord]) -> Option<&AttemptEnd> {
    let last = records.iter().rev().find_map(|record| match record {
        AttemptRecord::Start(_) => Some(None),
        AttemptRecord::End(end) => Some(Some(end)),
        AttemptRecord::Checkpoint { .. }
        | AttemptRecord::Ready { .. }
        | AttemptRecord::Removed { .. }
        | AttemptRecord::Hang { .. }
        | AttemptRecord::Label { .. }
        | AttemptRecord::ExcludeNode { .. } => None,
    });
    last.flatten()
}

/// What the harness says of a trial that will not run again.
pub(super) fn final_end(end: &AttemptEnd) -> Option<(State, Option<String>)> {
    let state = match end.next {
        Next::Done => State::Completed,
        Next::Failed => State::Failed,
        Next::Cancelled => State::Cancelled,
        Next::Timeout => State::Timeout,
        Next::Requeue | Next::Restart => return None,
    };
    let reason = end.reason.clone().filter(|_| state != State::Completed);
    Some((state, reason))
}

fn not_submitted(evidence: &TrialEvidence<'_>) -> TrialVerdict {
    let journal = &evidence.sources.stored.journal;
    if let Some(reason) = journal::refusal(journal) {
        let why = format!("the submission was refused: {reason}");
        TrialVerdict::recorded(State::Cancelled, Some(why))
    } else if evidence.sources.submitting {
        TrialVerdict::open(State::Pending, Some("is being submitted".to_owned()))
    } else {
        let go_on = format!("`nemo-slurm submit --continue {}`", evidence.sources.stored.id);
        TrialVerdict::open(State::Pending, Some(format!("was not submitted: {go_on} continues it")))
    }
}

fn in_queue(
    evidence: &TrialEvidence<'_>,
    row: &QueueRow,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let says = || waiting::reason(row, attempts);
    let (state, reason) = match row.state.phase_in_queue() {
        JobPhase::Waiting if &*row.reason == "DependencyNeverSatisfied" => (State::Blocked, says()),
        // The heads of a chain are held until all of it is submitted.
        JobPhase::Waiting if is_held(row) && is_submitted(evidence) => {
            let verdict = TrialVerdict::open(State::Paused, Some(waiting::held(evidence, row)));
            let remedy = waiting::is_start_failure(evidence, row).then_some(Remedy::Release);
            return TrialVerdict { remedy, ..verdict };
        }
        JobPhase::Waiting if attempts.is_empty() => (State::Pending, says()),
        JobPhase::Waiting => (State::Preempted, says()),
        // The harness has ended its attempt and asked for another; Slurm is about to follow.
        JobPhase::Active if end.is_some_and(|end| end.next == Next::Requeue) => {
            (State::Preempted, None)
        }
        JobPhase::Active if row.state == JobState::Suspended => {
            (State::Running, Some("is suspended".to_owned()))
        }
        JobPhase::Active => (State::Running, None),
        JobPhase::Ended | JobPhase::Unknown => {
            (State::Unknown, Some(format!("Slurm says `{}`", row.state)))
        }
    };
    TrialVerdict::open(state, reason)
}

/// The queue still shows how it ended; accounting, if it has heard of it, knows more.
fn ended_in_queue(
    evidence: &TrialEvidence<'_>,
    row: &QueueRow,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    match evidence
        .seen
        .accounts
        .last()
        .filter(|account| account.state.phase() == JobPhase::Ended && account.submit >= row.submit)
    {
        Some(account) if account.state.is_final() => ended(evidence, account, attempts),
        Some(_) => by_state(evidence, &row.state, attempts),
        None => {
            let verdict = by_state(evidence, &row.state, attempts);
            let is_off = matches!(evidence.sources.accounts, QueryResult::Off);
            let basis = match verdict.basis {
                StateSource::Agreed if !is_off => StateSource::Open, // accounting has not heard of it
                basis => basis,
            };
            TrialVerdict { basis, ..verdict }
        }
    }
}

fn is_submitted(evidence: &TrialEvidence<'_>) -> bool {
    journal::is_complete(&evidence.sources.stored.journal)
}

fn is_held(row: &QueueRow) -> bool {
    matches!(&*row.reason, "JobHeldUser" | "JobHeldAdmin")
        || row.reason.contains("requeued held") // as in `launch failed requeued held`
        || &*row.reason == "job requeued in held state"
        || &*row.reason == "JobHoldMaxRequeue"
        || matches!(row.state, JobState::RequeueHold | JobState::SpecialExit)
}

/// How it ended, as accounting tells it and the queue does not deny.
fn ended(
    evidence: &TrialEvidence<'_>,
    row: &AccountRow,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    if row.state == JobState::Failed && has_run(row) {
        return TrialVerdict::of(
            State::Failed,
            Some(failed(evidence, row, attempts)),
            StateSource::Agreed,
        );
    }
    by_state(evidence, &row.state, attempts)
}

/// Why a job failed, of which the harness left no end.
fn failed(evidence: &TrialEvidence<'_>, row: &AccountRow, attempts: &[AttemptStatus]) -> String {
    let exit = JobExit::from(row.exit);
    if attempts.last().is_none_or(|last| last.number.is_none()) {
        start_failure::why(row)
    } else if last_end(&evidence.files.attempts).is_some() {
        format!("was to be requeued, but the harness {exit}")
    } else {
        format!("the harness {exit} without recording its end")
    }
}

fn by_state(
    evidence: &TrialEvidence<'_>,
    state: &JobState,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let last_end = last_end(&evidence.files.attempts);
    let (state, reason) = match state {
        // The harness exits 0 only after a final end, or after a requeue: then Slurm dropped it.
        JobState::Completed if last_end.is_some_and(|end| end.next == Next::Requeue) => {
            (State::Failed, "was to be requeued, but Slurm ended the job".to_owned())
        }
        JobState::Completed => return unconfirmed_success(evidence),
        JobState::Cancelled | JobState::Revoked => return cancelled(evidence, attempts),
        JobState::Timeout | JobState::Deadline => {
            (State::Timeout, "reached Slurm's time limit and was not requeued".to_owned())
        }
        JobState::OutOfMemory => (State::Failed, "ran out of memory".to_owned()),
        JobState::NodeFail | JobState::BootFail => {
            (State::Failed, "its node failed, and Slurm did not requeue it".to_owned())
        }
        JobState::Preempted | JobState::Requeued => {
            (State::Failed, "was preempted, and Slurm did not requeue it".to_owned())
        }
        state => (State::Failed, format!("Slurm says `{state}`")),
    };
    TrialVerdict::of(state, Some(reason), StateSource::Agreed)
}

/// Slurm says that the job completed, but the harness has not said that the trial is done. A shared disk may show its
/// word later; where it stays away, the trial is not done.
fn unconfirmed_success(evidence: &TrialEvidence<'_>) -> TrialVerdict {
    let what =
        "Slurm says that the job completed, but the harness left no record that the trial is done";
    let verdict = TrialVerdict::of(State::Unknown, Some(what.to_owned()), StateSource::Agreed);
    let may_run = evidence.files.damage.is_none() && is_known_to_slurm(evidence);
    TrialVerdict {
        once_certain: Some((State::Failed, what.to_owned())),
        remedy: may_run.then_some(Remedy::Requeue),
        ..verdict
    }
}

/// Slurm says that it was cancelled. Before it ever ran, our own record may tell by whom, or why.
fn cancelled(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    // One that Slurm let start cancels itself before its first attempt, if its parents' records forbid it to run.
    if attempts.iter().any(|attempt| attempt.number.is_some()) {
        return TrialVerdict::of(State::Cancelled, None, StateSource::Agreed);
    }
    if was_asked_for(evidence) {
        return TrialVerdict::recorded(State::Cancelled, None);
    }
    match never_satisfied(evidence) {
        Some(UnmetDependency { why, basis }) => TrialVerdict::of(State::Blocked, Some(why), basis),
        None if was_taken_out_for_its_parents(evidence) => {
            let why = "Slurm cancelled it because of its dependency, which has not failed: `nemo-slurm poll` puts it back";
            let verdict = TrialVerdict::open(State::Pending, Some(why.to_owned()));
            TrialVerdict { remedy: Some(Remedy::PutBack), ..verdict }
        }
        None => TrialVerdict::of(State::Cancelled, None, StateSource::Agreed),
    }
}

/// Whether nobody cancelled the job but Slurm, which still knows it.
fn was_taken_out_for_its_parents(evidence: &TrialEvidence<'_>) -> bool {
    let row = evidence.seen.queue;
    row.is_some_and(|row| {
        row.state == JobState::Cancelled && &*row.reason == "DependencyNeverSatisfied"
    })
}

/// Whether somebody wished for its end by `nemo-slurm cancel`.
fn was_asked_for(evidence: &TrialEvidence<'_>) -> bool {
    evidence.sources.requests.iter().any(|request| {
        request.action == super::RequestedAction::Cancel
            && request.covers(&evidence.task.name, evidence.index)
    })
}

/// Why a dependency can never be met.
struct UnmetDependency {
    why: String,
    /// What that is known from: it is as sure as the parent's state.
    basis: StateSource,
}

/// The parent because of which this trial could never start, in words.
fn never_satisfied(evidence: &TrialEvidence<'_>) -> Option<UnmetDependency> {
    evidence.task.after.iter().find_map(|dependency| {
        let parent = evidence.parents.iter().find(|parent| parent.name == dependency.task)?;
        unmet(parent, dependency.on, evidence.index)
    })
}

/// Why a dependency can never be met; none if it is met or may yet be.
fn unmet(parent: &TaskStatus, on: On, index: u32) -> Option<UnmetDependency> {
    // One that `poll` brings back is not lost yet.
    let is_lost = |trial: &&TrialStatus| {
        trial.state.is_final() && trial.state != State::Completed && trial.remedy.is_none()
    };
    let lost = |trial: &TrialStatus| {
        let why = format!("`{}` trial {} is {}", parent.name, trial.index, trial.state.as_str());
        UnmetDependency { why, basis: basis(trial.is_final()) }
    };
    match on {
        On::Ok => parent.trials.iter().find(is_lost).map(lost),
        On::Each => parent.trials.get(index as usize).filter(is_lost).map(lost),
        On::Failed => {
            let fine = parent.trials.iter().all(|trial| trial.state == State::Completed);
            let all_final = parent.trials.iter().all(TrialStatus::is_final);
            let why = format!("not needed: `{}` completed", parent.name);
            fine.then(|| UnmetDependency { why, basis: basis(all_final) })
        }
        On::Any => None,
    }
}

fn basis(is_final: bool) -> StateSource {
    if is_final { StateSource::Record } else { StateSource::Agreed }
}

/// Neither the queue nor accounting can be asked for more: what was known stays.
fn remembered(
    evidence: &TrialEvidence<'_>,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let before = evidence.earlier().map(|earlier| (earlier.state, earlier.reason.clone()));
    let (state, reason) = match (end, attempts.last(), before) {
        // It was cancelled while it waited: its folder can't know.
        (Some(_), _, Some((State::Cancelled, reason))) => (State::Cancelled, reason),
        (Some(end), ..) if end.next == Next::Requeue => (State::Preempted, None),
        (_, Some(last), _) if last.number.is_some() && last.cause.is_none() => {
            (State::Running, Some("according to its folder; Slurm can't be asked now".to_owned()))
        }
        (_, _, Some(before)) => before,
        (_, _, None) => (State::Unknown, Some("Slurm can't be asked now".to_owned())),
    };
    TrialVerdict::of(state, reason, StateSource::Silence)
}

/// A single task that is cancelled while it waits is in no table of Slurm's any more, though its array is. Without
/// accounting it could also have ended long ago.
fn was_taken_out(evidence: &TrialEvidence<'_>) -> bool {
    evidence.seen.array_is_known && matches!(evidence.sources.accounts, QueryResult::Rows(_))
}

/// The queue does not show the job, and accounting shows it alive: one of the two is wrong now.
fn contradicted(row: &AccountRow) -> TrialVerdict {
    let why =
        format!("`squeue` does not show its job, and `sacct` says {}; {ASKED_AGAIN}", row.state);
    TrialVerdict::open(State::Unknown, Some(why))
}

const ASKED_AGAIN: &str = "the next `status` asks Slurm again";

/// Slurm answers, and does not know the job.
fn vanished(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    if attempts.is_empty() && was_asked_for(evidence) {
        let why = "was cancelled before it started".to_owned();
        return TrialVerdict::of(State::Cancelled, Some(why), StateSource::Agreed);
    }
    if attempts.is_empty()
        && let Some(UnmetDependency { why, .. }) = never_satisfied(evidence)
    {
        return TrialVerdict::of(State::Blocked, Some(why), StateSource::Agreed);
    }
    let is_waiting_to_run =
        last_end(&evidence.files.attempts).is_some_and(|end| end.next == Next::Requeue);
    let what = if is_waiting_to_run {
        "it was saved and was to be requeued, but Slurm no longer knows the job"
    } else if attempts.is_empty() {
        "Slurm no longer knows the job, and it left no record"
    } else {
        "Slurm no longer knows the job, and its last attempt has no recorded end"
    };
    let unknown = TrialVerdict::open(State::Unknown, Some(format!("{what}; {ASKED_AGAIN}")));
    if attempts.is_empty() && was_taken_out(evidence) {
        let cancelled = (State::Cancelled, "was cancelled before it started".to_owned());
        return TrialVerdict {
            basis: StateSource::Agreed,
            once_certain: Some(cancelled),
            ..unknown
        };
    }
    unknown
}
