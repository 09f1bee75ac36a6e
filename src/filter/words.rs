//! `search WORDS`: how well an experiment fits words. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::annotations::Annotations;
use crate::summary::{Facts, ParamValues};

/// Words that must all be found, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words(Vec<String>);

/// How much it counts where a word is found.
const NAME: u32 = 40;
const TAG: u32 = 30;
const TASK: u32 = 20;
const DESCRIPTION: u32 = 16;
const METADATA: u32 = 14;
const PARAMETER: u32 = 12;
const NOTE: u32 = 10;

/// What is found of the words so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How well each word fits each kind of text, by what the kind counts; nothing where it was not found.
    scores: Vec<BTreeMap<u32, u32>>,
    /// Whether parameters that are not kept one by one may have what is missing.
    pub may_be_in_trials: bool,
    /// Whether notes that are not kept may have it.
    pub may_be_in_notes: bool,
}

impl Found {
    /// How well it fits, if every word was found.
    #[must_use]
    pub fn score(&self) -> Option<u32> {
        let is_found = self.scores.iter().all(|kinds| !kinds.is_empty());
        is_found.then(|| self.scores.iter().flat_map(BTreeMap::values).sum())
    }
}

impl Words {
    /// What was typed, cut at blanks.
    #[must_use]
    pub fn new(typed: &[String]) -> Self {
        let words = typed.iter().flat_map(|text| text.split_whitespace());
        Self(words.map(str::to_lowercase).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the JSON of an experiment, in lower case, may have all of them.
    #[must_use]
    pub fn may_be_in(&self, json: &str) -> bool {
        let is_open = ["\"many\"", "\"params\":null", "\"is_cut\":true"]
            .iter()
            .any(|text| json.contains(text));
        let has_numbers = json.contains("\"steps\"") || json.contains("\"range\"");
        is_open
            || self.0.iter().all(|word| {
                let is_plain = |part: &str| {
                    part.bytes()
                        .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
                };
                let may_be_number = has_numbers && word.contains(|c: char| c.is_ascii_digit());
                // A number may be written in another way.
                let text = word
                    .rsplit_once('=')
                    .filter(|(_, value)| value.parse::<f64>().is_ok())
                    .map_or(word.as_str(), |(key, _)| key);
                may_be_number || text.split('=').all(|part| !is_plain(part) || json.contains(part))
            })
    }

    /// Looks for them in all that is kept of an experiment.
    #[must_use]
    pub fn find(&self, id: &str, name: &str, annotations: &Annotations, facts: &Facts) -> Found {
        let mut found = Found {
            scores: vec![BTreeMap::new(); self.0.len()],
            may_be_in_trials: false,
            may_be_in_notes: facts.is_cut,
        };
        self.add(&mut found, name, NAME);
        self.add(&mut found, id, NAME / 2);
        for tag in &annotations.tags {
            self.add(&mut found, tag, TAG);
        }
        self.add(&mut found, annotations.description.as_deref().unwrap_or_default(), DESCRIPTION);
        for (key, value) in &annotations.metadata {
            self.add_value(&mut found, key, value, METADATA);
        }
        self.add(&mut found, &facts.notes, NOTE);
        for task in &facts.tasks {
            self.add(&mut found, &task.name, TASK);
            let Some(params) = &task.params else {
                found.may_be_in_trials = true;
                continue;
            };
            for (name, values) in params {
                self.add_param(&mut found, name, values);
            }
        }
        found
    }

    /// Looks for them in one more value of a parameter.
    pub fn add_trial_value(&self, found: &mut Found, name: &str, value: &Value) {
        self.add_value(found, name, value, PARAMETER);
    }

    /// Looks for them in one more note.
    pub fn add_note(&self, found: &mut Found, text: &str) {
        self.add(found, text, NOTE);
    }

    fn add_param(&self, found: &mut Found, name: &str, values: &ParamValues) {
        match values {
            ParamValues::Each(values) => {
                for value in values {
                    self.add_value(found, name, value, PARAMETER);
                }
            }
            ParamValues::Steps(first, last, step) => {
                self.add(found, name, PARAMETER);
                for (word, score) in self.0.iter().zip(&mut found.scores) {
                    let number =
                        word.strip_prefix(&format!("{}=", name.to_lowercase())).unwrap_or(word);
                    let is_one = number.parse::<i64>().is_ok_and(|number| {
                        (*first..=*last).contains(&number)
                            && number.checked_sub(*first).is_some_and(|far| far % step == 0)
                    });
                    if is_one {
                        let fit = if number == word { WORD } else { WHOLE };
                        improve(score, PARAMETER, fit);
                    }
                }
            }
            ParamValues::Range(..) | ParamValues::Many => {
                self.add(found, name, PARAMETER);
                found.may_be_in_trials = true;
            }
        }
    }

    /// A value is found by itself, by its key, and by `key=value`.
    fn add_value(&self, found: &mut Found, key: &str, value: &Value, weight: u32) {
        match value {
            Value::Object(inner) => {
                self.add(found, key, weight);
                for (name, value) in inner {
                    self.add_value(found, &format!("{key}.{name}"), value, weight);
                }
            }
            Value::String(text) => self.add(found, &format!("{key}={text}"), weight),
            Value::Number(number) => {
                self.add(found, &format!("{key}={number}"), weight);
                self.add_number(found, key, number.as_f64().unwrap_or(f64::NAN), weight);
            }
            other => self.add(found, &format!("{key}={other}"), weight),
        }
    }

    fn add(&self, found: &mut Found, text: &str, weight: u32) {
        if text.is_empty() {
            return;
        }
        let text = text.to_lowercase();
        for (word, score) in self.0.iter().zip(&mut found.scores) {
            if let Some(fit) = fit(&text, word) {
                improve(score, weight, fit);
            }
        }
    }

    /// A number is whole in each way of writing it: `lr=1` and `1` are 1.0.
    fn add_number(&self, found: &mut Found, key: &str, number: f64, weight: u32) {
        let key = key.to_lowercase();
        for (word, score) in self.0.iter().zip(&mut found.scores) {
            let named = word.rsplit_once('=').filter(|(own, _)| *own == key);
            let (text, fit) = named.map_or((word.as_str(), WORD), |(_, text)| (text, WHOLE));
            let is_equal = |own: f64| own.partial_cmp(&number) == Some(Ordering::Equal);
            if text.parse().is_ok_and(is_equal) {
                improve(score, weight, fit);
            }
        }
    }
}

fn improve(score: &mut BTreeMap<u32, u32>, weight: u32, fit: u32) {
    let best = score.entry(weight).or_default();
    *best = (*best).max(weight * fit);
}

/// How well a word fits a text.
const WHOLE: u32 = 8;
const WORD: u32 = 4;
const BEGINNING: u32 = 2;
const PART: u32 = 1;

/// A word is all of a text, a whole word of it, the beginning of one, or any part.
fn fit(text: &str, word: &str) -> Option<u32> {
    if text == word {
        return Some(WHOLE);
    }
    let places = text.match_indices(word).map(|(start, _)| {
        let before = text[..start].chars().rev();
        let after = text[start + word.len()..].chars();
        match (!goes_on(before), !goes_on(after)) {
            (true, true) => WORD,
            (true, false) => BEGINNING,
            (false, _) => PART,
        }
    });
    places.max()
}

/// Whether a word has more than was found of it: a letter or a digit, or the other side of a decimal point.
fn goes_on(mut rest: impl Iterator<Item = char>) -> bool {
    match rest.next() {
        Some('.') => rest.next().is_some_and(|c| c.is_ascii_digit()),
        next => next.is_some_and(char::is_alphanumeric),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn score(words: &str) -> Option<u32> {
        let annotations = json!({ "tags": ["paper"], "description": "GPT on wiki", "metadata": { "model": "gpt", "data": { "rows": 3 } } });
        let annotations: Annotations = serde_json::from_value(annotations).unwrap();
        let facts = json!({ "notes": "diverges at step 40", "tasks": [{ "name": "train", "is_grid": true, "params": {
            "lr": { "each": [0.1, 0.01] }, "n": { "steps": [0, 900, 3] }, "Width": { "range": [0.5, 1.5] },
        }}]});
        let facts: Facts = serde_json::from_value(facts).unwrap();
        let words = Words::new(&[words.to_owned()]);
        let found = words.find("digits-big-1rs0xg11", "digits-big", &annotations, &facts).score();
        if found.is_some() {
            let json = format!("{}{}digits-big", json!(annotations), json!(facts)).to_lowercase();
            assert!(words.may_be_in(&json), "{words:?}");
        }
        found
    }

    #[test]
    fn every_word_must_be_found() {
        for words in [
            "digits",
            "DIGITS-big",
            "big paper",
            "wiki gpt",
            "model=gpt",
            "data.rows=3",
            "rows",
            "diverges",
            "train",
            "lr",
            "0.01",
            "lr=0.1",
            "lr=1e-2",
            "n=303",
            "600",
            "width",
            "1rs0xg11",
            "gpt on wiki",
        ] {
            assert!(score(words).is_some(), "{words}");
        }
        for words in ["vit", "digits vit", "lr=0.2", "n=304", "model=vit", "data=3"] {
            assert_eq!(score(words), None, "{words}");
        }
    }

    #[test]
    fn the_name_counts_more_than_a_note_and_a_word_more_than_a_part() {
        let order = ["digits-big", "digits", "paper", "train", "wiki", "diverges", "verge"];
        // `paper` is all of a tag.
        let scores: Vec<u32> = order.iter().map(|words| score(words).unwrap()).collect();
        assert!(scores[0] > scores[2] && scores[2] >= scores[1], "{scores:?}");
        assert!(
            scores[1] > scores[4] && scores[4] > scores[5] && scores[5] > scores[6],
            "{scores:?}"
        );
    }

    #[test]
    fn a_whole_number_counts_more_than_the_beginning_of_another() {
        let score = |word: &str, value: serde_json::Value| {
            let words = Words::new(&[word.to_owned()]);
            let mut found = Found {
                scores: vec![BTreeMap::new()],
                may_be_in_trials: false,
                may_be_in_notes: false,
            };
            words.add_trial_value(&mut found, "LR", &value);
            found.score().unwrap_or(0)
        };
        assert_eq!(score("lr=1", json!(1.0)), score("lr=1", json!(1)));
        assert!(score("lr=1", json!(1.0)) > score("lr=1", json!(1.5)));
        assert!(score("lr=1", json!(1.0)) > score("lr=1", json!(10)));
        assert!(score("1", json!(1.0)) > score("1", json!(1.5)));
        assert!(score("5", json!(5.0)) > score("5", json!(1.5)));
        assert!(score("lr=1", json!(1.0)) > score("lr=1", json!("1.5")));
        assert_eq!(score("other=1", json!(1.0)), 0);
    }
}
