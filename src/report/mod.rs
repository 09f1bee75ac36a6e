//! What a person reads: tables, lines and words. Everything here only turns values into text.

mod attempts;
mod fit;
mod goodput;
mod grid;
pub mod live;
mod reasons;
mod rehearsal;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::Write;

use crate::error::{CommandError, ExitCode};

pub use attempts::attempts_table;
pub use goodput::goodput_table;
pub use rehearsal::{rehearsal_json, rehearsal_text};
pub use status::status_table;
pub use table::{ListLine, list_table, plan_table};

/// How far in the further lines of a text stand.
const INDENT: usize = 2;

/// What a table is shown on, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Page {
    /// Unix seconds.
    pub now: f64,
    /// The terminal's columns; none in a file or a pipe, whose lines are as long as they are.
    pub width: Option<usize>,
    /// Whether colour is wanted.
    pub colour: bool,
}

impl Page {
    /// The terminal that stdout is, if it is one.
    #[must_use]
    pub fn here(now: f64) -> Self {
        let table = comfy_table::Table::new();
        let colour = table.is_tty() && !table::nobody_wants_colour();
        Self { now, width: table.width().map(usize::from), colour }
    }
}

/// Writes data to stdout, and a line break. That nobody reads on is no error.
pub fn out(data: &(impl Display + ?Sized)) -> Result<ExitCode, CommandError> {
    writeln!(std::io::stdout().lock(), "{data}")?;
    Ok(ExitCode::Fine)
}

/// Says something to the person on stderr. If nobody can hear it, nothing is lost.
pub fn say(text: &(impl Display + ?Sized)) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
