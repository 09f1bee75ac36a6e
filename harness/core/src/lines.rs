//! Files of JSON lines that only grow. A reader keeps every whole line and ignores a torn last one.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::checksum::{self, Checksum};
use crate::open;

/// The end of a line that a crash or a full disk cut short. Such a line is ignored and is no damage.
pub(crate) const TORN: &[u8] = b"<torn>\n";

/// The content of a file of JSON lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines<T> {
    /// The whole, well-formed lines, in order.
    pub rows: Vec<T>,
    /// The numbers of damaged lines, from 1. A torn line does not count.
    pub damaged: Vec<usize>,
}

/// A file with damaged lines. Nothing is derived from those.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The numbers of its damaged lines, from 1.
    pub lines: Vec<usize>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.lines.iter().map(usize::to_string).collect();
        let (path, numbers) = (self.path.display(), numbers.join(", "));
        match self.lines.len() {
            1 => write!(f, "`{path}` is damaged: line {numbers} is ignored"),
            _ => write!(f, "`{path}` is damaged: lines {numbers} are ignored"),
        }
    }
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), damaged: Vec::new() }
    }
}

impl<T> Lines<T> {
    /// What is damaged of the file that these lines are from.
    #[must_use]
    pub fn damage(&self, path: &Path) -> Option<Damage> {
        let lines = self.damaged.clone();
        (!lines.is_empty()).then(|| Damage { path: path.to_owned(), lines })
    }
}

/// Parses lines from bytes. A last line without a line break was torn by a crash and is ignored. If any line has a
/// checksum, a line without one has lost it, and is damaged.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Lines<T> {
    let mut lines: Vec<(usize, Checksum, serde_json::Result<T>)> = Vec::new();
    for (number, line) in (1..).zip(bytes.split_inclusive(|&byte| byte == b'\n')) {
        if line.ends_with(TORN) || line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if !line.ends_with(b"\n") && !is_whole(line) {
            continue;
        }
        let checksum = checksum::check(line);
        lines.push((number, checksum, checksum::from_checked(line, checksum)));
    }
    let has_checksums = lines.iter().any(|(_, checksum, _)| *checksum == Checksum::Right);
    let mut all = Lines::default();
    for (number, checksum, row) in lines {
        match row {
            Ok(row) if !has_checksums || checksum == Checksum::Right => all.rows.push(row),
            _ => all.damaged.push(number),
        }
    }
    all
}

/// Whether a last line without its line break holds all of an object, by its checksum. Then only the break was lost, or
/// something else took its place.
pub(crate) fn is_whole(line: &[u8]) -> bool {
    has_right_checksum(line) || line.split_last().is_some_and(|(_, rest)| has_right_checksum(rest))
}

fn has_right_checksum(text: &[u8]) -> bool {
    checksum::check(text) == Checksum::Right
}

/// Reads a file of lines. A missing file has none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Lines<T>> {
    match open::read(path) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lines::default()),
        Err(error) => Err(error),
    }
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLine<'a> {
    /// Where it begins.
    pub start: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Its bytes, the line break included, where it is not the torn last one. Of one that is longer than any of ours
    /// only the beginning.
    pub text: &'a [u8],
}

/// Longer lines are not ours.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Calls a function with each line of a file, which may be larger than memory. A missing file has none.
pub fn each(path: &Path, mut take: impl FnMut(JsonLine<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut file = match open::to_read(path) {
        Ok(file) => BufReader::with_capacity(64 * 1024, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (mut start, mut end, mut text) = (0, 0, Vec::new());
    loop {
        let part = file.fill_buf()?;
        let line_break = part.iter().position(|&byte| byte == b'\n');
        let length = line_break.map_or(part.len(), |at| at + 1);
        let room = MAX_LINE_BYTES - text.len().min(MAX_LINE_BYTES);
        text.extend_from_slice(&part[..length.min(room)]);
        file.consume(length);
        end += length as u64;
        if line_break.is_some() || (length == 0 && end > start) {
            take(JsonLine { start, end, text: &text })?;
            text.clear();
            start = end;
        } else if length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[track_caller]
    fn check(text: &str, rows: &[u32], damaged: &[usize]) {
        let expected = Lines { rows: rows.to_vec(), damaged: damaged.to_vec() };
        assert_eq!(parse::<u32>(text.as_bytes()), expected);
    }

    #[test]
    fn whole_lines_are_kept_and_a_torn_one_is_not() {
        check("", &[], &[]);
        check("1\n2\n", &[1, 2], &[]);
        check("1\n2", &[1], &[]); // torn, even where it happens to be well-formed
        check("1\n\n{\n3\n", &[1, 3], &[3]);
        check("1\n{\"a\":", &[1], &[]);
        check("1\n{\"a\":<torn>\n2\n", &[1, 2], &[]);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct SampleRow {
        number: u32,
        word: String,
    }

    #[test]
    fn no_flipped_bit_is_passed_over_in_silence() {
        let rows = [1, 2, 3].map(|number| SampleRow { number, word: format!("word {number}") });
        let mut text: Vec<u8> = Vec::new();
        for row in &rows {
            text.extend(checksum::to_vec(row).unwrap());
            text.push(b'\n');
        }
        assert_eq!(parse::<SampleRow>(&text).rows, rows);
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let lines = parse::<SampleRow>(&flipped);
            assert!(lines.rows == rows || !lines.damaged.is_empty(), "bit {bit}: {lines:?}");
        }
    }

    #[test]
    fn a_line_that_lost_its_checksum_is_damaged() {
        let lines =
            [r#"{"number":1,"word":"a","checksum":"00000000"}"#, r#"{"number":2,"word":"b"}"#];
        let row = |number, word: &str| SampleRow { number, word: word.to_owned() };
        let whole = String::from_utf8(checksum::to_vec(&row(1, "a")).unwrap()).unwrap();
        let parse = |text: String| parse::<SampleRow>(text.as_bytes());
        let kept = parse(format!("{}\n{whole}\n{}\n", lines[1], lines[1]));
        assert_eq!(kept, Lines { rows: vec![row(1, "a")], damaged: vec![1, 3] });
        // Another program writes none.
        assert_eq!(parse(format!("{}\n", lines[1])).rows, [row(2, "b")]);
        assert_eq!(parse(format!("{}\n{}\n", lines[0], lines[1])).damaged, [1]);
    }

    #[test]
    fn lines_are_handed_on_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let long = vec![b'x'; MAX_LINE_BYTES + 70_000];
        let text = [&b"a\n\nb\n"[..], &long, b"\nc"].concat();
        crate::durable::write_synced(&path, text.as_ref()).unwrap();
        let mut found = Vec::new();
        each(&path, |JsonLine { start, end, text }| {
            found.push((start, end, text.len(), text.first().copied()));
            Ok(())
        })
        .unwrap();
        let length = text.len() as u64;
        let expected = [
            (0, 2, 2, Some(b'a')),
            (2, 3, 1, Some(b'\n')),
            (3, 5, 2, Some(b'b')),
            (5, length - 1, MAX_LINE_BYTES, Some(b'x')),
            (length - 1, length, 1, Some(b'c')),
        ];
        assert_eq!(found, expected);
        each(&folder.path().join("none"), |_| panic!("it holds none")).unwrap();
    }

    #[test]
    fn damage_is_named_by_file_and_line() {
        let damage = |lines: &[usize]| {
            Damage { path: "/x/journal.jsonl".into(), lines: lines.to_vec() }.to_string()
        };
        assert_eq!(damage(&[3]), "`/x/journal.jsonl` is damaged: line 3 is ignored");
        assert_eq!(damage(&[3, 5]), "`/x/journal.jsonl` is damaged: lines 3, 5 are ignored");
    }
}
