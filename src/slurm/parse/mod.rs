//! Reads what Slurm prints. Pure: bytes in, rows out; never panics, and never drops or invents a row.

pub mod account;
pub mod accounts;
pub mod config;
pub mod forecast;
pub mod id;
pub mod job;
pub mod node;
pub mod nodes;
mod number;
pub mod partition;
pub mod queue;
mod record;
pub mod submit;
pub mod time;
pub mod tres;
pub mod usage;

use std::fmt;

/// What a grammar wanted, and the rest of the input where it wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    at: &'a [u8],
    what: &'static str,
}

/// What one of our nom parsers returns.
pub type Reading<'a, T> = nom::IResult<&'a [u8], T, Expected<'a>>;

impl<'a> nom::error::ParseError<&'a [u8]> for Expected<'a> {
    fn from_error_kind(at: &'a [u8], _: nom::error::ErrorKind) -> Self {
        Self { at, what: "" }
    }
    fn append(_: &'a [u8], _: nom::error::ErrorKind, first: Self) -> Self {
        first
    }
}

impl<'a> nom::error::ContextError<&'a [u8]> for Expected<'a> {
    // The innermost context is the precise one: outer contexts must not overwrite it.
    fn add_context(_: &'a [u8], what: &'static str, inner: Self) -> Self {
        if inner.what.is_empty() { Self { what, ..inner } } else { inner }
    }
}

/// Why a text can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {what} at column {column} of `{text}`")]
pub struct ParseError {
    /// What would have been right there.
    pub what: &'static str,
    /// Where, from 1.
    pub column: usize,
    /// The text, made printable and not longer than [`EXCERPT`].
    pub text: String,
}

/// The longest piece of foreign text that a message repeats.
pub const EXCERPT: usize = 200;

/// A printable piece of at most [`EXCERPT`] bytes of what a program said.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(EXCERPT)];
    let text = String::from_utf8_lossy(start).trim().escape_debug().to_string();
    if bytes.len() > EXCERPT { format!("{text} …") } else { text }
}

impl ParseError {
    fn new(text: &[u8], expected: Expected<'_>) -> Self {
        let what = if expected.what.is_empty() { "something else" } else { expected.what };
        let column = text.len().saturating_sub(expected.at.len()) + 1;
        Self { what, column, text: excerpt(text) }
    }
}

/// The error inside nom's own; only streaming parsers are ever incomplete, and none of ours is one.
fn inner<'a>(error: &nom::Err<Expected<'a>>, text: &'a [u8]) -> Expected<'a> {
    match error {
        nom::Err::Error(expected) | nom::Err::Failure(expected) => *expected,
        nom::Err::Incomplete(_) => Expected { at: &text[text.len()..], what: "more text" },
    }
}

/// A piece of the output that is no row: kept, so that it can be counted and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadLine {
    /// The line's number, from 1.
    pub line: usize,
    /// What was expected there.
    pub what: &'static str,
    /// The line itself, made printable, the start of it if it is long.
    pub text: String,
}

impl fmt::Display for UnreadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected {}: `{}`", self.line, self.what, self.text)
    }
}

/// The rows of an output, and the lines of it that are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// The rows, in Slurm's order.
    pub rows: Vec<T>,
    /// The lines that could not be read: no row may be believed to be absent if there are any.
    pub unread: Vec<UnreadLine>,
}

impl<T> Default for Parsed<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), unread: Vec::new() }
    }
}

impl<T> FromIterator<Result<T, UnreadLine>> for Parsed<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, UnreadLine>>>(read: I) -> Self {
        let mut parsed = Self::default();
        for row in read {
            match row {
                Ok(row) => parsed.rows.push(row),
                Err(line) => parsed.unread.push(line),
            }
        }
        parsed
    }
}
