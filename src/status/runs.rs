//! Which of Slurm's runs of a job an attempt belongs to. Pure.

use nemo_core::rundir::AttemptStart;

use super::TrialFiles;
use crate::slurm::id::ShownId;
use crate::slurm::{AccountRow, UnixTime};

/// Seconds by which the clocks of two nodes, and Slurm's whole seconds, may differ.
const SLACK: f64 = 5.0;
/// Slurm cuts the part of a second off.
const WHOLE_SECOND: f64 = 1.0;

/// For each run, oldest first, the place of the last attempt in it: in-place restarts share one.
///
/// A job that is requeued may start again within seconds, so the count of restarts tells more than the clock does.
pub(super) fn places(files: &TrialFiles, runs: &[&AccountRow]) -> Vec<Option<usize>> {
    let mut open = UnclaimedAttempts::of(files);
    let mut places = vec![None; runs.len()];
    for witness in [Match::CountAndTime, Match::Count, Match::Time] {
        for (at, (place, row)) in places.iter_mut().zip(runs).enumerate() {
            // Slurm counts the restarts of each job of a trial by itself.
            let is_of_same_job = |earlier: &&&AccountRow| earlier.array_job == row.array_job;
            let number = runs[..at].iter().filter(is_of_same_job).count();
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let is_of_run =
                |start: &AttemptStart| is_of_job(start, row) && witness.agrees(start, number, row);
            *place = place.or_else(|| open.take(is_of_run));
        }
    }
    places
}

/// What speaks for an attempt being of a run, the strongest first.
#[derive(Clone, Copy)]
enum Match {
    CountAndTime,
    /// The run's number, and the clocks as far as they may differ.
    Count,
    /// Slurm may have lost earlier runs, and then their number tells nothing.
    Time,
}

impl Match {
    fn agrees(self, start: &AttemptStart, number: u32, row: &AccountRow) -> bool {
        match self {
            Self::CountAndTime => {
                start.restarts == number && began_within(start, row, WHOLE_SECOND)
            }
            Self::Count => start.restarts == number && began_within(start, row, SLACK),
            Self::Time => began_within(start, row, WHOLE_SECOND),
        }
    }
}

/// A retried trial has a new job, which may start within the same second as the one before.
fn is_of_job(start: &AttemptStart, row: &AccountRow) -> bool {
    let job = start.slurm_job.as_ref().and_then(|job| job.parse::<ShownId>().ok());
    job.is_none_or(|shown| shown.job == row.array_job)
}

/// Slurm may find out late that a node is gone, but a job never starts before it did.
fn began_within(start: &AttemptStart, row: &AccountRow, after_end: f64) -> bool {
    let Some(from) = seconds(row.start) else { return false };
    let until = seconds(row.end).unwrap_or(f64::INFINITY);
    from - SLACK <= start.time && start.time <= until + after_end
}

/// The attempts that no run has taken yet.
struct UnclaimedAttempts<'a>(Vec<Option<&'a AttemptStart>>);

impl<'a> UnclaimedAttempts<'a> {
    fn of(files: &'a TrialFiles) -> Self {
        Self(files.attempts.iter().filter_map(|record| record.as_start()).map(Some).collect())
    }

    /// Takes all attempts for which this holds; returns the place of the last.
    fn take(&mut self, holds: impl Fn(&AttemptStart) -> bool) -> Option<usize> {
        let mut last = None;
        for (place, start) in self.0.iter_mut().enumerate() {
            if start.take_if(|start| holds(start)).is_some() {
                last = Some(place);
            }
        }
        last
    }
}

/// Slurm's time as ours.
pub(super) fn seconds(time: Option<UnixTime>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "exact for a hundred million years")]
    time.map(|time| time.seconds() as f64)
}
