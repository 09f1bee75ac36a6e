//! How a task's trials are cut into windows, and how `concurrent` is shared between the arrays of a task.

use std::num::NonZeroU32;
use std::ops::Range;

/// The fewest stretches that hold `n_trials`, none longer than `max_array`, differing by one at most.
///
/// They do not depend on which of the trials are submitted: a trial has the same array index in every generation, and
/// the same as the trial of its number has in any task of as many trials, as `aftercorr` needs it.
pub(super) fn windows(n_trials: u32, max_array: NonZeroU32) -> Vec<Range<u32>> {
    let n_windows = n_trials.div_ceil(max_array.get()).max(1);
    let mut start = 0;
    let window = |size: NonZeroU32| {
        let window = start..start + size.get();
        start = window.end;
        window
    };
    shares(n_trials, n_windows).map(window).collect()
}

/// Splits a whole into equal parts, the first ones larger by one where it does not divide.
fn shares(whole: u32, parts: u32) -> impl Iterator<Item = NonZeroU32> {
    let (share, extra) = (whole / parts, whole % parts);
    (0..parts).filter_map(move |part| NonZeroU32::new(share + u32::from(part < extra)))
}

/// Arrays that run side by side, and those that follow them, so that together they keep `concurrent`.
///
/// Slurm's `%N` is per array. Each lane is a chain of arrays with a fixed share of the whole limit.
pub(super) struct Lanes {
    shares: Vec<NonZeroU32>,
}

/// As many lanes as there are arrays, or as may run at once where that is less.
pub(super) fn lanes(n_arrays: usize, concurrent: Option<NonZeroU32>) -> Lanes {
    let n_arrays = u32::try_from(n_arrays).unwrap_or(u32::MAX);
    let shares = concurrent.filter(|_| n_arrays > 0).map_or_else(Vec::new, |concurrent| {
        shares(concurrent.get(), n_arrays.min(concurrent.get())).collect()
    });
    Lanes { shares }
}

impl Lanes {
    /// The array after which this one may start, in the same lane.
    pub(super) fn before(&self, index: usize) -> Option<usize> {
        if self.shares.is_empty() { None } else { index.checked_sub(self.shares.len()) }
    }

    /// How many trials of this array may run at once.
    pub(super) fn throttle(&self, index: usize) -> Option<NonZeroU32> {
        let lane = index.checked_rem(self.shares.len())?;
        self.shares.get(lane).copied()
    }
}
