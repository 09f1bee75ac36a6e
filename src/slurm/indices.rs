//! Sets of array indices, as ranges: what `sbatch --array` takes and `squeue` shows.

use std::fmt;
use std::str::FromStr;

use super::parse::{ParseError, id as grammar};

/// One more than the largest index that any Slurm accepts: the upper bound of MaxArraySize.
pub const INDEX_LIMIT: u32 = 4_000_001;

/// `first`, `first + step`, … up to and including `last`.
///
/// `last` is always reached and a single index has step 1, so that equal ranges compare equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    first: u32,
    last: u32,
    step: u32,
}

impl IndexRange {
    /// The range from `first` to at most `last`; nothing if they are the wrong way round, the step is 0, or an index
    /// is larger than Slurm allows.
    #[must_use]
    pub fn new(first: u32, last: u32, step: u32) -> Option<Self> {
        if first > last || step == 0 || last >= INDEX_LIMIT {
            return None;
        }
        let last = last - (last - first) % step;
        Some(Self { first, last, step: if first == last { 1 } else { step } })
    }

    /// How many indices it has.
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.last - self.first) / self.step + 1
    }

    /// Whether `index` is one of them.
    #[must_use]
    pub const fn contains(self, index: u32) -> bool {
        self.first <= index && index <= self.last && (index - self.first).is_multiple_of(self.step)
    }

    /// The indices, rising.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (self.first..=self.last).step_by(self.step as usize)
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last, .. } if first == last => write!(f, "{first}"),
            Self { first, last, step: 1 } => write!(f, "{first}-{last}"),
            Self { first, last, step } => write!(f, "{first}-{last}:{step}"),
        }
    }
}

/// A set of array indices. The ranges rise and never share a stretch, so nothing is counted twice. In files it is text, as
/// for `--array`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IndexSet {
    ranges: Vec<IndexRange>,
}

impl From<IndexSet> for String {
    fn from(set: IndexSet) -> Self {
        set.to_string()
    }
}

impl TryFrom<String> for IndexSet {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl IndexSet {
    /// All indices below a number.
    #[must_use]
    pub fn below(count: u32) -> Self {
        let last = count.min(INDEX_LIMIT).checked_sub(1);
        let range = last.and_then(|last| IndexRange::new(0, last, 1));
        Self { ranges: range.into_iter().collect() }
    }

    /// The lowest index.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|range| range.first)
    }

    /// The highest index.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|range| range.last)
    }

    /// The same indices, all lower by `offset`, below which there must be none.
    #[must_use]
    pub fn lowered(&self, offset: u32) -> Self {
        let ranges = self.ranges.iter().map(|range| IndexRange {
            first: range.first.saturating_sub(offset),
            last: range.last.saturating_sub(offset),
            step: range.step,
        });
        Self { ranges: ranges.collect() }
    }

    /// The ranges, rising.
    #[must_use]
    pub fn ranges(&self) -> &[IndexRange] {
        &self.ranges
    }

    /// How many indices there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ranges.iter().map(|range| range.count() as usize).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `index` is one of them.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= index);
        after > 0 && self.ranges[after - 1].contains(index)
    }

    /// The indices, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|range| range.iter())
    }
}

impl From<Vec<IndexRange>> for IndexSet {
    /// Takes the ranges in any order, overlapping or not.
    fn from(mut ranges: Vec<IndexRange>) -> Self {
        ranges.sort_by_key(|range| range.first);
        if ranges.windows(2).all(|pair| pair[0].last < pair[1].first) {
            return Self { ranges };
        }
        let mut present = vec![false; INDEX_LIMIT as usize];
        for range in ranges {
            for index in range.iter() {
                present[index as usize] = true;
            }
        }
        (0..INDEX_LIMIT).filter(|index| present[*index as usize]).collect()
    }
}

impl FromIterator<u32> for IndexSet {
    /// Takes indices in any order; those that Slurm can't have are left out.
    fn from_iter<I: IntoIterator<Item = u32>>(indices: I) -> Self {
        let mut rest: Vec<u32> = indices.into_iter().filter(|index| *index < INDEX_LIMIT).collect();
        rest.sort_unstable();
        rest.dedup();
        let mut ranges = Vec::new();
        let mut start = 0;
        while start < rest.len() {
            let length = even_run(&rest[start..]);
            let (first, last) = (rest[start], rest[start + length - 1]);
            let step = if length > 1 { rest[start + 1] - first } else { 1 };
            ranges.push(IndexRange { first, last, step });
            start += length;
        }
        Self { ranges }
    }
}

/// How many of the first indices one range can stand for; two indices are a range only if they are neighbours.
fn even_run(rising: &[u32]) -> usize {
    let [first, second, ..] = rising else { return rising.len() };
    let step = second - first;
    let length = 1 + rising.windows(2).take_while(|pair| pair[1] - pair[0] == step).count();
    if length == 2 && step > 1 { 1 } else { length }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.ranges.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

impl FromStr for IndexSet {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        grammar::whole(grammar::index_set, text.as_bytes())
    }
}
