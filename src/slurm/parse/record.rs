//! Rows of fields between delimiters, found again after a line that is no row.

use std::sync::Arc;

use memchr::memchr;
use nom::Parser;

use super::{Expected, Parsed, UnreadLine, excerpt, id, inner};
use crate::slurm::id::{JobId, ShownId, Tasks};

/// The delimiter that both queries ask for: a control character, which no name of a node or partition holds.
pub const DELIMITER: u8 = 0x1f;

/// The fields of a row, taken one after the other. A line break ends a row, never a field; but the last field is free
/// text, which may hold line breaks: only a delimiter and then a line break ends it.
pub(super) struct RecordFields<'a> {
    rest: &'a [u8],
}

impl<'a> RecordFields<'a> {
    /// The next field.
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a [u8], Expected<'a>> {
        let is_end = |byte: &u8| *byte == DELIMITER || *byte == b'\n';
        let (field, end) =
            self.rest.split_at(self.rest.iter().position(is_end).unwrap_or(self.rest.len()));
        match end {
            [DELIMITER, rest @ ..] => {
                self.rest = rest;
                Ok(field)
            }
            at => Err(Expected { at, what: "one more field" }),
        }
    }

    /// The next field, which `parser` must read whole, and which is not searched for its end first: most bytes are those
    /// of numbers.
    #[inline]
    pub(super) fn read<T>(
        &mut self,
        mut parser: impl Parser<&'a [u8], Output = T, Error = Expected<'a>>,
    ) -> Result<T, Expected<'a>> {
        match parser.parse(self.rest) {
            Ok(([DELIMITER, rest @ ..], value)) => {
                self.rest = rest;
                Ok(value)
            }
            Ok((at, _)) => Err(Expected { at, what: "the end of the field" }),
            Err(error) => Err(inner(&error, self.rest)),
        }
    }

    /// The next field as an id with its tasks.
    #[inline]
    pub(super) fn shown_id(&mut self) -> Result<(JobId, Tasks), Expected<'a>> {
        if let Ok((job, index)) = self.read(id::array_task) {
            return Ok((job, Tasks::One(index)));
        }
        let ShownId { job, tasks, .. } = exactly(id::shown, self.text()?)?;
        Ok((job, tasks))
    }

    /// The last field of a row.
    #[inline]
    pub(super) fn last(&mut self) -> Result<&'a [u8], Expected<'a>> {
        let at_end = &self.rest[self.rest.len()..];
        let end = memchr(DELIMITER, self.rest);
        let (field, end) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        match end {
            [DELIMITER, b'\n', rest @ ..] => {
                self.rest = rest;
                Ok(field)
            }
            [] => Err(Expected { at: at_end, what: "the end of the row" }),
            at => Err(Expected { at, what: "the end of the row" }),
        }
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
    #[inline]
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
pub(super) trait ParseRow<'a>: Sized {
    fn take(fields: &mut RecordFields<'a>, names: &mut Interner<'a>) -> Result<Self, Expected<'a>>;
}

/// The rows of an output, one after the other; whatever is no row comes as an unread line.
pub(super) struct Rows<'a, T> {
    output: &'a [u8],
    rest: &'a [u8],
    /// The line number at the offset `counted` of the output: lines are counted only for what can't be read.
    line: usize,
    counted: usize,
    names: Interner<'a>,
    row: std::marker::PhantomData<T>,
}

impl<'a, T> Rows<'a, T> {
    pub(super) fn new(output: &'a [u8]) -> Self {
        let names = Interner::default();
        Self { output, rest: output, line: 1, counted: 0, names, row: std::marker::PhantomData }
    }
}

impl<'a, T: ParseRow<'a>> Iterator for Rows<'a, T> {
    type Item = Result<T, UnreadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = without_noise(self.rest) {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let mut fields = RecordFields { rest: self.rest };
        Some(match T::take(&mut fields, &mut self.names) {
            Ok(row) => {
                self.rest = fields.rest;
                Ok(row)
            }
            Err(expected) => Err(self.skip_line(expected.what)),
        })
    }
}

impl<T> Rows<'_, T> {
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
pub(super) fn all<'a, T: ParseRow<'a>>(output: &'a [u8]) -> Parsed<T> {
    // No row is shorter than this. What is too much is never touched, and so costs nothing.
    let mut parsed =
        Parsed { rows: Vec::with_capacity(output.len() / SHORTEST), unread: Vec::new() };
    for row in Rows::<T>::new(output) {
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
