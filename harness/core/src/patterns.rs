//! Metrics by pattern: what a line of a program's output tells. Pure.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Map, Number, Value};

/// The patterns, and where the program is.
#[derive(Debug)]
pub struct Patterns {
    values: Vec<(String, Regex)>,
    /// The one that tells the step.
    step: Option<Regex>,
    /// The last step that it told.
    pub current: Option<u64>,
    /// Which patterns have matched a line: those of values, in their order.
    matched: Vec<bool>,
}

impl Patterns {
    /// Compiles the patterns by the names of their metrics. `step`, else `epoch`, tells the step.
    pub fn new(patterns: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut values = Vec::new();
        for (name, pattern) in patterns {
            let bad_pattern =
                |why: String| format!("the pattern of metric `{name}`, `{pattern}`: {why}");
            let regex = Regex::new(pattern).map_err(|error| bad_pattern(error.to_string()))?;
            if regex.captures_len() < 2 {
                return Err(bad_pattern("it needs a group `(…)` around the value".to_owned()));
            }
            values.push((name.clone(), regex));
        }
        let tells = ["step", "epoch"];
        let at = tells.iter().find_map(|step| values.iter().position(|(name, _)| name == step));
        let step = at.map(|at| values.remove(at).1);
        let matched = vec![false; values.len()];
        Ok(Self { values, step, current: None, matched })
    }

    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.step.is_none()
    }

    /// Whether the program tells its steps.
    pub fn has_step(&self) -> bool {
        self.step.is_some()
    }

    /// The metrics whose patterns no line has matched so far; the one that tells the step too.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let values = self.values.iter().zip(&self.matched);
        let missing = values.filter(|(_, matched)| !**matched).map(|((name, _), _)| name.clone());
        let step = (self.has_step() && self.current.is_none()).then(|| "step".to_owned());
        step.into_iter().chain(missing).collect()
    }

    /// All that one line tells. A line with only a step in it sets the step.
    pub fn line(&mut self, line: &str) -> Option<Map<String, Value>> {
        if let Some(step) = self.step.as_ref().and_then(|step| number(step, line)) {
            self.current = whole(step).or(self.current);
        }
        let mut found = Map::new();
        for ((name, regex), matched) in self.values.iter().zip(&mut self.matched) {
            if let Some(value) = number(regex, line) {
                *matched = true;
                found.insert(
                    name.clone(),
                    Number::from_f64(value).map_or(Value::Null, Value::Number),
                );
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

fn number(regex: &Regex, line: &str) -> Option<f64> {
    let text = regex.captures(line)?.get(1)?.as_str();
    text.trim().trim_end_matches([',', ';', '%']).replace('_', "").parse().ok()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn whole(step: f64) -> Option<u64> {
    (0.0..9e15).contains(&step).then_some(step as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[(&str, &str)]) -> Result<Patterns, String> {
        let owned = |(name, pattern): &(&str, &str)| ((*name).to_owned(), (*pattern).to_owned());
        Patterns::new(&list.iter().map(owned).collect())
    }

    #[track_caller]
    fn check(patterns: &mut Patterns, line: &str, step: Option<u64>, values: &str) {
        let found =
            patterns.line(line).map_or(String::new(), |found| Value::Object(found).to_string());
        assert_eq!((patterns.current, found.as_str()), (step, values), "{line:?}");
    }

    #[test]
    fn a_line_tells_values_and_the_step() {
        let list = [("loss", r"loss: (\S+)"), ("acc", r"acc=(\S+)"), ("step", r"step (\d+)")];
        let mut patterns = patterns(&list).unwrap();
        check(&mut patterns, "hello", None, "");
        check(&mut patterns, "loss: 0.5", None, r#"{"loss":0.5}"#);
        check(&mut patterns, "step 7", Some(7), "");
        check(&mut patterns, "loss: 1e-3, acc=97%", Some(7), r#"{"acc":97.0,"loss":0.001}"#);
        check(&mut patterns, "step 8 loss: nan", Some(8), r#"{"loss":null}"#);
        check(&mut patterns, "loss: inf acc=-inf", Some(8), r#"{"acc":null,"loss":null}"#);
        check(&mut patterns, "loss: what", Some(8), "");
    }

    #[test]
    fn epoch_is_the_step_where_there_is_no_step() {
        let mut patterns = patterns(&[("epoch", r"epoch (\S+)"), ("l", r"l=(\S+)")]).unwrap();
        check(&mut patterns, "epoch 3 l=1", Some(3), r#"{"l":1.0}"#);
    }

    #[test]
    fn a_bad_pattern_is_told() {
        assert!(patterns(&[("loss", "loss")]).unwrap_err().contains("group"));
        assert!(patterns(&[("loss", "(")]).unwrap_err().contains("`loss`"));
    }
}
