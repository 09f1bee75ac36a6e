//! Compares two folders or files: byte by byte, and where they differ, array by array.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::leaves::{self, Leaf};
use crate::file_error::IoResultExt;

/// Larger files are compared byte by byte only.
const LARGEST_PARSED: u64 = 2 << 30;

/// How two folders differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TreeDifference {
    /// How many files were compared.
    pub compared: usize,
    /// What differs, by path.
    pub differences: Vec<FileDifference>,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileDifference {
    /// Below the folder; empty where the folder is a file.
    pub path: String,
    /// The array or key in it; empty where the file is compared as a whole.
    pub part: String,
    /// How it differs.
    pub how: How,
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

/// By how much each part of each file may differ: as two undisturbed runs do. None: it is not compared.
pub type TreeTolerance = BTreeMap<(String, String), Option<f64>>;

/// What two undisturbed runs differ in, with room for chance: ten times as much.
#[must_use]
pub fn slack(difference: &TreeDifference) -> TreeTolerance {
    difference.differences.iter().map(tolerance).collect()
}

fn tolerance(own: &FileDifference) -> ((String, String), Option<f64>) {
    let room = match own.how {
        How::Numbers { largest, .. } => Some(largest * 10.0),
        How::Missing | How::Added | How::Bytes { .. } => None,
    };
    ((own.path.clone(), own.part.clone()), room)
}

/// Compares two folders or files. Files whose names `is_left_out` are passed over.
pub fn compare(
    expected: &Path,
    found: &Path,
    slack: &TreeTolerance,
    is_left_out: &dyn Fn(&Path) -> bool,
) -> io::Result<TreeDifference> {
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    files(expected, Path::new(""), is_left_out, &mut ours)?;
    files(found, Path::new(""), is_left_out, &mut theirs)?;
    let mut difference = TreeDifference::default();
    for path in ours.union(&theirs) {
        let shown = path.display().to_string();
        let whole = |how| FileDifference { path: shown.clone(), part: String::new(), how };
        let differences = match (ours.contains(path), theirs.contains(path)) {
            (true, false) => vec![whole(How::Missing)],
            (false, _) => vec![whole(How::Added)],
            (true, true) => {
                difference.compared += 1;
                file(&below(expected, path), &below(found, path), &shown)?
            }
        };
        difference.differences.extend(differences.into_iter().filter(|own| !is_within(own, slack)));
    }
    Ok(difference)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn is_within(own: &FileDifference, slack: &TreeTolerance) -> bool {
    let room = slack.get(&(own.path.clone(), own.part.clone()));
    match (room, &own.how) {
        (Some(None), _) => true,
        (Some(Some(room)), How::Numbers { largest, .. }) => largest <= room,
        (None, _) | (Some(Some(_)), How::Missing | How::Added | How::Bytes { .. }) => false,
    }
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
    let Some(at) = first_difference(expected, found)? else { return Ok(Vec::new()) };
    let bytes =
        vec![FileDifference { path: path.to_owned(), part: String::new(), how: How::Bytes { at } }];
    if expected.metadata()?.len().max(found.metadata()?.len()) > LARGEST_PARSED {
        return Ok(bytes);
    }
    let (expected, found) = (read(expected)?, read(found)?);
    let (Some(ours), Some(theirs)) = (leaves::read(&expected), leaves::read(&found)) else {
        return Ok(bytes);
    };
    let parts = parts(&ours, &theirs);
    // The same arrays in another order, or other dates in a zip file: nothing that a program reads.
    Ok(parts
        .into_iter()
        .map(|(part, how)| FileDifference { path: path.to_owned(), part, how })
        .collect())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).named("read", path)
}

fn opened(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).named("read", path)?))
}

/// Where two files differ first; nowhere if they are equal.
fn first_difference(expected: &Path, found: &Path) -> io::Result<Option<u64>> {
    let (mut ours, mut theirs) = (opened(expected)?, opened(found)?);
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    loop {
        let (n, m) = (fill(&mut ours, &mut one)?, fill(&mut theirs, &mut other)?);
        if let Some(place) = one[..n].iter().zip(&other[..m]).position(|(a, b)| a != b) {
            return Ok(Some(at + place as u64));
        }
        at += n.min(m) as u64;
        match (n, m) {
            (n, m) if n != m => return Ok(Some(at)),
            (0, _) => return Ok(None),
            _ => {}
        }
    }
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn parts(ours: &[Leaf<'_>], theirs: &[Leaf<'_>]) -> Vec<(String, How)> {
    let of = |leaves: &[Leaf<'_>], name: &str| leaves.iter().position(|leaf| leaf.name == name);
    let mut parts = Vec::new();
    for leaf in ours {
        let how = match of(theirs, &leaf.name) {
            None => Some(How::Missing),
            Some(other) => array(leaf, &theirs[other]),
        };
        parts.extend(how.map(|how| (leaf.name.clone(), how)));
    }
    let added = theirs.iter().filter(|leaf| of(ours, &leaf.name).is_none());
    parts.extend(added.map(|leaf| (leaf.name.clone(), How::Added)));
    parts
}

fn array(expected: &Leaf<'_>, found: &Leaf<'_>) -> Option<How> {
    if expected.data == found.data && expected.kind == found.kind {
        return None;
    }
    let at = expected.data.iter().zip(found.data.iter()).position(|(a, b)| a != b);
    let at = at.unwrap_or_else(|| expected.data.len().min(found.data.len())) as u64;
    let width = expected.kind.width();
    if expected.kind != found.kind || expected.data.len() != found.data.len() {
        return Some(How::Bytes { at });
    }
    let (mut differing, mut largest) = (0, 0.0_f64);
    for (a, b) in expected.data.chunks_exact(width).zip(found.data.chunks_exact(width)) {
        if a == b {
            continue;
        }
        let (Some(a), Some(b)) = (expected.kind.number(a), expected.kind.number(b)) else {
            return Some(How::Bytes { at });
        };
        differing += 1;
        let size = (a - b).abs();
        largest = if size.is_nan() { f64::INFINITY } else { largest.max(size) };
    }
    Some(How::Numbers { differing, of: expected.data.len() / width, largest })
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
        let found = compare(&ours, &theirs, &TreeTolerance::new(), &leave).unwrap();
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
        check(&same, &[("a/b", "y")], &[("a/b", How::Bytes { at: 0 })]);
        check(
            &same,
            &[("a/b", "xy"), ("c", "")],
            &[("a/b", How::Bytes { at: 1 }), ("c", How::Added)],
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
    fn what_differs_anyway_may_differ_a_little_more() {
        let numbers = |largest| FileDifference {
            path: "s".to_owned(),
            part: "w".to_owned(),
            how: How::Numbers { differing: 1, of: 1, largest },
        };
        let undisturbed = TreeDifference { compared: 1, differences: vec![numbers(0.1)] };
        let slack = slack(&undisturbed);
        assert!(is_within(&numbers(0.9), &slack));
        assert!(!is_within(&numbers(2.0), &slack));
        let whole = FileDifference { how: How::Bytes { at: 0 }, ..numbers(0.0) };
        assert!(!is_within(&whole, &slack));
        assert!(!is_within(&FileDifference { part: "v".to_owned(), ..numbers(0.1) }, &slack));
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("step-7");
        let (slack, none) = (TreeTolerance::new(), |_: &Path| false);
        let error = compare(folder.path(), &gone, &slack, &none).unwrap_err();
        assert_eq!(error.to_string(), format!("can't read `{}`", gone.display()));
    }
}
