//! Which of the errors in an output is the one that ended the program.

use std::ops::Range;

use super::handled::without_handled;
use super::output::cut;
use super::shell::is_report_of_signal;
use super::{ErrorClass, launcher, native, python, shell};

/// The longest message.
const LONGEST_MESSAGE: usize = 1000;
/// So many lines of a traceback at its beginning, and twice as many at its end, are kept.
const KEPT_LINES: usize = 100;

/// How surely an error is the cause of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// A launcher's word that a process ended.
    Report,
    /// A line that speaks of an error.
    Hint,
    /// A reaction to another error, perhaps of another process.
    Consequence,
    /// What ends programs.
    Cause,
}

/// An error in an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundError {
    /// The line where it begins.
    pub(super) at: usize,
    /// The first line that is surely no part of it.
    pub(super) end: usize,
    pub(super) weight: Weight,
    /// In one line.
    pub(super) message: String,
    pub(super) traceback: Option<String>,
    /// What its class follows from, what tells most first.
    pub(super) texts: Vec<String>,
    /// Its class, where it follows from more than the texts.
    pub(super) class: Option<ErrorClass>,
    /// What stands before each of its lines, where several processes print into the same output.
    pub(super) prefix: String,
}

impl FoundError {
    /// One that is a line, or a few.
    pub(super) fn line(at: usize, weight: Weight, message: &str) -> Self {
        let message = cut(message.trim(), LONGEST_MESSAGE);
        let texts = vec![message.clone()];
        let (end, prefix) = (at + 1, String::new());
        Self { at, end, weight, message, traceback: None, texts, class: None, prefix }
    }

    /// The same with the lines of a traceback.
    pub(super) fn with_traceback(self, lines: &[&str]) -> Self {
        Self { traceback: Some(shortened(lines)), end: self.at + lines.len(), ..self }
    }

    /// The same of an error after which a process only prints how it came about.
    pub(super) fn fatal(self, lines: &[String]) -> Self {
        Self { end: lines.len(), ..self }
    }

    /// Whether it is one of several processes that print into the same output.
    pub(super) fn is_one_of_many(&self) -> bool {
        !self.prefix.is_empty()
    }
}

/// The error that ended the program: the last of the surest. Of several processes, and of reports, the first. `blocks`:
/// what a launcher says.
pub(super) fn best(lines: &[String], blocks: &[Range<usize>]) -> Option<FoundError> {
    let (mut found, mut inside) = python::tracebacks(lines);
    found.extend(native::findings(lines, &mut inside));
    found.extend(launcher::findings(lines, blocks));
    for block in blocks {
        inside[block.clone()].fill(true);
    }
    found.extend(shell::findings(lines, &inside));
    let found = without_signals(found, lines);
    let mut found = without_handled(found, lines, &inside);
    let surest = found.iter().map(|finding| finding.weight).max()?;
    found.retain(|finding| finding.weight == surest);
    let is_first = |finding: &FoundError| finding.is_one_of_many() || surest == Weight::Report;
    let first = found.iter().position(is_first);
    let last = found.len().checked_sub(1)?;
    Some(found.swap_remove(first.unwrap_or(last)))
}

/// Leaves out what shells and launchers say of the signal that ended a process, where it told itself why it ends.
fn without_signals(mut found: Vec<FoundError>, lines: &[String]) -> Vec<FoundError> {
    let fatal = found.iter().filter(|finding| finding.end == lines.len());
    let Some(first) = fatal.map(|finding| finding.at).min() else { return found };
    found.retain(|finding| finding.at <= first || !is_report_of_signal(&lines[finding.at]));
    found
}

/// A traceback without its middle, where a recursion made it very long.
fn shortened(lines: &[&str]) -> String {
    if lines.len() <= 3 * KEPT_LINES {
        return lines.join("\n");
    }
    let end = lines.len() - 2 * KEPT_LINES;
    let left_out = format!("  … {} lines are left out …", end - KEPT_LINES);
    let parts = [&lines[..KEPT_LINES], &[left_out.as_str()], &lines[end..]];
    parts.concat().join("\n")
}
