//! JSON lines that only ever grow: a reader keeps every whole line, whatever a crash left at the end.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

/// What a file of JSON lines holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Lines<T> {
    /// The whole, well-formed lines, in order.
    pub rows: Vec<T>,
    /// How many whole lines could not be read. A torn last line does not count.
    pub unreadable: usize,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), unreadable: 0 }
    }
}

/// Reads lines from bytes. A last line without its line break was torn by a crash, and is ignored.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Lines<T> {
    let mut lines = Lines::default();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        match serde_json::from_slice(line) {
            _ if !line.ends_with(b"\n") => {}
            Ok(row) => lines.rows.push(row),
            Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Err(_) => lines.unreadable += 1,
        }
    }
    lines
}

/// Reads a file of lines; one that does not exist yet holds none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Lines<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lines::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, rows: &[u32], unreadable: usize) {
        assert_eq!(parse::<u32>(text.as_bytes()), Lines { rows: rows.to_vec(), unreadable });
    }

    #[test]
    fn whole_lines_are_kept_and_a_torn_one_is_not() {
        check("", &[], 0);
        check("1\n2\n", &[1, 2], 0);
        check("1\n2", &[1], 0); // torn, even where it happens to be well-formed
        check("1\n\n{\n3\n", &[1, 3], 1);
        check("1\n{\"a\":", &[1], 0);
    }
}
