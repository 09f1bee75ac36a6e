//! What is shown of the experiments that match: as lines, as JSON, and how many they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::json;

use super::Listing;
use crate::commands::filter_args::{DAMAGED, FilterArgs};
use crate::humanize;
use crate::report::ListLine;
use crate::summary::{ExperimentBrief, KnownExperiment};

impl Listing<'_> {
    /// The first of those that match, and how many of all that match are in each state.
    pub(in crate::commands) fn json(&self, args: &FilterArgs) -> String {
        let mut text = String::from("{\"schema\":1,\"experiments\":[");
        for (n, &place) in self.shown(args.limit).iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let dir = serde_json::Value::from(self.dir(place).0.to_string_lossy());
            let row = self.row_json(place);
            // A row is an object: the folder, which is not the same on every machine, comes last in it.
            let row = row.strip_suffix('}').unwrap_or(&row);
            text.extend([comma, row, ",\"dir\":", &dir.to_string(), "}"]);
        }
        text.extend(["],\"counts\":", &json!(self.counts()).to_string()]);
        text.extend([",\"hidden\":", &self.hidden.len().to_string()]);
        let hints = self.why_none(args);
        if !hints.is_empty() {
            text.extend([",\"hints\":", &json!(hints).to_string()]);
        }
        text.push('}');
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

    /// What can't be read of those that are shown.
    pub(in crate::commands) fn damaged(&self, limit: usize) -> Vec<String> {
        let mut found = self.warnings.clone();
        for &place in self.shown(limit) {
            let id = &self.ids[place];
            found.extend(self.damage(place).map(|why| format!("`{id}`: {why}")));
            let has_damage = match &self.known[place] {
                KnownExperiment::Indexed(entry) => entry.facts.contains("\"damaged_notes\""),
                KnownExperiment::Summarized(summary) => !summary.facts.damaged_notes.is_empty(),
                KnownExperiment::Unknown | KnownExperiment::Damaged(_) => false,
            };
            if let Some((_, facts)) =
                has_damage.then(|| self.annotations_and_facts(place)).flatten()
            {
                let notes = facts.damaged_notes.iter();
                found.extend(notes.map(|path| format!("the note `{path}` is damaged and ignored")));
            }
        }
        found
    }

    /// Why those of the shown that are not over do not go on by themselves.
    pub(in crate::commands) fn interrupted(&self, limit: usize) -> Vec<String> {
        let told = |&place: &usize| {
            // Its line tells that without being read.
            if self.indexed(place).is_some_and(|entry| entry.state.is_final()) {
                return None;
            }
            let row = self.brief(place).filter(|row| !row.state.is_final())?;
            row.reason.map(|reason| format!("`{}`: {reason}", self.ids[place]))
        };
        self.shown(limit).iter().filter_map(told).collect()
    }

    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for &place in &self.matching {
            *counts.entry(state(&self.known[place])).or_default() += 1;
        }
        counts
    }

    pub(super) fn brief(&self, place: usize) -> Option<ExperimentBrief> {
        match &self.known[place] {
            KnownExperiment::Indexed(entry) => serde_json::from_str(entry.row).ok(),
            KnownExperiment::Summarized(summary) => Some(ExperimentBrief::from(&summary.row)),
            KnownExperiment::Unknown | KnownExperiment::Damaged(_) => None,
        }
    }

    pub(in crate::commands) fn lines(&self, limit: usize) -> Vec<ListLine> {
        self.map(self.shown(limit), |listing, place| {
            let id = &listing.ids[place];
            let dir = listing.dir(place).0.to_string_lossy().into_owned();
            ListLine { id: id.to_string(), created: id.made_at(), row: listing.brief(place), dir }
        })
    }

    /// How many match, and in which states.
    pub(in crate::commands) fn total(&self, args: &FilterArgs, how_to_see_all: &str) -> String {
        let counts = self.counts();
        let states = counts.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>();
        let n_all = self.n_listed(args.archived);
        let kind = if args.archived { "archived experiment" } else { "experiment" };
        let all = humanize::count(n_all, kind);
        let all = if args.leave_any_out() || self.matching.len() < n_all {
            format!("{} of {all}", self.matching.len())
        } else {
            all
        };
        let colon = if states.is_empty() { "" } else { ": " };
        let is_cut = self.shown(args.limit).len() < self.matching.len();
        let more = if is_cut { format!("; {how_to_see_all}") } else { String::new() };
        let hidden = match self.hidden.len() {
            0 => String::new(),
            1 => "; 1 archived is not shown: add `--archived`".to_owned(),
            n => format!("; {n} archived are not shown: add `--archived`"),
        };
        format!("{all}{colon}{}{more}{hidden}", states.join(", "))
    }

    /// How many there are to choose from.
    fn n_listed(&self, are_archived: bool) -> usize {
        let is_listed = |known: &&KnownExperiment<'_>| {
            if are_archived { known.is_archived() } else { !known.is_hidden() }
        };
        self.known.iter().filter(is_listed).count()
    }
}

/// Where one stands, in a word.
pub(super) fn state(known: &KnownExperiment<'_>) -> &'static str {
    match known {
        KnownExperiment::Indexed(entry) => entry.state.as_str(),
        KnownExperiment::Summarized(summary) => summary.row.state.as_str(),
        KnownExperiment::Unknown | KnownExperiment::Damaged(_) => DAMAGED,
    }
}
