//! Which experiments a list shows. Pure.

mod condition;
mod glob;
mod params;
mod words;

use std::io;

use nemo_core::rundir::ExperimentDir;

use crate::annotations::{Annotations, value_at};
use crate::store::ExperimentId;
use crate::summary::{Facts, each_trial};

pub use condition::{KeySource, NotACondition, ValueCondition};
pub use glob::{check as check_glob, is_glob};
pub use params::Verdict;
pub use words::{Found, Words};

/// What must hold of an experiment, whatever its state; all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Tags that it has.
    pub tags: Vec<String>,
    /// Patterns that its name fits.
    pub names: Vec<String>,
    /// What its metadata or parameters meet.
    pub conditions: Vec<ValueCondition>,
    /// When it was submitted at the earliest, in unix seconds.
    pub since: Option<f64>,
}

impl Filters {
    /// What the id alone tells.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    pub fn may_match(&self, id: &ExperimentId) -> bool {
        self.since.is_none_or(|since| id.made_at() as f64 >= since)
            && self.names.iter().all(|pattern| glob::fits(pattern, id.name()))
    }

    /// Whether the id tells all.
    #[must_use]
    pub fn need_only_the_id(&self) -> bool {
        self.tags.is_empty() && self.conditions.is_empty()
    }

    /// Words that stand in the JSON of every experiment that matches.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let last = |key: &str| key.rfind('.').map_or(0, |dot| dot + 1);
        let keys = self.conditions.iter().map(move |it| &it.key[last(&it.key)..]);
        keys.chain(self.tags.iter().map(String::as_str)).filter(|word| is_plain(word))
    }

    /// Whether annotations may tell something, of which this is the JSON: thousands need not be read for parameters alone.
    #[must_use]
    pub fn may_need_annotations(&self, json: &str) -> bool {
        let may_be_there = |condition: &ValueCondition| match condition.place {
            KeySource::Params => false,
            KeySource::Metadata => true,
            KeySource::Either => {
                let last = condition.key.rsplit('.').next().unwrap_or_default();
                !is_plain(last) || json.contains(last)
            }
        };
        !self.tags.is_empty() || self.conditions.iter().any(may_be_there)
    }

    /// Whether an experiment matches, where its annotations alone tell.
    #[must_use]
    pub fn decided_by(&self, annotations: &Annotations) -> Option<bool> {
        if !self.tags.iter().all(|tag| annotations.tags.contains(tag)) {
            return Some(false);
        }
        match self.about_params(annotations) {
            None => Some(false),
            Some(conditions) => conditions.is_empty().then_some(true),
        }
    }

    /// What annotations and facts tell, for an experiment whose id matches.
    #[must_use]
    pub fn verdict(&self, annotations: &Annotations, facts: &Facts) -> Verdict {
        if !self.tags.iter().all(|tag| annotations.tags.contains(tag)) {
            return Verdict::No;
        }
        match self.about_params(annotations) {
            Some(conditions) => params::verdict(&conditions, facts),
            None => Verdict::No,
        }
    }

    /// The same, read from the trials. Returns how many lines of theirs are damaged too.
    pub fn read_trials(
        &self,
        dir: &ExperimentDir,
        annotations: &Annotations,
        facts: &Facts,
    ) -> io::Result<(bool, usize)> {
        let conditions = self.about_params(annotations).unwrap_or_default();
        let mut search = params::TrialSearch::new(&conditions);
        let mut damaged = 0;
        for task in &facts.tasks {
            if !search.is_done() {
                damaged += each_trial(dir, &task.name, |params| search.add(&params))?;
            }
        }
        Ok((search.is_done(), damaged))
    }

    /// The conditions that metadata leaves to parameters; nothing where metadata does not meet one.
    fn about_params(&self, annotations: &Annotations) -> Option<Vec<&ValueCondition>> {
        let mut left = Vec::new();
        for condition in &self.conditions {
            let value = value_at(&annotations.metadata, &condition.key);
            match (condition.place, value) {
                (KeySource::Params, _) | (KeySource::Either, None) => left.push(condition),
                (KeySource::Metadata, None) => return None,
                (KeySource::Metadata | KeySource::Either, Some(value)) => {
                    if !condition.is_met_by(value) {
                        return None;
                    }
                }
            }
        }
        Some(left)
    }
}

/// Whether JSON spells it as it is.
fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn several_filters_are_joined_by_and() {
        let annotations: Annotations = serde_json::from_value(json!({
            "tags": ["paper", "big"], "description": null, "metadata": { "model": "gpt", "lr": 7, "data": { "rows": 3 } }
        }))
        .unwrap();
        let facts: Facts = serde_json::from_value(json!({ "tasks": [
            { "name": "t", "is_grid": true, "params": { "lr": { "each": [0.1] }, "width": { "each": [32] } } },
        ] }))
        .unwrap();
        let check = |tags: &[&str], wheres: &[&str], expected: Verdict| {
            let filters = Filters {
                tags: tags.iter().map(ToString::to_string).collect(),
                conditions: wheres.iter().map(|text| text.parse().unwrap()).collect(),
                ..Filters::default()
            };
            assert_eq!(filters.verdict(&annotations, &facts), expected, "{tags:?} {wheres:?}");
        };
        check(&["paper", "big"], &[], Verdict::Yes);
        check(&["paper", "small"], &[], Verdict::No);
        check(&[], &["model=gpt", "width=32"], Verdict::Yes);
        check(&[], &["model=gpt", "width=64"], Verdict::No);
        check(&[], &["lr=7"], Verdict::Yes);
        check(&[], &["lr=0.1"], Verdict::No); // metadata comes first
        check(&[], &["params.lr=0.1"], Verdict::Yes);
        check(&[], &["metadata.width=32"], Verdict::No);
        check(&[], &["data.rows=3"], Verdict::Yes);
        check(&["big"], &["metadata.data.rows>2", "params.width<100"], Verdict::Yes);
    }

    #[test]
    fn annotations_are_read_only_where_they_may_tell() {
        let check = |tags: &[&str], wheres: &[&str], expected| {
            let filters = Filters {
                tags: tags.iter().map(ToString::to_string).collect(),
                conditions: wheres.iter().map(|text| text.parse().unwrap()).collect(),
                ..Filters::default()
            };
            let json = r#"{"tags":["big"],"metadata":{"lr":7,"data":{"rows":3}}}"#;
            assert_eq!(filters.may_need_annotations(json), expected, "{tags:?} {wheres:?}");
        };
        check(&[], &["width<3"], false);
        check(&[], &["params.lr<3"], false);
        check(&["big"], &["width<3"], true);
        check(&[], &["width<3", "lr=7"], true);
        check(&[], &["data.rows=3"], true);
        check(&[], &["metadata.width=3"], true);
        check(&[], &["größe=3"], true);
    }

    #[test]
    fn names_and_times_need_the_id_alone() {
        let id: ExperimentId = "digits-big-1rs0xg11".parse().unwrap();
        let check = |names: &[&str], since: Option<f64>, expected| {
            let names = names.iter().map(ToString::to_string).collect();
            let filters = Filters { names, since, ..Filters::default() };
            assert!(filters.need_only_the_id());
            assert_eq!(filters.may_match(&id), expected, "{filters:?}");
        };
        check(&["digits*"], None, true);
        check(&["digits*", "*big"], Some(1_795_230_000.0), true);
        check(&["digits"], None, false);
        check(&[], Some(1_795_230_001.0), false);
    }
}
