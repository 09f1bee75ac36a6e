//! Collects problems while a file is read, so that all of them are reported at once.

use super::problems::{Problem, Problems};
use super::source::{SourceTexts, Span};
pub(super) use crate::humanize::listed;

/// Where something stands: its place in the text and its dotted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPosition {
    pub(super) at: Span,
    pub(super) key: String,
}

/// The problems found so far.
pub(super) struct ProblemReport<'a> {
    pub(super) sources: &'a SourceTexts,
    problems: Vec<(Span, Problem)>,
    /// What is found beyond the most is only counted.
    beyond: usize,
    /// Takes the hints of those.
    spare: Problem,
}

/// The most mistakes that are reported at once.
const MOST: usize = 100;

impl<'a> ProblemReport<'a> {
    pub(super) fn new(sources: &'a SourceTexts) -> Self {
        let nowhere = sources.position(Span { source: 0, start: 0, end: 0 });
        let spare = Problem::new(nowhere, "", String::new());
        Self { sources, problems: Vec::new(), beyond: 0, spare }
    }

    /// Adds a problem; the answer takes its hint.
    pub(super) fn problem(
        &mut self,
        place: &KeyPosition,
        message: impl Into<String>,
    ) -> &mut Problem {
        if self.problems.len() == MOST {
            self.beyond += 1;
            return &mut self.spare;
        }
        let problem = Problem::new(self.sources.position(place.at), &place.key, message.into());
        self.problems.push((place.at, problem));
        let last = self.problems.len() - 1;
        &mut self.problems[last].1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are: a reader that adds some can say that it failed.
    pub(super) fn len(&self) -> usize {
        self.problems.len() + self.beyond
    }

    /// Whether further mistakes are only counted: what costs much to find need not be told any more.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() == MOST
    }

    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|(at, _)| *at);
        let mut problems: Vec<Problem> = Vec::with_capacity(self.problems.len());
        for (_, problem) in self.problems {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Problems(problems, self.beyond)
    }
}

/// A longer name is no misspelt one of ours.
const LONGEST_SLIP: usize = 200;

/// How alike two names must be for one to be suggested for the other.
const ALIKE: f64 = 0.8;

/// The candidate that a misspelt name most likely means.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if name.len() > LONGEST_SLIP {
        return None; // to compare takes time by the square of the length
    }
    let name = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (likeness(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(score, _)| *score >= ALIKE)
        // `max_by` would keep the last of equals.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            Some(_) | None => Some(next),
        })
        .map(|(_, candidate)| candidate)
}

fn likeness(name: &str, candidate: &str) -> f64 {
    // The measure knows no exchange of two letters in a short name: `rl` for `lr`.
    let slip = name.len() > 1 && strsim::damerau_levenshtein(name, candidate) == 1;
    strsim::jaro_winkler(name, candidate).max(if slip { ALIKE } else { 0.0 })
}

/// A hint: the name that was likely meant, or else all that there are.
pub(super) fn choices<'a>(
    name: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    let near = nearest(name, candidates.clone());
    let is_slip = |candidate: &&str| strsim::damerau_levenshtein(name, candidate) <= 1;
    let parts = candidates.clone().into_iter().filter(|candidate| is_part(name, candidate));
    // A part of a name is likelier meant than a name that only looks alike, but for one wrong letter.
    let meant: Vec<&str> = match near.filter(is_slip) {
        Some(slip) => vec![slip],
        None => parts.collect(),
    };
    let meant = if meant.is_empty() { near.into_iter().collect() } else { meant };
    did_you_mean(&meant).unwrap_or_else(|| format!("{what}: {}", listed(candidates)))
}

/// Whether a name is the beginning or the end of another, as `latest` is of `trial_latest`.
fn is_part(name: &str, candidate: &str) -> bool {
    let rest = candidate.strip_prefix(name).map(|rest| rest.starts_with('_'));
    let front = candidate.strip_suffix(name).map(|front| front.ends_with('_'));
    !name.is_empty() && (rest == Some(true) || front == Some(true))
}

/// How many names a question may offer.
const OFFERED: usize = 3;

/// ``did you mean `a` or `b`?``; nothing where there is none, or too many.
pub(super) fn did_you_mean(names: &[impl AsRef<str>]) -> Option<String> {
    if names.is_empty() || names.len() > OFFERED {
        return None;
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    Some(format!("did you mean {}?", quoted.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let names = ["task", "tags", "timeout", "gpus_per_node", "mem"];
        assert_eq!(nearest("tsak", names), Some("task"));
        assert_eq!(nearest("gpus", names), Some("gpus_per_node"));
        assert_eq!(nearest("memory", names), Some("mem"));
        assert_eq!(nearest("TIMEOUT", names), Some("timeout"));
        assert_eq!(nearest("rl", ["x", "lr"]), Some("lr"));
        assert_eq!(nearest("xyz", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn a_part_of_a_name_is_enough() {
        let keep = ["trial_latest", "trial_best", "experiment_best"];
        let check = |name, expected| assert_eq!(choices(name, "the keys are", keep), expected);
        check("latest", "did you mean `trial_latest`?");
        check("best", "did you mean `trial_best` or `experiment_best`?");
        check("trial_bst", "did you mean `trial_best`?");
        let nodes = ["nodes", "gpus_per_node", "tasks_per_node"];
        assert_eq!(choices("node", "the keys are", nodes), "did you mean `nodes`?");
        check("est", "the keys are: `trial_latest`, `trial_best`, `experiment_best`");
        check("", "the keys are: `trial_latest`, `trial_best`, `experiment_best`");
    }
}
