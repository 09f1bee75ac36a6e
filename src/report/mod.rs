//! What a person reads: tables, lines and words. Everything here only turns values into text.

mod goodput;
pub mod live;
mod reasons;
mod rehearsal;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::Write;

use crate::error::{CommandError, ExitCode};

pub use goodput::goodput_table;
pub use rehearsal::{rehearsal_json, rehearsal_text};
pub use table::{attempts_table, list_table, plan_table, status_table};

/// Writes data to stdout, and a line break. That nobody reads on is no error.
pub fn out(data: &(impl Display + ?Sized)) -> Result<ExitCode, CommandError> {
    writeln!(std::io::stdout().lock(), "{data}")?;
    Ok(ExitCode::Fine)
}

/// Says something to the person on stderr. If nobody can hear it, nothing is lost.
pub fn say(text: &(impl Display + ?Sized)) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
