//! Rows of fields between delimiters, found again after a line that is no row.

use std::collections::HashMap;
use std::sync::Arc;

use nom::bytes::complete::{tag, take_till};
use nom::combinator::all_consuming;
use nom::error::context;
use nom::{IResult, Parser};

use super::{Expected, Reading, UnreadLine, excerpt, inner};

/// The delimiter that both queries ask for: a control character, which no name of a node or partition holds.
pub const DELIMITER: u8 = 0x1f;

/// One field and its delimiter. A line break ends a row, never a field.
fn field(input: &[u8]) -> Reading<'_, &[u8]> {
    let (rest, text) = take_till(|byte| byte == DELIMITER || byte == b'\n').parse(input)?;
    let (rest, _) = context("one more field", tag(&[DELIMITER][..])).parse(rest)?;
    Ok((rest, text))
}

/// The last field: free text, which may hold line breaks. Only a delimiter and then a line break ends it.
fn last_field(input: &[u8]) -> Reading<'_, &[u8]> {
    let (rest, text) = take_till(|byte| byte == DELIMITER).parse(input)?;
    let (rest, _) = context("the end of the row", tag(&[DELIMITER, b'\n'][..])).parse(rest)?;
    Ok((rest, text))
}

/// One row of `N` fields.
fn record<const N: usize>(input: &[u8]) -> Reading<'_, [&[u8]; N]> {
    let mut fields = [&b""[..]; N];
    let mut rest = input;
    for (position, slot) in fields.iter_mut().enumerate() {
        let read = if position + 1 == N { last_field(rest) } else { field(rest) };
        (rest, *slot) = read?;
    }
    Ok((rest, fields))
}

/// Strings that many rows share (node lists, reasons): kept once.
#[derive(Default)]
pub(super) struct Interner<'a> {
    known: HashMap<&'a [u8], Arc<str>>,
}

impl<'a> Interner<'a> {
    pub(super) fn get(&mut self, text: &'a [u8]) -> Arc<str> {
        let make = || String::from_utf8_lossy(text).into();
        Arc::clone(self.known.entry(text).or_insert_with(make))
    }
}

/// Turns fields into a row, or says what it expected.
pub(super) trait Row<'a, const N: usize>: Sized {
    fn from_fields(fields: [&'a [u8]; N], names: &mut Interner<'a>) -> Result<Self, Expected<'a>>;
}

/// The rows of an output, one after the other; whatever is no row comes as an unread line.
pub(super) struct Rows<'a, T, const N: usize> {
    rest: &'a [u8],
    line: usize,
    names: Interner<'a>,
    row: std::marker::PhantomData<T>,
}

impl<'a, T, const N: usize> Rows<'a, T, N> {
    pub(super) fn new(output: &'a [u8]) -> Self {
        let names = Interner::default();
        Self { rest: output, line: 1, names, row: std::marker::PhantomData }
    }
}

impl<'a, T: Row<'a, N>, const N: usize> Iterator for Rows<'a, T, N> {
    type Item = Result<T, UnreadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = without_noise(self.rest) {
            (self.rest, self.line) = (rest, self.line + 1);
        }
        if self.rest.is_empty() {
            return None;
        }
        let read = record::<N>(self.rest).map_err(|error| inner(error, self.rest));
        let row =
            read.and_then(|(rest, fields)| Ok((rest, T::from_fields(fields, &mut self.names)?)));
        Some(match row {
            Ok((rest, row)) => {
                let last = 1; // only the last field holds line breaks
                self.line += last
                    + self.rest[..self.rest.len() - rest.len() - 1]
                        .iter()
                        .filter(|byte| **byte == b'\n')
                        .count();
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
        let end = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
        let text = excerpt(&self.rest[..end]);
        let unread = UnreadLine { line: self.line, what, text };
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        self.line += 1;
        unread
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

/// Reads one field as a whole.
pub(super) fn exactly<'a, T>(
    parser: impl Parser<&'a [u8], Output = T, Error = Expected<'a>>,
    field: &'a [u8],
) -> Result<T, Expected<'a>> {
    let read: IResult<_, _, _> = all_consuming(parser).parse(field);
    read.map(|(_, value)| value).map_err(|error| inner(error, field))
}
