//! How long to train between two saves, from what saves cost and how often the trial is interrupted. Pure.
//!
//! Young, "A first order approximation to the optimum checkpoint interval" (CACM 17(9), 1974): √(2δM) of work between
//! saves loses the least, with δ the seconds that a save holds training up and M the mean time between interruptions.
//! Daly (FGCS 22(3), 2006) showed that it holds while δ < M/2, and that beyond it an interval of M is best.

use std::time::Duration;

use crate::rundir::{AttemptRecord, Cause};

/// How many of the last saves count: what a save costs changes with the load of the disks.
const SAVES: usize = 5;
/// The cost of a save before the first was measured, in seconds.
const COST: f64 = 5.0;
/// What is assumed before anything was seen: one interruption in six hours. It weighs as much as one that happened.
const PRIOR: f64 = 6.0 * 3600.0;
/// Not more often: a save also costs the disks and the other jobs.
const SHORTEST_INTERVAL: f64 = 30.0;
/// Not less often: what a lost node may cost stays bounded.
const LONGEST_INTERVAL: f64 = 2.0 * 3600.0;

/// The interval, from `attempts.jsonl` and the time now in unix seconds.
#[must_use]
pub fn auto(records: &[AttemptRecord], now: f64) -> Duration {
    let (cost, between) = (cost(records), between(records, now));
    Duration::from_secs_f64(best(cost, between).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL))
}

/// The seconds of work between two saves that lose the least, from δ and M.
#[must_use]
pub fn best(cost: f64, between: f64) -> f64 {
    if cost < between / 2.0 { (2.0 * cost * between).sqrt() } else { between }
}

/// δ: the mean of the last few saves.
fn cost(records: &[AttemptRecord]) -> f64 {
    let last: Vec<f64> = records.iter().rev().filter_map(saving).take(SAVES).collect();
    if last.is_empty() { COST } else { last.iter().sum::<f64>() / count(last.len()) }
}

/// How long a save took, where that is plausible.
fn saving(record: &AttemptRecord) -> Option<f64> {
    match record {
        AttemptRecord::Checkpoint { saving, .. } => {
            saving.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        }
        _ => None,
    }
}

/// M: the time that attempts ran by the number of them that were interrupted, the prior among them.
fn between(records: &[AttemptRecord], now: f64) -> f64 {
    let (mut ran, mut interruptions) = (PRIOR, 1.0);
    let mut began: Option<f64> = None;
    let mut seen = 0.0;
    for record in records {
        match record {
            AttemptRecord::Start(start) => {
                // One that has no end was lost without a word; it ran until its last line at least.
                if let Some(began) = began {
                    ran += elapsed(began, seen);
                    interruptions += 1.0;
                }
                began = Some(start.time);
                seen = start.time;
            }
            AttemptRecord::End(end) => {
                if let Some(began) = began.take() {
                    ran += elapsed(began, end.time);
                    interruptions += f64::from(u8::from(is_interruption(end.cause)));
                }
            }
            AttemptRecord::Checkpoint { time, .. } | AttemptRecord::Hang { time, .. } => {
                seen = *time;
            }
            AttemptRecord::Ready { .. }
            | AttemptRecord::WentOn { .. }
            | AttemptRecord::Warning { .. }
            | AttemptRecord::Removed { .. }
            | AttemptRecord::SetAside { .. }
            | AttemptRecord::Label { .. }
            | AttemptRecord::ExcludeNode { .. } => {}
        }
    }
    ran += began.map_or(0.0, |began| elapsed(began, now));
    ran / interruptions
}

/// Whether what was trained since the last save is lost, or would have been but for a last save that may not come.
fn is_interruption(cause: Cause) -> bool {
    match cause {
        Cause::Failed
        | Cause::Preempted
        | Cause::NodeFailure
        | Cause::StartFailed
        | Cause::OutOfMemory
        | Cause::Superseded
        | Cause::Hung => true,
        // These are announced, or wanted.
        Cause::Completed | Cause::TimeLimit | Cause::Cancelled | Cause::Restart | Cause::Paused => {
            false
        }
    }
}

/// A clock that goes backwards makes no time.
fn elapsed(from: f64, to: f64) -> f64 {
    let seconds = to - from;
    if seconds.is_finite() { seconds.max(0.0) } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn start(attempt: u32, time: f64) -> Value {
        json!({"event": "start", "attempt": attempt, "slurm_job": null, "node": "n", "pid": 1, "boot_id": "b",
               "start_ticks": 1, "time": time, "resume_step": null})
    }

    fn save(time: f64, saving: f64) -> Value {
        json!({"event": "checkpoint", "attempt": 0, "step": 1, "time": time, "saving": saving})
    }

    fn end(time: f64, cause: &str) -> Value {
        json!({"event": "end", "attempt": 0, "time": time, "cause": cause, "exit_code": null, "signal": null,
               "step": null, "checkpoint_step": null, "next": "requeue", "reason": null})
    }

    #[track_caller]
    fn check(rows: Vec<Value>, now: f64, expected: f64) {
        let rows: Vec<AttemptRecord> =
            rows.into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
        let found = auto(&rows, now).as_secs_f64();
        assert!((found - expected).abs() < 0.01, "{found} instead of {expected}: {rows:?}");
    }

    #[test]
    fn before_anything_was_seen_the_prior_counts() {
        check(vec![], 0.0, (2.0 * COST * PRIOR).sqrt());
        check(vec![start(0, 0.0)], 0.0, (2.0 * COST * PRIOR).sqrt());
    }

    #[test]
    fn costs_and_interruptions_are_measured() {
        // Twice an hour, after a prior of six hours and one: eight hours by three.
        let two =
            vec![start(0, 0.0), end(3600.0, "preempted"), start(1, 5000.0), end(8600.0, "failed")];
        let between = (PRIOR + 7200.0) / 3.0;
        check(two.clone(), 9e9, (2.0 * COST * between).sqrt());
        // The last five saves count, and the time until now.
        let saves = (1..=6).map(|n| save(9000.0, if n == 1 { 1000.0 } else { 20.0 }));
        let rows: Vec<Value> = two.into_iter().chain([start(2, 9000.0)]).chain(saves).collect();
        check(rows, 12_600.0, (2.0 * 20.0 * (PRIOR + 10_800.0) / 3.0).sqrt());
        // An end that was wanted is no interruption.
        check(
            vec![start(0, 0.0), end(3600.0, "time_limit")],
            0.0,
            (2.0 * COST * (PRIOR + 3600.0)).sqrt(),
        );
    }

    #[test]
    fn one_without_an_end_was_interrupted() {
        let rows = vec![start(0, 0.0), save(600.0, 5.0), start(1, 9000.0)];
        check(rows, 9000.0, (2.0 * 5.0 * (PRIOR + 600.0) / 2.0).sqrt());
    }

    #[test]
    fn it_stays_in_bounds_whatever_the_record_says() {
        check(vec![save(0.0, 1e-6)], 0.0, SHORTEST_INTERVAL);
        check(vec![save(0.0, 1e9)], 0.0, LONGEST_INTERVAL);
        check(vec![start(0, 1e9), end(0.0, "failed")], 0.0, (COST * PRIOR).sqrt()); // the clock went backwards
        let always: Vec<Value> =
            (0..2000).flat_map(|n| [start(n, 0.0), end(1.0, "preempted")]).collect();
        check(always, 0.0, SHORTEST_INTERVAL);
    }
}
