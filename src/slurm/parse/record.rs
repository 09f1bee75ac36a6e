//! Rows of fields between delimiters, found again after a line that is no row.

use std::sync::Arc;

use memchr::{memchr, memchr2_iter};
use nom::Parser;

use super::{Expected, Parsed, Reading, UnreadLine, excerpt, inner};

/// The delimiter that both queries ask for: a control character, which no name of a node or partition holds.
pub const DELIMITER: u8 = 0x1f;

fn expected<'a, T>(at: &'a [u8], what: &'static str) -> Reading<'a, T> {
    Err(nom::Err::Error(Expected { at, what }))
}

/// One row of `N` fields. A line break ends a row, never a field; but the last field is free text, which may hold line
/// breaks: only a delimiter and then a line break ends it.
fn record<const N: usize>(input: &[u8]) -> Reading<'_, [&[u8]; N]> {
    let mut fields = [&b""[..]; N];
    let mut start = 0;
    let mut ends = memchr2_iter(DELIMITER, b'\n', input);
    for field in &mut fields[..N - 1] {
        match ends.next() {
            Some(end) if input[end] == DELIMITER => *field = &input[start..end],
            Some(end) => return expected(&input[end..], "one more field"),
            None => return expected(&input[input.len()..], "one more field"),
        }
        start = start + field.len() + 1;
    }
    let Some(end) = ends.find(|end| input[*end] == DELIMITER) else {
        return expected(&input[input.len()..], "the end of the row");
    };
    match &input[end..] {
        [_, b'\n', rest @ ..] => {
            fields[N - 1] = &input[start..end];
            Ok((rest, fields))
        }
        at => expected(at, "the end of the row"),
    }
}

/// Strings that rows share (node lists, reasons), mostly kept once.
///
/// A small cache with one place per hash and no search: what it has lost is just made again.
pub(super) struct Interner<'a> {
    places: Vec<Option<(&'a [u8], Arc<str>)>>,
}

const PLACES: usize = 1024;

impl Default for Interner<'_> {
    fn default() -> Self {
        Self { places: vec![None; PLACES] }
    }
}

impl<'a> Interner<'a> {
    pub(super) fn get(&mut self, text: &'a [u8]) -> Arc<str> {
        let hash = text.iter().fold(0_usize, |hash, byte| {
            (hash ^ usize::from(*byte)).wrapping_mul(0x0100_0193) // FNV, which mixes upwards:
        });
        let place = &mut self.places[(hash ^ (hash >> 15)) % PLACES];
        match place {
            Some((known, shared)) if *known == text => Arc::clone(shared),
            Some(_) | None => {
                let shared: Arc<str> = String::from_utf8_lossy(text).into();
                *place = Some((text, Arc::clone(&shared)));
                shared
            }
        }
    }
}

/// Turns fields into a row, or says what it expected.
pub(super) trait ParseRow<'a, const N: usize>: Sized {
    fn from_fields(fields: [&'a [u8]; N], names: &mut Interner<'a>) -> Result<Self, Expected<'a>>;
}

/// The rows of an output, one after the other; whatever is no row comes as an unread line.
pub(super) struct Rows<'a, T, const N: usize> {
    output: &'a [u8],
    rest: &'a [u8],
    /// The line number at the offset `counted` of the output: lines are counted only for what can't be read.
    line: usize,
    counted: usize,
    names: Interner<'a>,
    row: std::marker::PhantomData<T>,
}

impl<'a, T, const N: usize> Rows<'a, T, N> {
    pub(super) fn new(output: &'a [u8]) -> Self {
        let names = Interner::default();
        Self { output, rest: output, line: 1, counted: 0, names, row: std::marker::PhantomData }
    }
}

impl<'a, T: ParseRow<'a, N>, const N: usize> Iterator for Rows<'a, T, N> {
    type Item = Result<T, UnreadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = without_noise(self.rest) {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let read = record::<N>(self.rest).map_err(|error| inner(&error, self.rest));
        let row =
            read.and_then(|(rest, fields)| Ok((rest, T::from_fields(fields, &mut self.names)?)));
        Some(match row {
            Ok((rest, row)) => {
                self.rest = rest;
                Ok(row)
            }
            Err(expected) => Err(self.skip_line(expected.what)),
        })
    }
}

impl<T, const N: usize> Rows<'_, T, N> {
    /// Gives one line up and goes on after it.
    fn skip_line(&mut self, what: &'static str) -> UnreadLine {
        let end = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let text = excerpt(&self.rest[..end]);
        let before = &self.output[..self.output.len() - self.rest.len()];
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        let breaks =
            before[self.counted..].iter().fold(0, |n, byte| n + usize::from(*byte == b'\n'));
        (self.line, self.counted) = (self.line + breaks, before.len());
        UnreadLine { line: self.line, what, text }
    }
}

/// The rest after an empty line or the name of a cluster (`squeue -M`), which are known not to be rows.
fn without_noise(input: &[u8]) -> Option<&[u8]> {
    if let [b'\n', rest @ ..] = input {
        return Some(rest);
    }
    let line = input.strip_prefix(b"CLUSTER: ")?;
    let end = line.iter().position(|byte| *byte == b'\n')?;
    line[..end].iter().all(|byte| *byte != DELIMITER).then(|| &line[end + 1..])
}

/// Reads every row of an output.
pub(super) fn all<'a, T: ParseRow<'a, N>, const N: usize>(output: &'a [u8]) -> Parsed<T> {
    // No row is shorter than this. What is too much is never touched, and so costs nothing.
    let mut parsed =
        Parsed { rows: Vec::with_capacity(output.len() / SHORTEST), unread: Vec::new() };
    for row in Rows::<T, N>::new(output) {
        match row {
            Ok(row) => parsed.rows.push(row),
            Err(line) => parsed.unread.push(line),
        }
    }
    parsed.rows.shrink_to_fit();
    parsed
}

/// About the length of the shortest rows.
const SHORTEST: usize = 64;

/// Reads one field as a whole.
pub(super) fn exactly<'a, T>(
    mut parser: impl Parser<&'a [u8], Output = T, Error = Expected<'a>>,
    field: &'a [u8],
) -> Result<T, Expected<'a>> {
    match parser.parse(field) {
        Ok(([], value)) => Ok(value),
        Ok((rest, _)) => Err(Expected { at: rest, what: "the end of the field" }),
        Err(error) => Err(inner(&error, field)),
    }
}
