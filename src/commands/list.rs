//! `list`: the experiments of this home, newest first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::App;
use super::polling::{open_jobs, query_slurm};
use super::status::look_by;
use crate::error::{CommandError, ExitCode};
use crate::observe::Depth;
use crate::query::{JobsToQuery, SlurmAnswers, SlurmSource, named};
use crate::report::{ListLine, Page, list_table, out, out_json, say};
use crate::status::State;
use crate::store::ExperimentId;
use crate::summary::{self, ExperimentBrief, Index, InputVersions, KnownExperiment};
use crate::{clock, humanize};

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Show at most N experiments; 0 shows all
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Show the last known states, without asking Slurm
    #[arg(long)]
    pub cached: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// So many seconds an answer of Slurm's is new enough for a list.
const FRESH: f64 = 30.0;

/// Lists experiments.
pub(super) fn list(app: &App, args: &ListArgs) -> Result<ExitCode, CommandError> {
    let ids = app.home.ids()?;
    let index = Index::read(&app.home);
    let mut list = List::new(app, &ids, &index);
    let limit = if args.limit == 0 { ids.len() } else { args.limit };
    let first_shown = ids.len().saturating_sub(limit);
    list.look(first_shown, args.cached);
    list.keep_index(&index);
    if args.json {
        return out_json(&list.json(first_shown));
    }
    if ids.is_empty() {
        say("No experiments yet. `nemo-slurm init` writes a file to start from.");
        return Ok(ExitCode::Fine);
    }
    out(&list_table(&list.lines(first_shown), &Page::here(clock::now())))?;
    for (id, why) in list.damaged(first_shown) {
        say(&format!("warning: `{id}`: {why}"));
    }
    say(&list.total(first_shown));
    Ok(ExitCode::Fine)
}

/// All experiments, oldest first.
struct List<'a> {
    app: &'a App,
    ids: &'a [ExperimentId],
    known: Vec<KnownExperiment<'a>>,
    now: f64,
}

impl<'a> List<'a> {
    fn new(app: &'a App, ids: &'a [ExperimentId], index: &'a Index) -> Self {
        let known = summary::known(&app.home, ids, index);
        Self { app, ids, known, now: clock::now() }
    }

    /// Looks into those that nobody looked into yet, and into those of the last that may have changed.
    fn look(&mut self, first_shown: usize, cached: bool) {
        let mut due = Vec::new();
        for place in 0..self.known.len() {
            let is_unknown = matches!(self.known[place], KnownExperiment::Unknown);
            if is_unknown {
                // Most are over, and their folders tell it: then Slurm need not be asked.
                self.look_into(place, SlurmSource::Nobody);
            }
            let is_shown = place >= first_shown;
            if !cached && (is_unknown || is_shown) && self.may_have_changed(place) {
                due.push(place);
            }
        }
        let answers = self.ask_for(&due);
        for place in due {
            self.look_into(place, SlurmSource::Asked(&answers));
        }
    }

    fn may_have_changed(&self, place: usize) -> bool {
        let KnownExperiment::Summarized(summary) = &self.known[place] else { return false };
        let is_fresh = (0.0..FRESH).contains(&(self.now - summary.row.as_of));
        let now = || InputVersions::of(&self.app.home.experiment(&self.ids[place]));
        let is_as_it_was = is_fresh && !summary.row.stale && summary.from.is_unchanged(&now());
        !summary.is_final && !is_as_it_was
    }

    /// One question for all of these, and for the other open ones where it is asked at all.
    fn ask_for(&self, due: &[usize]) -> SlurmAnswers {
        // There may be more jobs of them than at the last look.
        let jobs = |place: usize| {
            let journal = self.app.home.journal(&self.ids[place]);
            journal.map_or_else(|_| Vec::new(), |journal| named(&journal))
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

    /// Adds to the index what is over by now, and takes out what is gone.
    fn keep_index(&self, before: &Index) {
        let of_last = |known: &KnownExperiment<'_>| match known {
            KnownExperiment::Indexed(_) => Some(false),
            KnownExperiment::Summarized(summary) if summary.is_final => Some(true),
            KnownExperiment::Summarized(_)
            | KnownExperiment::Unknown
            | KnownExperiment::Damaged(_) => None,
        };
        let over: Vec<bool> = self.known.iter().filter_map(of_last).collect();
        if over.contains(&true) || over.len() != before.entries().count() {
            summary::write_index(&self.app.home, self.known.iter().filter_map(final_line));
        }
    }

    /// Those from this place on, newest first, and how many are in each state.
    fn json(&self, first_shown: usize) -> String {
        let mut text = String::from("{\"schema\":1,\"experiments\":[");
        for (n, place) in (first_shown..self.known.len()).rev().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let dir = self.app.home.experiment(&self.ids[place]).0;
            let dir = serde_json::Value::from(dir.to_string_lossy());
            let row = self.row_json(place);
            // A row is an object: the folder, which is not the same on every machine, comes last in it.
            let row = row.strip_suffix('}').unwrap_or(&row);
            text.extend([comma, row, ",\"dir\":", &dir.to_string(), "}"]);
        }
        text.extend(["],\"counts\":", &json!(self.counts()).to_string(), "}"]);
        text
    }

    fn row_json(&self, place: usize) -> Cow<'_, str> {
        match &self.known[place] {
            KnownExperiment::Indexed(entry) => Cow::Borrowed(entry.row),
            KnownExperiment::Summarized(summary) => Cow::Owned(summary.row.to_json()),
            KnownExperiment::Unknown | KnownExperiment::Damaged(_) => {
                let id = &self.ids[place];
                let row = json!({
                    "id": id, "name": id.name(), "version": null, "state": DAMAGED, "reason": self.damage(place),
                    "tags": [], "description": null, "metadata": {}, "created": id.made_at(), "ended": null,
                    "as_of": self.now, "stale": false, "trials": {}, "best": null, "archived": false,
                });
                Cow::Owned(row.to_string())
            }
        }
    }

    fn damage(&self, place: usize) -> Option<&str> {
        match &self.known[place] {
            KnownExperiment::Damaged(why) => Some(why),
            KnownExperiment::Indexed(_)
            | KnownExperiment::Summarized(_)
            | KnownExperiment::Unknown => None,
        }
    }

    fn damaged(&self, first_shown: usize) -> impl Iterator<Item = (&ExperimentId, &str)> {
        let places = (first_shown..self.known.len()).rev();
        places.filter_map(|place| Some((&self.ids[place], self.damage(place)?)))
    }

    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for known in &self.known {
            *counts.entry(state(known)).or_default() += 1;
        }
        counts
    }

    fn lines(&self, first_shown: usize) -> Vec<ListLine> {
        let line = |place: usize| {
            let id = &self.ids[place];
            let row = match &self.known[place] {
                KnownExperiment::Indexed(entry) => serde_json::from_str(entry.row).ok(),
                KnownExperiment::Summarized(summary) => Some(ExperimentBrief::from(&summary.row)),
                KnownExperiment::Unknown | KnownExperiment::Damaged(_) => None,
            };
            let dir = self.app.home.experiment(id).0.to_string_lossy().into_owned();
            ListLine { id: id.to_string(), created: id.made_at(), row, dir }
        };
        (first_shown..self.known.len()).rev().map(line).collect()
    }

    /// How many there are in all, and what can't be read.
    fn total(&self, first_shown: usize) -> String {
        let counts = self.counts();
        let states = counts.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>();
        let all = humanize::count(self.ids.len(), "experiment");
        let more = if first_shown > 0 { "; `nemo-slurm list -n 0` shows them all" } else { "" };
        format!("{all}: {}{more}", states.join(", "))
    }
}

/// Stands in place of a state.
const DAMAGED: &str = "damaged";

/// Where one stands, in a word.
fn state(known: &KnownExperiment<'_>) -> &'static str {
    match known {
        KnownExperiment::Indexed(entry) => entry.state.as_str(),
        KnownExperiment::Summarized(summary) => summary.row.state.as_str(),
        KnownExperiment::Unknown | KnownExperiment::Damaged(_) => DAMAGED,
    }
}

/// Its line in the index, if nothing can change any more.
fn final_line<'a>(known: &'a KnownExperiment<'_>) -> Option<(ExperimentId, State, Cow<'a, str>)> {
    match known {
        KnownExperiment::Indexed(entry) => {
            Some((entry.id.parse().ok()?, entry.state, Cow::Borrowed(entry.row)))
        }
        KnownExperiment::Summarized(summary) if summary.is_final => {
            let row = &summary.row;
            Some((row.id.clone(), row.state, Cow::Owned(row.to_json())))
        }
        KnownExperiment::Summarized(_) | KnownExperiment::Unknown | KnownExperiment::Damaged(_) => {
            None
        }
    }
}
