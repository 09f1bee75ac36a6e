//! Which trials on this machine have which GPUs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::schedule::TrialRef;

/// The GPUs of the machine, and who has them.
#[derive(Debug, Default)]
pub(super) struct GpuSlots {
    all: Vec<String>,
    taken: BTreeMap<TrialRef, Vec<String>>,
}

impl GpuSlots {
    pub(super) fn new(all: Vec<String>) -> Self {
        Self { all, taken: BTreeMap::new() }
    }

    /// Gives a trial so many that nobody has; none if there are fewer now.
    pub(super) fn take(&mut self, place: TrialRef, n: usize) -> Option<Vec<String>> {
        let taken: BTreeSet<&String> = self.taken.values().flatten().collect();
        let free: Vec<String> =
            self.all.iter().filter(|gpu| !taken.contains(gpu)).take(n).cloned().collect();
        if free.len() < n {
            return None;
        }
        self.taken.insert(place, free.clone());
        Some(free)
    }

    /// What a trial has that an earlier runner started.
    pub(super) fn adopt(&mut self, place: TrialRef, gpus: Vec<String>) {
        self.taken.insert(place, gpus);
    }

    pub(super) fn give_back(&mut self, place: TrialRef) {
        self.taken.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_gpu_has_two_trials() {
        let mut slots = GpuSlots::new(["0", "1", "4"].map(str::to_owned).to_vec());
        slots.adopt((0, 7), vec!["1".to_owned()]);
        assert_eq!(slots.take((0, 0), 2), Some(vec!["0".to_owned(), "4".to_owned()]));
        assert_eq!(slots.take((0, 1), 1), None);
        slots.give_back((0, 7));
        assert_eq!(slots.take((0, 1), 1), Some(vec!["1".to_owned()]));
        assert_eq!(slots.take((0, 2), 0), Some(Vec::new()));
    }
}
