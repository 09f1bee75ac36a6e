//! Which step each save of an attempt is committed as. Pure.
//!
//! A trial goes on from the highest step. So a save gets a higher one than all that were written before it, also where the
//! program has reported no step since, or where earlier saves have run ahead of what it reports.

use std::collections::{BTreeMap, BTreeSet};

/// How many of the last steps are remembered.
const MOST: usize = 1024;

/// The steps that exist, and what the saves of this attempt were given.
#[derive(Debug, Default)]
pub(crate) struct StepNumbers {
    taken: BTreeSet<u64>,
    given: BTreeMap<u64, NumberedSave>,
}

/// A save that has its step.
#[derive(Clone, Debug)]
pub(crate) struct NumberedSave {
    /// The step at which the program was.
    pub(crate) reached: Option<u64>,
    /// The name that the program gave.
    pub(crate) entry: Vec<u8>,
    /// It may still turn out to be no checkpoint.
    pub(crate) is_open: bool,
}

/// What is known of a save that has no step yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnnumberedSave<'a> {
    pub(crate) entry: &'a [u8],
    /// The step of its own: in its name, in it, or told with it.
    pub(crate) own: Option<u64>,
    /// The step that the program had reported last.
    pub(crate) reported: Option<u64>,
    /// A rename or the program says that it is complete. Otherwise it may be a copy of a checkpoint.
    pub(crate) is_confirmed: bool,
}

/// The step of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChosenNumber {
    pub(crate) step: u64,
    /// The program had reported this step, and the save has another one.
    pub(crate) reported: Option<u64>,
    /// The same content as in this step is no new checkpoint: in place, a copy of one is what the program has yet to read.
    pub(crate) counted_from: Option<u64>,
}

impl StepNumbers {
    /// These steps were committed before. The attempt goes on from `resumed`.
    pub(crate) fn new(taken: BTreeSet<u64>, resumed: Option<(u64, NumberedSave)>) -> Self {
        Self { taken, given: resumed.into_iter().collect() }
    }

    /// The step that a save gets.
    pub(crate) fn choose(&self, save: UnnumberedSave<'_>) -> ChosenNumber {
        let newest = self.taken.last().copied();
        let counted = newest.map_or(0, |last| last.saturating_add(1));
        let reported = save.reported.filter(|step| !self.is_behind(*step, save));
        let known = save.own.or(reported);
        let step = known.unwrap_or(counted);
        let copied = known.filter(|step| !save.is_confirmed && self.taken.contains(step));
        ChosenNumber {
            step,
            reported: save.reported.filter(|own| save.own.is_none() && *own != step),
            counted_from: newest.filter(|_| known.is_none()).or(copied),
        }
    }

    /// Whether a save of this reported step is newer than the newest one, which has this step already or a later one.
    fn is_behind(&self, reported: u64, save: UnnumberedSave<'_>) -> bool {
        let Some((&newest, last)) = self.given.last_key_value() else { return false };
        if newest < reported || last.reached > Some(reported) {
            return false; // in a hurry, an older save comes after a newer one
        }
        let is_of_this_step = newest == reported && last.reached == Some(reported);
        // Of one step, a second name gets it too, and so does what may be a copy in place: the commit compares their content.
        !is_of_this_step || (save.is_confirmed && last.entry == save.entry)
    }

    /// Remembers the step of a save.
    pub(crate) fn give(&mut self, chosen: ChosenNumber, save: UnnumberedSave<'_>) {
        let (reached, entry) = (save.own.or(save.reported), save.entry.to_owned());
        let is_open = self.taken.insert(chosen.step);
        // The first save of a step is the one that has it.
        self.given.entry(chosen.step).or_insert(NumberedSave { reached, entry, is_open });
        if self.taken.len() > MOST {
            self.taken.pop_first();
        }
        if self.given.len() > MOST {
            self.given.pop_first();
        }
    }

    /// The save of a step is a checkpoint.
    pub(crate) fn commit(&mut self, step: u64) {
        if let Some(own) = self.given.get_mut(&step) {
            own.is_open = false;
        }
    }

    /// A save of this name was refused. Its step is free again, unless another save has it.
    pub(crate) fn refuse(&mut self, step: u64, entry: &[u8]) {
        if self.given.get(&step).is_some_and(|own| own.is_open && own.entry == entry) {
            self.take_back(step);
        }
    }

    /// Forgets a step: the save was no new checkpoint.
    pub(crate) fn take_back(&mut self, step: u64) {
        self.taken.remove(&step);
        self.given.remove(&step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn save(reported: Option<u64>) -> UnnumberedSave<'static> {
        UnnumberedSave { entry: b"last.pt", own: None, reported, is_confirmed: true }
    }

    /// The steps and what was reported of them, of saves one after the other.
    #[track_caller]
    fn check(
        numbers: &mut StepNumbers,
        saves: &[UnnumberedSave<'_>],
        expected: &[(u64, Option<u64>)],
    ) {
        let give = |save: &UnnumberedSave<'_>| {
            let chosen = numbers.choose(*save);
            numbers.give(chosen, *save);
            (chosen.step, chosen.reported)
        };
        let given: Vec<_> = saves.iter().map(give).collect();
        assert_eq!(given, expected);
    }

    #[test]
    fn a_save_is_the_step_that_was_reported() {
        let saves = [save(Some(3)), save(Some(7)), save(Some(8))];
        check(&mut StepNumbers::default(), &saves, &[(3, None), (7, None), (8, None)]);
    }

    #[test]
    fn saves_that_run_ahead_of_the_reports_never_fall_behind_again() {
        let saves = [1, 1, 2, 2, 3, 3, 9].map(|step| save(Some(step)));
        let expected = [
            (1, None),
            (2, Some(1)),
            (3, Some(2)),
            (4, Some(2)),
            (5, Some(3)),
            (6, Some(3)),
            (9, None),
        ];
        check(&mut StepNumbers::default(), &saves, &expected);
    }

    #[test]
    fn an_attempt_goes_on_after_the_step_that_it_resumed_from() {
        let (entry, is_open) = (b"last.pt".to_vec(), false);
        let resumed = NumberedSave { reached: Some(3), entry, is_open };
        let mut numbers = StepNumbers::new(BTreeSet::from([5, 6]), Some((6, resumed.clone())));
        check(&mut numbers, &[save(Some(4)), save(Some(8))], &[(7, Some(4)), (8, None)]);
        // What a later attempt can't use was moved aside.
        let mut numbers = StepNumbers::new(BTreeSet::from([6, 20]), Some((6, resumed)));
        check(&mut numbers, &[save(Some(8)), save(Some(9))], &[(8, None), (9, None)]);
    }

    #[test]
    fn without_reports_the_saves_are_counted() {
        let saves = [save(None), save(None), save(Some(1)), save(Some(5))];
        check(
            &mut StepNumbers::default(),
            &saves,
            &[(0, None), (1, None), (2, Some(1)), (5, None)],
        );
    }

    #[test]
    fn a_step_of_its_own_counts_and_an_older_save_stays_older() {
        let own = UnnumberedSave { own: Some(4), ..save(Some(2)) };
        let other = UnnumberedSave { entry: b"best.pt", ..save(Some(9)) };
        let saves = [own, save(Some(9)), save(Some(8)), other];
        check(&mut StepNumbers::default(), &saves, &[(4, None), (9, None), (8, None), (9, None)]);
    }

    #[test]
    fn a_refused_save_takes_no_step_from_others() {
        let mut numbers = StepNumbers::default();
        let best = UnnumberedSave { entry: b"best.pt", ..save(Some(9)) };
        check(&mut numbers, &[save(Some(9))], &[(9, None)]);
        numbers.commit(9);
        check(&mut numbers, &[best], &[(9, None)]);
        numbers.refuse(9, b"best.pt");
        check(&mut numbers, &[save(Some(9)), best], &[(10, Some(9)), (11, Some(9))]);
        let mut numbers = StepNumbers::default();
        check(&mut numbers, &[save(Some(9))], &[(9, None)]);
        numbers.refuse(9, b"last.pt");
        check(&mut numbers, &[save(Some(9))], &[(9, None)]);
    }

    #[test]
    fn what_may_be_a_copy_is_compared() {
        let mut numbers = StepNumbers::default();
        check(&mut numbers, &[save(Some(1))], &[(1, None)]);
        let in_place = UnnumberedSave { is_confirmed: false, ..save(Some(1)) };
        let copy = ChosenNumber { step: 1, reported: None, counted_from: Some(1) };
        assert_eq!(numbers.choose(in_place), copy);
        let again = ChosenNumber { step: 2, reported: Some(1), counted_from: Some(1) };
        assert_eq!(numbers.choose(save(Some(1))), again);
        numbers.give(again, save(Some(1)));
        numbers.take_back(2);
        assert_eq!(numbers.choose(save(Some(1))), again, "it was the same content");
    }
}
