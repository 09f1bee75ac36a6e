//! Where one trial on Slurm stands.

mod dependency;
mod dropped;
mod ended;
mod forgotten;
mod later;
mod out_of_queue;

use nemo_core::rundir::{AttemptEnd, AttemptRecord, Cause, Next, requests};

use super::finality::{Certainty, StateSource};
use super::slurm_view::SlurmRows;
use super::{
    AttemptStatus, Remedy, RememberedState, State, StatusInputs, TaskStatus, TrialFiles,
    pending_reason, waiting,
};
use crate::experiment::{OutsideDependency, Task};
use crate::journal;
use crate::slurm::{JobPhase, JobState, QueueRow};

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
        self.sources.earlier.get(&self.task.name, self.index)
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
    /// What it does until a second answer agrees.
    pub(super) until_agreed: Option<Remedy>,
    /// Whether the remedy needs a second answer that agrees, like an end.
    pub(super) once_agreed: bool,
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
        Self {
            state,
            reason,
            basis,
            once_certain: None,
            remedy: None,
            until_agreed: None,
            once_agreed: false,
        }
    }
}

/// What a trial is. `poll` cancels the jobs of those that wait when the experiment's time is over.
pub(super) fn state(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    let verdict = decided(evidence, attempts);
    let (requests, task) = (&evidence.sources.requests, &evidence.task.name);
    if verdict.state != State::Cancelled
        || !requests::is_out_of_time(requests, task, evidence.index)
    {
        return verdict;
    }
    let again = if attempts.is_empty() { "" } else { " again" };
    let why = format!("the `timeout` of the experiment was over before it could run{again}");
    TrialVerdict { state: State::Timeout, reason: Some(why), ..verdict }
}

/// Decides by the strongest witness: the harness's own word on a final end, then the queue, then what was certain
/// before, then accounting.
///
/// A job that could not be requeued is not lost: `poll` does it.
fn decided(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    let verdict = by_witness(evidence, attempts);
    if verdict.basis == StateSource::Record {
        return TrialVerdict { remedy: release(evidence), ..verdict };
    }
    if let Some(dropped) = dropped::verdict(evidence, &verdict, attempts) {
        return dropped;
    }
    let is_ended = matches!(verdict.state, State::Failed | State::Completed | State::Timeout);
    let is_marked = evidence.files.requeue_wanted && end_of_generation(evidence);
    if is_marked && is_ended {
        let what = "could not be requeued: `nemo-slurm poll` requeues it";
        let verdict = TrialVerdict::open(State::Preempted, Some(what.to_owned()));
        return TrialVerdict { remedy: Some(Remedy::Requeue), ..verdict };
    }
    // What is damaged may have been the word that the trial is over: then a person must look first.
    let may_run = evidence.files.damage.is_none() && is_known_to_slurm(evidence);
    if is_ended && verdict.state != State::Completed && may_run {
        let reason =
            verdict.reason.map(|reason| format!("{reason}; `nemo-slurm poll` requeues it"));
        return TrialVerdict { reason, remedy: Some(Remedy::Requeue), ..verdict };
    }
    verdict
}

/// A controller that was killed may start the job of a trial that is over once more, and hold it when that fails. What
/// waits for the job would then wait for ever.
fn release(evidence: &TrialEvidence<'_>) -> Option<Remedy> {
    let row = evidence.seen.queue.filter(|row| !has_ended(row) && is_held(row))?;
    waiting::is_start_failure(evidence, row).then_some(Remedy::Release)
}

/// Whether Slurm still knows a job that has ended, and could run it again.
fn is_known_to_slurm(evidence: &TrialEvidence<'_>) -> bool {
    evidence.seen.queue.is_some_and(has_ended)
}

fn has_ended(row: &QueueRow) -> bool {
    row.state.phase_in_queue() == JobPhase::Ended
}

fn by_witness(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> TrialVerdict {
    let end = last_end(evidence.files);
    if let Some((state, reason)) = end.and_then(final_end) {
        return TrialVerdict::recorded(state, reason);
    }
    if evidence.seen.job.is_none() {
        return not_submitted(evidence);
    }
    let certain = evidence.earlier().filter(|earlier| earlier.certainty == Certainty::Final);
    let verdict = match (evidence.seen.queue, certain) {
        (Some(row), _) if !has_ended(row) => in_queue(evidence, row, end, attempts),
        (_, Some(certain)) => {
            return TrialVerdict::recorded(
                certain.state,
                dependency::reason_now(evidence, certain),
            );
        }
        (Some(row), None) => ended::in_queue(evidence, row, attempts),
        (None, None) => out_of_queue::verdict(evidence, end, attempts),
    };
    let both = evidence.sources.queue.is_whole() && evidence.sources.accounts.is_whole();
    let basis = match verdict.basis {
        StateSource::Agreed if !both => StateSource::Silence,
        basis => basis,
    };
    TrialVerdict { basis, ..verdict }
}

/// Whether the newest attempt is one since the trial was retried: a mark of an earlier one is of no use any more.
fn end_of_generation(evidence: &TrialEvidence<'_>) -> bool {
    let last = evidence.files.attempts.iter().rev().find_map(AttemptRecord::as_start);
    let from = evidence.files.retried_from.unwrap_or(0);
    last.is_none_or(|start| start.attempt >= from)
}

/// The end of the last attempt since the trial was retried, if it has one.
pub(super) fn last_end(files: &TrialFiles) -> Option<&AttemptEnd> {
    last_end_of(&files.attempts)
        .filter(|end| files.retried_from.is_none_or(|from| end.attempt >= from))
}

/// The end of the last attempt, if it has one.
pub(super) fn last_end_of(records: &[AttemptRecord]) -> Option<&AttemptEnd> {
    let last = records.iter().rev().find_map(|record| match record {
        AttemptRecord::Start(_) => Some(None),
        AttemptRecord::End(end) => Some(Some(end)),
        AttemptRecord::Checkpoint { .. }
        | AttemptRecord::Ready { .. }
        | AttemptRecord::WentOn { .. }
        | AttemptRecord::Warning { .. }
        | AttemptRecord::Removed { .. }
        | AttemptRecord::SetAside { .. }
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
        TrialVerdict::recorded(State::Failed, Some(refused(reason)))
    } else if evidence.sources.submitting {
        TrialVerdict::open(State::Pending, Some("is being submitted".to_owned()))
    } else if journal::is_generation_complete(journal, 0) {
        later::verdict(evidence)
    } else if was_asked_for(evidence) {
        // `submit --continue` leaves it out.
        TrialVerdict::recorded(State::Cancelled, None)
    } else {
        let go_on = format!("`nemo-slurm submit --continue {}`", evidence.sources.stored.id);
        TrialVerdict::open(State::Pending, Some(format!("was not submitted: {go_on} continues it")))
    }
}

/// What a trial waits for in vain, in words.
pub(super) fn never_satisfied(task: &Task, parents: &[TaskStatus], index: u32) -> Option<String> {
    dependency::unmet_of(task, parents, index).map(|unmet| unmet.why)
}

/// Why nothing of a submission ran.
pub(super) fn refused(reason: &str) -> String {
    format!("Slurm refused the submission: {reason}")
}

/// What a trial is that has stopped and will run again.
pub(super) fn between_attempts(attempts: &[AttemptStatus]) -> State {
    match attempts.last().and_then(|last| last.cause) {
        // Somebody stopped it and let it go on: nobody has preempted it.
        Some(Cause::Paused) => State::Pending,
        _ => State::Preempted,
    }
}

/// What a task without a parent waits for: other experiments, and jobs of others.
fn outside(evidence: &TrialEvidence<'_>, row: &QueueRow) -> Option<String> {
    let after = &evidence.sources.stored.experiment.after;
    if after.is_empty() || !evidence.task.after.is_empty() {
        return None;
    }
    let all: Vec<String> = after.iter().map(OutsideDependency::what).collect();
    let all = all.join(", ");
    match &*row.reason {
        "Dependency" => Some(format!("waits for {all}")),
        "DependencyNeverSatisfied" => {
            Some(format!("its dependency can never be satisfied: it waits for {all}"))
        }
        _ => None,
    }
}

/// What waits in a task that waits for nothing: arrays of one task wait for each other where `concurrent` says so.
fn of_its_task(evidence: &TrialEvidence<'_>, row: &QueueRow) -> Option<String> {
    let waits = &*row.reason == "Dependency" && evidence.task.after.is_empty();
    waits.then(|| "waits for others of its task (`concurrent`)".to_owned())
}

fn in_queue(
    evidence: &TrialEvidence<'_>,
    row: &QueueRow,
    end: Option<&AttemptEnd>,
    attempts: &[AttemptStatus],
) -> TrialVerdict {
    let says = || {
        outside(evidence, row)
            .or_else(|| of_its_task(evidence, row))
            .or_else(|| pending_reason::words(&row.reason, !attempts.is_empty()))
    };
    let (state, reason) = match row.state.phase_in_queue() {
        JobPhase::Waiting if &*row.reason == "DependencyNeverSatisfied" => (State::Blocked, says()),
        // The heads of a chain are held until all of it is submitted.
        JobPhase::Waiting
            if is_held(row) && journal::is_complete(&evidence.sources.stored.journal) =>
        {
            let verdict = TrialVerdict::open(State::Paused, Some(waiting::held(evidence, row)));
            let remedy = waiting::is_start_failure(evidence, row).then_some(Remedy::Release);
            return TrialVerdict { remedy, ..verdict };
        }
        JobPhase::Waiting if attempts.is_empty() => match dependency::certainly_unmet(evidence) {
            // Slurm cancels it within seconds, or keeps it waiting for ever, as the site wishes.
            Some(why) => (State::Blocked, Some(why)),
            None => (State::Pending, says()),
        },
        JobPhase::Waiting if has_begun_since(evidence) => (State::Running, None),
        JobPhase::Waiting => (between_attempts(attempts), says()),
        JobPhase::Active if is_shown_for_ever(evidence, row) => {
            let what = "has ended, but Slurm still shows that run: `nemo-slurm poll` requeues it";
            let verdict = TrialVerdict::open(State::Preempted, Some(what.to_owned()));
            return TrialVerdict { remedy: Some(Remedy::Requeue), ..verdict };
        }
        // The harness has ended its attempt and asked for another; Slurm is about to follow.
        JobPhase::Active if end.is_some_and(|end| end.next == Next::Requeue) => {
            requeued(evidence, attempts)
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

/// How many seconds Slurm may still show a run that has ended and is to be requeued. Its harness tries for two minutes.
const LINGERING: f64 = 300.0;
/// How many seconds the clocks of two machines may differ.
const CLOCKS: f64 = 10.0;

/// The restarts of the run that a trial's last attempt was, if that was to be requeued when it ended long ago.
///
/// A controller that is killed right after it has requeued a job may not have written that down, and shows the run for
/// as long as its node does not miss it.
pub fn lingering_run(records: &[AttemptRecord], now: f64) -> Option<u32> {
    let end = last_end_of(records)?;
    let is_due = end.next == Next::Requeue && end.time + LINGERING < now;
    let mut starts = records.iter().rev().filter_map(AttemptRecord::as_start);
    starts.find(|start| is_due && start.attempt == end.attempt).map(|start| start.restarts)
}

/// Whether Slurm shows a run that ended long ago: it was in the queue before that end.
fn is_shown_for_ever(evidence: &TrialEvidence<'_>, row: &QueueRow) -> bool {
    let files = evidence.files;
    #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
    let is_of_before = |end: &AttemptEnd| {
        row.submit.is_some_and(|submit| submit.seconds() as f64 + CLOCKS < end.time)
    };
    last_end(files).is_some_and(is_of_before)
        && lingering_run(&files.attempts, evidence.sources.now).is_some()
}

/// A trial whose harness has asked for its requeue, before Slurm has followed.
fn requeued(evidence: &TrialEvidence<'_>, attempts: &[AttemptStatus]) -> (State, Option<String>) {
    let state = between_attempts(attempts);
    let pause = requests::pause(&evidence.sources.requests, &evidence.task.name, evidence.index);
    match pause.filter(|_| state == State::Pending) {
        Some(pause) => (State::Paused, Some(waiting::paused(&evidence.sources.stored.id, pause))),
        None => (state, None),
    }
}

/// Whether its last attempt began after Slurm was asked: then it no longer waits, as the older answer says.
fn has_begun_since(evidence: &TrialEvidence<'_>) -> bool {
    let last = evidence
        .files
        .attempts
        .iter()
        .rev()
        .find(|record| matches!(record, AttemptRecord::Start(_) | AttemptRecord::End(_)));
    matches!(last, Some(AttemptRecord::Start(start)) if start.time > evidence.sources.asked)
}

fn is_held(row: &QueueRow) -> bool {
    matches!(&*row.reason, "JobHeldUser" | "JobHeldAdmin")
        || row.reason.contains("requeued held") // as in `launch failed requeued held`
        || &*row.reason == "job requeued in held state"
        || &*row.reason == "JobHoldMaxRequeue"
        || matches!(row.state, JobState::RequeueHold | JobState::SpecialExit)
}

/// Whether a user requested its end by `nemo-slurm cancel`.
fn was_asked_for(evidence: &TrialEvidence<'_>) -> bool {
    requests::is_cancelled(&evidence.sources.requests, &evidence.task.name, evidence.index)
}
