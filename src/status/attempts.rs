//! Joins the harness's record of each attempt with Slurm's.

use nemo_core::rundir::{AttemptEnd, AttemptRecord, AttemptStart, Cause};

use super::runs::{self, seconds};
use super::slurm_view::SlurmRows;
use super::start_failure;
use super::{AttemptStatus, ExcludedNode, Label, State, TrialFiles};
use crate::slurm::exit::JobExit;
use crate::slurm::{AccountRow, JobPhase, JobState};

/// All attempts, oldest first. What the harness wrote counts; where it could not write, Slurm's row tells the cause.
pub(super) fn merge(files: &TrialFiles, seen: &SlurmRows<'_>) -> Vec<AttemptStatus> {
    let mut attempts = from_files(files);
    let runs: Vec<&AccountRow> = seen.accounts.iter().copied().filter(|row| has_run(row)).collect();
    let mut unmatched: Vec<&AccountRow> = Vec::new();
    for (row, place) in runs.iter().copied().zip(runs::places(files, &runs)) {
        match place {
            Some(place) => complete(&mut attempts[place], row),
            None => unmatched.push(row),
        }
    }
    let left = unmatched.into_iter().filter(|row| was_over(row) && !only_requeued(row));
    attempts.extend(left.map(|row| from_row(row, seen)));
    attempts.sort_by(|a, b| a.start.unwrap_or(0.0).total_cmp(&b.start.unwrap_or(0.0)));
    attempts
}

/// Those that belong to the trial's last retry; all where it was never retried.
pub(super) fn since_retry<'a>(
    attempts: &'a [AttemptStatus],
    files: &TrialFiles,
    seen: &SlurmRows<'_>,
) -> &'a [AttemptStatus] {
    let Some(from) = files.retried_from else { return attempts };
    let job = seen.shown();
    let is_new = |attempt: &AttemptStatus| match attempt.number {
        Some(number) => number >= from,
        None => attempt.slurm_job == job,
    };
    let n_earlier = attempts.iter().rposition(|attempt| !is_new(attempt)).map_or(0, |at| at + 1);
    &attempts[n_earlier..]
}

/// Sets a cause on attempts that are over but recorded no end. Even Slurm may not know of them: a controller that was
/// killed forgets what it started last.
pub(super) fn accounted(mut attempts: Vec<AttemptStatus>, state: State) -> Vec<AttemptStatus> {
    let may_run = matches!(state, State::Running | State::Unknown);
    let over = attempts.len().saturating_sub(usize::from(may_run));
    let over = attempts[..over].iter_mut();
    for attempt in over.filter(|attempt| attempt.cause.is_none() && attempt.number.is_some()) {
        attempt.cause = Some(Cause::NodeFailure);
        let why = "it was killed, or its node was lost, before the harness could record the end";
        attempt.reason.get_or_insert_with(|| why.to_owned());
    }
    attempts
}

/// The attempts as the harness wrote them.
pub(super) fn from_files(files: &TrialFiles) -> Vec<AttemptStatus> {
    let mut attempts: Vec<AttemptStatus> = Vec::new();
    let mut saved = None;
    for record in &files.attempts {
        match record {
            AttemptRecord::Start(start) => attempts.push(started(start)),
            AttemptRecord::WentOn { attempt, step, .. } => {
                if let Some(open) = of_number(&mut attempts, *attempt) {
                    open.resume_step = Some(*step);
                }
            }
            AttemptRecord::Ready { .. }
            | AttemptRecord::Warning { .. }
            | AttemptRecord::Removed { .. }
            | AttemptRecord::Hang { .. } => {}
            // What was saved after that is not resumed from any more.
            AttemptRecord::SetAside { from_step, .. } => saved = saved.min(*from_step),
            AttemptRecord::Label { attempt, name, line, .. } => {
                if let Some(open) = of_number(&mut attempts, *attempt) {
                    open.labels.push(Label { name: name.clone(), line: line.clone() });
                }
            }
            AttemptRecord::ExcludeNode { attempt, node, reason, left, .. } => {
                if let Some(open) = of_number(&mut attempts, *attempt) {
                    let (node, reason, left) = (node.clone(), reason.clone(), *left);
                    open.excluded_nodes.push(ExcludedNode { node, reason, left });
                }
            }
            AttemptRecord::Checkpoint { attempt, step, .. } => {
                saved = saved.max(Some(*step));
                if let Some(open) = of_number(&mut attempts, *attempt) {
                    open.checkpoint_step = saved;
                }
            }
            AttemptRecord::End(end) => {
                if let Some(open) = of_number(&mut attempts, end.attempt) {
                    ended(open, end, files.signs.get(&end.attempt).copied());
                }
            }
        }
    }
    attempts
}

fn of_number(attempts: &mut [AttemptStatus], number: u32) -> Option<&mut AttemptStatus> {
    attempts.iter_mut().rev().find(|attempt| attempt.number == Some(number))
}

fn started(start: &AttemptStart) -> AttemptStatus {
    AttemptStatus {
        number: Some(start.attempt),
        slurm_job: start.slurm_job.clone(),
        node: Some(start.process.node.clone()),
        start: Some(start.time),
        end: None,
        cause: None,
        exit_code: None,
        signal: None,
        resume_step: start.resume_step,
        checkpoint_step: start.resume_step,
        reason: None,
        labels: Vec::new(),
        excluded_nodes: Vec::new(),
    }
}

/// Whether a later attempt wrote this end: it knows neither how nor when the attempt was lost.
#[must_use]
pub fn is_guess(end: &AttemptEnd) -> bool {
    end.cause == Cause::NodeFailure && end.exit_code.is_none() && end.signal.is_none()
}

/// `sign` is when the attempt was last heard of, where its end is a guess.
fn ended(attempt: &mut AttemptStatus, end: &AttemptEnd, sign: Option<f64>) {
    let began = attempt.start.unwrap_or(end.time);
    attempt.end = Some(sign.map_or(end.time, |sign| sign.max(began).min(end.time)));
    attempt.cause = Some(end.cause);
    attempt.exit_code = end.exit_code;
    attempt.signal = end.signal;
    attempt.checkpoint_step = end.checkpoint_step.or(attempt.checkpoint_step);
    attempt.reason.clone_from(&end.reason);
}

/// Adds what only Slurm knows to an attempt that left no end, or whose end the next one wrote by guess.
fn complete(attempt: &mut AttemptStatus, row: &AccountRow) {
    let is_lost = attempt.cause == Some(Cause::NodeFailure);
    let is_guess = is_lost && attempt.exit_code.is_none() && attempt.signal.is_none();
    if is_guess && was_over(row) {
        // The later attempt may have begun long after.
        attempt.end = seconds(row.end);
    }
    let has_known_cause = match attempt.cause {
        Some(Cause::NodeFailure) => row.state == JobState::Requeued,
        cause => cause.is_some(),
    };
    if !has_known_cause && was_over(row) {
        attempt.end = seconds(row.end);
        attempt.cause = cause_of(row);
        let exit = JobExit::from(row.exit);
        attempt.reason = Some(if has_failed(row) {
            format!("Slurm: {}: the harness {exit}", row.state)
        } else {
            format!("Slurm: {}", row.state)
        });
    }
}

fn from_row(row: &AccountRow, seen: &SlurmRows<'_>) -> AttemptStatus {
    let exit = JobExit::from(row.exit);
    let reason = if has_failed(row) {
        start_failure::why(row)
    } else {
        format!("Slurm: {}, before the harness could write a record", row.state)
    };
    AttemptStatus {
        number: None,
        slurm_job: seen.shown_of(row),
        node: Some(row.nodes.to_string()),
        start: seconds(row.start),
        end: seconds(row.end),
        cause: if has_failed(row) { Some(Cause::StartFailed) } else { cause(&row.state) },
        // A node that fails leaves a code as well, from 24.11 on: it is no program's.
        exit_code: exit
            .code()
            .filter(|_| has_failed(row))
            .and_then(|code| i32::try_from(code).ok()),
        signal: exit.signal().and_then(|signal| i32::try_from(signal).ok()),
        resume_step: None,
        checkpoint_step: None,
        reason: Some(reason),
        labels: Vec::new(),
        excluded_nodes: Vec::new(),
    }
}

/// A job that was cancelled while it waited has a start, its end, but never a node.
pub(super) fn has_run(row: &AccountRow) -> bool {
    row.start.is_some() && &*row.nodes != "None assigned"
}

/// Why a run ended whose attempt left no end. A harness that a signal killed did not fail: it was lost.
fn cause_of(row: &AccountRow) -> Option<Cause> {
    let was_killed = JobExit::from(row.exit).signal().is_some();
    match row.state {
        JobState::Failed | JobState::Requeued if was_killed && !only_requeued(row) => {
            Some(Cause::NodeFailure)
        }
        ref state => cause(state),
    }
}

/// Whether a run that left no record was lost at its start. Other states say by themselves why it ended.
fn has_failed(row: &AccountRow) -> bool {
    match row.state {
        JobState::Failed | JobState::LaunchFailed => true,
        // Up to 25.11.2 a job that failed and was requeued is shown so.
        JobState::Requeued => !only_requeued(row),
        _ => false,
    }
}

/// Slurm was asked to run it again, by us or by somebody, and ended it for that: this is no word on how the run before
/// went, or that anything ran in it.
fn only_requeued(row: &AccountRow) -> bool {
    const TERM: u32 = 15;
    let was_ended = matches!(JobExit::from(row.exit), JobExit::Code(0) | JobExit::Signal(TERM));
    row.state == JobState::Requeued && was_ended
}

fn was_over(row: &AccountRow) -> bool {
    row.state.phase() == JobPhase::Ended && row.end.is_some()
}

/// Slurm's word for how an attempt ended, in ours. Its exit codes are not asked: they lie for most of these.
pub(super) fn cause(state: &JobState) -> Option<Cause> {
    match state {
        JobState::Completed => Some(Cause::Completed),
        JobState::Failed | JobState::LaunchFailed => Some(Cause::Failed),
        JobState::Cancelled | JobState::Revoked => Some(Cause::Cancelled),
        JobState::Timeout | JobState::Deadline => Some(Cause::TimeLimit),
        JobState::NodeFail | JobState::BootFail | JobState::ReconfigFail => {
            Some(Cause::NodeFailure)
        }
        JobState::Preempted | JobState::Requeued => Some(Cause::Preempted),
        JobState::OutOfMemory => Some(Cause::OutOfMemory),
        _ => None,
    }
}
