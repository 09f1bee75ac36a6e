//! By how much files may differ, since undisturbed runs do. Pure.

use std::collections::BTreeMap;

use super::compare_files::{FileDifference, How, TreeDifference};
use super::file_names;

/// By how much a part may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AllowedDifference {
    /// It is not compared.
    Any,
    /// Each number, by so much.
    Numbers(f64),
    /// The header, up to this byte.
    Header(u64),
}

impl AllowedDifference {
    /// The room for both.
    #[must_use]
    pub fn wider(self, other: Self) -> Self {
        match (self, other) {
            (Self::Numbers(one), Self::Numbers(other)) => Self::Numbers(one.max(other)),
            (Self::Header(one), Self::Header(other)) => Self::Header(one.max(other)),
            _ => Self::Any,
        }
    }
}

/// By how much each part of each file may differ, by the shape of its name: as two undisturbed runs do.
pub type TreeTolerance = BTreeMap<(String, String), AllowedDifference>;

/// What two undisturbed runs differ in, with room for chance: ten times as much.
#[must_use]
pub fn slack(difference: &TreeDifference) -> TreeTolerance {
    let mut slack = TreeTolerance::new();
    for own in &difference.differences {
        let room = tolerance(own);
        slack.entry(key(own)).and_modify(|before| *before = before.wider(room)).or_insert(room);
    }
    slack
}

/// What differs in one save differs in the next one too: the numbers in its name say nothing.
fn key(own: &FileDifference) -> (String, String) {
    (file_names::shape(&own.path), own.part.clone())
}

fn tolerance(own: &FileDifference) -> AllowedDifference {
    match own.how {
        // A clock goes on while a trial is requeued.
        How::Numbers { .. } if file_names::is_clock(&own.part) => AllowedDifference::Any,
        How::Numbers { largest, .. } => AllowedDifference::Numbers(largest * 10.0),
        // The next host's name may be a little longer.
        How::Bytes { until: Some(until), .. } => AllowedDifference::Header(until + 256),
        How::Missing | How::Added | How::Bytes { until: None, .. } => AllowedDifference::Any,
    }
}

/// Whether a difference is one of those that may be.
#[must_use]
pub fn is_within(own: &FileDifference, slack: &TreeTolerance) -> bool {
    let room = slack.get(&key(own));
    match (room, &own.how) {
        (Some(AllowedDifference::Any), _) => true,
        (Some(AllowedDifference::Numbers(room)), How::Numbers { largest, .. }) => largest <= room,
        (Some(AllowedDifference::Header(room)), How::Bytes { until: Some(until), .. }) => {
            until <= room
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_anyway_may_differ_a_little_more() {
        let numbers = |largest| FileDifference {
            path: "s".to_owned(),
            part: "w".to_owned(),
            how: How::Numbers { differing: 1, of: 1, largest },
            weights: true,
        };
        let undisturbed = TreeDifference {
            compared: 1,
            differences: vec![numbers(0.1)],
            ..TreeDifference::default()
        };
        let slack = slack(&undisturbed);
        assert!(is_within(&numbers(0.9), &slack));
        assert!(!is_within(&numbers(2.0), &slack));
        let whole = FileDifference { how: How::Bytes { at: 0, until: None }, ..numbers(0.0) };
        assert!(!is_within(&whole, &slack));
        assert!(!is_within(&FileDifference { part: "v".to_owned(), ..numbers(0.1) }, &slack));
    }

    #[test]
    fn a_clock_may_differ_by_anything_and_in_every_save() {
        let own = |path: &str, largest| FileDifference {
            path: path.to_owned(),
            part: "elapsed".to_owned(),
            how: How::Numbers { differing: 1, of: 1, largest },
            weights: false,
        };
        let differences = vec![own("step-10.pkl", 0.1)];
        let slack = slack(&TreeDifference { differences, ..TreeDifference::default() });
        assert!(is_within(&own("step-30.pkl", 99.0), &slack));
        assert!(!is_within(&own("other.pkl", 99.0), &slack));
    }
}
