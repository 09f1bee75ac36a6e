//! What is wrong with an experiment's file: where, what was found, and what to type instead.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::source::Position;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file; nothing where the mistake is on the command line.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// The dotted key.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    #[serde(skip)]
    excerpt: Excerpt,
}

/// The mistakes of a file, in the order of their places, and how many there are beyond those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>, pub usize);

/// The line that a mistake stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Excerpt {
    line: String,
    column: usize,
    width: usize,
}

/// Longer lines are shown in part.
const SHOWN_COLUMNS: usize = 100;

/// What a message may quote of a file.
const MAX_QUOTED: usize = 600;

/// A text, cut where it would fill the screen.
fn in_short(text: String) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl Problem {
    pub(super) fn new(position: Position, key: &str, message: String) -> Self {
        let Position { file, line, column, excerpt, excerpt_column, width } = position;
        let in_file = file.is_some();
        Self {
            file,
            line: in_file.then_some(line),
            column: in_file.then_some(column),
            key: (!key.is_empty()).then(|| in_short(key.to_owned())),
            message: in_short(message),
            hint: None,
            excerpt: Excerpt { line: excerpt, column: excerpt_column - 1, width },
        }
    }

    /// Says what to do about it.
    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(in_short(hint.into()));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => {
                let name = file.file_name().map_or(file.as_os_str(), |name| name);
                write!(f, "  --> {}:{line}", name.display())?;
            }
            (Some(_) | None, _) => write!(f, "  --> the command line")?,
        }
        if let Some(key) = &self.key {
            write!(f, ", key `{key}`")?;
        }
        write!(f, "{}", self.excerpt)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line.trim().is_empty() {
            return Ok(());
        }
        // A window around the place, so that a long line does not fill the screen.
        let first = if self.column + self.width <= SHOWN_COLUMNS {
            0
        } else {
            self.column.saturating_sub(SHOWN_COLUMNS / 4)
        };
        // A tab or another control character would move the carets away from the place.
        let shown: String = self
            .line
            .chars()
            .skip(first)
            .take(SHOWN_COLUMNS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let column = self.column - first;
        let width = self.width.min(SHOWN_COLUMNS.saturating_sub(column)).max(1);
        write!(f, "\n   |  {}", shown.trim_end())?;
        write!(f, "\n   |  {}{}", " ".repeat(column), "^".repeat(width))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                write!(f, "\n\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.1 > 0 {
            write!(f, "\n\n… and {} more", grouped(self.1))?;
        }
        Ok(())
    }
}

/// `9,980`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl std::error::Error for Problems {}
