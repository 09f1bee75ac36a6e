//! How a task's trials are cut into arrays, and how `concurrent` is shared between them.

use std::num::NonZeroU32;

/// Sizes of the fewest arrays that hold `n_trials`, none larger than `max_array`, differing by one at most.
pub(super) fn chunk_sizes(n_trials: u32, max_array: NonZeroU32) -> Vec<NonZeroU32> {
    let n_chunks = n_trials.div_ceil(max_array.get()).max(1);
    shares(n_trials, n_chunks).collect()
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
pub(super) fn lanes(n_chunks: usize, concurrent: Option<NonZeroU32>) -> Lanes {
    let shares = concurrent.map_or_else(Vec::new, |concurrent| {
        let n_chunks = u32::try_from(n_chunks).unwrap_or(u32::MAX);
        shares(concurrent.get(), n_chunks.min(concurrent.get())).collect()
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
