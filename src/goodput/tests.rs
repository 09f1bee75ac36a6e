//! The worked example of `docs/goodput.md`, stories, and what holds for any records whatever.

use nemo_core::lines;
use nemo_core::rundir::{AttemptEnd, AttemptStart, Next};
use proptest::prelude::*;

use super::*;

/// The example: preempted, then a crash, then a lost node, then done.
const EXAMPLE: &[u8] = include_bytes!("../../tests/data/goodput/attempts.jsonl");

fn example() -> Vec<AttemptRecord> {
    let lines = lines::parse::<AttemptRecord>(EXAMPLE);
    assert!(lines.damaged.is_empty());
    lines.rows
}

fn life(records: &[AttemptRecord], standing: LedgerState, now: f64) -> Life<'_> {
    let signs = BTreeMap::new();
    Life { records, submitted: 0.0, eligible: 0.0, requests: Vec::new(), signs, standing, now }
}

/// Wait, queue, start, work, save, redo, restart, hung.
fn all(parts: &TimeParts) -> [Micros; 8] {
    [
        parts.waiting,
        parts.queued,
        parts.starting,
        parts.productive,
        parts.saving,
        parts.repeated,
        parts.restarting,
        parts.hung,
    ]
}

#[track_caller]
fn check(life: &Life<'_>, expected: [i128; 8]) -> Ledger {
    let ledger = ledger(life);
    assert_eq!(all(&ledger.parts).map(|part| part / 1_000_000), expected, "{ledger:?}");
    ledger
}

fn losses(ledger: &Ledger) -> Vec<(LossReason, u32, i128, i128)> {
    let one = |(reason, loss): (&LossReason, &Loss)| {
        (*reason, loss.times, loss.held / 1_000_000, loss.queued / 1_000_000)
    };
    ledger.losses.iter().map(one).collect()
}

#[test]
fn the_worked_example() {
    let records = example();
    let signs = BTreeMap::from([(2, 1500.0)]);
    let life = Life { signs, ..life(&records, LedgerState::Completed, 9999.0) };
    let ledger = check(&life, [0, 435, 20, 1390, 55, 249, 81, 0]);
    assert_eq!(
        losses(&ledger),
        [
            (LossReason::Preempted, 1, 30, 175),
            (LossReason::Crash, 1, 121, 0),
            (LossReason::Silent, 1, 179, 200),
            (LossReason::Starting, 1, 20, 60),
            (LossReason::Saving, 4, 55, 0),
        ]
    );
    assert_eq!(ledger.end, Some(2230.0));
    let trials = vec![TrialLedger { index: 0, ledger }];
    let sums = goodput("x".to_owned(), Unit::Gpu, Some(2.5), vec![("train".to_owned(), 8, trials)]);
    let total = &json(&sums)["total"];
    assert_eq!(total["ettr"].as_f64().map(|ettr| (ettr * 1000.0).round()), Some(623.0));
    assert_eq!(total["lost_hours"], 0.9);
    assert_eq!(total["lost_cost"], 2.25);
}

fn start(attempt: u32, began: f64, resume_step: Option<u64>) -> AttemptRecord {
    AttemptRecord::Start(AttemptStart {
        attempt,
        slurm_job: Some("7_0".to_owned()),
        restarts: attempt,
        process: crate::process::ProcessId {
            node: "n1".to_owned(),
            boot_id: String::new(),
            pid: 1,
            start_ticks: 0,
        },
        time: began,
        resume_step,
        began: Some(began),
    })
}

fn end(attempt: u32, time: f64, cause: Cause, next: Next) -> AttemptRecord {
    AttemptRecord::End(AttemptEnd {
        attempt,
        time,
        cause,
        exit_code: Some(1),
        signal: None,
        step: None,
        checkpoint_step: None,
        next,
        reason: None,
        stopped: None,
        saving: None,
    })
}

fn saved(attempt: u32, step: u64, time: f64) -> AttemptRecord {
    AttemptRecord::Checkpoint { attempt, step, time, saving: None, bytes: None }
}

#[test]
fn a_trial_that_never_ran_waits_or_is_over() {
    check(&life(&[], LedgerState::Queued, 100.0), [0, 100, 0, 0, 0, 0, 0, 0]);
    check(&life(&[], LedgerState::GivenUp, 100.0), [0; 8]);
    let behind = Life { eligible: 70.0, ..life(&[], LedgerState::Queued, 100.0) };
    check(&behind, [70, 30, 0, 0, 0, 0, 0, 0]);
    check(&Life { eligible: 500.0, ..behind }, [100, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn work_of_a_running_trial_is_at_risk_and_not_lost() {
    let records = [start(0, 10.0, None), saved(0, 5, 60.0)];
    let ledger = check(&life(&records, LedgerState::Running, 100.0), [0, 10, 0, 90, 0, 0, 0, 0]);
    assert_eq!((ledger.at_risk, ledger.end), (40_000_000, None));
    assert!(!ledger.losses.contains_key(&LossReason::Silent), "it has not ended: {ledger:?}");
    // Slurm says that it waits again: its node was lost.
    check(&life(&records, LedgerState::Queued, 100.0), [0, 50, 0, 50, 0, 0, 0, 0]);
}

fn completed(records: &[AttemptRecord]) -> Life<'_> {
    life(records, LedgerState::Completed, 150.0)
}

/// Nothing but its checkpoints tells of it: when it began to train is not known, and is no loss.
#[test]
fn a_program_that_only_saves_has_worked_since_its_start() {
    let ready = |attempt, time| AttemptRecord::Ready { attempt, time };
    let mut records = vec![start(0, 10.0, None), saved(0, 1, 60.0), ready(0, 60.0)];
    records.extend([saved(0, 2, 90.0), end(0, 95.0, Cause::Preempted, Next::Requeue)]);
    records.extend([start(1, 100.0, Some(2)), saved(1, 3, 140.0), ready(1, 140.0)]);
    records.push(end(1, 150.0, Cause::Completed, Next::Done));
    let ledger = check(&completed(&records), [0, 15, 0, 130, 0, 5, 0, 0]);
    assert_eq!(ledger.unknown_start, 90_000_000, "50 s of the first attempt, 40 s of the second");
    // A step, or a word, tells more.
    records.insert(1, ready(0, 30.0));
    let ledger = check(&completed(&records), [0, 15, 20, 110, 0, 5, 0, 0]);
    assert_eq!(ledger.unknown_start, 40_000_000);
    // It did nothing else until its end.
    let records = [start(0, 10.0, None), end(0, 50.0, Cause::Completed, Next::Done)];
    let ledger = check(&completed(&records), [0, 10, 0, 40, 0, 0, 0, 0]);
    assert_eq!(ledger.unknown_start, 40_000_000);
}

#[test]
fn work_that_a_program_went_on_from_by_itself_is_not_lost() {
    let went_on = AttemptRecord::WentOn { attempt: 1, step: 8, time: 120.0 };
    let ready = AttemptRecord::Ready { attempt: 1, time: 100.0 };
    let mut records = vec![start(0, 10.0, None), end(0, 100.0, Cause::Preempted, Next::Requeue)];
    records.extend([start(1, 100.0, None), ready, went_on]);
    check(&life(&records, LedgerState::Running, 150.0), [0, 10, 0, 140, 0, 0, 0, 0]);
    records.push(end(1, 160.0, Cause::Preempted, Next::Requeue));
    // What the last attempt did may not be saved.
    check(&life(&records, LedgerState::Queued, 160.0), [0, 10, 0, 90, 0, 60, 0, 0]);
}

#[test]
fn what_a_failed_trial_saved_counts_and_no_more() {
    let failed = end(0, 100.0, Cause::Failed, Next::Failed);
    let records = [start(0, 10.0, None), saved(0, 5, 60.0), failed.clone()];
    check(&life(&records, LedgerState::GivenUp, 999.0), [0, 10, 0, 50, 0, 40, 0, 0]);
    let records = [start(0, 10.0, None), failed];
    let ledger = check(&life(&records, LedgerState::GivenUp, 999.0), [0, 10, 0, 0, 0, 90, 0, 0]);
    assert_eq!(ledger.losses[&LossReason::Crash], Loss { times: 1, held: 90_000_000, queued: 0 });
}

#[test]
fn a_hang_costs_the_silence_and_the_work_before_it() {
    let hang = AttemptRecord::Hang { attempt: 0, since: 60.0, time: 90.0, evidence: None };
    let stopped = end(0, 95.0, Cause::Hung, Next::Requeue);
    let records =
        [start(0, 10.0, None), saved(0, 5, 40.0), hang, stopped, start(1, 100.0, Some(5))];
    let ledger = check(&life(&records, LedgerState::Running, 100.0), [0, 15, 0, 30, 0, 20, 0, 35]);
    assert_eq!(
        ledger.losses[&LossReason::Hang],
        Loss { times: 1, held: 55_000_000, queued: 5_000_000 }
    );
}

#[test]
fn a_bad_checkpoint_costs_the_work_since_the_one_before() {
    let records = [
        start(0, 0.0, None),
        saved(0, 10, 10.0),
        saved(0, 20, 20.0),
        end(0, 25.0, Cause::Preempted, Next::Requeue),
        start(1, 25.0, Some(10)),
        saved(1, 20, 35.0),
        end(1, 40.0, Cause::Preempted, Next::Requeue),
        start(2, 40.0, Some(20)),
        end(2, 50.0, Cause::Completed, Next::Done),
    ];
    check(&life(&records, LedgerState::Completed, 99.0), [0, 0, 0, 30, 0, 20, 0, 0]);
}

#[test]
fn one_that_could_not_be_resumed_loses_nothing_more() {
    let records = [
        start(0, 0.0, None),
        saved(0, 10, 10.0),
        end(0, 10.0, Cause::Preempted, Next::Requeue),
        start(1, 12.0, None),
        end(1, 13.0, Cause::Failed, Next::Failed),
    ];
    check(&life(&records, LedgerState::GivenUp, 99.0), [0, 2, 0, 10, 0, 1, 0, 0]);
}

#[test]
fn a_checkpoint_without_a_record_was_the_last_that_happened() {
    let records = [
        start(0, 0.0, None),
        end(0, 30.0, Cause::Preempted, Next::Requeue),
        start(1, 30.0, Some(30)),
        end(1, 40.0, Cause::Completed, Next::Done),
    ];
    check(&life(&records, LedgerState::Completed, 99.0), [0, 0, 0, 40, 0, 0, 0, 0]);
}

#[test]
fn an_end_that_the_next_attempt_wrote_does_not_tell_the_time() {
    let last_end = |cause| {
        let AttemptRecord::End(mut end) = end(0, 90.0, cause, Next::Requeue) else { panic!() };
        end.exit_code = None;
        AttemptRecord::End(end)
    };
    let records = |cause| [start(0, 0.0, None), start(1, 89.0, None), last_end(cause)];
    let signs = BTreeMap::from([(0, 50.0)]);
    let lost = records(Cause::NodeFailure);
    let life = Life { signs, ..life(&lost, LedgerState::Running, 89.0) };
    check(&life, [0, 39, 0, 0, 0, 50, 0, 0]);
    let superseded = records(Cause::Superseded);
    check(&Life { records: &superseded, ..life }, [0, 0, 0, 0, 0, 89, 0, 0]);
}

#[test]
fn a_pause_is_nobodys_queue() {
    let records = [
        start(0, 0.0, None),
        saved(0, 10, 10.0),
        end(0, 10.0, Cause::Paused, Next::Requeue),
        start(1, 60.0, Some(10)),
        end(1, 70.0, Cause::Completed, Next::Done),
    ];
    check(&life(&records, LedgerState::Completed, 99.0), [50, 0, 0, 20, 0, 0, 0, 0]);
    check(&life(&records[..3], LedgerState::Paused, 30.0), [20, 0, 0, 10, 0, 0, 0, 0]);
}

#[test]
fn a_pause_of_one_that_waits_is_nobodys_queue() {
    use RequestedAction::{Pause, Resume};
    let requests = vec![(Pause, 10.0), (Resume, 40.0), (Pause, 60.0)];
    let waits = life(&[], LedgerState::Paused, 100.0);
    check(&Life { requests: requests.clone(), ..waits }, [70, 30, 0, 0, 0, 0, 0, 0]);
    let records = [start(0, 50.0, None), end(0, 55.0, Cause::Preempted, Next::Requeue)];
    let again = life(&records, LedgerState::Paused, 100.0);
    check(&Life { requests, ..again }, [70, 25, 0, 0, 0, 5, 0, 0]);
}

#[test]
fn after_a_pause_it_queues_once_it_is_resumed() {
    use RequestedAction::{Pause, Resume};
    let records = [
        start(0, 0.0, None),
        saved(0, 10, 10.0),
        end(0, 10.0, Cause::Paused, Next::Requeue),
        start(1, 60.0, Some(10)),
    ];
    let running = life(&records, LedgerState::Running, 60.0);
    for asked_at in [5.0, 13.0] {
        let requests = vec![(Pause, asked_at), (Resume, 40.0)];
        check(&Life { requests, ..running.clone() }, [30, 20, 0, 10, 0, 0, 0, 0]);
    }
}

#[test]
fn one_that_was_over_until_its_retry_was_in_no_queue() {
    use RequestedAction::{Cancel, Retry};
    let records = [
        start(0, 10.0, None),
        end(0, 20.0, Cause::Failed, Next::Failed),
        start(1, 100.0, None),
        end(1, 110.0, Cause::Completed, Next::Done),
    ];
    let done = life(&records, LedgerState::Completed, 999.0);
    let retried = Life { requests: vec![(Retry, 90.0)], ..done };
    check(&retried, [70, 20, 0, 10, 0, 10, 0, 0]);
    // One that was cancelled or blocked before it ever ran.
    let waits = life(&[], LedgerState::Queued, 100.0);
    let requests = vec![(Cancel, 10.0), (Retry, 90.0)];
    check(&Life { requests, ..waits.clone() }, [80, 20, 0, 0, 0, 0, 0, 0]);
    check(&Life { requests: vec![(Retry, 90.0)], ..waits }, [90, 10, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn all_saves_of_an_attempt_may_be_measured_together() {
    let AttemptRecord::End(mut done) = end(0, 100.0, Cause::Completed, Next::Done) else {
        panic!()
    };
    done.saving = Some(12.0);
    let measured = AttemptRecord::Checkpoint {
        attempt: 0,
        step: 1,
        time: 50.0,
        saving: Some(5.0),
        bytes: None,
    };
    let records = [start(0, 0.0, None), measured, AttemptRecord::End(done)];
    check(&life(&records, LedgerState::Completed, 100.0), [0, 0, 0, 88, 12, 0, 0, 0]);
}

/// Times around each other, far away, and of no world.
fn time() -> impl Strategy<Value = f64> {
    prop_oneof![8 => (0..40_u32).prop_map(f64::from), 1 => any::<f64>(), 1 => Just(f64::NAN)]
}

fn number() -> impl Strategy<Value = u32> {
    0..4_u32
}

fn any_start() -> impl Strategy<Value = AttemptRecord> {
    let resumed = proptest::option::of(0..4_u64);
    (number(), 0..2_u32, time(), proptest::option::of(time()), resumed).prop_map(
        |(attempt, restarts, time, began, resume_step)| {
            let AttemptRecord::Start(mut start) = start(attempt, time, resume_step) else {
                unreachable!()
            };
            (start.restarts, start.began) = (restarts, began);
            AttemptRecord::Start(start)
        },
    )
}

fn any_end() -> impl Strategy<Value = AttemptRecord> {
    let cause = prop::sample::select(vec![
        Cause::Completed,
        Cause::Failed,
        Cause::Preempted,
        Cause::Superseded,
        Cause::NodeFailure,
        Cause::Hung,
        Cause::Paused,
    ]);
    let next = prop::sample::select(vec![Next::Done, Next::Failed, Next::Requeue, Next::Restart]);
    let maybe = || proptest::option::of(time());
    (number(), time(), cause, next, maybe(), maybe(), any::<bool>()).prop_map(
        |(attempt, time, cause, next, stopped, saving, seen)| {
            let AttemptRecord::End(mut end) = end(attempt, time, cause, next) else {
                unreachable!()
            };
            (end.stopped, end.saving) = (stopped, saving);
            end.exit_code = end.exit_code.filter(|_| seen);
            AttemptRecord::End(end)
        },
    )
}

fn request() -> impl Strategy<Value = RequestedAction> {
    use RequestedAction::{Cancel, Pause, Preempt, Resume, Retry, Timeout};
    prop::sample::select(vec![Cancel, Pause, Preempt, Resume, Retry, Timeout])
}

fn record() -> impl Strategy<Value = AttemptRecord> {
    let ready =
        (number(), time()).prop_map(|(attempt, time)| AttemptRecord::Ready { attempt, time });
    let saved = (number(), 0..4_u64, time(), proptest::option::of(time())).prop_map(
        |(attempt, step, time, saving)| AttemptRecord::Checkpoint {
            attempt,
            step,
            time,
            saving,
            bytes: None,
        },
    );
    let hang = (number(), time(), time()).prop_map(|(attempt, since, time)| AttemptRecord::Hang {
        attempt,
        since,
        time,
        evidence: None,
    });
    prop_oneof![3 => any_start(), 2 => any_end(), 2 => ready, 3 => saved, 1 => hang]
}

proptest! {
    #[test]
    fn the_parts_are_the_whole_whatever_the_records(
        records in proptest::collection::vec(record(), 0..14),
        times in (time(), time(), time()),
        signs in proptest::collection::btree_map(number(), time(), 0..3),
        requests in proptest::collection::vec((request(), time()), 0..4),
        standing in prop::sample::select(vec![
            LedgerState::Completed, LedgerState::GivenUp, LedgerState::Running, LedgerState::Queued, LedgerState::Paused,
        ]),
    ) {
        let (submitted, eligible, now) = times;
        let life = Life { records: &records, submitted, eligible, requests, signs, standing, now };
        let ledger = ledger(&life);
        let parts = all(&ledger.parts);
        prop_assert!(parts.iter().all(|part| *part >= 0), "{ledger:?}");
        // The whole is from the submission to the end of the last attempt, or to now, and nothing else.
        let whole: Micros = parts.iter().sum();
        let begin = spans::moment(submitted);
        let end = match ledger.end {
            Some(end) => spans::moment(end),
            None => begin + whole,
        };
        prop_assert_eq!(whole, end - begin, "{:?}", ledger);
        if ledger.end.is_none() {
            prop_assert!(begin + whole >= spans::moment(now), "{ledger:?}");
        }
        prop_assert!((0..=ledger.parts.productive).contains(&ledger.at_risk), "{ledger:?}");
        prop_assert!((0..=ledger.parts.productive).contains(&ledger.unknown_start), "{ledger:?}");
        let held: Micros = ledger.losses.values().map(|loss| loss.held).sum();
        let queued: Micros = ledger.losses.values().map(|loss| loss.queued).sum();
        prop_assert_eq!((held, queued), (ledger.parts.lost(), ledger.parts.queued), "{:?}", ledger);
    }
}
