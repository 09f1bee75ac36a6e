//! What `list` and `search` share: what is known of all experiments, looked up where it may have changed, filtered and
//! in order.

mod matching;
mod rows;
mod why_none;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use nemo_core::rundir::{ExperimentDir, notes};

use super::App;
use super::filter_args::{FilterArgs, Sort, SortKey, SortValue};
use super::polling::{open_jobs, query_slurm};
use super::status::look_by;
use crate::annotations::{Annotations, value_at};
use crate::clock;
use crate::error::CommandError;
use crate::filter::Words;
use crate::observe::Depth;
use crate::parallel::map_chunks;
use crate::query::{JobsToQuery, SlurmAnswers, SlurmSource, submitted_jobs};
use crate::store::ExperimentId;
use crate::summary::{
    self, Facts, Index, IndexEntry, InputVersions, KnownExperiment, NewEntry, Summary,
};
use rows::state;

/// For how many seconds an answer of Slurm's is new enough for a list.
const FRESH: f64 = 30.0;
/// So few experiments are filtered without another thread.
const LEAST_PART: usize = 500;
/// The most threads that filter.
const MOST_PARTS: usize = 8;

/// All experiments of a home.
pub(super) struct Listing<'a> {
    app: &'a App,
    /// Oldest first.
    ids: &'a [ExperimentId],
    index: &'a Index,
    known: Vec<KnownExperiment<'a>>,
    /// Those that nobody had looked into yet.
    new: Vec<usize>,
    /// The notes that are in the summaries by now, of those that the index may lack.
    known_notes: BTreeSet<(String, String)>,
    /// The places of those that match, in the order in which they are shown.
    pub(super) matching: Vec<usize>,
    /// Those that would match, if they were not archived.
    hidden: Vec<usize>,
    /// What could not be read.
    pub(super) warnings: Vec<String>,
    now: f64,
}

impl<'a> Listing<'a> {
    pub(super) fn new(app: &'a App, ids: &'a [ExperimentId], index: &'a Index) -> Self {
        let known = summary::known(&app.home, ids, index);
        let mut listing = Self {
            app,
            ids,
            index,
            known,
            new: Vec::new(),
            known_notes: BTreeSet::new(),
            matching: Vec::new(),
            hidden: Vec::new(),
            warnings: Vec::new(),
            now: clock::now(),
        };
        for place in 0..ids.len() {
            match listing.known[place] {
                // Most are over, and their folders tell it: then Slurm need not be asked.
                KnownExperiment::Unknown => {
                    listing.new.push(place);
                    listing.look_into(place, SlurmSource::Nobody);
                }
                KnownExperiment::Summarized(_) => listing.read_notes(place),
                KnownExperiment::Indexed(_) | KnownExperiment::Damaged(_) => {}
            }
            listing.remember_notes(place);
        }
        listing.matching = (0..ids.len()).rev().collect();
        listing
    }

    /// Keeps those that match, and looks into those of them that may have changed where it matters.
    pub(super) fn choose(&mut self, args: &FilterArgs, words: Option<&Words>) {
        let filters = args.filters(self.now);
        self.keep_matching(&filters);
        if let Some(words) = words {
            self.rank(words);
        }
        self.set_archived_apart(args.archived);
        if args.cached {
            return self.keep_states(args);
        }
        let follows = args.sort.as_ref().is_some_and(|sort| sort.key.follows_the_state());
        let all_matter = !args.state.is_empty() || follows;
        let shown = if all_matter { &self.matching[..] } else { self.shown(args.limit) };
        let mut due: Vec<usize> = shown.to_vec();
        due.extend(&self.new);
        due.sort_unstable();
        due.dedup();
        due.retain(|place| self.may_have_changed(*place));
        let answers = self.ask_for(&due);
        for place in due {
            self.look_into(place, SlurmSource::Asked(&answers));
        }
        self.keep_states(args);
    }

    /// Puts those that match in order: the newest first, where nothing else is said.
    pub(super) fn sort(&mut self, sort: &Sort) {
        let mut keyed: Vec<(SortValue, usize)> =
            self.matching.iter().map(|&place| (self.sort_value(place, &sort.key), place)).collect();
        keyed.sort_by(|(a, _), (b, _)| a.order(b, sort.is_reversed));
        self.matching = keyed.into_iter().map(|(_, place)| place).collect();
    }

    /// The first of those that match.
    pub(super) fn shown(&self, limit: usize) -> &[usize] {
        let limit = if limit == 0 { self.matching.len() } else { limit.min(self.matching.len()) };
        &self.matching[..limit]
    }

    /// Its folder. The index has no wrapped jobs: where it tells of one, nothing is looked for.
    pub(super) fn dir(&self, place: usize) -> ExperimentDir {
        let (home, id) = (&self.app.home, &self.ids[place]);
        match &self.known[place] {
            KnownExperiment::Indexed(_) => ExperimentDir(home.experiments().join(id.as_str())),
            KnownExperiment::Summarized(_)
            | KnownExperiment::Unknown
            | KnownExperiment::Damaged(_) => home.experiment(id),
        }
    }

    /// What finds an experiment; nothing where it can't be read.
    pub(super) fn annotations_and_facts(&self, place: usize) -> Option<(Annotations, Facts)> {
        Some((self.annotations(place)?, self.facts(place)?))
    }

    fn annotations(&self, place: usize) -> Option<Annotations> {
        match &self.known[place] {
            KnownExperiment::Indexed(entry) => serde_json::from_str(entry.row).ok(),
            KnownExperiment::Summarized(summary) => Some(summary.row.annotations()),
            KnownExperiment::Unknown | KnownExperiment::Damaged(_) => None,
        }
    }

    fn facts(&self, place: usize) -> Option<Facts> {
        match &self.known[place] {
            KnownExperiment::Indexed(entry) => serde_json::from_str(entry.facts).ok(),
            KnownExperiment::Summarized(summary) => Some(summary.facts.clone()),
            KnownExperiment::Unknown | KnownExperiment::Damaged(_) => None,
        }
    }

    /// The line of the index, where it tells all.
    pub(super) fn indexed(&self, place: usize) -> Option<&IndexEntry<'a>> {
        match &self.known[place] {
            KnownExperiment::Indexed(entry) => Some(entry),
            _ => None,
        }
    }

    /// Does the same to all of these, side by side where they are many.
    pub(super) fn map<R: Send>(
        &self,
        places: &[usize],
        work: impl Fn(&Self, usize) -> R + Sync,
    ) -> Vec<R>
    where
        Self: Sync,
    {
        let threads =
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_PARTS);
        let part = places.len().div_ceil(threads).max(LEAST_PART);
        let of_part =
            |part: &[usize]| part.iter().map(|&place| work(self, place)).collect::<Vec<R>>();
        if places.len() <= LEAST_PART {
            return of_part(places);
        }
        map_chunks(places.chunks(part), of_part).into_iter().flatten().collect()
    }

    fn sort_value(&self, place: usize, key: &SortKey) -> SortValue {
        let id = &self.ids[place];
        #[expect(clippy::cast_precision_loss, reason = "seconds and numbers of trials")]
        let number = |number: u64| SortValue::Number(-(number as f64));
        let brief = || self.brief(place);
        let found = match key {
            SortKey::Created => Some(number(place as u64)),
            SortKey::Name => Some(SortValue::Text(id.name().to_owned())),
            SortKey::State => Some(SortValue::Text(state(&self.known[place]).to_owned())),
            SortKey::Ended => brief().and_then(|row| Some(SortValue::Number(-row.ended?))),
            SortKey::Trials => {
                brief().map(|row| number(row.trials.values().map(|n| u64::from(*n)).sum()))
            }
            SortKey::Best => {
                brief().and_then(|row| row.best).map(|best| SortValue::Best(best.goal, best.value))
            }
            SortKey::Metadata(key) => self.annotations(place).and_then(|annotations| {
                let value = value_at(&annotations.metadata, key)?;
                let text = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Some(value.as_f64().map_or_else(|| SortValue::Text(text()), SortValue::Number))
            }),
        };
        found.unwrap_or(SortValue::Absent)
    }

    fn may_have_changed(&self, place: usize) -> bool {
        let KnownExperiment::Summarized(summary) = &self.known[place] else { return false };
        let is_fresh = (0.0..FRESH).contains(&(self.now - summary.row.as_of));
        let now = || InputVersions::of(&self.dir(place));
        let is_as_it_was = is_fresh && !summary.row.stale && summary.from.is_unchanged(&now());
        !summary.is_final && !is_as_it_was
    }

    /// One question for all of these, and for the other open ones where it is asked at all.
    fn ask_for(&self, due: &[usize]) -> SlurmAnswers {
        // There may be more jobs of them than at the last look.
        let jobs = |place: usize| {
            let journal = self.app.home.journal(&self.ids[place]);
            journal.map_or_else(|_| Vec::new(), |journal| submitted_jobs(&journal))
        };
        let wanted = due.iter().filter_map(|&place| {
            let wanted = summary::wanted(&self.app.home, &self.ids[place], &self.known[place])?;
            Some(JobsToQuery { jobs: jobs(place), ..wanted })
        });
        let wanted: Vec<JobsToQuery> = wanted.collect();
        let others = || open_jobs(self.app, self.ids, &self.known);
        query_slurm(self.app, &wanted, self.now - FRESH, &others)
    }

    fn look_into(&mut self, place: usize, source: SlurmSource<'_>) {
        let stored = self.app.home.load(&self.ids[place]).map_err(CommandError::from);
        self.known[place] =
            match stored.and_then(|stored| look_by(self.app, &stored, source, Depth::Open)) {
                Ok((_, summary)) => KnownExperiment::Summarized(Box::new(summary)),
                Err(error) => KnownExperiment::Damaged(error.one_line()),
            };
    }

    /// Brings a summary up to its notes. What can't be read now stays as it was.
    fn read_notes(&mut self, place: usize) {
        let dir = self.dir(place);
        let KnownExperiment::Summarized(summary) = &mut self.known[place] else { return };
        if notes::count(&dir) == summary.from.notes {
            return;
        }
        let Ok(stored) = self.app.home.load(&self.ids[place]) else { return };
        let Ok(notes) = notes::read_all(&dir) else { return };
        summary.set_notes((&dir, &stored.experiment), &notes);
        summary::keep(&dir, summary);
    }

    /// Remembers which notes a summary knows that the index may lack.
    fn remember_notes(&mut self, place: usize) {
        let id = self.ids[place].as_str();
        let KnownExperiment::Summarized(summary) = &self.known[place] else { return };
        if !self.index.is_noted(id) {
            return;
        }
        // As many as there are now, and those that are there now: it knows these.
        let folder = self.dir(place).notes();
        let there = self.index.marks_of(id).iter().filter(|note| folder.join(note).exists());
        let there: Vec<(String, String)> =
            there.map(|note| (id.to_owned(), note.clone())).collect();
        if notes::count(&self.dir(place)) == summary.from.notes {
            self.known_notes.extend(there);
        }
    }

    /// Adds to the index what is over by now, and takes out what is gone.
    pub(super) fn keep_index(&self) {
        if self.index_is_whole()
            || self.index.replace(&self.app.home, self.known.iter().filter_map(new_entry))
        {
            let is_known =
                |id: &str, note: &str| self.known_notes.contains(&(id.to_owned(), note.to_owned()));
            self.index.remove_marks(&self.app.home, self.now, is_known);
        }
    }

    fn index_is_whole(&self) -> bool {
        let is_indexed =
            |known: &&KnownExperiment<'_>| matches!(known, KnownExperiment::Indexed(_));
        let n_indexed = self.known.iter().filter(is_indexed).count();
        let others = self.known.iter().filter(|known| !is_indexed(known)).filter_map(new_entry);
        let others: BTreeMap<&str, NewEntry<'_>> = others.map(|line| (line.id, line)).collect();
        let is_as_it_was = |entry: &IndexEntry<'_>| {
            others
                .get(entry.id)
                .is_some_and(|line| entry.row == line.row && entry.facts == line.facts)
        };
        let (mut n_before, mut n_same) = (0, 0);
        for entry in self.index.entries() {
            n_before += 1;
            n_same += usize::from(!others.is_empty() && is_as_it_was(&entry));
        }
        n_before == n_indexed + others.len() && n_same == others.len()
    }
}

/// Its line in the index, if nothing can change any more.
fn new_entry<'a>(known: &'a KnownExperiment<'_>) -> Option<NewEntry<'a>> {
    match known {
        KnownExperiment::Indexed(IndexEntry { id, state, row, facts }) => {
            let (row, facts) = (Cow::Borrowed(*row), Cow::Borrowed(*facts));
            Some(NewEntry { id, state: *state, row, facts })
        }
        KnownExperiment::Summarized(summary) => Summary::entry(summary),
        KnownExperiment::Unknown | KnownExperiment::Damaged(_) => None,
    }
}
