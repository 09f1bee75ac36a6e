//! What a checkpoint seems to hold, by the names in it: a hint for people, never a proof.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::formats;

/// The most bytes of a file of an unknown format that are searched for names.
const SEARCHED: u64 = 1 << 20;
/// Larger files are not parsed.
const LARGEST: u64 = 256 << 20;

/// The names of a checkpoint's files, and of what is in them.
pub(super) fn names(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    gather(path, &mut names)?;
    Ok(names)
}

fn gather(path: &Path, names: &mut BTreeSet<String>) -> io::Result<()> {
    let Ok(file) = path.symlink_metadata() else { return Ok(()) };
    if file.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name() != "MANIFEST" {
                gather(&entry.path(), names)?;
            }
        }
    } else if file.is_file() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        names.extend(stem.filter(|stem| !stem.contains(|c: char| c.is_ascii_digit())));
        let limit = if file.len() <= LARGEST { LARGEST } else { SEARCHED };
        let mut bytes = Vec::new();
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        names.extend(within(&bytes));
    }
    Ok(())
}

/// The names in a file: of its arrays, or else the words in it.
fn within(bytes: &[u8]) -> BTreeSet<String> {
    let Some(names) = formats::names(bytes) else { return words(bytes) };
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Words of at least three letters.
fn words(bytes: &[u8]) -> BTreeSet<String> {
    let bytes = &bytes[..bytes.len().min(1 << 20)];
    let runs = bytes.split(|byte| !byte.is_ascii_alphanumeric() && !b"_.".contains(byte));
    let runs = runs.filter(|run| run.len() >= 3);
    runs.filter(|run| run.iter().filter(|b| b.is_ascii_lowercase()).count() >= 3)
        .map(|run| String::from_utf8_lossy(run).into_owned())
        .collect()
}

/// What the names speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointContents {
    /// An optimizer's state.
    pub optimizer: bool,
    /// The state of a random generator.
    pub random: bool,
    /// A place in the data.
    pub data: bool,
}

impl CheckpointContents {
    /// Reads the names.
    #[must_use]
    pub fn new(names: &BTreeSet<String>) -> Self {
        let has = |words: &[&str]| {
            names.iter().any(|name| {
                let name = name.to_ascii_lowercase();
                words.iter().any(|word| name.contains(word))
            })
        };
        Self {
            optimizer: has(&["optim", "momentum", "exp_avg", "adam", "velocity", "moment"]),
            random: has(&["rng", "random", "generator", "mt19937"]),
            data: has(&[
                "order",
                "sampler",
                "loader",
                "shuffle",
                "permutation",
                "cursor",
                "position",
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: [bool; 3]) {
        let held = CheckpointContents::new(&within(bytes));
        assert_eq!([held.optimizer, held.random, held.data], expected, "{:?}", within(bytes));
    }

    #[test]
    fn names_tell_what_is_held() {
        check(br#"{"step": 1, "weights": [1]}"#, [false; 3]);
        check(br#"{"weights": [1], "momentum": [1]}"#, [true, false, false]);
        check(br#"{"rng": [3, [1, 2], null], "order": []}"#, [false, true, true]);
        check(b"\x01optimizer\x00\xffmodel\x94", [true, false, false]);
        check(b"", [false; 3]);
    }
}
