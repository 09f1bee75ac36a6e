//! What `lead` and the interval of saves should be. Pure.

use std::time::Duration;

use nemo_core::{interval, stop_times};
use serde::Serialize;

use super::findings::Rehearsal;
use super::findings::longest_save;

/// What follows for `exp.toml` and for the program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The longest time from the signal until the checkpoint was committed, in seconds.
    pub save_seconds: Option<f64>,
    /// `checkpoint.lead` as it is.
    pub lead: u64,
    /// Whether the program has twice the time that it needed.
    pub lead_is_enough: Option<bool>,
    /// What it should be at least.
    pub lead_needed: Option<u64>,
    /// Seconds of a step.
    pub step_seconds: Option<f64>,
    /// Steps between two saves of the undisturbed run.
    pub saves_every_steps: Option<u64>,
    /// How often to save, in seconds: by Young and Daly, for an interruption every four hours.
    pub every_seconds: Option<u64>,
    /// The steps that the kill cost.
    pub lost_steps: Option<u64>,
}

/// The time between interruptions that the interval is for, where none is known.
const BETWEEN_INTERRUPTIONS: f64 = 4.0 * 3600.0;

/// What follows from a rehearsal.
#[must_use]
pub fn advise(all: &Rehearsal) -> Advice {
    let save_seconds = longest_save(all);
    let steps = all.baseline.steps();
    let first = all.baseline.lines.iter().find(|line| line.step.is_some());
    let last = all.baseline.lines.iter().rfind(|line| line.step.is_some());
    #[expect(clippy::cast_precision_loss, reason = "numbers of steps")]
    let step_seconds = first.zip(last).and_then(|(first, last)| {
        let steps = last.step?.checked_sub(first.step?).filter(|steps| *steps > 0)?;
        Some((last.time - first.time) / steps as f64)
    });
    let last_step = steps.last().copied().unwrap_or(u64::MAX);
    let own: Vec<u64> =
        all.baseline.checkpoints.iter().copied().filter(|step| *step < last_step).collect();
    let gaps = own.windows(2).map(|pair| pair[1] - pair[0]);
    Advice {
        save_seconds,
        lead: all.lead,
        lead_is_enough: save_seconds.map(|seconds| until_term(all.lead) >= 2.0 * seconds),
        lead_needed: save_seconds.map(lead),
        step_seconds,
        saves_every_steps: gaps.max().or(own.first().copied()),
        every_seconds: save_seconds.map(every),
        lost_steps: lost(all),
    }
}

fn lost(all: &Rehearsal) -> Option<u64> {
    let pairs = all.runs.iter().flat_map(|(run, _)| run.attempts.windows(2));
    let lost = pairs.filter_map(|pair| {
        let injected = pair[0].injected.filter(|_| pair[0].asked_at().is_none())?;
        Some(injected.step?.saturating_sub(pair[1].resume_step?))
    });
    lost.max()
}

/// Seconds that a program has after the signal before it is told to end: as the harness keeps them.
#[must_use]
pub fn until_term(lead: u64) -> f64 {
    stop_times::until_term(Duration::from_secs(lead)).as_secs_f64()
}

/// A lead that leaves twice the time that was needed: nodes are slower and busier than where it was rehearsed.
#[must_use]
pub fn lead(save_seconds: f64) -> u64 {
    (2..=17_280)
        .map(|n| n * 5)
        .find(|lead| until_term(*lead) >= 2.0 * save_seconds)
        .unwrap_or(86_400)
}

/// The best interval to a round number, and at least ten times the cost of a save.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of an interval"
)]
fn every(save_seconds: f64) -> u64 {
    let best = interval::best(save_seconds, BETWEEN_INTERRUPTIONS).max(10.0 * save_seconds);
    let unit = if best < 60.0 { 5.0 } else { 60.0 };
    ((best / unit).round().max(1.0) * unit) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_leaves_twice_the_time() {
        let check = |seconds, expected| assert_eq!(lead(seconds), expected, "{seconds}");
        check(0.1, 10);
        check(5.0, 15);
        check(20.0, 55);
        check(600.0, 1215);
        for tenths in 0..10_000 {
            let seconds = f64::from(tenths) / 10.0;
            assert!(until_term(lead(seconds)) >= 2.0 * seconds, "{seconds}");
        }
    }

    #[test]
    fn a_cheap_save_is_made_often() {
        let check = |seconds, expected| assert_eq!(every(seconds), expected, "{seconds}");
        check(0.01, 15);
        check(1.0, 180);
        check(30.0, 900);
    }
}
