//! Two files of the same meaning: byte by byte, and where they differ, name by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::compare_files::How;
use super::file_names::{is_clock, without_moments};
use super::formats::{self, Form, Leaf};
use crate::file_error::IoResultExt;

/// Larger files are compared byte by byte only.
const LARGEST_PARSED: u64 = 2 << 30;
/// A header ends here at the latest.
const LONGEST_HEADER: u64 = 4096;
/// A file is at least this many times as long as its header.
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

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Arrays of fractions, or bytes of which nothing is known.
    Weights,
    /// Numbers with a fraction.
    Numbers,
    /// Texts, dates and whole numbers.
    Other,
}

/// What a file holds.
pub(super) fn content(path: &Path) -> io::Result<Content> {
    if path.metadata().named("read", path)?.len() > LARGEST_PARSED {
        return Ok(Content::Weights);
    }
    Ok(content_of(&read(path)?))
}

fn content_of(bytes: &[u8]) -> Content {
    if let Some(leaves) = formats::read(bytes) {
        let full = || leaves.iter().filter(|leaf| !leaf.data.is_empty() && !is_clock(&leaf.name));
        return if full().any(is_weights) {
            Content::Weights
        } else if full().any(has_fraction) {
            Content::Numbers
        } else {
            Content::Other
        };
    }
    match str::from_utf8(bytes) {
        Ok(text) if FRACTION.is_match(&without_moments(text)) => Content::Numbers,
        Err(_) if !is_picture(bytes) => Content::Weights,
        _ => Content::Other,
    }
}

#[expect(clippy::unwrap_used, reason = "a pattern of our own, which a test reads")]
static FRACTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[0-9]\.[0-9]|[0-9]e-[0-9]").unwrap());

fn has_fraction(leaf: &Leaf<'_>) -> bool {
    let mut numbers =
        leaf.data.chunks_exact(leaf.kind.width()).filter_map(|own| leaf.kind.number(own));
    leaf.form == Form::Scalar && numbers.any(|number| number.fract() != 0.0)
}

/// Whether two files are the same but for dates, and for numbers that are the step of each.
pub(super) fn is_counter(earlier: &[u8], later: &[u8], (before, step): (u64, u64)) -> bool {
    let plain = |bytes: &[u8], step: u64| {
        let text = without_moments(str::from_utf8(bytes).ok()?);
        let words = text.split_inclusive(|c: char| !c.is_ascii_digit());
        let step = step.to_string();
        Some(
            words
                .map(|word| word.replacen(&step, "#", usize::from(is_number(word, &step))))
                .collect::<String>(),
        )
    };
    matches!((plain(earlier, before), plain(later, step)), (Some(one), Some(other)) if one == other)
}

/// Whether a word is this number, and whatever ends it.
fn is_number(word: &str, number: &str) -> bool {
    word.trim_end_matches(|c: char| !c.is_ascii_digit()) == number
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

/// Whether a part of a file may be weights by what it is made of.
fn is_weights(leaf: &Leaf<'_>) -> bool {
    let is_array =
        leaf.form == Form::Array && (leaf.kind.is_float() || leaf.kind == formats::DType::Opaque);
    is_array || leaf.form == Form::Opaque
}

fn difference(leaf: &Leaf<'_>, how: How) -> PartDifference {
    let weights = is_weights(leaf) && !is_clock(&leaf.name);
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
    fn what_a_file_holds_is_told_from_its_bytes() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(content_of(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        };
        check(br#"{"w": [0.5, 1]}"#, Content::Weights);
        check(b"\xff\0\x01", Content::Weights);
        check(br#"{"accuracy": 0.5}"#, Content::Numbers);
        check(b"accuracy: 0.5\n", Content::Numbers);
        check(b"1e-3", Content::Numbers);
        check(br#"{"seconds": 0.5, "step": 3, "name": "a"}"#, Content::Other);
        check(b"12 at 05:01:22.25\n", Content::Other);
        check(b"\x89PNG\xff", Content::Other);
        check(b"", Content::Other);
    }

    #[test]
    fn a_file_with_nothing_but_its_step_is_a_counter() {
        assert!(is_counter(b"step 10, 05:01:22\n", b"step 20, 05:01:23\n", (10, 20)));
        assert!(is_counter(b"10", b"20", (10, 20)));
        assert!(!is_counter(b"10 7", b"20 8", (10, 20)));
        assert!(!is_counter(b"110", b"120", (10, 20)));
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
