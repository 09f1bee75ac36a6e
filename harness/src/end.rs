//! Decides how an attempt ended and what follows. Pure.
//!
//! In order: a later attempt has taken over; the program's own success; out of memory; cancelled; the program said
//! never again (93); the stop's cause; the program's wishes (85, 75); a crash. An exit code 0 is success unless a
//! signal reached the program before: then it says only that the program ended as it was told to.

use nemo_harness::rundir::{Cause, Next};

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
    Never(String),
}

/// All that the decision rests on.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four facts that don't depend on each other")]
pub(crate) struct Facts {
    pub(crate) exit: Exit,
    pub(crate) stop: Option<StopCause>,
    /// A signal reached the program.
    pub(crate) told: bool,
    /// The kernel killed for want of memory while it ran.
    pub(crate) oom: bool,
    /// A new checkpoint was committed.
    pub(crate) progress: bool,
    /// Crashes before, and how many are allowed.
    pub(crate) crashes: Budget,
    /// Attempts right before without a new checkpoint, and how many in a row end the trial; 0 allows any number.
    pub(crate) stuck: Budget,
    /// The experiment's time is over.
    pub(crate) over: bool,
    /// For people: how the program ended.
    pub(crate) story: String,
}

/// What was used, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) used: u32,
    pub(crate) limit: u32,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) cause: Cause,
    pub(crate) next: Next,
    pub(crate) reason: String,
}

/// Decides.
pub(crate) fn decide(facts: &Facts) -> Verdict {
    let (cause, next, why) = cause_and_next(facts);
    let reason =
        if why.is_empty() { facts.story.clone() } else { format!("{why}: {}", facts.story) };
    let verdict = |next, more: String| Verdict { cause, next, reason: format!("{reason}{more}") };
    if !matches!(next, Next::Requeue | Next::Restart) || facts.stop == Some(StopCause::Superseded) {
        return verdict(next, String::new());
    }
    if facts.over {
        return verdict(Next::Timeout, "; the experiment's time is over".to_owned());
    }
    let stuck = facts.stuck.used + 1;
    if !facts.progress && facts.stuck.limit > 0 && stuck >= facts.stuck.limit {
        let attempts = if stuck == 1 { "1 attempt" } else { &format!("{stuck} attempts in a row") };
        return verdict(
            Next::Failed,
            format!("; given up after {attempts} without a new checkpoint"),
        );
    }
    verdict(next, String::new())
}

fn cause_and_next(facts: &Facts) -> (Cause, Next, &'static str) {
    if facts.stop == Some(StopCause::Superseded) {
        return (Cause::Superseded, Next::Requeue, "a later attempt has taken over");
    }
    match &facts.exit {
        Exit::Never(_) => return (Cause::Failed, Next::Failed, ""),
        Exit::Code(0) if !facts.told => return (Cause::Completed, Next::Done, ""),
        Exit::Code(0) if facts.stop.is_none() => return (Cause::Completed, Next::Done, ""),
        Exit::Code(_) | Exit::Signal(_) => {}
    }
    if facts.oom && matches!(facts.exit, Exit::Signal(9) | Exit::Code(137)) {
        return (Cause::OutOfMemory, Next::Failed, "out of memory");
    }
    if facts.stop == Some(StopCause::Cancelled) {
        return (Cause::Cancelled, Next::Cancelled, "cancelled");
    }
    if facts.exit == Exit::Code(EXIT_NEVER) {
        return (Cause::Failed, Next::Failed, "the program asked never to be restarted");
    }
    match facts.stop {
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
        None | Some(StopCause::Cancelled | StopCause::Superseded) => by_exit(facts),
    }
}

/// The program ended by itself.
fn by_exit(facts: &Facts) -> (Cause, Next, &'static str) {
    match facts.exit {
        Exit::Code(EXIT_RESTART) => (Cause::Restart, Next::Restart, "saved, to be started again"),
        Exit::Code(EXIT_REQUEUE) => (Cause::Restart, Next::Requeue, "saved, to be requeued"),
        // The shell could not find or not run a program: that is the same everywhere.
        Exit::Code(126 | 127) => (Cause::Failed, Next::Failed, ""),
        Exit::Code(_) | Exit::Signal(_) | Exit::Never(_) => {
            let next =
                if facts.crashes.used < facts.crashes.limit { Next::Restart } else { Next::Failed };
            (Cause::Failed, next, "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StopCause::{Cancelled, Deadline, Preempted, Requeued, Superseded, TimeLimit, Unknown};

    fn facts(exit: Exit, stop: Option<StopCause>) -> Facts {
        let told = stop.is_some();
        let crashes = Budget { used: 0, limit: 1 };
        let stuck = Budget { used: 0, limit: 3 };
        let (oom, progress, over) = (false, false, false);
        Facts { exit, stop, told, oom, progress, crashes, stuck, over, story: "it ended".into() }
    }

    #[track_caller]
    fn check(facts: &Facts, expected: &str) {
        let verdict = decide(facts);
        assert_eq!(format!("{:?} {:?}", verdict.cause, verdict.next), expected, "{verdict:?}");
    }

    #[test]
    fn without_a_stop_the_program_decides() {
        check(&facts(Exit::Code(0), None), "Completed Done");
        check(&Facts { told: true, ..facts(Exit::Code(0), None) }, "Completed Done");
        check(&facts(Exit::Code(85), None), "Restart Restart");
        check(&facts(Exit::Code(75), None), "Restart Requeue");
        check(&facts(Exit::Code(93), None), "Failed Failed");
        check(&facts(Exit::Code(127), None), "Failed Failed");
        check(&facts(Exit::Never("no".into()), None), "Failed Failed");
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
        }
        check(&facts(Exit::Signal(9), Some(Preempted)), "Preempted Requeue");
        check(&facts(Exit::Code(93), Some(Preempted)), "Failed Failed");
        check(&facts(Exit::Code(93), Some(Cancelled)), "Cancelled Cancelled");
    }

    #[test]
    fn exit_0_is_success_where_no_signal_reached_the_program() {
        for stop in [Preempted, TimeLimit, Deadline, Cancelled, Unknown] {
            check(&Facts { told: false, ..facts(Exit::Code(0), Some(stop)) }, "Completed Done");
        }
        check(
            &Facts { told: false, ..facts(Exit::Code(0), Some(Superseded)) },
            "Superseded Requeue",
        );
    }

    #[test]
    fn out_of_memory_is_not_tried_again() {
        check(&Facts { oom: true, ..facts(Exit::Signal(9), None) }, "OutOfMemory Failed");
        check(&Facts { oom: true, ..facts(Exit::Code(137), None) }, "OutOfMemory Failed");
        check(&Facts { oom: true, ..facts(Exit::Code(0), None) }, "Completed Done");
        check(&Facts { oom: true, ..facts(Exit::Code(1), None) }, "Failed Restart");
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
