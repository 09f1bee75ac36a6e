//! What a trial is whose job has ended, as Slurm tells it, and whose harness left no final word.

use nemo_core::rundir::Next;

use super::dependency::{UnmetDependency, never_satisfied};
use super::forgotten;
use super::{TrialEvidence, TrialVerdict, is_known_to_slurm, last_end, was_asked_for};
use crate::journal;
use crate::slurm::exit::JobExit;
use crate::slurm::{AccountRow, JobPhase, JobState, QueueRow};
use crate::status::attempts::has_run;
use crate::status::finality::StateSource;
use crate::status::{AttemptStatus, QueryResult, Remedy, State, start_failure};

/// The queue still shows how it ended; accounting, if it has heard of it, knows more.
pub(super) fn in_queue(
    evidence: &TrialEvidence<'_>,
    row: &QueueRow,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let last = evidence
        .seen
        .last_account()
        .filter(|account| account.state.phase() == JobPhase::Ended && account.submit >= row.submit);
    match last {
        Some(account) if account.state.is_final() => by_accounting(evidence, account, attempts),
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

/// How it ended, as accounting tells it and the queue does not deny.
pub(super) fn by_accounting(
    evidence: &TrialEvidence<'_>,
    row: &AccountRow,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    if row.state == JobState::Failed && has_run(row) {
        let why = failed(evidence, row, attempts);
        return TrialVerdict::of(State::Failed, Some(why), StateSource::Agreed);
    }
    by_state(evidence, &row.state, attempts)
}

/// Why a job failed, of which the harness left no end.
fn failed(evidence: &TrialEvidence<'_>, row: &AccountRow, attempts: &[AttemptStatus]) -> String {
    let exit = JobExit::from(row.exit);
    if attempts.last().is_none_or(|last| last.number.is_none()) {
        start_failure::why(row)
    } else if last_end(evidence.files).is_some() {
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
    let last_end = last_end(evidence.files);
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
    match never_satisfied(evidence).or_else(|| lost_outside(evidence)) {
        Some(UnmetDependency { why, basis }) => TrialVerdict::of(State::Blocked, Some(why), basis),
        None if was_taken_out_for_its_parents(evidence) => {
            let why = "Slurm cancelled it because of its dependency, which has not failed: `nemo-slurm poll` puts it back";
            let verdict = TrialVerdict::open(State::Pending, Some(why.to_owned()));
            TrialVerdict { remedy: Some(Remedy::PutBack), ..verdict }
        }
        None if forgotten::was_taken_out(evidence) => forgotten::taken_out(),
        None => TrialVerdict::of(State::Cancelled, None, StateSource::Agreed),
    }
}

/// Whether Slurm cancelled it since what the experiment waits for will not complete: Slurm was told of that, and nobody else
/// cancelled it.
fn lost_outside(evidence: &TrialEvidence<'_>) -> Option<UnmetDependency> {
    let (job, _) = evidence.seen.job?;
    let array = journal::planned_array_of(&evidence.sources.stored.journal, job)?;
    let by_slurm = was_taken_out_for_its_parents(evidence) || forgotten::by_nobody(evidence);
    (!array.outside.is_empty() && by_slurm).then(|| UnmetDependency {
        why: "what the experiment waits for (`after` at its top) did not complete".to_owned(),
        basis: StateSource::Agreed,
    })
}

/// Whether nobody cancelled the job but Slurm, which still knows it.
fn was_taken_out_for_its_parents(evidence: &TrialEvidence<'_>) -> bool {
    let row = evidence.seen.queue;
    row.is_some_and(|row| {
        row.state == JobState::Cancelled && &*row.reason == "DependencyNeverSatisfied"
    })
}
