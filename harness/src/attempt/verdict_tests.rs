//! Facts, and the decisions that follow from them.

use super::*;
use StopCause::{
    Cancelled, Deadline, FolderRemoved, Hung, Paused, Preempted, ProgramRequestedRequeue, Requeued,
    Superseded, TimeLimit, Unknown,
};

fn facts(exit: Exit, stop: Option<StopCause>) -> AttemptFacts {
    let was_notified = stop.is_some();
    let crashes = RestartBudget { used: 0, limit: 1 };
    let hangs = RestartBudget { used: 0, limit: 1 };
    let stuck = RestartBudget { used: 0, limit: 3 };
    let (oom, progress, over) = (false, false, false);
    AttemptFacts {
        exit,
        stop,
        was_notified,
        from_program: ProgramReport::default(),
        failure_class: FailureClass::Unknown,
        stop_restarting: None,
        leave_node: false,
        had_no_room: false,
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
fn check(facts: &AttemptFacts, expected: &str) {
    let verdict = decide(facts);
    assert_eq!(format!("{:?} {:?}", verdict.cause, verdict.next), expected, "{verdict:?}");
}

#[test]
fn without_a_stop_the_program_decides() {
    check(&facts(Exit::Code(0), None), "Completed Done");
    check(&AttemptFacts { was_notified: true, ..facts(Exit::Code(0), None) }, "Restart Restart");
    check(&facts(Exit::Code(85), None), "Restart Restart");
    check(&facts(Exit::Code(75), None), "Restart Requeue");
    check(&facts(Exit::Code(93), None), "Failed Failed");
    check(&facts(Exit::Code(127), None), "Failed Failed");
    let busy =
        AttemptFacts { failure_class: FailureClass::Machine, ..facts(Exit::Code(126), None) };
    check(&busy, "NodeFailure Requeue");
    check(
        &AttemptFacts { stuck: RestartBudget { used: 2, limit: 3 }, ..busy },
        "NodeFailure Failed",
    );
    check(&facts(Exit::StartFailed("no".into()), None), "Failed Failed");
    check(&facts(Exit::NotStarted("a disk".into()), None), "NodeFailure Requeue");
    check(&facts(Exit::Code(1), None), "Failed Restart");
    check(&facts(Exit::Signal(11), None), "Failed Restart");
    let spent = RestartBudget { used: 1, limit: 1 };
    check(&AttemptFacts { crashes: spent, ..facts(Exit::Code(1), None) }, "Failed Failed");
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
        check(&facts(Exit::Code(code), Some(FolderRemoved)), "Cancelled Failed");
        let stuck = RestartBudget { used: 2, limit: 3 };
        let paused = AttemptFacts { stuck, ..facts(Exit::Code(code), Some(Paused)) };
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
            &AttemptFacts { was_notified: false, ..facts(Exit::Code(0), Some(stop)) },
            "Completed Done",
        );
    }
    check(
        &AttemptFacts { was_notified: false, ..facts(Exit::Code(0), Some(Superseded)) },
        "Superseded Requeue",
    );
}

#[test]
fn a_crash_beside_a_full_memory_is_followed_by_one_attempt_on_the_disk() {
    let none = RestartBudget { used: 0, limit: 0 };
    let full = |exit, stop| AttemptFacts { had_no_room: true, crashes: none, ..facts(exit, stop) };
    check(&full(Exit::Code(1), None), "Failed Restart");
    check(
        &AttemptFacts { stuck: RestartBudget { used: 0, limit: 1 }, ..full(Exit::Signal(7), None) },
        "Failed Restart",
    );
    check(&AttemptFacts { oom: true, ..full(Exit::Signal(9), None) }, "OutOfMemory Restart");
    check(&full(Exit::Code(0), None), "Completed Done");
    check(&full(Exit::Code(93), None), "Failed Failed");
    let mistake = FailureClass::Configuration;
    check(&AttemptFacts { failure_class: mistake, ..full(Exit::Code(1), None) }, "Failed Failed");
    check(
        &AttemptFacts { stop_restarting: Some("nan".into()), ..full(Exit::Code(1), None) },
        "Failed Failed",
    );
    check(&full(Exit::Code(1), Some(Preempted)), "Preempted Requeue");
}

#[test]
fn out_of_memory_is_not_tried_again() {
    check(&AttemptFacts { oom: true, ..facts(Exit::Signal(9), None) }, "OutOfMemory Failed");
    check(&AttemptFacts { oom: true, ..facts(Exit::Code(137), None) }, "OutOfMemory Failed");
    check(&AttemptFacts { oom: true, ..facts(Exit::Code(0), None) }, "Completed Done");
    check(&AttemptFacts { oom: true, ..facts(Exit::Code(1), None) }, "Failed Restart");
    for stop in [Preempted, TimeLimit, Paused, Cancelled] {
        let stopped = facts(Exit::Signal(9), Some(stop));
        assert_eq!(
            decide(&AttemptFacts { oom: true, ..stopped.clone() }),
            decide(&stopped),
            "{stop:?}"
        );
    }
    let gpu = AttemptFacts { failure_class: FailureClass::Memory, ..facts(Exit::Code(1), None) };
    check(&gpu, "OutOfMemory Failed");
    check(&AttemptFacts { progress: true, ..gpu.clone() }, "OutOfMemory Restart");
    let spent = RestartBudget { used: 1, limit: 1 };
    check(&AttemptFacts { progress: true, crashes: spent, ..gpu }, "OutOfMemory Failed");
}

#[test]
fn what_the_program_said_counts() {
    let said = |from_program: ProgramReport, exit, stop| AttemptFacts {
        from_program,
        ..facts(exit, stop)
    };
    let finished = || ProgramReport { finished: true, ..ProgramReport::default() };
    check(&said(finished(), Exit::Code(0), Some(Preempted)), "Completed Done");
    check(&said(finished(), Exit::Code(1), Some(Preempted)), "Preempted Requeue");
    check(&said(finished(), Exit::Code(1), None), "Failed Restart");
    let requeue = || ProgramReport { requeue: true, ..ProgramReport::default() };
    check(&said(requeue(), Exit::Code(0), None), "Restart Requeue");
    check(&said(requeue(), Exit::Signal(15), Some(ProgramRequestedRequeue)), "Restart Requeue");
    check(&said(requeue(), Exit::Code(0), Some(Cancelled)), "Cancelled Cancelled");
    let unsaid = facts(Exit::Code(0), Some(TimeLimit));
    assert!(decide(&unsaid).reason.ends_with("is not success (`FINISHED=1` is)"));
    let saved = AttemptFacts { progress: true, ..unsaid };
    assert!(!decide(&saved).reason.contains("FINISHED"));
    let invalid = ProgramReport { invalid: Some("width 0".into()), ..ProgramReport::default() };
    check(&said(invalid, Exit::Code(1), None), "Failed Failed");
}

#[test]
fn a_hang_is_restarted_once() {
    let hung = facts(Exit::Signal(15), Some(Hung));
    check(&hung, "Hung Restart");
    check(&AttemptFacts { leave_node: true, ..hung.clone() }, "Hung Requeue");
    check(&AttemptFacts { hangs: RestartBudget { used: 1, limit: 1 }, ..hung }, "Hung Failed");
}

#[test]
fn a_crash_that_would_come_again_is_not_tried_again() {
    let crash = facts(Exit::Code(1), None);
    check(
        &AttemptFacts { failure_class: FailureClass::Configuration, ..crash.clone() },
        "Failed Failed",
    );
    check(&AttemptFacts { leave_node: true, ..crash.clone() }, "Failed Requeue");
    let policy = AttemptFacts { stop_restarting: Some("ECC".into()), ..crash };
    check(&policy, "Failed Failed");
    assert!(decide(&policy).reason.contains("`ECC`"));
    check(&AttemptFacts { stop: Some(Preempted), ..policy }, "Preempted Requeue");
}

#[test]
fn no_progress_and_no_time_end_every_loop() {
    let stuck = RestartBudget { used: 2, limit: 3 };
    for (exit, stop) in [
        (Exit::Code(85), None),
        (Exit::Code(75), None),
        (Exit::Code(1), None),
        (Exit::Signal(9), Some(Preempted)),
        (Exit::Code(0), Some(TimeLimit)),
    ] {
        let facts = AttemptFacts { stuck, ..facts(exit, stop) };
        assert_eq!(decide(&facts).next, Next::Failed, "{facts:?}");
        assert!(decide(&facts).reason.contains("3 attempts in a row"));
        let moved = AttemptFacts { progress: true, ..facts.clone() };
        assert!(matches!(decide(&moved).next, Next::Requeue | Next::Restart));
        assert_eq!(decide(&AttemptFacts { over: true, ..moved }).next, Next::Timeout);
        let any = AttemptFacts { stuck: RestartBudget { used: 99, limit: 0 }, ..facts };
        assert!(matches!(decide(&any).next, Next::Requeue | Next::Restart));
    }
}
