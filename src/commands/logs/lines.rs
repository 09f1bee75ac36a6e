//! Lines of a text that may be larger than any memory: where they begin, and one after the other. Pure but for reading.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// How many bytes of a file are read at once.
pub(super) const BLOCK: usize = 64 * 1024;
/// A line that is longer is handed on in pieces.
pub(super) const LONGEST_LINE: u64 = 1 << 20;

/// What becomes of a last line that has no end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLine {
    /// It is handed on: nothing more will come.
    Taken,
    /// It waits for its end.
    Waits,
}

/// Hands on line after line, its end with it, and where in the text it ends. Returns where the next one begins.
pub(super) fn each_line(
    text: &mut impl BufRead,
    start: u64,
    last: LastLine,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<u64> {
    let (mut at, mut line) = (start, Vec::new());
    loop {
        line.clear();
        let length = text.take(LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
        let waits = last == LastLine::Waits && length < LONGEST_LINE && !line.ends_with(b"\n");
        if length == 0 || waits {
            return Ok(at);
        }
        at += length;
        each(&line, at)?;
    }
}

/// Where the last `lines` lines of a file begin: looked for from its end.
pub(super) fn last_lines(file: &mut (impl Read + Seek), lines: usize) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; BLOCK];
    let (mut at, mut breaks) = (length, 0);
    if lines == 0 {
        return Ok(length);
    }
    while at > 0 {
        let size = at.min(BLOCK as u64);
        at -= size;
        let block = &mut block[..usize::try_from(size).unwrap_or(BLOCK)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(block)?;
        for (place, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = at + place as u64 + 1;
            // The break at the very end ends the last line, and begins none.
            breaks += usize::from(next < length);
            if next < length && breaks == lines {
                return Ok(next);
            }
        }
    }
    Ok(0)
}

/// Where the line begins that has the byte before `at`: `at` itself where a line ends there.
pub(super) fn line_start(file: &mut (impl Read + Seek), at: u64) -> io::Result<u64> {
    let from = at.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut before = Vec::new();
    file.take(at - from).read_to_end(&mut before)?;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    Ok(from + start as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_text() {
        let check = |text: &str, lines, expected: &str| {
            let start = last_lines(&mut io::Cursor::new(text), lines).unwrap();
            let shown = &text[usize::try_from(start).unwrap()..];
            assert!(shown == expected, "{lines} lines of {} bytes: {start}", text.len());
        };
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc", 2, "b\nc");
        check("a\n", 5, "a\n");
        check("", 2, "");
        check("a\nb\n", 0, "");
        check("\n\n\n", 2, "\n\n");
        for length in [BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let line = "x".repeat(length);
            let text = format!("first\n{line}\nlast\n");
            check(&text, 1, "last\n");
            check(&text, 2, &format!("{line}\nlast\n"));
            check(&text, 3, &text);
        }
    }

    #[test]
    fn a_line_begins_after_the_break_before_it() {
        let starts =
            [0, 1, 2, 3, 4, 6].map(|at| line_start(&mut io::Cursor::new("ab\ncde\n"), at).unwrap());
        assert_eq!(starts, [0, 0, 0, 3, 3, 3]);
    }

    fn lines(text: &str, last: LastLine) -> (Vec<String>, u64) {
        let mut lines = Vec::new();
        let next = each_line(&mut text.as_bytes(), 10, last, |line, end| {
            lines.push(format!("{}@{end}", String::from_utf8_lossy(line).trim_end()));
            Ok(())
        });
        (lines, next.unwrap())
    }

    #[test]
    fn a_line_without_an_end_waits_for_it_or_is_cut() {
        let taken = (vec!["a@12".to_owned(), "@13".to_owned(), "b@14".to_owned()], 14);
        assert_eq!(lines("a\n\nb", LastLine::Taken), taken);
        let waiting = (vec!["a@12".to_owned(), "@13".to_owned()], 13);
        assert_eq!(lines("a\n\nb", LastLine::Waits), waiting);
        let long = "x".repeat(usize::try_from(LONGEST_LINE).unwrap());
        let (cut, next) = lines(&format!("{long}b"), LastLine::Waits);
        assert_eq!((cut.len(), next), (1, 10 + LONGEST_LINE));
    }
}
