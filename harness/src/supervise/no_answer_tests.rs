//! Stories in which Slurm does not answer.

use super::*;

const SILENCE: AttemptEvent = SlurmAnswered(SlurmAnswer::NoAnswer);

fn trains_on(segment_end: Option<u64>) -> Supervisor {
    let policy = Policy { trains_on: true, ..slurm().policy };
    Supervisor::new(policy, segment_end.map(Duration::from_secs))
}

#[test]
fn no_answer_is_asked_for_again_and_before_the_end() {
    let story = [
        (5, Usr1),
        (5, HEARD),
        (10, SlurmAnswered(SlurmAnswer::NoAnswer)),
        (20, Tick),
        (25, SlurmAnswered(SlurmAnswer::NoAnswer)),
        (30, EXIT),
        (30, Settled),
        (31, job(Some(StopCause::Preempted), 60)),
    ];
    let over = check(
        slurm(),
        &story,
        "5:RequestSave 5:QuerySlurm 20:QuerySlurm 30:QuerySlurm 30:Settle 31:Decide",
    );
    assert_eq!(over.stop(), Some(StopCause::Preempted));
}

#[test]
fn without_an_answer_the_known_end_of_the_segment_counts() {
    let mut supervisor = Supervisor::new(slurm().policy, Some(Duration::from_secs(200)));
    let story = [(100, Usr1), (100, HEARD), (101, SILENCE), (185, SILENCE), (196, SILENCE)];
    let actions = "100:RequestSave 100:QuerySlurm 185:Terminate 196:Kill";
    assert_eq!(play(&mut supervisor, &story), actions);
    assert_eq!(supervisor.deadline(), Some(Duration::from_secs(200)));
}

#[test]
fn a_program_that_trains_on_is_not_ended_because_nobody_answers() {
    let saved = [(5, Usr1), (5, HEARD), (6, SILENCE), (7, committed(6)), (8, Tick)];
    let mere = [&saved[..], &[(16, Tick), (17, job(None, 900)), (18, Tick)]].concat();
    let actions = "5:RequestSave 5:QuerySlurm 16:QuerySlurm";
    let over = check(trains_on(Some(900)), &mere, actions);
    assert_eq!(over.stop(), None);
    let real = [&saved[..], &[(16, Tick), (17, job(Some(StopCause::Preempted), 65))]].concat();
    check(trains_on(Some(900)), &real, "5:RequestSave 5:QuerySlurm 16:QuerySlurm 17:Terminate");
    check(trains_on(None), &saved, "5:RequestSave 5:QuerySlurm");
}

#[test]
fn a_program_that_trains_on_is_ended_near_the_end_of_the_segment_without_an_answer() {
    let mut supervisor = trains_on(Some(900));
    let story = [(5, Usr1), (5, HEARD), (6, SILENCE), (7, committed(6)), (16, SILENCE)];
    assert_eq!(play(&mut supervisor, &story), "5:RequestSave 5:QuerySlurm");
    supervisor.next_query_at = None;
    let due = Duration::from_mins(14);
    assert_eq!(supervisor.next_tick(), Some(due));
    assert_eq!(supervisor.step(Tick, due), [Action::Terminate]);
}

#[test]
fn a_told_program_that_does_not_end_is_killed_without_a_deadline_and_slurm_is_asked_on() {
    let mut supervisor = trains_on(None);
    let told = SlurmAnswered(SlurmAnswer::Job { stop: Some(StopCause::Preempted), end: None });
    let story = [(5, Usr1), (5, HEARD), (6, committed(5)), (7, told), (8, SILENCE)];
    assert_eq!(play(&mut supervisor, &story), "5:RequestSave 5:QuerySlurm 7:Terminate");
    let at = Duration::from_secs;
    assert_eq!(supervisor.next_tick(), Some(at(18)));
    assert_eq!(supervisor.step(Tick, at(18)), [Action::QuerySlurm]);
    assert_eq!(supervisor.next_tick(), Some(at(37)));
    assert_eq!(supervisor.step(Tick, at(37)), [Action::Kill]);
    assert_eq!(supervisor.deadline(), None, "the last commit may take its time");
}

#[test]
fn a_requested_requeue_stops_from_now_on() {
    let mut supervisor = slurm();
    supervisor.step(ProgramRequestedRequeue, Duration::from_secs(5));
    assert_eq!(supervisor.stop.map(|stop| stop.since), Some(Duration::from_secs(5)));
}
