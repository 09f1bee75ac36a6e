//! Which trials of an experiment somebody means: all, a task's, or some of a task's, as in `train/3,17,40-49`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of an experiment; all of it where nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// One task; all where none is named.
    pub task: Option<String>,
    /// Some trials of the task; all where none is named.
    pub trials: Option<TrialSet>,
}

impl Scope {
    /// Whether any trial of the task may be meant.
    #[must_use]
    pub fn covers_task(&self, task: &str) -> bool {
        self.task.as_deref().is_none_or(|wanted| wanted == task)
    }

    /// Whether the trial is meant.
    #[must_use]
    pub fn covers(&self, task: &str, trial: u32) -> bool {
        self.covers_task(task) && self.covers_trial(trial)
    }

    /// Whether this trial of a task that is meant is.
    #[must_use]
    pub fn covers_trial(&self, trial: u32) -> bool {
        self.trials.as_ref().is_none_or(|wanted| wanted.contains(trial))
    }
}

impl fmt::Display for Scope {
    /// `/train/3`: what follows the experiment's id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.iter().try_for_each(|task| write!(f, "/{task}"))?;
        self.trials.iter().try_for_each(|trials| write!(f, "/{trials}"))
    }
}

/// Some trials of a task, at least one. In files one trial is a number, several are text as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialSet {
    /// First and last. They rise and never touch, so that equal sets compare equal.
    ranges: Vec<(u32, u32)>,
}

/// Text that names no trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTrials;

impl TrialSet {
    /// The set of these trials; none where there are none.
    pub fn new(trials: impl IntoIterator<Item = u32>) -> Option<Self> {
        Self::of_ranges(trials.into_iter().map(|trial| (trial, trial)).collect())
    }

    fn of_ranges(mut given: Vec<(u32, u32)>) -> Option<Self> {
        given.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (first, last) in given {
            match ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                Some(_) | None => ranges.push((first, last)),
            }
        }
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// Whether the trial is one of them.
    #[must_use]
    pub fn contains(&self, trial: u32) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&trial))
    }

    /// The trials, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// The only trial, where there is one only.
    #[must_use]
    pub fn only(&self) -> Option<u32> {
        match self.ranges[..] {
            [(first, last)] if first == last => Some(first),
            _ => None,
        }
    }

    /// The highest trial.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.ranges.last().map_or(0, |&(_, last)| last)
    }
}

impl From<u32> for TrialSet {
    fn from(trial: u32) -> Self {
        Self { ranges: vec![(trial, trial)] }
    }
}

impl fmt::Display for TrialSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let end = if first == last { String::new() } else { format!("-{last}") };
            write!(f, "{comma}{first}{end}")?;
        }
        Ok(())
    }
}

impl FromStr for TrialSet {
    type Err = NotTrials;
    fn from_str(text: &str) -> Result<Self, NotTrials> {
        let ranges = text.split(',').map(range).collect::<Option<Vec<_>>>();
        ranges.and_then(Self::of_ranges).ok_or(NotTrials)
    }
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Digits alone: `parse` takes a sign as well.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Serialize for TrialSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.only() {
            Some(trial) => serializer.serialize_u32(trial),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for TrialSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = TrialSet;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a trial, or trials such as \"3,17,40-49\"")
            }
            fn visit_u64<E: Error>(self, trial: u64) -> Result<TrialSet, E> {
                u32::try_from(trial).map(TrialSet::from).map_err(E::custom)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<TrialSet, E> {
                text.parse()
                    .map_err(|NotTrials| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_in_one_way() {
        let check = |text: &str, expected: Result<&str, NotTrials>| {
            let read = text.parse::<TrialSet>().map(|set| set.to_string());
            assert_eq!(read, expected.map(str::to_owned), "{text}");
        };
        check("3", Ok("3"));
        check("3,17,40-49", Ok("3,17,40-49"));
        check("40-49,3,4,4-6", Ok("3-6,40-49"));
        check("4294967295,0", Ok("0,4294967295"));
        for text in ["", ",", "3,", "x", "5-3", "1-2-3", "-1", "+1", "4294967296", " 3"] {
            check(text, Err(NotTrials));
        }
    }

    #[test]
    fn a_scope_covers_what_it_names() {
        let scope = |task: Option<&str>, trials: Option<&str>| Scope {
            task: task.map(str::to_owned),
            trials: trials.map(|text| text.parse().unwrap()),
        };
        let covered = |scope: &Scope| {
            let all =
                ["a", "b"].into_iter().flat_map(|task| (0..4).map(move |trial| (task, trial)));
            all.filter(|(task, trial)| scope.covers(task, *trial)).count()
        };
        assert_eq!(covered(&Scope::default()), 8);
        assert_eq!(covered(&scope(Some("a"), None)), 4);
        assert_eq!(covered(&scope(Some("a"), Some("0,2-9"))), 3);
        assert_eq!(covered(&scope(Some("c"), None)), 0);
        assert_eq!(scope(Some("a"), Some("0,2-9")).to_string(), "/a/0,2-9");
    }

    #[test]
    fn in_files_one_trial_is_a_number() {
        let json = |text: &str| serde_json::to_string(&text.parse::<TrialSet>().unwrap()).unwrap();
        assert_eq!((json("3"), json("3,5-7")), ("3".to_owned(), "\"3,5-7\"".to_owned()));
        for text in ["3", "\"3,5-7\""] {
            let read: TrialSet = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        assert!(serde_json::from_str::<TrialSet>("\"x\"").is_err());
        assert!(serde_json::from_str::<TrialSet>("-1").is_err());
    }
}
