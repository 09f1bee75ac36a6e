//! Which experiments match filters, words and states, and how well.

use std::cmp::Reverse;

use memchr::memmem::Finder;
use nemo_core::rundir::{Params, notes};

use super::Listing;
use super::rows::state;
use crate::annotations::Annotations;
use crate::commands::filter_args::FilterArgs;
use crate::filter::{Filters, Verdict, Words};
use crate::{humanize, summary};

impl Listing<'_> {
    pub(super) fn keep_matching(&mut self, filters: &Filters) {
        if *filters == Filters::default() {
            return;
        }
        self.matching.retain(|&place| filters.may_match(&self.ids[place]));
        if filters.need_only_the_id() {
            return;
        }
        let words: Vec<_> = filters.words().map(Finder::new).collect();
        let places = std::mem::take(&mut self.matching);
        let found = self.map(&places, |listing, place| listing.matches(place, filters, &words));
        for (place, (is_match, warning)) in places.into_iter().zip(found) {
            self.matching.extend(is_match.then_some(place));
            self.warnings.extend(warning);
        }
    }

    /// Keeps those in which all words are found, the best first.
    pub(super) fn rank(&mut self, words: &Words) {
        let places = std::mem::take(&mut self.matching);
        let found = self.map(&places, |listing, place| listing.score(place, words));
        let mut ranked = Vec::new();
        for (place, (score, warning)) in places.into_iter().zip(found) {
            ranked.extend(score.map(|score| (Reverse(score), place)));
            self.warnings.extend(warning);
        }
        // Of equals the newest stays first.
        ranked.sort_by_key(|(score, _)| *score);
        self.matching = ranked.into_iter().map(|(_, place)| place).collect();
    }

    /// How well one fits, and what could not be read of it.
    fn score(&self, place: usize, words: &Words) -> (Option<u32>, Option<String>) {
        let id = &self.ids[place];
        if let Some(entry) = self.indexed(place) {
            let mut text = [entry.id, "\n", entry.row, "\n", entry.facts].concat();
            text.make_ascii_lowercase();
            if !words.may_be_in(&text) {
                return (None, None);
            }
        }
        // Of one that can't be read the name is known.
        let (annotations, facts) = self.annotations_and_facts(place).unwrap_or_default();
        let mut found = words.find(id.as_str(), id.name(), &annotations, &facts);
        if found.score().is_some() {
            return (found.score(), None);
        }
        let mut warning = None;
        if found.may_be_in_notes {
            let notes = notes::read_all(&self.dir(place)).unwrap_or_default();
            let texts = notes.whole.iter().filter_map(|(_, note)| note.text.as_deref());
            texts.for_each(|text| words.add_note(&mut found, text));
        }
        if found.may_be_in_trials && found.score().is_none() {
            for task in &facts.tasks {
                let each = |params: Params| {
                    for (name, value) in summary::flatten(&params) {
                        words.add_trial_value(&mut found, &name, value);
                    }
                };
                if let Err(error) = summary::each_trial(&self.dir(place), &task.name, each) {
                    warning = Some(format!("`{id}`: can't read its `trials.jsonl`: {error}"));
                }
            }
        }
        (found.score(), warning)
    }

    /// Whether one matches, and what could not be read of it.
    fn matches(
        &self,
        place: usize,
        filters: &Filters,
        words: &[Finder<'_>],
    ) -> (bool, Option<String>) {
        if let Some(entry) = self.indexed(place) {
            let has = |word: &Finder<'_>| {
                let text = [entry.row, entry.facts];
                text.iter().any(|text| word.find(text.as_bytes()).is_some())
            };
            if !entry.facts.contains("\"params\":null") && !words.iter().all(has) {
                return (false, None);
            }
        }
        let annotations = match self.indexed(place) {
            Some(entry) if !filters.may_need_annotations(entry.row) => Some(Annotations::default()),
            Some(_) | None => self.annotations(place),
        };
        let Some(annotations) = annotations else { return (false, None) };
        if let Some(is_match) = filters.decided_by(&annotations) {
            return (is_match, None);
        }
        let Some(facts) = self.facts(place) else { return (false, None) };
        match filters.verdict(&annotations, &facts) {
            Verdict::Yes => (true, None),
            Verdict::No => (false, None),
            Verdict::ReadTrials => {
                let id = &self.ids[place];
                match filters.read_trials(&self.dir(place), &annotations, &facts) {
                    Ok((is_match, 0)) => (is_match, None),
                    Ok((is_match, n)) => {
                        let lines = humanize::count(n, "line");
                        (
                            is_match,
                            Some(format!("`{id}`: {lines} of its `trials.jsonl` can't be read")),
                        )
                    }
                    Err(error) => {
                        (false, Some(format!("`{id}`: can't read its `trials.jsonl`: {error}")))
                    }
                }
            }
        }
    }

    /// Leaves out what is archived, or all else.
    pub(super) fn set_archived_apart(&mut self, are_wanted: bool) {
        let known = &self.known;
        if are_wanted {
            return self.matching.retain(|&place| known[place].is_archived());
        }
        let is_hidden = |place: &usize| known[*place].is_hidden();
        let all = std::mem::take(&mut self.matching);
        (self.hidden, self.matching) = all.into_iter().partition(is_hidden);
    }

    pub(super) fn keep_states(&mut self, args: &FilterArgs) {
        if args.state.is_empty() {
            return;
        }
        let known = &self.known;
        for places in [&mut self.matching, &mut self.hidden] {
            places.retain(|&place| args.state.contains(&state(&known[place])));
        }
    }
}
