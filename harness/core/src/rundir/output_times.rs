//! When output came: beside each output a sparse index, in which a line `OFFSET TIME` says how many bytes the output had
//! at that time (unix seconds). The harness appends to it at most once a second. Damaged lines are passed over.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::open;

/// The index of an output.
#[must_use]
pub fn index_of(output: &Path) -> PathBuf {
    let mut name = OsString::from(output);
    name.push(".times");
    name.into()
}

/// One line of an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeMark {
    /// How many bytes the output had.
    pub bytes: u64,
    /// When, in unix seconds.
    pub time: f64,
}

impl TimeMark {
    /// As it stands in the file.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {:.1}\n", self.bytes, self.time)
    }

    fn parse(line: &str) -> Option<Self> {
        let (bytes, time) = line.split_once(' ')?;
        let time: f64 = time.parse().ok()?;
        Some(Self { bytes: bytes.parse().ok()?, time }).filter(|mark| mark.time.is_finite())
    }
}

/// All that is known of when an output came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputTimes {
    /// By rising bytes.
    marks: Vec<TimeMark>,
}

impl OutputTimes {
    /// Reads the index of an output; nothing is known where it has none.
    pub fn read(output: &Path) -> io::Result<Self> {
        match open::read(&index_of(output)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            read => Ok(Self::parse(&String::from_utf8_lossy(&read?))),
        }
    }

    fn parse(text: &str) -> Self {
        // Without the line break at its end a line may be cut short.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut marks: Vec<TimeMark> = Vec::new();
        for mark in whole.lines().filter_map(TimeMark::parse) {
            if marks.last().is_none_or(|last| mark.bytes > last.bytes) {
                marks.push(mark);
            }
        }
        Self { marks }
    }

    /// When the output had so many bytes: nothing where it was not seen to have them.
    #[must_use]
    pub fn at(&self, bytes: u64) -> Option<f64> {
        let place = self.marks.partition_point(|mark| mark.bytes < bytes);
        self.marks.get(place).map(|mark| mark.time)
    }

    /// How many bytes the output had before a time.
    #[must_use]
    pub fn before(&self, time: f64) -> u64 {
        let last = self.marks.iter().rev().find(|mark| mark.time < time);
        last.map_or(0, |mark| mark.bytes)
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_the_first_look_at_which_the_bytes_were_there() {
        let marks = [(10, 100.0), (25, 101.5), (40, 160.0)];
        let text: String = marks.map(|(bytes, time)| TimeMark { bytes, time }.line()).concat();
        assert_eq!(text, "10 100.0\n25 101.5\n40 160.0\n");
        let times = OutputTimes::parse(&text);
        let at = [1, 10, 11, 25, 40, 41].map(|bytes| times.at(bytes));
        let expected = [Some(100.0), Some(100.0), Some(101.5), Some(101.5), Some(160.0), None];
        assert_eq!(at, expected);
        assert_eq!([99.0, 100.0, 101.0, 500.0].map(|time| times.before(time)), [0, 0, 10, 40]);
    }

    #[test]
    fn what_is_damaged_or_cut_short_tells_nothing() {
        let text = "10 100.0\nx y\n25\n5 101.0\n30 NaN\n25 102.0\n40 16";
        let times = OutputTimes::parse(text);
        assert_eq!(times, OutputTimes::parse("10 100.0\n25 102.0\n"));
        assert!(OutputTimes::parse("").is_empty() && OutputTimes::parse("7 1.0").is_empty());
    }
}
