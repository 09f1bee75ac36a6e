//! Decides how an attempt ended and what follows. Pure.
//!
//! In order: a later attempt has taken over; the program's own success; out of memory, unless it was stopped; cancelled; the program said
//! never again (93, or that its parameters make no sense); the stop's cause; the program's wishes (85, 75, a requeue);
//! a crash. An exit code 0 is success unless the program was told to save or stop before: then it says only that the
//! program ended as it was told to, but for one that said itself that all is done.

use std::fmt;

use nemo_core::rundir::{Cause, Next};
use nix::sys::signal::Signal;

use crate::monitor::failure_class::FailureClass;
use crate::program::processes::Reaped;
use crate::supervise::StopCause;

/// The program saved, and wants to be started again in this job.
pub(crate) const EXIT_RESTART: i32 = 85;
/// The program saved, and wants to be requeued.
pub(crate) const EXIT_REQUEUE: i32 = 75;
/// Never again.
pub(crate) const EXIT_NEVER: i32 = 93;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// It could not be started, or not be resumed: another attempt would meet the same.
    StartFailed(String),
    /// The attempt ended before it could be started, for this reason.
    NotStarted(String),
}

impl Exit {
    pub(crate) fn of(reaped: Reaped) -> Self {
        let signal = || Self::Signal(reaped.signal.unwrap_or(Signal::SIGKILL as i32));
        reaped.code.map_or_else(signal, Self::Code)
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

/// All that the decision rests on.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct Facts {
    pub(crate) exit: Exit,
    pub(crate) stop: Option<StopCause>,
    /// A signal or a message to save or stop reached the program.
    pub(crate) was_notified: bool,
    /// What the program said of itself.
    pub(crate) from_program: ProgramReport,
    /// What its last line tells.
    pub(crate) failure_class: FailureClass,
    /// A log policy forbids another attempt after a crash.
    pub(crate) stop_restarting: Option<String>,
    /// This node is not to be used again, or a process could not be killed: another attempt goes through the queue.
    pub(crate) leave_node: bool,
    /// The kernel killed for want of memory while it ran.
    pub(crate) oom: bool,
    /// A new checkpoint was committed.
    pub(crate) progress: bool,
    /// Crashes before, and how many are allowed.
    pub(crate) crashes: Budget,
    /// Hangs since the last new checkpoint.
    pub(crate) hangs: Budget,
    /// Attempts right before without a new checkpoint, and how many in a row end the trial; 0 allows any number.
    pub(crate) stuck: Budget,
    /// The experiment's time is over.
    pub(crate) over: bool,
    /// For people: how the program ended.
    pub(crate) summary: String,
}

/// What a program said by messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgramReport {
    /// All is done.
    pub(crate) finished: bool,
    /// It wants to be requeued.
    pub(crate) requeue: bool,
    /// Its parameters make no sense, and why.
    pub(crate) invalid: Option<String>,
}

/// What was used, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
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

/// Decides.
pub(crate) fn decide(facts: &Facts) -> AttemptVerdict {
    let (cause, next, why) = cause_and_next(facts);
    let mut reason =
        if why.is_empty() { facts.summary.clone() } else { format!("{why}: {}", facts.summary) };
    if facts.exit == Exit::Code(0) && next != Next::Done && !facts.progress {
        reason.push_str("; exit code 0 after a save request is not success (`FINISHED=1` is)");
    }
    let verdict =
        |next, more: String| AttemptVerdict { cause, next, reason: format!("{reason}{more}") };
    if !matches!(next, Next::Requeue | Next::Restart) || facts.stop == Some(StopCause::Superseded) {
        return verdict(next, String::new());
    }
    let next = if facts.leave_node { Next::Requeue } else { next };
    if facts.over {
        return verdict(Next::Timeout, "; the experiment's time is over".to_owned());
    }
    let stuck = facts.stuck.used + 1;
    // A pause is nobody's failure, and an attempt that left its node tried nothing.
    let left = matches!(facts.exit, Exit::NotStarted(_)) && facts.from_program.requeue;
    let is_stuck = !facts.progress && cause != Cause::Paused && !left;
    if is_stuck && facts.stuck.limit > 0 && stuck >= facts.stuck.limit {
        let attempts = if stuck == 1 { "1 attempt" } else { &format!("{stuck} attempts in a row") };
        return verdict(
            Next::Failed,
            format!("; given up after {attempts} without a new checkpoint"),
        );
    }
    verdict(next, String::new())
}

fn cause_and_next(facts: &Facts) -> (Cause, Next, String) {
    let verdict = |cause, next, why: &str| (cause, next, why.to_owned());
    if facts.stop == Some(StopCause::Superseded) {
        return verdict(Cause::Superseded, Next::Requeue, "a later attempt has taken over");
    }
    let is_done = !facts.was_notified || facts.from_program.finished;
    match &facts.exit {
        Exit::StartFailed(_) => return verdict(Cause::Failed, Next::Failed, ""),
        Exit::Code(0) if is_done && !facts.from_program.requeue => {
            return verdict(Cause::Completed, Next::Done, "");
        }
        Exit::Code(_) | Exit::Signal(_) | Exit::NotStarted(_) => {}
    }
    // Slurm may not have said yet why the program was killed; where it did, that counts.
    let by_itself = matches!(facts.stop, None | Some(StopCause::Unknown));
    let killed_for_memory = facts.oom && matches!(facts.exit, Exit::Signal(9) | Exit::Code(137));
    let is_memory =
        killed_for_memory || (facts.failure_class == FailureClass::Memory && facts.stop.is_none());
    if is_memory && by_itself {
        let (_, next, why) = crash(facts);
        // Unchanged it would end the same, unless it came further than before.
        let next = if facts.progress { next } else { Next::Failed };
        return (Cause::OutOfMemory, next, joined("out of memory", &why));
    }
    if facts.stop == Some(StopCause::Cancelled) {
        return verdict(Cause::Cancelled, Next::Cancelled, "cancelled");
    }
    if facts.exit == Exit::Code(EXIT_NEVER) {
        return verdict(Cause::Failed, Next::Failed, "the program asked not to be restarted");
    }
    if let Some(why) = &facts.from_program.invalid {
        return (Cause::Failed, Next::Failed, format!("invalid hyperparameters: {why}"));
    }
    let (cause, next, why) = match facts.stop {
        Some(StopCause::Preempted) => (Cause::Preempted, Next::Requeue, "preempted"),
        Some(StopCause::TimeLimit) => (Cause::TimeLimit, Next::Requeue, "the time limit was near"),
        Some(StopCause::Deadline) => {
            (Cause::TimeLimit, Next::Timeout, "the experiment's time is over")
        }
        Some(StopCause::Requeued) => {
            (Cause::Preempted, Next::Requeue, "the job had been requeued already")
        }
        Some(StopCause::Unknown) => {
            (Cause::Preempted, Next::Requeue, "stopped, and Slurm did not say why")
        }
        Some(StopCause::Hung) if facts.hangs.used < facts.hangs.limit => {
            (Cause::Hung, Next::Restart, "it gave no sign of life")
        }
        Some(StopCause::Hung) => {
            (Cause::Hung, Next::Failed, "it gave no sign of life, again without a new checkpoint")
        }
        Some(StopCause::ProgramRequestedRequeue) => {
            (Cause::Restart, Next::Requeue, "saved, to be requeued")
        }
        Some(StopCause::Paused) => (Cause::Paused, Next::Requeue, "paused"),
        None | Some(StopCause::Cancelled | StopCause::Superseded) => return by_exit(facts),
    };
    verdict(cause, next, why)
}

fn joined(why: &str, more: &str) -> String {
    if more.is_empty() { why.to_owned() } else { format!("{why}; {more}") }
}

/// The program ended by itself.
fn by_exit(facts: &Facts) -> (Cause, Next, String) {
    let verdict = |cause, next, why: &str| (cause, next, why.to_owned());
    match facts.exit {
        Exit::Code(EXIT_RESTART) => {
            verdict(Cause::Restart, Next::Restart, "saved, to be started again")
        }
        // It was asked to save, and ended: that says nothing of success.
        Exit::Code(0) if !facts.from_program.requeue => {
            verdict(Cause::Restart, Next::Restart, "saved on request, to be started again")
        }
        Exit::Code(EXIT_REQUEUE) => verdict(Cause::Restart, Next::Requeue, "saved, to be requeued"),
        _ if facts.from_program.requeue => {
            verdict(Cause::Restart, Next::Requeue, "saved, to be requeued")
        }
        // The node could not give what an attempt needs.
        Exit::NotStarted(_) => verdict(Cause::NodeFailure, Next::Requeue, ""),
        Exit::Code(126 | 127) if facts.failure_class == FailureClass::Machine => {
            verdict(Cause::NodeFailure, Next::Requeue, "this machine could not start it now")
        }
        // The shell could not find or not run a program: that is the same everywhere.
        Exit::Code(126 | 127) => verdict(Cause::Failed, Next::Failed, ""),
        Exit::Code(_) if facts.failure_class == FailureClass::Configuration => {
            verdict(Cause::Failed, Next::Failed, "another attempt would fail the same way")
        }
        Exit::Code(_) | Exit::Signal(_) | Exit::StartFailed(_) => crash(facts),
    }
}

fn crash(facts: &Facts) -> (Cause, Next, String) {
    if let Some(policy) = &facts.stop_restarting {
        let why = format!("log policy `{policy}` forbids another attempt");
        return (Cause::Failed, Next::Failed, why);
    }
    let is_left = facts.crashes.used < facts.crashes.limit;
    (Cause::Failed, if is_left { Next::Restart } else { Next::Failed }, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use StopCause::{
        Cancelled, Deadline, Hung, Paused, Preempted, ProgramRequestedRequeue, Requeued,
        Superseded, TimeLimit, Unknown,
    };

    fn facts(exit: Exit, stop: Option<StopCause>) -> Facts {
        let was_notified = stop.is_some();
        let crashes = Budget { used: 0, limit: 1 };
        let hangs = Budget { used: 0, limit: 1 };
        let stuck = Budget { used: 0, limit: 3 };
        let (oom, progress, over) = (false, false, false);
        Facts {
            exit,
            stop,
            was_notified,
            from_program: ProgramReport::default(),
            failure_class: FailureClass::Unknown,
            stop_restarting: None,
            leave_node: false,
            oom,
            progress,
            crashes,
            hangs,
            stuck,
            over,
            summary: "it ended".into(),
        }
    }

    #[track_caller]
    fn check(facts: &Facts, expected: &str) {
        let verdict = decide(facts);
        assert_eq!(format!("{:?} {:?}", verdict.cause, verdict.next), expected, "{verdict:?}");
    }

    #[test]
    fn without_a_stop_the_program_decides() {
        check(&facts(Exit::Code(0), None), "Completed Done");
        check(&Facts { was_notified: true, ..facts(Exit::Code(0), None) }, "Restart Restart");
        check(&facts(Exit::Code(85), None), "Restart Restart");
        check(&facts(Exit::Code(75), None), "Restart Requeue");
        check(&facts(Exit::Code(93), None), "Failed Failed");
        check(&facts(Exit::Code(127), None), "Failed Failed");
        let busy = Facts { failure_class: FailureClass::Machine, ..facts(Exit::Code(126), None) };
        check(&busy, "NodeFailure Requeue");
        check(&Facts { stuck: Budget { used: 2, limit: 3 }, ..busy }, "NodeFailure Failed");
        check(&facts(Exit::StartFailed("no".into()), None), "Failed Failed");
        check(&facts(Exit::NotStarted("a disk".into()), None), "NodeFailure Requeue");
        check(&facts(Exit::Code(1), None), "Failed Restart");
        check(&facts(Exit::Signal(11), None), "Failed Restart");
        let spent = Budget { used: 1, limit: 1 };
        check(&Facts { crashes: spent, ..facts(Exit::Code(1), None) }, "Failed Failed");
    }

    #[test]
    fn a_stop_decides_and_not_the_exit_code() {
        for code in [0, 1, 75, 85, 143] {
            check(&facts(Exit::Code(code), Some(Preempted)), "Preempted Requeue");
            check(&facts(Exit::Code(code), Some(TimeLimit)), "TimeLimit Requeue");
            check(&facts(Exit::Code(code), Some(Deadline)), "TimeLimit Timeout");
            check(&facts(Exit::Code(code), Some(Cancelled)), "Cancelled Cancelled");
            check(&facts(Exit::Code(code), Some(Requeued)), "Preempted Requeue");
            check(&facts(Exit::Code(code), Some(Unknown)), "Preempted Requeue");
            check(&facts(Exit::Code(code), Some(Superseded)), "Superseded Requeue");
            let stuck = Budget { used: 2, limit: 3 };
            let paused = Facts { stuck, ..facts(Exit::Code(code), Some(Paused)) };
            check(&paused, "Paused Requeue");
        }
        check(&facts(Exit::Signal(9), Some(Preempted)), "Preempted Requeue");
        let not_yet = || Exit::NotStarted(String::new());
        check(&facts(not_yet(), Some(Preempted)), "Preempted Requeue");
        check(&facts(not_yet(), Some(Cancelled)), "Cancelled Cancelled");
        check(&facts(Exit::Code(93), Some(Preempted)), "Failed Failed");
        check(&facts(Exit::Code(93), Some(Cancelled)), "Cancelled Cancelled");
    }

    #[test]
    fn exit_0_is_success_where_no_signal_reached_the_program() {
        for stop in [Preempted, TimeLimit, Deadline, Cancelled, Unknown] {
            check(
                &Facts { was_notified: false, ..facts(Exit::Code(0), Some(stop)) },
                "Completed Done",
            );
        }
        check(
            &Facts { was_notified: false, ..facts(Exit::Code(0), Some(Superseded)) },
            "Superseded Requeue",
        );
    }

    #[test]
    fn out_of_memory_is_not_tried_again() {
        check(&Facts { oom: true, ..facts(Exit::Signal(9), None) }, "OutOfMemory Failed");
        check(&Facts { oom: true, ..facts(Exit::Code(137), None) }, "OutOfMemory Failed");
        check(&Facts { oom: true, ..facts(Exit::Code(0), None) }, "Completed Done");
        check(&Facts { oom: true, ..facts(Exit::Code(1), None) }, "Failed Restart");
        for stop in [Preempted, TimeLimit, Paused, Cancelled] {
            let stopped = facts(Exit::Signal(9), Some(stop));
            assert_eq!(
                decide(&Facts { oom: true, ..stopped.clone() }),
                decide(&stopped),
                "{stop:?}"
            );
        }
        let gpu = Facts { failure_class: FailureClass::Memory, ..facts(Exit::Code(1), None) };
        check(&gpu, "OutOfMemory Failed");
        check(&Facts { progress: true, ..gpu.clone() }, "OutOfMemory Restart");
        let spent = Budget { used: 1, limit: 1 };
        check(&Facts { progress: true, crashes: spent, ..gpu }, "OutOfMemory Failed");
    }

    #[test]
    fn what_the_program_said_counts() {
        let said =
            |from_program: ProgramReport, exit, stop| Facts { from_program, ..facts(exit, stop) };
        let finished = || ProgramReport { finished: true, ..ProgramReport::default() };
        check(&said(finished(), Exit::Code(0), Some(Preempted)), "Completed Done");
        check(&said(finished(), Exit::Code(1), Some(Preempted)), "Preempted Requeue");
        check(&said(finished(), Exit::Code(1), None), "Failed Restart");
        let requeue = || ProgramReport { requeue: true, ..ProgramReport::default() };
        check(&said(requeue(), Exit::Code(0), None), "Restart Requeue");
        check(&said(requeue(), Exit::Signal(15), Some(ProgramRequestedRequeue)), "Restart Requeue");
        check(&said(requeue(), Exit::Code(0), Some(Cancelled)), "Cancelled Cancelled");
        let unsaid = facts(Exit::Code(0), Some(TimeLimit));
        assert!(decide(&unsaid).reason.ends_with("does not mean done (`FINISHED=1` does)"));
        let saved = Facts { progress: true, ..unsaid };
        assert!(!decide(&saved).reason.contains("FINISHED"));
        let invalid = ProgramReport { invalid: Some("width 0".into()), ..ProgramReport::default() };
        check(&said(invalid, Exit::Code(1), None), "Failed Failed");
    }

    #[test]
    fn a_hang_is_restarted_once() {
        let hung = facts(Exit::Signal(15), Some(Hung));
        check(&hung, "Hung Restart");
        check(&Facts { leave_node: true, ..hung.clone() }, "Hung Requeue");
        check(&Facts { hangs: Budget { used: 1, limit: 1 }, ..hung }, "Hung Failed");
    }

    #[test]
    fn a_crash_that_would_come_again_is_not_tried_again() {
        let crash = facts(Exit::Code(1), None);
        check(
            &Facts { failure_class: FailureClass::Configuration, ..crash.clone() },
            "Failed Failed",
        );
        check(&Facts { leave_node: true, ..crash.clone() }, "Failed Requeue");
        let policy = Facts { stop_restarting: Some("ECC".into()), ..crash };
        check(&policy, "Failed Failed");
        assert!(decide(&policy).reason.contains("`ECC`"));
        check(&Facts { stop: Some(Preempted), ..policy }, "Preempted Requeue");
    }

    #[test]
    fn no_progress_and_no_time_end_every_loop() {
        let stuck = Budget { used: 2, limit: 3 };
        for (exit, stop) in [
            (Exit::Code(85), None),
            (Exit::Code(75), None),
            (Exit::Code(1), None),
            (Exit::Signal(9), Some(Preempted)),
            (Exit::Code(0), Some(TimeLimit)),
        ] {
            let facts = Facts { stuck, ..facts(exit, stop) };
            assert_eq!(decide(&facts).next, Next::Failed, "{facts:?}");
            assert!(decide(&facts).reason.contains("3 attempts in a row"));
            let moved = Facts { progress: true, ..facts.clone() };
            assert!(matches!(decide(&moved).next, Next::Requeue | Next::Restart));
            assert_eq!(decide(&Facts { over: true, ..moved }).next, Next::Timeout);
            let any = Facts { stuck: Budget { used: 99, limit: 0 }, ..facts };
            assert!(matches!(decide(&any).next, Next::Requeue | Next::Restart));
        }
    }
}
