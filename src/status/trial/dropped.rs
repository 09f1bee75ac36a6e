//! A trial that was to go on after its last attempt, and whose job has ended without that: nobody could requeue it in time,
//! and Slurm has forgotten it since.

use nemo_core::rundir::{Next, requests};

use super::dependency::{UnmetDependency, needed_no_more};
use super::{TrialEvidence, TrialVerdict, forgotten, last_end, waiting, was_asked_for};
use crate::slurm::JobPhase;
use crate::status::finality::StateSource;
use crate::status::{AttemptStatus, Remedy, State};

/// What it is then; none where Slurm can still requeue the job, or where its record does not say that it goes on.
pub(super) fn verdict(
    evidence: &TrialEvidence<'_>,
    ended: &TrialVerdict,
    attempts: &[AttemptStatus],
) -> Option<TrialVerdict> {
    if !was_dropped(evidence, ended, attempts) {
        return None;
    }
    if was_asked_for(evidence) {
        return Some(TrialVerdict::recorded(State::Cancelled, None));
    }
    let sources = evidence.sources;
    if let Some(pause) = requests::pause(&sources.requests, &evidence.task.name, evidence.index) {
        let why = waiting::paused(&sources.stored.id, pause);
        return Some(TrialVerdict::open(State::Paused, Some(why)));
    }
    if let Some(UnmetDependency { why, basis }) = needed_no_more(evidence) {
        return Some(TrialVerdict::of(State::Blocked, Some(why), basis));
    }
    forgotten::is_recent(evidence).then(to_be_submitted)
}

/// Whether both of Slurm's tables agree that the job is over. One that failed to start since then is another case.
fn was_dropped(
    evidence: &TrialEvidence<'_>,
    ended: &TrialVerdict,
    attempts: &[AttemptStatus],
) -> bool {
    let goes_on = last_end(evidence.files)
        .is_some_and(|end| matches!(end.next, Next::Requeue | Next::Restart));
    let is_over = matches!(ended.state, State::Failed | State::Timeout);
    let last = evidence.seen.last_account();
    goes_on
        && is_over
        && ended.basis == StateSource::Agreed
        && evidence.seen.queue.is_none()
        && last.is_some_and(|row| row.state.phase() == JobPhase::Ended)
        && attempts.last().is_some_and(|attempt| attempt.number.is_some())
        && forgotten::is_whole(evidence)
        && !evidence.sources.stored.is_wrapped()
}

/// One odd answer is not enough: a controller that has lost its state for a moment would have the trial run twice.
fn to_be_submitted() -> TrialVerdict {
    let why = "could not be requeued, and Slurm no longer knows its job: `nemo-slurm poll` submits it again once two answers agree, at least 5 minutes apart";
    TrialVerdict {
        basis: StateSource::Agreed,
        remedy: Some(Remedy::Resubmit),
        until_agreed: Some(Remedy::AskAgain),
        once_agreed: true,
        ..TrialVerdict::open(State::Preempted, Some(why.to_owned()))
    }
}
