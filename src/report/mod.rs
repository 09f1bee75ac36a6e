//! What a person reads: tables, lines and words. Everything here only turns values into text.

mod attempts;
mod comparison;
mod csv;
mod doctor;
pub mod escape;
mod explain;
mod fit;
mod goodput;
mod grid;
pub mod live;
mod notes;
pub mod own_commands;
mod reasons;
mod rehearsal;
mod resources;
mod results;
mod show;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::{Arguments, Display};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::{CommandError, ExitCode, IoResultExt};

pub use attempts::attempts_table;
pub use comparison::comparison_text;
pub use csv::csv_line;
pub use doctor::doctor_text;
pub use explain::{Explained, Sooner, explain_text};
pub use goodput::goodput_table;
pub use notes::change_text;
pub use rehearsal::{rehearsal_json, rehearsal_text};
pub use resources::resources_table;
pub use results::{
    by_parameter_csv, by_parameter_table, metric_csv_row, metric_csv_titles, metrics_table,
    results_csv, results_table,
};
pub use show::{Shown, ShownChange, ShownGeneration, show_text};
pub use status::{parameter_text, status_table};
pub use table::{ListLine, aligned, list_table, plan_table};

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

    /// The same for what is said on stderr.
    #[must_use]
    pub fn on_stderr(now: f64) -> Self {
        let here = Self::here(now);
        Self { colour: here.colour && std::io::stderr().is_terminal(), ..here }
    }
}

/// Writes a text to stdout, and a line break. Nothing in it steers a terminal. That nobody reads on is no error.
pub fn out(text: &(impl Display + ?Sized)) -> Result<ExitCode, CommandError> {
    let text = text.to_string();
    let text = own_commands::with_home(&text);
    write(format_args!("{}\n", shown(&text, std::io::stdout().is_terminal())))
}

/// Writes a file's text to stdout as it is, and a line break: what is in it is not for typing.
pub fn out_file(text: &str) -> Result<ExitCode, CommandError> {
    write(format_args!("{}\n", shown(text, std::io::stdout().is_terminal())))
}

/// Writes a value as one line of JSON to stdout. Nothing in it steers a terminal.
pub fn out_json(value: &impl Serialize) -> Result<ExitCode, CommandError> {
    let mut stdout = BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
    let written = escape::write_json(&mut stdout, value).and_then(|()| stdout.flush());
    written.at("write", Path::new("standard output"))?;
    Ok(ExitCode::Fine)
}

/// The same for text that is JSON already.
pub fn out_json_text(text: &str) -> Result<ExitCode, CommandError> {
    let mut stdout = std::io::stdout().lock();
    let written = escape::write_json_text(&mut stdout, text).and_then(|()| stdout.write_all(b"\n"));
    written.at("write", Path::new("standard output"))?;
    Ok(ExitCode::Fine)
}

fn write(text: Arguments<'_>) -> Result<ExitCode, CommandError> {
    std::io::stdout().lock().write_fmt(text).at("write", Path::new("standard output"))?;
    Ok(ExitCode::Fine)
}

fn shown(text: &str, is_terminal: bool) -> Cow<'_, str> {
    if is_terminal { escape::escape_but_colours(text) } else { escape::escape(text) }
}

/// Says something to the person on stderr. If nobody can hear it, nothing is lost.
pub fn say(text: &(impl Display + ?Sized)) {
    let text = text.to_string();
    let mut text = own_commands::with_home(&text).into_owned();
    let mut stderr = std::io::stderr().lock();
    let is_terminal = stderr.is_terminal();
    if is_terminal {
        text = fit::sentences(&text, Page::here(0.0).width);
    }
    drop(writeln!(stderr, "{}", shown(&text, is_terminal)));
}
