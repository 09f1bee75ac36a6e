//! Where one trial on Slurm stands.

use nemo_core::rundir::{AttemptEnd, AttemptRecord, Next};

use super::attempts::has_run;
use super::slurm_view::SlurmRows;
use super::{Answer, AttemptStatus, Sources, State, TaskStatus, TrialFiles, waiting};
use crate::experiment::{On, Task};
use crate::journal;
use crate::slurm::{AccountRow, JobState, Phase, QueueRow};

/// All that is known of one trial.
pub(super) struct TrialEvidence<'a> {
    pub(super) task: &'a Task,
    pub(super) index: u32,
    pub(super) seen: &'a SlurmRows<'a>,
    pub(super) files: &'a TrialFiles,
    pub(super) sources: &'a Sources<'a>,
    /// The tasks before this one.
    pub(super) parents: &'a [TaskStatus],
}

type Verdict = (State, Option<String>);

/// Decides by the strongest witness: the harness's own word on a final end, then the queue, then accounting.
///
/// A job that could not be requeued is not lost: `poll` does it.
pub(super) fn state(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> Verdict {
    let (state, reason) = by_witness(evidence, attempts);
    let ended = matches!(state, State::Failed | State::Completed | State::Timeout);
    let is_left = last_end(&evidence.files.attempts).and_then(final_end).is_none();
    if evidence.files.requeue_wanted && is_left && ended {
        let what = "could not be requeued: `nemo-slurm poll` does it";
        return (State::Preempted, Some(what.to_owned()));
    }
    let reason = reason.map(|reason| match state {
        State::Failed | State::Timeout if is_left && is_lost(evidence) => {
            format!("{reason}; `nemo-slurm poll` requeues it")
        }
        _ => reason,
    });
    (state, reason)
}

/// Whether its job has ended, and its harness left no word of that, but Slurm still knows it.
fn is_lost(evidence: &TrialEvidence<'_>) -> bool {
    let is_over = |row: &QueueRow| row.state.phase() == Phase::Ended;
    !evidence.files.attempts.is_empty() && evidence.seen.queue.is_some_and(is_over)
}

fn by_witness(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> Verdict {
    let end = last_end(&evidence.files.attempts);
    if let Some(verdict) = end.and_then(final_end) {
        return verdict;
    }
    if evidence.seen.job.is_none() {
        return not_submitted(evidence);
    }
    if let Some(row) = evidence.seen.queue {
        return in_queue(evidence, row, end, attempts);
    }
    let is_silent = evidence.sources.queue.trouble().is_some();
    match evidence.seen.accounts.last() {
        // What squeue can't say now, sacct may; but a row that is not final may have been overtaken.
        Some(row) if is_silent && row.state.is_final() => ended(evidence, row, attempts),
        _ if is_silent => remembered(evidence, end, attempts),
        Some(row) => gone(evidence, row, attempts),
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
pub(super) fn final_end(end: &AttemptEnd) -> Option<Verdict> {
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

fn not_submitted(evidence: &TrialEvidence<'_>) -> Verdict {
    let journal = &evidence.sources.stored.journal;
    if let Some(reason) = journal::refusal(journal) {
        (State::Cancelled, Some(format!("the submission was refused: {reason}")))
    } else if evidence.sources.submitting {
        (State::Pending, Some("is being submitted".to_owned()))
    } else {
        let go_on = format!("`nemo-slurm submit --continue {}`", evidence.sources.stored.id);
        (State::Pending, Some(format!("was not submitted: {go_on} goes on")))
    }
}

fn in_queue(
    evidence: &TrialEvidence<'_>,
    row: &QueueRow,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> Verdict {
    let says = || waiting::reason(row, attempts);
    match row.state.phase() {
        Phase::Waiting if &*row.reason == "DependencyNeverSatisfied" => (State::Blocked, says()),
        // The heads of a chain are held until all of it is submitted.
        Phase::Waiting if is_held(row) && is_submitted(evidence) => {
            (State::Paused, Some(waiting::held(evidence, row)))
        }
        Phase::Waiting if attempts.is_empty() => (State::Pending, says()),
        Phase::Waiting => (State::Preempted, says()),
        // The harness has ended its attempt and asked for another; Slurm is about to follow.
        Phase::Active if end.is_some_and(|end| end.next == Next::Requeue) => {
            (State::Preempted, None)
        }
        Phase::Active if row.state == JobState::Suspended => {
            (State::Running, Some("is suspended".to_owned()))
        }
        Phase::Active => (State::Running, None),
        Phase::Ended => {
            match evidence.seen.accounts.last().filter(|account| same_run(account, row)) {
                Some(account) => ended(evidence, account, attempts),
                None => by_state(evidence, &row.state, attempts),
            }
        }
        Phase::Unknown => (State::Unknown, Some(format!("Slurm says `{}`", row.state))),
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

fn same_run(account: &AccountRow, row: &QueueRow) -> bool {
    account.state.is_final() && account.submit >= row.submit
}

/// The queue has no such job any more: what accounting shows last is how it ended.
fn gone(evidence: &TrialEvidence<'_>, row: &AccountRow, attempts: &[AttemptStatus]) -> Verdict {
    match row.state.phase() {
        Phase::Ended => ended(evidence, row, attempts),
        // Accounting lags behind the controller, or never heard of the end.
        Phase::Waiting | Phase::Active | Phase::Unknown => vanished(evidence, attempts),
    }
}

fn ended(evidence: &TrialEvidence<'_>, row: &AccountRow, attempts: &[AttemptStatus]) -> Verdict {
    if row.state == JobState::Failed
        && has_run(row)
        && attempts.last().is_none_or(|last| last.number.is_none())
    {
        let code = row.exit.code;
        let log = "look at Slurm's own output: `nemo-slurm logs --slurm`";
        return (
            State::Failed,
            Some(format!("the job exited with code {code} before the program ran: {log}")),
        );
    }
    by_state(evidence, &row.state, attempts)
}

fn by_state(evidence: &TrialEvidence<'_>, state: &JobState, attempts: &[AttemptStatus]) -> Verdict {
    let last_end = last_end(&evidence.files.attempts);
    match state {
        // The harness exits 0 only after a final end, or after a requeue: then Slurm dropped it.
        JobState::Completed if last_end.is_some_and(|end| end.next == Next::Requeue) => {
            (State::Failed, Some("wanted to be requeued, but Slurm ended the job".to_owned()))
        }
        JobState::Completed => (State::Completed, None),
        JobState::Cancelled | JobState::Revoked => cancelled(evidence, attempts),
        JobState::Timeout | JobState::Deadline => {
            (State::Timeout, Some("reached Slurm's time limit and was not requeued".to_owned()))
        }
        JobState::OutOfMemory => (State::Failed, Some("ran out of memory".to_owned())),
        JobState::NodeFail | JobState::BootFail => {
            (State::Failed, Some("its node failed, and Slurm did not requeue it".to_owned()))
        }
        JobState::Preempted | JobState::Requeued => {
            (State::Failed, Some("was preempted, and Slurm no longer knows it".to_owned()))
        }
        state => (State::Failed, Some(format!("Slurm says `{state}`"))),
    }
}

fn cancelled(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> Verdict {
    if attempts.is_empty()
        && !was_asked_for(evidence)
        && let Some(parent) = never_satisfied(evidence)
    {
        return (State::Blocked, Some(parent));
    }
    (State::Cancelled, None)
}

/// Whether somebody wished for its end by `nemo-slurm cancel`.
fn was_asked_for(evidence: &TrialEvidence<'_>) -> bool {
    evidence.sources.requests.iter().any(|request| {
        request.action == super::Action::Cancel
            && request.covers(&evidence.task.name, evidence.index)
    })
}

/// The parent because of which this trial could never start, in words.
fn never_satisfied(evidence: &TrialEvidence<'_>) -> Option<String> {
    evidence.task.after.iter().find_map(|dependency| {
        let parent = evidence.parents.iter().find(|parent| parent.name == dependency.task)?;
        unmet(parent, dependency.on, evidence.index)
    })
}

/// Why a dependency can never be met, in words; none if it is met or may yet be.
pub(super) fn unmet(parent: &TaskStatus, on: On, index: u32) -> Option<String> {
    let lost = |state: State| state.is_final() && state != State::Completed;
    let name = &parent.name;
    match on {
        On::Ok => parent
            .trials
            .iter()
            .find(|trial| lost(trial.state))
            .map(|trial| format!("`{name}` trial {} is {}", trial.index, trial.state.as_str())),
        On::Each => {
            let trial = parent.trials.get(index as usize).filter(|trial| lost(trial.state))?;
            Some(format!("`{name}` trial {index} is {}", trial.state.as_str()))
        }
        On::Failed => {
            let fine = parent.trials.iter().all(|trial| trial.state == State::Completed);
            fine.then(|| format!("not needed: `{name}` completed"))
        }
        On::Any => None,
    }
}

/// Neither the queue nor accounting can be asked for more: what was known stays.
fn remembered(
    evidence: &TrialEvidence<'_>,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> Verdict {
    let earlier = evidence
        .sources
        .earlier
        .get(&evidence.task.name)
        .and_then(|task| task.get(&evidence.index));
    if let (Some(_), Some((State::Cancelled, reason))) = (end, earlier) {
        // It was cancelled while it waited: its folder can't know.
        return (State::Cancelled, reason.clone());
    }
    match (end, attempts.last()) {
        (Some(end), _) if end.next == Next::Requeue => (State::Preempted, None),
        (_, Some(last)) if last.number.is_some() && last.cause.is_none() => (
            State::Running,
            Some("as far as its folder tells: Slurm can't be asked now".to_owned()),
        ),
        _ => match earlier {
            Some((state, reason)) => (*state, reason.clone()),
            None => (State::Unknown, Some("Slurm can't be asked now".to_owned())),
        },
    }
}

/// A single task that is cancelled while it waits is in no table of Slurm's any more, though its array is. Without
/// accounting it could also have ended long ago.
fn was_taken_out(evidence: &TrialEvidence<'_>) -> bool {
    evidence.seen.array_is_known && matches!(evidence.sources.accounts, Answer::Rows(_))
}

/// Slurm answers, and does not know the job.
fn vanished(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> Verdict {
    let earlier = evidence
        .sources
        .earlier
        .get(&evidence.task.name)
        .and_then(|task| task.get(&evidence.index));
    if let Some((state, reason)) = earlier.filter(|(state, _)| state.is_final()) {
        return (*state, reason.clone());
    }
    if attempts.is_empty()
        && let Some(parent) = never_satisfied(evidence)
    {
        return (State::Blocked, Some(parent));
    }
    if attempts.is_empty() && (was_asked_for(evidence) || was_taken_out(evidence)) {
        return (State::Cancelled, Some("was cancelled before it started".to_owned()));
    }
    if last_end(&evidence.files.attempts).is_some_and(|end| end.next == Next::Requeue) {
        let what = "it was saved and wanted to be requeued, but Slurm no longer knows the job";
        return (State::Unknown, Some(what.to_owned()));
    }
    let left =
        if attempts.is_empty() { "it left no record" } else { "its last attempt left no end" };
    (State::Unknown, Some(format!("Slurm no longer knows the job, and {left}")))
}
