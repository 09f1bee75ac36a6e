//! Why nothing matches: a key or a tag that no experiment has, or a pattern that fits only a part of a name.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Listing;
use crate::annotations::value_at;
use crate::commands::filter_args::FilterArgs;
use crate::filter::{KeySource, ValueCondition, is_glob};
use crate::humanize::listed;

/// How many similar words are named, and how many where none is similar.
const CLOSEST: usize = 3;
const SOME: usize = 8;
/// How similar words are that are named, from 0 to 1.
const SIMILAR: f64 = 0.7;

/// What experiments can be filtered by.
#[derive(Default)]
struct Vocabulary {
    tags: BTreeSet<String>,
    metadata: BTreeSet<String>,
    params: BTreeSet<String>,
    metrics: BTreeSet<String>,
    /// Whether the parameters of some are not known without reading their trials.
    is_partial: bool,
}

impl Listing<'_> {
    /// What to change in the filters, where nothing matches them.
    pub(in crate::commands) fn why_none(&self, args: &FilterArgs) -> Vec<String> {
        // What is archived matches: that is said.
        if !self.matching.is_empty() || !self.hidden.is_empty() || self.ids.is_empty() {
            return Vec::new();
        }
        let mut hints: Vec<String> =
            args.name.iter().filter_map(|pattern| self.why_no_name(pattern)).collect();
        if args.tag.is_empty() && args.conditions.is_empty() {
            return hints;
        }
        let vocabulary = self.vocabulary(&args.conditions);
        hints.extend(args.tag.iter().filter_map(|tag| vocabulary.why_no_tag(tag)));
        hints.extend(args.conditions.iter().filter_map(|own| vocabulary.why_no_key(own)));
        hints
    }

    fn why_no_name(&self, pattern: &str) -> Option<String> {
        let names: BTreeSet<String> = self.ids.iter().map(|id| id.name().to_owned()).collect();
        if is_glob(pattern) || names.contains(pattern) {
            return None;
        }
        let found = self.ids.iter().filter(|id| id.name().contains(pattern)).count();
        Some(if found > 0 {
            format!(
                "`--name` must fit the whole name: `nemo-slurm list --name '*{pattern}*'` finds {found}"
            )
        } else {
            format!(
                "no experiment has `{pattern}` in its name; {}",
                closest(pattern, &names, "names")
            )
        })
    }

    fn vocabulary(&self, conditions: &[ValueCondition]) -> Vocabulary {
        let mut all = Vocabulary::default();
        for place in 0..self.ids.len() {
            let Some((annotations, facts)) = self.annotations_and_facts(place) else { continue };
            for condition in conditions {
                let value = value_at(&annotations.metadata, &condition.key);
                all.metadata.extend(value.map(|_| condition.key.clone()));
            }
            for (key, value) in &annotations.metadata {
                add_keys(&mut all.metadata, key.clone(), value);
            }
            all.tags.extend(annotations.tags);
            for task in facts.tasks {
                all.is_partial |= task.params.is_none();
                all.params.extend(task.params.into_iter().flatten().map(|(key, _)| key));
            }
            let best = self.brief(place).and_then(|row| row.best);
            all.metrics.extend(best.map(|best| best.metric));
        }
        all
    }
}

/// The dotted names of all that a value holds.
fn add_keys(keys: &mut BTreeSet<String>, key: String, value: &Value) {
    match value.as_object() {
        Some(table) => {
            for (inner, value) in table {
                add_keys(keys, format!("{key}.{inner}"), value);
            }
        }
        None => drop(keys.insert(key)),
    }
}

impl Vocabulary {
    fn why_no_tag(&self, tag: &str) -> Option<String> {
        (!self.tags.contains(tag)).then(|| {
            format!("no experiment has the tag `{tag}`; {}", closest(tag, &self.tags, "tags"))
        })
    }

    fn why_no_key(&self, condition: &ValueCondition) -> Option<String> {
        let key = &condition.key;
        let (known, is_partial, place) = match condition.place {
            KeySource::Metadata => (self.metadata.clone(), false, "metadata"),
            KeySource::Params => (self.params.clone(), self.is_partial, "parameters"),
            KeySource::Either => {
                let both = self.metadata.union(&self.params).cloned().collect();
                (both, self.is_partial, "metadata or parameters")
            }
        };
        if is_partial || known.contains(key) {
            return None;
        }
        if self.metrics.contains(key) {
            return Some(format!(
                "`{key}` is a metric, and `--where` looks into {place}; `nemo-slurm list --sort best` orders by it"
            ));
        }
        let closest = closest(key, &known, "keys");
        Some(format!("no experiment has the key `{key}` in its {place}; {closest}"))
    }
}

/// The words that are most like one; some of them where none is.
fn closest(word: &str, known: &BTreeSet<String>, what: &str) -> String {
    let mut likes: Vec<(f64, &str)> =
        known.iter().map(|own| (strsim::jaro_winkler(own, word), own.as_str())).collect();
    likes.retain(|(like, _)| *like >= SIMILAR);
    likes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let likes: Vec<&str> = likes.iter().take(CLOSEST).map(|(_, own)| *own).collect();
    match (likes.as_slice(), known.len()) {
        (_, 0) => format!("there are no {what} at all"),
        ([], n) => {
            let some = known.iter().take(SOME).map(String::as_str);
            let more = if n > SOME { format!(" and {} more", n - SOME) } else { String::new() };
            format!("the {what} are {}{more}", listed(some))
        }
        ([one], _) => format!("the closest is `{one}`"),
        (several, _) => format!("the closest are {}", listed(several.iter().copied())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_closest_words_are_named() {
        let keys = words(&["depth", "model", "model_name", "lr"]);
        assert_eq!(closest("modle", &keys, "keys"), "the closest are `model`, `model_name`");
        assert_eq!(
            closest("zz", &keys, "keys"),
            "the keys are `depth`, `lr`, `model`, `model_name`"
        );
        assert_eq!(closest("zz", &words(&[]), "tags"), "there are no tags at all");
    }

    #[test]
    fn a_key_is_told_from_a_metric_and_from_what_is_not_known() {
        let mut known = Vocabulary {
            params: words(&["lr"]),
            metrics: words(&["loss"]),
            ..Vocabulary::default()
        };
        let why = |known: &Vocabulary, text: &str| known.why_no_key(&text.parse().unwrap());
        assert_eq!(why(&known, "lr>1"), None);
        let metadata = "no experiment has the key `lr` in its metadata; there are no keys at all";
        assert_eq!(why(&known, "metadata.lr>1").as_deref(), Some(metadata));
        assert!(why(&known, "loss<1").unwrap().contains("is a metric"));
        known.is_partial = true;
        assert_eq!(why(&known, "width>1"), None, "somebody may have it");
        assert!(why(&known, "metadata.width>1").is_some());
    }
}
