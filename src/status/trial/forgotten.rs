//! A trial that never ran, and whose job Slurm has forgotten: it may be submitted once more.

use super::{TrialEvidence, TrialVerdict};
use crate::journal;
use crate::slurm::JobState;
use crate::status::finality::StateSource;
use crate::status::runs::seconds;
use crate::status::{QueryResult, Remedy, State};

/// For so many seconds a trial that Slurm has forgotten is submitted again. What nobody missed for longer is left to
/// people, and databases forget too.
const WITHIN: f64 = 30.0 * 86_400.0;

/// Whether Slurm itself cancelled the job because of its dependency, which has not failed, and has forgotten it since.
pub(super) fn was_taken_out(evidence: &TrialEvidence<'_>) -> bool {
    let is_gone = matches!(evidence.sources.queue, QueryResult::Rows(_));
    let waits = !evidence.task.after.is_empty();
    waits
        && is_gone
        && is_recent(evidence)
        && by_nobody(evidence)
        && evidence.seen.queue.is_none()
        && is_whole(evidence)
}

/// Whether its newest job ended not too long ago.
pub(super) fn is_recent(evidence: &TrialEvidence<'_>) -> bool {
    let end = evidence.seen.last_account().and_then(|row| seconds(row.end));
    end.is_some_and(|end| evidence.sources.now - end < WITHIN)
}

/// Whether Slurm itself cancelled the job: accounting names who did, but here nobody.
pub(super) fn by_nobody(evidence: &TrialEvidence<'_>) -> bool {
    let last = evidence.seen.last_account();
    last.is_some_and(|row| row.state == JobState::Cancelled && row.cancelled_by.is_none())
}

/// What it is then.
pub(super) fn taken_out() -> TrialVerdict {
    let why = "Slurm cancelled it because of its dependency, which has not failed, and has forgotten it: `nemo-slurm poll` submits it again";
    let verdict = TrialVerdict::open(State::Pending, Some(why.to_owned()));
    TrialVerdict { remedy: Some(Remedy::Resubmit), ..verdict }
}

/// Whether Slurm took the array, and neither the queue nor accounting knows of any of it: the controller was killed
/// before it wrote down that it has it.
pub(super) fn was_lost(evidence: &TrialEvidence<'_>) -> bool {
    let sources = evidence.sources;
    let answered = matches!(sources.queue, QueryResult::Rows(_))
        && matches!(sources.accounts, QueryResult::Rows(_));
    // Nobody but its script starts a wrapped job again.
    let can_be_submitted = is_whole(evidence) && !sources.stored.is_wrapped();
    if !answered || evidence.seen.array_is_known || !can_be_submitted {
        return false;
    }
    let journal = &sources.stored.journal;
    let taken = journal::last_submitted_at(journal, &evidence.task.name, evidence.index);
    taken.is_some_and(|time| sources.now - time < WITHIN)
}

/// What a trial of such an array is, that is `unknown` so far: one odd answer is not enough.
pub(super) fn lost(unknown: TrialVerdict) -> TrialVerdict {
    let reason = unknown.reason.map(|reason| {
        format!("{reason}, and `nemo-slurm poll` submits it again once two answers agree")
    });
    let (basis, remedy) = (StateSource::Agreed, Some(Remedy::Resubmit));
    TrialVerdict { reason, basis, remedy, once_agreed: true, ..unknown }
}

/// Whether what is on the disk is whole: a damaged line may have said more.
pub(super) fn is_whole(evidence: &TrialEvidence<'_>) -> bool {
    evidence.files.damage.is_none() && evidence.sources.stored.damage.is_none()
}
