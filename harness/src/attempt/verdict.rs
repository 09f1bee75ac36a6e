//! Decides how an attempt ended and what follows. Pure.
//!
//! In order: a later attempt has taken over; the trial's folder was removed; the program succeeded; it ran out of memory without a stop; it was
//! cancelled; it asked not to be restarted (exit code 93, or invalid parameters); the cause of the stop; the program
//! asked for a restart or requeue (85, 75, or a message); it crashed. Exit code 0 is success, unless the program was
//! told to save or stop. After a save request it is success only with `FINISHED=1`.

use std::fmt;

use nemo_core::progress::{self, Counted};
use nemo_core::rundir::{Cause, Next};
use nix::sys::signal::Signal;

use crate::attempt::start_error::StartError;
use crate::monitor::failure_class::FailureClass;
use crate::program::processes::Reaped;
use crate::supervise::StopCause;

/// The program saved and asks to be restarted in this job.
pub(crate) const EXIT_RESTART: i32 = 85;
/// The program saved and asks to be requeued.
pub(crate) const EXIT_REQUEUE: i32 = 75;
/// The program must not be restarted.
pub(crate) const EXIT_NEVER: i32 = 93;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// It could not be started or resumed, and another attempt would fail in the same way.
    StartFailed(String),
    /// The attempt ended before the program was started, for this reason.
    NotStarted(String),
}

impl Exit {
    pub(crate) fn of(reaped: Reaped) -> Self {
        let signal = reaped.signal.unwrap_or(Signal::SIGKILL as i32);
        reaped.code.map_or(Self::Signal(signal), Self::Code)
    }
}

impl From<StartError> for Exit {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Permanent(why) => Self::StartFailed(why),
            StartError::Node(why) => Self::NotStarted(why),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => {
                let name = Signal::try_from(*signal).map_or("", Signal::as_str);
                write!(f, "was killed by signal {signal} ({name})")
            }
            Self::StartFailed(why) => write!(f, "could not be started: {why}"),
            Self::NotStarted(why) => write!(f, "was not started: {why}"),
        }
    }
}

/// The facts for the decision.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct AttemptFacts {
    pub(crate) exit: Exit,
    pub(crate) stop: Option<StopCause>,
    /// A signal or a message to save or stop reached the program.
    pub(crate) was_notified: bool,
    /// The program's own messages.
    pub(crate) from_program: ProgramReport,
    /// The class of the failure, from its last line.
    pub(crate) failure_class: FailureClass,
    /// A log policy forbids another attempt after a crash.
    pub(crate) stop_restarting: Option<String>,
    /// This node must not be used again, or a process could not be killed. Another attempt goes through the queue.
    pub(crate) leave_node: bool,
    /// The program saved to memory, where its checkpoints may have had no room. Such a crash is followed by an attempt that
    /// saves to the disk, once.
    pub(crate) had_no_room: bool,
    /// The kernel killed a process for lack of memory during the attempt.
    pub(crate) oom: bool,
    /// A new checkpoint was committed.
    pub(crate) progress: bool,
    /// Crashes before, and how many are allowed.
    pub(crate) crashes: RestartBudget,
    /// Hangs since the last new checkpoint.
    pub(crate) hangs: RestartBudget,
    /// Earlier attempts in a row without a new checkpoint, and how many of them end the trial. 0 allows any number.
    pub(crate) stuck: RestartBudget,
    /// The experiment's time is over.
    pub(crate) over: bool,
    /// For people: how the program ended.
    pub(crate) summary: String,
}

/// A program's messages about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgramReport {
    /// Training is finished.
    pub(crate) finished: bool,
    /// It asks to be requeued.
    pub(crate) requeue: bool,
    /// Its parameters are invalid, for this reason.
    pub(crate) invalid: Option<String>,
}

/// A limit and how much of it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestartBudget {
    pub(crate) used: u32,
    pub(crate) limit: u32,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttemptVerdict {
    pub(crate) cause: Cause,
    pub(crate) next: Next,
    pub(crate) reason: String,
}

impl AttemptVerdict {
    /// Whether a crash is followed by another attempt.
    pub(crate) fn forgives_crash(&self) -> bool {
        is_crash(self.cause) && matches!(self.next, Next::Requeue | Next::Restart)
    }
}

/// Why an attempt is over that lost its lease.
pub(super) const TAKEN_OVER: &str = "a later attempt has taken over";

fn is_crash(cause: Cause) -> bool {
    matches!(cause, Cause::Failed | Cause::OutOfMemory)
}

/// Decides.
pub(crate) fn decide(facts: &AttemptFacts) -> AttemptVerdict {
    let (cause, next, why) = first_rule(facts);
    let mut reason =
        if why.is_empty() { facts.summary.clone() } else { format!("{why}: {}", facts.summary) };
    if facts.exit == Exit::Code(0) && next != Next::Done && !facts.progress {
        reason.push_str("; exit code 0 after a save request is not success (`FINISHED=1` is)");
    }
    let is_retried = matches!(next, Next::Requeue | Next::Restart);
    if !is_retried || facts.stop == Some(StopCause::Superseded) {
        return AttemptVerdict { cause, next, reason };
    }
    let (next, limit) = within_limits(facts, cause, next);
    reason.push_str(&limit);
    AttemptVerdict { cause, next, reason }
}

/// Whether there may be another attempt, where it may run, and what to add to the reason.
fn within_limits(facts: &AttemptFacts, cause: Cause, next: Next) -> (Next, String) {
    if facts.over {
        return (Next::Timeout, "; the experiment's time is over".to_owned());
    }
    let stuck = facts.stuck.used + 1;
    if is_without_progress(facts, cause)
        && progress::is_used_up(facts.stuck.limit, stuck, Counted::AtEnd)
    {
        let attempts = if stuck == 1 { "1 attempt" } else { &format!("{stuck} attempts in a row") };
        return (Next::Failed, format!("; given up after {attempts} without a new checkpoint"));
    }
    (if facts.leave_node { Next::Requeue } else { next }, String::new())
}

/// Whether the attempt counts among those in a row without a new checkpoint.
fn is_without_progress(facts: &AttemptFacts, cause: Cause) -> bool {
    // A pause is no failure, and an attempt that left its node did not try anything.
    let left_node = matches!(facts.exit, Exit::NotStarted(_)) && facts.from_program.requeue;
    let is_free = cause == Cause::Paused || left_node || (is_crash(cause) && facts.had_no_room);
    !facts.progress && !is_free
}

/// The cause of the end, what follows, and why in words.
type Decision = (Cause, Next, String);

fn decision(cause: Cause, next: Next, why: &str) -> Decision {
    (cause, next, why.to_owned())
}

/// The first rule that applies decides. The order is that of the module's documentation.
fn first_rule(facts: &AttemptFacts) -> Decision {
    by_loss_of_trial(facts)
        .or_else(|| by_success(facts))
        .or_else(|| by_memory(facts))
        .or_else(|| by_refusal(facts))
        .or_else(|| by_stop(facts))
        .unwrap_or_else(|| by_exit(facts))
}

/// The trial is not this attempt's any more.
fn by_loss_of_trial(facts: &AttemptFacts) -> Option<Decision> {
    if facts.stop == Some(StopCause::Superseded) {
        return Some(decision(Cause::Superseded, Next::Requeue, TAKEN_OVER));
    }
    let is_removed = facts.stop == Some(StopCause::FolderRemoved);
    is_removed
        .then(|| decision(Cause::Cancelled, Next::Failed, "the folder of the trial was removed"))
}

/// The program succeeded, or could never be started.
fn by_success(facts: &AttemptFacts) -> Option<Decision> {
    let is_done = !facts.was_notified || facts.from_program.finished;
    match &facts.exit {
        Exit::StartFailed(_) => Some(decision(Cause::Failed, Next::Failed, "")),
        Exit::Code(0) if is_done && !facts.from_program.requeue => {
            Some(decision(Cause::Completed, Next::Done, ""))
        }
        Exit::Code(_) | Exit::Signal(_) | Exit::NotStarted(_) => None,
    }
}

/// It ran out of memory. If Slurm named another cause already, that one counts.
fn by_memory(facts: &AttemptFacts) -> Option<Decision> {
    let by_itself = matches!(facts.stop, None | Some(StopCause::Unknown));
    let was_killed = facts.oom && matches!(facts.exit, Exit::Signal(9) | Exit::Code(137));
    let said_so = facts.failure_class == FailureClass::Memory && facts.stop.is_none();
    if !by_itself || !(was_killed || said_so) {
        return None;
    }
    let (_, next, why) = crash(facts);
    // The next attempt would end in the same way, unless this one made progress.
    let next = if facts.progress || facts.had_no_room { next } else { Next::Failed };
    Some((Cause::OutOfMemory, next, joined("out of memory", &why)))
}

/// The user or the program wants no further attempt.
fn by_refusal(facts: &AttemptFacts) -> Option<Decision> {
    if facts.stop == Some(StopCause::Cancelled) {
        return Some(decision(Cause::Cancelled, Next::Cancelled, "cancelled"));
    }
    if facts.exit == Exit::Code(EXIT_NEVER) {
        let why = "the program asked not to be restarted";
        return Some(decision(Cause::Failed, Next::Failed, why));
    }
    let why = facts.from_program.invalid.as_ref()?;
    Some((Cause::Failed, Next::Failed, format!("invalid hyperparameters: {why}")))
}

/// The program was stopped.
fn by_stop(facts: &AttemptFacts) -> Option<Decision> {
    let (cause, next, why) = match facts.stop? {
        StopCause::Preempted => (Cause::Preempted, Next::Requeue, "preempted"),
        StopCause::TimeLimit => (Cause::TimeLimit, Next::Requeue, "the time limit was near"),
        StopCause::Deadline => (Cause::TimeLimit, Next::Timeout, "the experiment's time is over"),
        StopCause::Requeued => {
            (Cause::Preempted, Next::Requeue, "the job had been requeued already")
        }
        StopCause::Unknown => {
            (Cause::Preempted, Next::Requeue, "stopped, and Slurm did not say why")
        }
        StopCause::Hung if facts.hangs.used < facts.hangs.limit => {
            (Cause::Hung, Next::Restart, "it gave no sign of life")
        }
        StopCause::Hung => {
            (Cause::Hung, Next::Failed, "it gave no sign of life, again without a new checkpoint")
        }
        StopCause::ProgramRequestedRequeue => {
            (Cause::Restart, Next::Requeue, "saved, to be requeued")
        }
        StopCause::Paused => (Cause::Paused, Next::Requeue, "paused"),
        StopCause::Cancelled | StopCause::Superseded | StopCause::FolderRemoved => return None,
    };
    Some(decision(cause, next, why))
}

fn joined(why: &str, more: &str) -> String {
    if more.is_empty() { why.to_owned() } else { format!("{why}; {more}") }
}

/// The program ended by itself.
fn by_exit(facts: &AttemptFacts) -> Decision {
    match facts.exit {
        Exit::Code(EXIT_RESTART) => {
            decision(Cause::Restart, Next::Restart, "saved, to be started again")
        }
        // After a save request, exit code 0 is not success.
        Exit::Code(0) if !facts.from_program.requeue => {
            decision(Cause::Restart, Next::Restart, "saved on request, to be started again")
        }
        Exit::Code(EXIT_REQUEUE) => {
            decision(Cause::Restart, Next::Requeue, "saved, to be requeued")
        }
        _ if facts.from_program.requeue => {
            decision(Cause::Restart, Next::Requeue, "saved, to be requeued")
        }
        // The node could not provide what the attempt needs.
        Exit::NotStarted(_) => decision(Cause::NodeFailure, Next::Requeue, ""),
        Exit::Code(126 | 127) if facts.failure_class == FailureClass::Machine => {
            decision(Cause::NodeFailure, Next::Requeue, "this machine could not start it now")
        }
        // The shell could not find or run a program. That would be the same on every node.
        Exit::Code(126 | 127) => decision(Cause::Failed, Next::Failed, ""),
        Exit::Code(_) if facts.failure_class == FailureClass::Configuration => {
            decision(Cause::Failed, Next::Failed, "another attempt would fail the same way")
        }
        Exit::Code(_) | Exit::Signal(_) | Exit::StartFailed(_) => crash(facts),
    }
}

fn crash(facts: &AttemptFacts) -> Decision {
    if let Some(policy) = &facts.stop_restarting {
        let why = format!("log policy `{policy}` forbids another attempt");
        return (Cause::Failed, Next::Failed, why);
    }
    if facts.had_no_room {
        let why = "its saves may have had no room in memory, and go to the disk next";
        return decision(Cause::Failed, Next::Restart, why);
    }
    let is_left = facts.crashes.used < facts.crashes.limit;
    (Cause::Failed, if is_left { Next::Restart } else { Next::Failed }, String::new())
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
