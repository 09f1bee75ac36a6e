//! Two files of the same meaning: byte by byte, and where they differ, name by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::compare_files::How;
use super::file_names::{is_clock, without_moments};
use super::formats::{self, Form, Leaf};
use crate::file_error::IoResultExt;

/// Larger files are compared byte by byte only.
const LARGEST_PARSED: u64 = 2 << 30;
/// A header ends here at the latest.
const LONGEST_HEADER: u64 = 4096;
/// So many times as long as its header a file is at least.
const HEADERS: u64 = 4;

/// What differs in a file: the part of it, how, and whether these may be weights.
pub(super) struct PartDifference {
    pub(super) part: String,
    pub(super) how: How,
    pub(super) weights: bool,
}

/// What differs between two files.
pub(super) fn compare(expected: &Path, found: &Path) -> io::Result<Vec<PartDifference>> {
    let Some(at) = first_difference(expected, found)? else { return Ok(Vec::new()) };
    if expected.metadata()?.len().max(found.metadata()?.len()) > LARGEST_PARSED {
        let how = How::Bytes { at, until: None };
        return Ok(vec![PartDifference { part: String::new(), how, weights: true }]);
    }
    let (expected, found) = (read(expected)?, read(found)?);
    Ok(contents(&expected, &found, at))
}

fn contents(expected: &[u8], found: &[u8], at: u64) -> Vec<PartDifference> {
    // The same arrays in another order, or other dates in a zip file: nothing that a program reads.
    if let (Some(ours), Some(theirs)) = (formats::read(expected), formats::read(found)) {
        return parts(&ours, &theirs);
    }
    let whole = |weights, until| {
        vec![PartDifference { part: String::new(), how: How::Bytes { at, until }, weights }]
    };
    match (str::from_utf8(expected), str::from_utf8(found)) {
        (Ok(ours), Ok(theirs)) if without_moments(ours) == without_moments(theirs) => Vec::new(),
        (Ok(_), Ok(_)) => whole(false, None),
        _ => whole(!is_picture(expected), header(expected, found, at)),
    }
}

/// Pictures and databases have dates and orders of their own, and no program goes on from them.
fn is_picture(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 5] = [b"\x89PNG", b"\xff\xd8\xff", b"%PDF", b"GIF8", b"SQLite format 3"];
    starts.iter().any(|start| bytes.starts_with(start))
}

/// Where the header ends, if nothing else differs: a date, a host or a path, which may be longer or shorter.
fn header(expected: &[u8], found: &[u8], at: u64) -> Option<u64> {
    let pairs = expected.iter().rev().zip(found.iter().rev());
    let same = pairs.take_while(|(a, b)| a == b).count();
    let room = usize::try_from(at).ok()?;
    let same = same.min(expected.len() - room).min(found.len() - room);
    let until = (expected.len().max(found.len()) - same) as u64;
    let is_header = until <= LONGEST_HEADER && (same as u64) >= until * HEADERS;
    is_header.then_some(until)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).named("read", path)
}

fn opened(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).named("read", path)?))
}

/// Where two files differ first; nowhere if they are equal.
pub(super) fn first_difference(expected: &Path, found: &Path) -> io::Result<Option<u64>> {
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

fn parts(ours: &[Leaf<'_>], theirs: &[Leaf<'_>]) -> Vec<PartDifference> {
    let by_name = |leaves: &[Leaf<'_>]| -> BTreeMap<String, usize> {
        leaves.iter().enumerate().map(|(index, leaf)| (leaf.name.clone(), index)).collect()
    };
    let (own, other) = (by_name(ours), by_name(theirs));
    let mut parts = Vec::new();
    for leaf in ours {
        let how = match other.get(&leaf.name) {
            None => Some(How::Missing),
            Some(index) => part(leaf, &theirs[*index]),
        };
        parts.extend(how.map(|how| difference(leaf, how)));
    }
    let added = theirs.iter().filter(|leaf| !own.contains_key(&leaf.name));
    parts.extend(added.map(|leaf| difference(leaf, How::Added)));
    parts
}

fn difference(leaf: &Leaf<'_>, how: How) -> PartDifference {
    let is_array =
        leaf.form == Form::Array && (leaf.kind.is_float() || leaf.kind == formats::DType::Opaque);
    let weights = (is_array || leaf.form == Form::Opaque) && !is_clock(&leaf.name);
    PartDifference { part: leaf.name.clone(), how, weights }
}

fn part(expected: &Leaf<'_>, found: &Leaf<'_>) -> Option<How> {
    if expected.data == found.data && expected.kind == found.kind {
        return None;
    }
    if expected.form == Form::Text && found.form == Form::Text {
        let text = |leaf: &Leaf<'_>| without_moments(&String::from_utf8_lossy(&leaf.data));
        if text(expected) == text(found) {
            return None;
        }
    }
    let at = expected.data.iter().zip(found.data.iter()).position(|(a, b)| a != b);
    let at = at.unwrap_or_else(|| expected.data.len().min(found.data.len())) as u64;
    let bytes = Some(How::Bytes { at, until: None });
    if expected.kind != found.kind || expected.data.len() != found.data.len() {
        return bytes;
    }
    let width = expected.kind.width();
    let (mut differing, mut largest) = (0, 0.0_f64);
    for (a, b) in expected.data.chunks_exact(width).zip(found.data.chunks_exact(width)) {
        if a == b {
            continue;
        }
        let (Some(a), Some(b)) = (expected.kind.number(a), expected.kind.number(b)) else {
            return bytes;
        };
        differing += 1;
        let size = (a - b).abs();
        largest = if size.is_nan() { f64::INFINITY } else { largest.max(size) };
    }
    Some(How::Numbers { differing, of: expected.data.len() / width, largest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: &[u8], theirs: &[u8], expected: &[(&str, How, bool)]) {
        let at = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len()) as u64;
        let found: Vec<_> = contents(ours, theirs, at)
            .into_iter()
            .map(|own| (own.part, own.how, own.weights))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(part, how, weights)| ((*part).to_owned(), how.clone(), *weights))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn dates_are_no_difference_and_words_are() {
        check(b"made 2026-11-30\nx 1\n", b"made 2026-12-01\nx 1\n", &[]);
        check(b"x 1\n", b"x 2\n", &[("", How::Bytes { at: 2, until: None }, false)]);
        check(br#"{"at": "2026-11-30T01:02:03"}"#, br#"{"at": "2026-11-30T01:05:09"}"#, &[]);
    }

    #[test]
    fn a_header_of_a_binary_is_told_from_its_body() {
        let file = |host: &[u8], last: u8| [&[0xff, 0][..], host, &[7; 400], &[last]].concat();
        let whole = |at, until| ("", How::Bytes { at, until }, true);
        check(&file(b"node1", 1), &file(b"node2", 1), &[whole(6, Some(7))]);
        check(&file(b"node1", 1), &file(b"login-1", 1), &[whole(2, Some(8))]);
        check(&file(b"node1", 1), &file(b"node1", 2), &[whole(407, None)]);
        check(&file(b"node1", 1), &file(b"node2", 2), &[whole(6, None)]);
    }

    #[test]
    fn weights_are_arrays_and_not_clocks() {
        check(
            br#"{"w": [1.5, 2], "seconds": [1, 2], "lr": 0.1}"#,
            br#"{"w": [1.5, 3], "seconds": [1, 3], "lr": 0.2}"#,
            &[
                ("w", How::Numbers { differing: 1, of: 2, largest: 1.0 }, true),
                ("seconds", How::Numbers { differing: 1, of: 2, largest: 1.0 }, false),
                ("lr", How::Numbers { differing: 1, of: 1, largest: 0.1 }, false),
            ],
        );
    }
}
