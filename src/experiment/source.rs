//! The texts that an experiment is read from, and where in them something stands.

use std::path::{Path, PathBuf};

/// A stretch of one of the texts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// 0 is the file; the arguments of the command line follow.
    pub(super) source: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The file's text, and then the arguments that change it.
#[derive(Debug)]
pub(super) struct SourceTexts {
    file: PathBuf,
    texts: Vec<String>,
}

/// A span as a person counts, with the line it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// `None`: an argument of the command line.
    pub(super) file: Option<PathBuf>,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// The line, or of a long one what is around the place.
    pub(super) excerpt: String,
    /// The column in the excerpt, from 1.
    pub(super) excerpt_column: usize,
    /// In characters, at least 1.
    pub(super) width: usize,
}

impl SourceTexts {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        Self { file: file.to_owned(), texts: vec![text.to_owned()] }
    }

    /// Adds an argument of the command line.
    pub(super) fn push(&mut self, text: String) -> usize {
        self.texts.push(text);
        self.texts.len() - 1
    }

    /// The file's name without its folder.
    pub(super) fn file_name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Of all texts, in bytes.
    pub(super) fn length(&self) -> usize {
        self.texts.iter().map(String::len).sum()
    }

    pub(super) fn text(&self, source: usize) -> &str {
        self.texts.get(source).map_or("", String::as_str)
    }

    /// The text at a span; empty where the span does not fit, which only a bug could bring about.
    pub(super) fn slice(&self, at: Span) -> &str {
        self.text(at.source).get(at.start..at.end).unwrap_or("")
    }

    pub(super) fn position(&self, at: Span) -> Position {
        let text = self.text(at.source);
        let start = floor_boundary(text, at.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = floor_boundary(text, at.end).clamp(start, line_end.max(start));
        let before = window_start(&text[line_start..start]);
        let after: String = text[start..line_end].chars().take(WINDOW).collect();
        let excerpt = [&text[line_start + before..start], after.trim_end_matches('\r')].concat();
        Position {
            file: (at.source == 0).then(|| self.file.clone()),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt,
            excerpt_column: text[line_start + before..start].chars().count() + 1,
            width: text[start..end]
                .chars()
                .take(WINDOW)
                .collect::<String>()
                .trim_end()
                .chars()
                .count()
                .max(1),
        }
    }
}

/// How many characters before and after a place are compared to find it again.
const WINDOW: usize = 200;

/// Where the last characters of a text begin.
fn window_start(text: &str) -> usize {
    text.char_indices().rev().nth(WINDOW - 1).map_or(0, |(start, _)| start)
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, (start, end): (usize, usize), expected: (usize, usize, &str, usize)) {
        let sources = SourceTexts::new(Path::new("/x/exp.toml"), text);
        let found = sources.position(Span { source: 0, start, end });
        let (line, column, excerpt, width) = expected;
        assert_eq!((found.line, found.column), (line, column), "{text:?} {start}..{end}");
        assert_eq!((found.excerpt.as_str(), found.width), (excerpt, width), "{text:?}");
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        check("a = 1\nbb = 22\n", (0, 1), (1, 1, "a = 1", 1));
        check("a = 1\nbb = 22\n", (11, 13), (2, 6, "bb = 22", 2));
        check("é = 1\r\nb", (5, 6), (1, 5, "é = 1", 1));
        check("ab", (1, 99), (1, 2, "ab", 1)); // a span that runs past the end
        check("a\nb", (0, 3), (1, 1, "a", 1)); // only the first line is underlined
        check("", (0, 0), (1, 1, "", 1));
        check("a\n", (2, 2), (2, 1, "", 1));
        check("é", (1, 1), (1, 1, "é", 1)); // inside of a character
    }
}
