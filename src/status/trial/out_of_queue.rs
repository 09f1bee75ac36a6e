//! What a trial is whose job `squeue` does not show.

use nemo_core::rundir::{AttemptEnd, Next};

use super::dependency::never_satisfied;
use super::{TrialEvidence, TrialVerdict, ended, forgotten, last_end, requeued, was_asked_for};
use crate::slurm::{AccountRow, JobPhase};
use crate::status::finality::StateSource;
use crate::status::{AttemptStatus, QueryResult, State};

const ASKED_AGAIN: &str = "the next `status` asks Slurm again";

/// Decides by what `sacct` says, if that counts; else by what was known.
pub(super) fn verdict(
    evidence: &TrialEvidence<'_>,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let is_silent = evidence.sources.queue.trouble().is_some();
    match evidence.seen.last_account() {
        // What squeue can't say now, sacct may; but a row that is not final may have been overtaken.
        Some(row) if is_silent && row.state.is_final() => {
            ended::by_accounting(evidence, row, attempts)
        }
        _ if is_silent => remembered(evidence, end, attempts),
        // Accounting lags behind the controller, never heard of the end, or knows better.
        Some(row) if row.state.phase() != JobPhase::Ended => contradicted(row),
        Some(row) => ended::by_accounting(evidence, row, attempts),
        None => vanished(evidence, attempts),
    }
}

/// The queue does not show the job, and accounting shows it alive: one of the two is wrong now.
fn contradicted(row: &AccountRow) -> TrialVerdict {
    let why =
        format!("`squeue` does not show its job, and `sacct` says {}; {ASKED_AGAIN}", row.state);
    TrialVerdict::open(State::Unknown, Some(why))
}

/// Slurm answers, and does not know the job.
fn vanished(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    if attempts.is_empty() && was_asked_for(evidence) {
        let why = "was cancelled before it started".to_owned();
        return TrialVerdict::of(State::Cancelled, Some(why), StateSource::Agreed);
    }
    if attempts.is_empty()
        && let Some(unmet) = never_satisfied(evidence)
    {
        return TrialVerdict::of(State::Blocked, Some(unmet.why), StateSource::Agreed);
    }
    let is_waiting_to_run = last_end(evidence.files).is_some_and(|end| end.next == Next::Requeue);
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
    if attempts.is_empty() && forgotten::was_lost(evidence) {
        return forgotten::lost(unknown);
    }
    unknown
}

/// A single task that is cancelled while it waits is in no table of Slurm's any more, though its array is. Without
/// accounting it could also have ended long ago.
fn was_taken_out(evidence: &TrialEvidence<'_>) -> bool {
    evidence.seen.array_is_known && matches!(evidence.sources.accounts, QueryResult::Rows(_))
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
        (Some(end), ..) if end.next == Next::Requeue => requeued(evidence, attempts),
        (_, Some(last), _) if last.number.is_some() && last.cause.is_none() => {
            (State::Running, Some("according to its folder; Slurm can't be asked now".to_owned()))
        }
        (_, _, Some(before)) => before,
        (_, _, None) => (State::Unknown, Some("Slurm can't be asked now".to_owned())),
    };
    TrialVerdict::of(state, reason, StateSource::Silence)
}
