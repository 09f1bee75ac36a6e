//! Compares two folders or files, file by file.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file_content;
use super::file_names::{self, NamePatterns};
use super::tolerance::{TreeTolerance, is_within};
use crate::file_error::IoResultExt;

/// How two folders differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TreeDifference {
    /// How many files were compared.
    pub compared: usize,
    /// What differs, by path.
    pub differences: Vec<FileDifference>,
    /// Logs, and what the file says to ignore.
    pub not_compared: Vec<String>,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileDifference {
    /// Below the folder; empty where the folder is a file. A part that is another one in each run is `*`.
    pub path: String,
    /// The array or key in it; empty where the file is compared as a whole.
    pub part: String,
    /// How it differs.
    pub how: How,
    /// Whether these may be weights: an array of fractions, or bytes of which nothing is known.
    pub weights: bool,
}

/// How a file or a part of one differs from the undisturbed one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Only the undisturbed run has it.
    Missing,
    /// Only this run has it.
    Added,
    /// Numbers differ.
    Numbers {
        /// How many.
        differing: usize,
        /// Of how many.
        of: usize,
        /// The largest difference.
        largest: f64,
    },
    /// Bytes differ, or lengths.
    Bytes {
        /// The first byte that differs.
        at: u64,
        /// Where the file's header ends, if nothing else differs.
        until: Option<u64>,
    },
}

impl FileDifference {
    /// The file, and the part in it.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.path.is_empty(), self.part.is_empty()) {
            (_, true) => self.path.clone(),
            (true, false) => self.part.clone(),
            (false, false) => format!("{}: {}", self.path, self.part),
        }
    }
}

/// What is passed over in a comparison.
pub struct PassedOver<'a> {
    /// What is not the program's.
    pub is_left_out: &'a dyn Fn(&Path) -> bool,
    /// `rehearse.ignore`.
    pub ignored: &'a NamePatterns,
}

/// Compares two folders or files.
pub fn compare(
    expected: &Path,
    found: &Path,
    slack: &TreeTolerance,
    passed: &PassedOver<'_>,
) -> io::Result<TreeDifference> {
    let mut difference = TreeDifference::default();
    let (ours, left) = listed(expected, passed)?;
    let (theirs, others) = listed(found, passed)?;
    let left = left.iter().chain(&others).map(|path| path.display().to_string());
    difference.not_compared.extend(left);
    difference.not_compared.sort();
    difference.not_compared.dedup();
    let mut all = Vec::new();
    for pair in pairs(expected, &ours, found, &theirs)? {
        let whole = |how| {
            vec![FileDifference {
                path: pair.name.clone(),
                part: String::new(),
                how,
                weights: false,
            }]
        };
        all.extend(match (&pair.ours, &pair.theirs) {
            (Some(ours), Some(theirs)) => {
                difference.compared += 1;
                file(&below(expected, ours), &below(found, theirs), &pair.name)?
            }
            (Some(_), None) => whole(How::Missing),
            // One for each attempt.
            (None, _) if pair.is_random => Vec::new(),
            (None, _) => whole(How::Added),
        });
    }
    let is_new = |own: &FileDifference| {
        !is_within(own, slack) && !passed.ignored.has_part(&own.path, &own.part)
    };
    difference.differences = all.into_iter().filter(is_new).collect();
    Ok(difference)
}

/// The files of a folder that are compared, and those that are not.
pub(super) fn listed(
    root: &Path,
    passed: &PassedOver<'_>,
) -> io::Result<(BTreeSet<PathBuf>, BTreeSet<PathBuf>)> {
    let mut paths = BTreeSet::new();
    files(root, Path::new(""), passed.is_left_out, &mut paths)?;
    let databases = file_names::ocdbt_files(&paths);
    let is_kept = |path: &PathBuf| is_compared(path, passed.ignored) && !databases.contains(path);
    Ok(paths.into_iter().partition(is_kept))
}

fn is_compared(path: &Path, ignored: &NamePatterns) -> bool {
    !file_names::is_log(path) && !ignored.has_file(&path.display().to_string())
}

/// Two files that mean the same, or one that only one run has.
struct FilePair {
    name: String,
    ours: Option<PathBuf>,
    theirs: Option<PathBuf>,
    /// Its name is another one in each run, and both have some of it.
    is_random: bool,
}

/// Files of the same name; then those whose names differ only in what is random, the equal ones first.
fn pairs(
    expected: &Path,
    ours: &BTreeSet<PathBuf>,
    found: &Path,
    theirs: &BTreeSet<PathBuf>,
) -> io::Result<Vec<FilePair>> {
    let pair = |name: String, ours: Option<&PathBuf>, theirs: Option<&PathBuf>, is_random| {
        FilePair { name, ours: ours.cloned(), theirs: theirs.cloned(), is_random }
    };
    let named = |path: &Path| path.display().to_string();
    let both = ours.intersection(theirs).map(|own| pair(named(own), Some(own), Some(own), false));
    let mut pairs: Vec<FilePair> = both.collect();
    let mut open = file_names::by_pattern(theirs.difference(ours));
    let mut paired = BTreeSet::new();
    for (pattern, mut own) in file_names::by_pattern(ours.difference(theirs)) {
        let Some(mut others) = open.remove(&pattern) else { continue };
        for is_exact in [true, false] {
            let mut left = Vec::new();
            for path in own {
                match matching(&below(expected, path), found, &others, is_exact)? {
                    Some(index) => {
                        let other = others.remove(index);
                        paired.extend([path, other]);
                        pairs.push(pair(pattern.clone(), Some(path), Some(other), true));
                    }
                    None => left.push(path),
                }
            }
            own = left;
        }
        paired.extend(others.iter().copied());
        pairs.extend(others.iter().map(|other| pair(pattern.clone(), None, Some(other), true)));
    }
    let alone = |one: &BTreeSet<PathBuf>, other: &BTreeSet<PathBuf>| -> Vec<PathBuf> {
        one.difference(other).filter(|path| !paired.contains(*path)).cloned().collect()
    };
    let (missing, added) = (alone(ours, theirs), alone(theirs, ours));
    pairs.extend(missing.iter().map(|own| pair(named(own), Some(own), None, false)));
    pairs.extend(added.iter().map(|own| pair(named(own), None, Some(own), false)));
    pairs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pairs)
}

/// The first of some files that is equal to this one, or just the first.
fn matching(
    path: &Path,
    root: &Path,
    others: &[&PathBuf],
    is_exact: bool,
) -> io::Result<Option<usize>> {
    if !is_exact {
        return Ok((!others.is_empty()).then_some(0));
    }
    let length = path.metadata()?.len();
    for (index, other) in others.iter().enumerate() {
        let other = below(root, other);
        let is_equal = other.metadata()?.len() == length
            && file_content::first_difference(path, &other)?.is_none();
        if is_equal {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn files(
    root: &Path,
    path: &Path,
    is_left_out: &dyn Fn(&Path) -> bool,
    found: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    let whole = below(root, path);
    let kind = whole.symlink_metadata().named("read", &whole)?.file_type();
    if is_left_out(path) {
        return Ok(());
    }
    if kind.is_dir() {
        for entry in std::fs::read_dir(&whole).named("read", &whole)? {
            files(root, &path.join(entry?.file_name()), is_left_out, found)?;
        }
    } else if kind.is_file() {
        found.insert(path.to_owned());
    }
    Ok(())
}

fn file(expected: &Path, found: &Path, path: &str) -> io::Result<Vec<FileDifference>> {
    let parts = file_content::compare(expected, found)?.into_iter();
    Ok(parts
        .map(|own| FileDifference {
            path: path.to_owned(),
            part: own.part,
            how: own.how,
            weights: own.weights,
        })
        .collect())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: &[(&str, &str)], theirs: &[(&str, &str)], expected: &[(&str, How)]) {
        let folder = tempfile::tempdir().unwrap();
        for (side, files) in [("ours", ours), ("theirs", theirs)] {
            for (name, text) in files {
                let path = folder.path().join(side).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }
        let [ours, theirs] = ["ours", "theirs"].map(|side| folder.path().join(side));
        let leave = |path: &Path| path == Path::new("MANIFEST");
        let passed = PassedOver { is_left_out: &leave, ignored: &NamePatterns::default() };
        let found = compare(&ours, &theirs, &TreeTolerance::new(), &passed).unwrap();
        let found: Vec<(String, How)> =
            found.differences.into_iter().map(|own| (own.place(), own.how)).collect();
        let expected: Vec<(String, How)> =
            expected.iter().map(|(name, how)| ((*name).to_owned(), how.clone())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn bytes_first_then_arrays() {
        let same = [("a/b", "x"), ("MANIFEST", "1")];
        check(&same, &[("a/b", "x"), ("MANIFEST", "2")], &[]);
        check(&same, &[("a/b", "y")], &[("a/b", How::Bytes { at: 0, until: None })]);
        check(
            &same,
            &[("a/b", "xy"), ("c", "")],
            &[("a/b", How::Bytes { at: 1, until: None }), ("c", How::Added)],
        );
        check(
            &[("s.json", r#"{"w": [1, 2, 3], "step": 4, "m": [0]}"#)],
            &[("s.json", r#"{"step": 4, "w": [1, 2.5, 2]}"#)],
            &[
                ("s.json: w", How::Numbers { differing: 2, of: 3, largest: 1.0 }),
                ("s.json: m", How::Missing),
            ],
        );
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("step-7");
        let (slack, none) = (TreeTolerance::new(), |_: &Path| false);
        let passed = PassedOver { is_left_out: &none, ignored: &NamePatterns::default() };
        let error = compare(folder.path(), &gone, &slack, &passed).unwrap_err();
        assert_eq!(error.to_string(), format!("can't read `{}`", gone.display()));
    }

    #[test]
    fn logs_and_random_names_are_no_difference() {
        let ours = [("md.log", "one"), ("run-20261130/w", "1"), ("tmpab3_x9q1", "7"), ("p/x", "1")];
        let theirs = [
            ("md.log", "two"),
            ("run-20261201/w", "1"),
            ("tmpcd4_y8q2", "7"),
            ("tmpef4_y8q2", "9"),
            ("p/x", "1"),
        ];
        check(&ours, &theirs, &[]);
        check(
            &[("tmpab3_x9q1", "7")],
            &[("tmpcd4_y8q2", "8")],
            &[("*", How::Bytes { at: 0, until: None })],
        );
        check(
            &[("step-10", "7")],
            &[("step-20", "7")],
            &[("step-10", How::Missing), ("step-20", How::Added)],
        );
    }
}
