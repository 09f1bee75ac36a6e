//! Collects problems while a file is read, so that all of them are reported at once.

use super::problems::{Problem, Problems};
use super::source::{Sources, Span};

/// Where something stands: its place in the text and its dotted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: Span,
    pub(super) key: String,
}

/// The problems found so far.
pub(super) struct Report<'a> {
    pub(super) sources: &'a Sources,
    problems: Vec<(Span, Problem)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, problems: Vec::new() }
    }

    /// Adds a problem; the answer takes its hint.
    pub(super) fn problem(&mut self, place: &Place, message: impl Into<String>) -> &mut Problem {
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
        self.problems.len()
    }

    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|(at, _)| *at);
        let mut problems: Vec<Problem> = Vec::with_capacity(self.problems.len());
        for (_, problem) in self.problems {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Problems(problems)
    }
}

/// The candidate that a misspelt name most likely means.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(score, _)| *score >= 0.8)
        // `max_by` would keep the last of equals.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            Some(_) | None => Some(next),
        })
        .map(|(_, candidate)| candidate)
}

/// A hint: the name that was likely meant, or else all that there are.
pub(super) fn choices<'a>(
    name: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match nearest(name, candidates.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("{what}: {}", listed(candidates)),
    }
}

/// `` `a`, `b`, `c` ``.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
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
        assert_eq!(nearest("xyz", names), None);
        assert_eq!(nearest("", names), None);
    }
}
