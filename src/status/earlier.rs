//! What was known at the last look. Trials that stood alike are one range: ten thousand that wait cost no more than one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::{Certainty, State};

/// What was known of a trial at an earlier look.
#[derive(Clone, Debug, PartialEq)]
pub struct RememberedState {
    /// Where it stood.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// How sure that was.
    pub certainty: Certainty,
}

/// What was known at an earlier look, by task: ranges of trials in the order of their indices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RememberedStates(BTreeMap<String, Vec<(RangeInclusive<u32>, RememberedState)>>);

impl RememberedStates {
    /// What was known of a trial.
    #[must_use]
    pub fn get(&self, task: &str, trial: u32) -> Option<&RememberedState> {
        let ranges = self.0.get(task)?;
        let place = ranges.partition_point(|(trials, _)| *trials.end() < trial);
        ranges.get(place).filter(|(trials, _)| trials.contains(&trial)).map(|(_, known)| known)
    }

    /// Whether nothing is known of any trial.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `sacct` must be asked again: about ends that were not certain.
    #[must_use]
    pub fn need_accounts(&self) -> bool {
        let is_doubtful = |known: &RememberedState| {
            let is_final = known.certainty == Certainty::Final;
            // What is blocked may wait in the queue for ever, and `squeue` tells that.
            let is_over = known.state.is_final() && known.state != State::Blocked;
            known.state == State::Unknown || is_over && !is_final
        };
        self.0.values().flatten().any(|(_, known)| is_doubtful(known))
    }

    /// Adds what was known of some trials, of which nothing is known so far.
    pub fn add(&mut self, task: &str, trials: RangeInclusive<u32>, known: RememberedState) {
        let ranges = self.0.entry(task.to_owned()).or_default();
        let place = ranges.partition_point(|(other, _)| other.end() < trials.start());
        ranges.insert(place, (trials, known));
    }

    /// The same for those of the trials that are not among `others`.
    pub fn add_all_but(
        &mut self,
        others: &BTreeSet<u32>,
        task: &str,
        trials: RangeInclusive<u32>,
        known: &RememberedState,
    ) {
        let mut first = *trials.start();
        for &other in others.range(trials.clone()) {
            if first < other {
                self.add(task, first..=other - 1, known.clone());
            }
            first = other.saturating_add(1);
        }
        if first <= *trials.end() && !others.contains(trials.end()) {
            self.add(task, first..=*trials.end(), known.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(state: State) -> RememberedState {
        RememberedState { state, reason: None, certainty: Certainty::Open }
    }

    #[test]
    fn each_trial_is_found_in_its_range() {
        let mut states = RememberedStates::default();
        states.add("train", 10..=12, known(State::Failed));
        states.add("train", 0..=3, known(State::Pending));
        let state = |task, trial| states.get(task, trial).map(|known| known.state);
        for (trial, expected) in
            [(0, Some(State::Pending)), (3, Some(State::Pending)), (4, None), (9, None)]
        {
            assert_eq!(state("train", trial), expected, "{trial}");
        }
        assert_eq!(state("train", 10), Some(State::Failed));
        assert_eq!((state("train", 13), state("other", 0)), (None, None));
    }

    #[test]
    fn what_is_left_out_splits_a_range() {
        let of = |others: &[u32], trials: RangeInclusive<u32>| {
            let mut states = RememberedStates::default();
            let others = others.iter().copied().collect();
            states.add_all_but(&others, "train", trials, &known(State::Failed));
            (0..=6).filter(|trial| states.get("train", *trial).is_some()).collect::<Vec<u32>>()
        };
        assert_eq!(of(&[], 1..=4), [1, 2, 3, 4]);
        assert_eq!(of(&[0, 2, 3, 9], 1..=4), [1, 4]);
        assert_eq!(of(&[1, 4], 1..=4), [2, 3]);
        assert_eq!(of(&[1, 2, 3, 4], 1..=4), Vec::<u32>::new());
        assert_eq!(of(&[u32::MAX], u32::MAX..=u32::MAX), Vec::<u32>::new());
    }
}
