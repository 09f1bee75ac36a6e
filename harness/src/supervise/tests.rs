//! Stories: events at seconds, and the actions that they lead to.

use super::AttemptEvent::{
    Cancel, Exited, FolderRemoved, Hung, Pause, Preempt, ProgramRequestedRequeue, SaveRequested,
    Settled, SlurmAnswered, Superseded, Term, Tick, Usr1,
};
use super::*;

/// Something is committed that was written at this second.
fn committed(at: u64) -> AttemptEvent {
    AttemptEvent::Committed { at: Duration::from_secs(at) }
}

const HEARD: AttemptEvent = SaveRequested { is_caught: true };
const DEAF: AttemptEvent = SaveRequested { is_caught: false };
const EXIT: AttemptEvent = Exited { signal: None };

fn slurm() -> Supervisor {
    let seconds = Duration::from_secs;
    let (lead, kill_wait) = (seconds(60), seconds(30));
    let policy = Policy {
        local: false,
        lead,
        kill_wait,
        experiment_end: None,
        trains_on: false,
        saves_by_itself: false,
    };
    Supervisor::new(policy, None)
}

fn local(segment_end: Option<u64>, experiment_end: Option<u64>) -> Supervisor {
    let policy = Policy {
        local: true,
        experiment_end: experiment_end.map(Duration::from_secs),
        ..slurm().policy
    };
    Supervisor::new(policy, segment_end.map(Duration::from_secs))
}

fn job(stop: Option<StopCause>, end: u64) -> AttemptEvent {
    SlurmAnswered(SlurmAnswer::Job { stop, end: Some(Duration::from_secs(end)) })
}

fn play(supervisor: &mut Supervisor, story: &[(u64, AttemptEvent)]) -> String {
    let mut log = Vec::new();
    for &(at, event) in story {
        for action in supervisor.step(event, Duration::from_secs(at)) {
            log.push(format!("{at}:{action:?}"));
        }
    }
    log.join(" ")
}

#[track_caller]
fn check(mut supervisor: Supervisor, story: &[(u64, AttemptEvent)], expected: &str) -> Supervisor {
    assert_eq!(play(&mut supervisor, story), expected);
    supervisor
}

#[test]
fn a_program_that_ends_by_itself() {
    let over = check(slurm(), &[(5, EXIT), (6, Settled)], "5:Settle 6:Decide");
    assert_eq!((over.stop(), over.was_notified()), (None, false));
    check(local(None, None), &[(5, Exited { signal: Some(9) }), (6, Settled)], "5:Settle 6:Decide");
}

#[test]
fn a_program_that_trains_on_is_told_to_end_once_it_has_saved() {
    let trains_on = || {
        let supervisor = slurm();
        Supervisor::new(Policy { trains_on: true, ..supervisor.policy }, None)
    };
    let stop = job(Some(StopCause::Preempted), 65);
    // What was written before the request, and is committed only now, does not answer it.
    let told = [
        (4, committed(3)),
        (5, Usr1),
        (5, HEARD),
        (6, stop),
        (7, committed(4)),
        (8, committed(8)),
        (9, EXIT),
    ];
    let expected = "5:RequestSave 5:QuerySlurm 8:Terminate 9:QuerySlurm 9:Settle";
    check(trains_on(), &told, expected);
    check(slurm(), &told, "5:RequestSave 5:QuerySlurm 9:QuerySlurm 9:Settle");
    let late = [(5, Usr1), (5, HEARD), (6, committed(6)), (7, stop)];
    check(trains_on(), &late, "5:RequestSave 5:QuerySlurm 7:Terminate");
    // A mere request to save: it goes on.
    let mere = [(5, Usr1), (5, HEARD), (6, committed(6)), (7, job(None, 900)), (8, Tick)];
    check(trains_on(), &mere, "5:RequestSave 5:QuerySlurm");
}

#[test]
fn a_preemption_with_grace() {
    let story = [
        (5, Usr1),
        (5, HEARD),
        (5, Usr1),
        (5, job(Some(StopCause::Preempted), 65)),
        (20, Usr1),
        (45, Tick),
        (50, Tick),
        (59, Tick),
        (60, Tick),
        (61, Tick),
        (62, Exited { signal: Some(9) }),
        (63, Settled),
        (64, job(Some(StopCause::Preempted), 65)),
    ];
    let over = check(
        slurm(),
        &story,
        "5:RequestSave 5:QuerySlurm 5:QuerySlurm 50:Terminate 60:Kill 61:Kill 62:QuerySlurm 62:Settle 64:Decide",
    );
    assert_eq!((over.stop(), over.was_notified()), (Some(StopCause::Preempted), true));
}

/// Who reads of its cancel is asked once to save, also if Slurm tells of it as well.
#[test]
fn a_cancel_is_told_twice_and_acted_on_once() {
    let silent = SlurmAnswered(SlurmAnswer::NoAnswer);
    let story = [(5, Cancel), (5, HEARD), (5, silent), (8, EXIT), (9, Settled)];
    let over = check(slurm(), &story, "5:RequestSave 5:QuerySlurm 8:Settle 9:Decide");
    assert_eq!((over.stop(), over.was_notified()), (Some(StopCause::Cancelled), true));
    let cancelled = job(Some(StopCause::Cancelled), 6);
    for [first, second] in [[Cancel, Term], [Term, Cancel]] {
        let told = [(5, first), (5, HEARD), (6, second)];
        let story = [&told[..], &[(6, cancelled), (8, EXIT), (9, Settled)]].concat();
        let expected = "5:RequestSave 5:QuerySlurm 6:QuerySlurm 8:Settle 9:Decide";
        let over = check(slurm(), &story, expected);
        assert_eq!(over.stop(), Some(StopCause::Cancelled), "{first:?}");
    }
}

#[test]
fn what_can_not_be_killed_does_not_outlast_the_deadline() {
    let story = [
        (5, Usr1),
        (5, HEARD),
        (5, job(Some(StopCause::Preempted), 65)),
        (50, Tick),
        (60, Tick),
        (64, Tick),
        (65, Tick),
    ];
    check(
        slurm(),
        &story,
        "5:RequestSave 5:QuerySlurm 50:Terminate 60:Kill 64:Kill 65:Kill 65:Settle 65:Decide",
    );
}

#[test]
fn a_hundred_requests_are_one() {
    let story: Vec<_> = std::iter::repeat_n((5, Usr1), 100).collect();
    // Each asks Slurm: the world folds questions, and an answer under way may be too old for the last.
    let expected = ["5:RequestSave", &" 5:QuerySlurm".repeat(100)].concat();
    check(slurm(), &story, &expected);
}

#[test]
fn a_mere_request_to_save_stops_nothing_and_can_come_again() {
    let story = [
        (5, Usr1),
        (5, HEARD),
        (5, job(None, 9999)),
        (99, Usr1),
        (99, HEARD),
        (99, job(None, 9999)),
        (100, EXIT),
        (100, Settled),
    ];
    let over = check(
        slurm(),
        &story,
        "5:RequestSave 5:QuerySlurm 99:RequestSave 99:QuerySlurm 100:Settle 100:Decide",
    );
    assert_eq!((over.stop(), over.was_notified()), (None, true));
}

#[test]
fn a_signal_that_nobody_catches_is_sent_again() {
    let story = [
        (5, Usr1),
        (5, DEAF),
        (5, job(Some(StopCause::TimeLimit), 100)),
        (6, Tick),
        (6, DEAF),
        (7, Tick),
        (7, HEARD),
        (8, Tick),
    ];
    check(slurm(), &story, "5:RequestSave 5:QuerySlurm 6:RequestSave 7:RequestSave");
}

#[test]
fn a_kill_is_near_and_nobody_catches_the_signal() {
    let story = [
        (5, Term),
        (5, DEAF),
        (5, job(Some(StopCause::Cancelled), 5)),
        (31, Tick),
        (32, Tick),
        (33, Exited { signal: Some(9) }),
        (33, Settled),
    ];
    let over = check(
        slurm(),
        &story,
        "5:RequestSave 5:QuerySlurm 5:Terminate 32:Kill 33:Settle 33:Decide",
    );
    assert_eq!(over.stop(), Some(StopCause::Cancelled));
}

#[test]
fn cancelled_while_it_saves_for_the_time_limit() {
    let story = [
        (5, Usr1),
        (5, HEARD),
        (5, job(Some(StopCause::TimeLimit), 100)),
        (20, Term),
        (20, job(Some(StopCause::Cancelled), 20)),
        (34, Tick),
        (35, Tick),
    ];
    let over = check(slurm(), &story, "5:RequestSave 5:QuerySlurm 20:QuerySlurm 35:Terminate");
    assert_eq!(over.stop(), Some(StopCause::Cancelled));
}

#[test]
fn a_term_of_which_slurm_knows_nothing_is_no_cancel() {
    let story =
        [(5, Term), (5, HEARD), (5, job(None, 900)), (6, EXIT), (6, Settled), (7, job(None, 900))];
    let over = check(slurm(), &story, "5:RequestSave 5:QuerySlurm 6:QuerySlurm 6:Settle 7:Decide");
    assert_eq!(over.stop(), Some(StopCause::Unknown));
}

#[test]
fn a_sentinel_that_is_faster_than_the_term() {
    let cancelled = job(Some(StopCause::Cancelled), 5);
    let story = [(5, Usr1), (5, Term), (5, HEARD), (5, cancelled), (5, cancelled)];
    let over = check(slurm(), &story, "5:RequestSave 5:QuerySlurm 5:RequestSave 5:QuerySlurm");
    assert_eq!(over.stop(), Some(StopCause::Cancelled));
}

#[test]
fn a_pause_stays_one_whatever_else_stops_the_job() {
    let story = [
        (5, Pause),
        (5, HEARD),
        (5, job(Some(StopCause::TimeLimit), 25)),
        (6, Pause),
        (8, EXIT),
        (8, Settled),
        (8, job(Some(StopCause::TimeLimit), 25)),
    ];
    let over = check(
        slurm(),
        &story,
        "5:RequestSave 5:QuerySlurm 6:QuerySlurm 8:QuerySlurm 8:Settle 8:Decide",
    );
    assert_eq!(over.stop(), Some(StopCause::Paused));
    assert_eq!(over.deadline(), Some(Duration::from_secs(25)));
    let cancelled = [(5, Pause), (6, Term), (6, job(Some(StopCause::Cancelled), 6))];
    let mut supervisor = slurm();
    play(&mut supervisor, &cancelled);
    assert_eq!(supervisor.stop(), Some(StopCause::Cancelled));
    let over = check(
        local(None, None),
        &[(5, Pause), (6, EXIT), (6, Settled)],
        "5:RequestSave 6:Settle 6:Decide",
    );
    assert_eq!(over.stop(), Some(StopCause::Paused));
}

#[test]
fn a_preemption_by_hand_stays_one_though_the_time_limit_is_near() {
    let limit = || job(Some(StopCause::TimeLimit), 25);
    for first in
        [vec![(5, Preempt), (5, HEARD)], vec![(5, Usr1), (5, HEARD), (5, limit()), (5, Preempt)]]
    {
        let mut supervisor = slurm();
        play(&mut supervisor, &first);
        play(&mut supervisor, &[(5, limit()), (8, EXIT), (8, Settled), (8, limit())]);
        assert_eq!(supervisor.stop(), Some(StopCause::Preempted));
        assert_eq!(supervisor.deadline(), Some(Duration::from_secs(25)));
    }
    let mut ends_meanwhile = local(Some(100), None);
    play(&mut ends_meanwhile, &[(39, Preempt), (41, Tick)]);
    assert_eq!(ends_meanwhile.stop(), Some(StopCause::Preempted));
    let mut paused_too = slurm();
    play(&mut paused_too, &[(5, Preempt), (6, Pause)]);
    assert_eq!(paused_too.stop(), Some(StopCause::Paused));
}

#[test]
fn slurms_word_is_sure_only_after_everything_else() {
    let preempted = job(Some(StopCause::Preempted), 65);
    let saved = [(5, Usr1), (5, HEARD), (5, preempted), (6, EXIT), (6, Settled)];
    let sure = |more: &[(u64, AttemptEvent)]| {
        let mut supervisor = slurm();
        play(&mut supervisor, &[saved.as_slice(), more].concat());
        (supervisor.has_confirmed_cause(), supervisor.stop())
    };
    assert!(!sure(&[]).0, "it was said before the end");
    assert_eq!(sure(&[(7, preempted)]), (true, Some(StopCause::Preempted)));
    assert!(!sure(&[(7, SlurmAnswered(SlurmAnswer::NoAnswer))]).0);
    let cancelled = job(Some(StopCause::Cancelled), 7);
    assert_eq!(sure(&[(7, Term), (7, cancelled)]), (true, Some(StopCause::Cancelled)));
    assert!(!sure(&[(7, Term)]).0, "it was signalled since");
}

#[test]
fn slurms_signal_is_faster_than_its_news() {
    let story =
        [(5, Exited { signal: Some(9) }), (5, Settled), (6, job(Some(StopCause::Preempted), 60))];
    let over = check(slurm(), &story, "5:QuerySlurm 5:Settle 6:Decide");
    assert_eq!((over.stop(), over.was_notified()), (Some(StopCause::Preempted), false));
}

/// The cause after a program that nobody asked anything was ended by a signal, some seconds before its time limit.
fn crashed_near_the_limit(signal: i32, seconds_left: u64) -> Option<StopCause> {
    let limit = job(Some(StopCause::TimeLimit), 5 + seconds_left);
    let story = [(5, Exited { signal: Some(signal) }), (5, Settled), (6, limit)];
    check(slurm(), &story, "5:QuerySlurm 5:Settle 6:Decide").stop()
}

#[test]
fn a_crash_before_the_time_limit_is_no_time_limit() {
    for signal in [6, 9, 11, 15] {
        assert_eq!(crashed_near_the_limit(signal, 57), None, "signal {signal}");
    }
    // Slurm's own end of the job sends these two, and no other.
    for signal in [9, 15] {
        assert_eq!(crashed_near_the_limit(signal, 2), Some(StopCause::TimeLimit));
    }
    for signal in [4, 6, 7, 8, 11] {
        assert_eq!(crashed_near_the_limit(signal, 0), None, "signal {signal}");
    }
}

#[test]
fn a_program_that_was_asked_may_end_in_any_way() {
    let limit = job(Some(StopCause::TimeLimit), 60);
    let ended = [(6, Exited { signal: Some(11) }), (6, Settled), (7, limit)];
    for asked in [vec![(5, Usr1), (5, HEARD)], vec![(5, Usr1), (5, HEARD), (5, limit)]] {
        let mut supervisor = slurm();
        play(&mut supervisor, &[asked.as_slice(), &ended].concat());
        assert_eq!(supervisor.stop(), Some(StopCause::TimeLimit));
    }
}

#[test]
fn a_commit_that_hangs_does_not_outlast_the_deadline() {
    check(
        slurm(),
        &[(5, Term), (5, HEARD), (6, EXIT), (34, Tick), (35, Tick)],
        "5:RequestSave 5:QuerySlurm 6:QuerySlurm 6:Settle 35:Decide",
    );
}

#[test]
fn a_local_time_limit_and_a_deadline() {
    let over = check(
        local(Some(100), None),
        &[(39, Tick), (40, Tick), (41, Tick), (41, HEARD), (85, Tick), (95, Tick)],
        "40:RequestSave 41:RequestSave 85:Terminate 95:Kill",
    );
    assert_eq!(over.stop(), Some(StopCause::TimeLimit));
    let over =
        check(local(Some(100), Some(90)), &[(30, Tick), (30, HEARD), (40, Tick)], "30:RequestSave");
    assert_eq!(over.stop(), Some(StopCause::Deadline));
}

#[test]
fn a_limit_that_was_extended() {
    let mut supervisor = slurm();
    supervisor.segment_end = Some(Duration::from_secs(100));
    let story = [
        (40, Tick),
        (41, Tick),
        (41, job(None, 500)),
        (42, Tick),
        (440, Tick),
        (440, job(Some(StopCause::TimeLimit), 500)),
    ];
    check(supervisor, &story, "40:QuerySlurm 440:QuerySlurm 440:RequestSave");
}

#[test]
fn a_superseded_attempt_leaves() {
    let over = check(
        slurm(),
        &[(5, Superseded), (7, Tick), (7, Term), (8, EXIT), (8, Settled), (8, job(None, 8))],
        "5:Terminate 7:Kill 7:QuerySlurm 8:Settle 8:Decide",
    );
    assert_eq!(over.stop(), Some(StopCause::Superseded));
}

#[test]
fn an_attempt_whose_folder_is_removed_ends_whatever_else_stops_it() {
    let story = [
        (5, FolderRemoved),
        (6, Term),
        (6, job(Some(StopCause::Preempted), 90)),
        (8, Tick),
        (8, EXIT),
        (8, Settled),
    ];
    let over = check(slurm(), &story, "5:Terminate 6:QuerySlurm 8:Kill 8:Settle 8:Decide");
    assert_eq!(over.stop(), Some(StopCause::FolderRemoved));
}

#[test]
fn nothing_happens_after_the_end() {
    let mut supervisor = slurm();
    play(&mut supervisor, &[(1, EXIT), (1, Settled)]);
    for event in [
        Usr1,
        Term,
        HEARD,
        DEAF,
        SlurmAnswered(SlurmAnswer::NoAnswer),
        EXIT,
        Settled,
        Superseded,
        Tick,
    ] {
        assert_eq!(supervisor.step(event, Duration::from_secs(9)), []);
    }
    assert_eq!(supervisor.next_tick(), supervisor.next_query_at);
}

#[test]
fn a_hang_is_ended_at_once() {
    let story = [(5, Hung), (9, Tick), (10, Tick), (10, EXIT), (11, Settled)];
    let over = check(slurm(), &story, "5:Terminate 10:Kill 10:Settle 11:Decide");
    assert_eq!((over.stop(), over.deadline()), (Some(StopCause::Hung), None));
}

#[test]
fn a_program_that_asks_for_a_requeue_has_a_moment_to_end() {
    let story = [
        (5, ProgramRequestedRequeue),
        (7, Tick),
        (8, Tick),
        (9, EXIT),
        (9, Settled),
        (9, job(None, 900)),
    ];
    let over = check(slurm(), &story, "8:Terminate 9:QuerySlurm 9:Settle 9:Decide");
    assert_eq!(over.stop(), Some(StopCause::ProgramRequestedRequeue));
    // While it is preempted, the time for the commit stays.
    let story = [
        (5, Usr1),
        (5, HEARD),
        (5, job(Some(StopCause::Preempted), 65)),
        (20, ProgramRequestedRequeue),
        (23, Tick),
    ];
    let mut stopped = slurm();
    assert_eq!(play(&mut stopped, &story), "5:RequestSave 5:QuerySlurm 23:Terminate");
    assert_eq!(stopped.stop(), Some(StopCause::Preempted));
    assert_eq!(stopped.deadline(), Some(Duration::from_secs(65)));
}

#[test]
fn a_process_that_the_kernel_holds_is_given_up() {
    let mut supervisor = slurm();
    play(&mut supervisor, &[(5, Hung), (10, Tick)]);
    for at in 11..70 {
        assert_eq!(play(&mut supervisor, &[(at, Tick)]), format!("{at}:Kill"));
    }
    assert_eq!(play(&mut supervisor, &[(70, Tick), (71, Settled)]), "70:Kill 70:Settle 71:Decide");
}

#[path = "no_answer_tests.rs"]
mod no_answer;
