//! Mistakes of TOML itself, in words of ours.

use toml::de::{DeTable, Error};

use super::problem_report::{KeyPosition, ProblemReport};
use super::source::Span;
use super::toml_tree::{self, Table};

/// Parses a file. Nothing comes back where it can't be made sense of; keys given twice are only reported.
pub(super) fn parse(text: &str, report: &mut ProblemReport) -> Option<Table> {
    let root = KeyPosition { at: Span { source: 0, start: 0, end: 0 }, key: String::new() };
    if let Some(place) = too_deep(text) {
        report.problem(&place, "the key has too many dots");
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let (twice, broken): (Vec<&Error>, Vec<&Error>) =
        errors.iter().partition(|error| error.message() == DUPLICATE);
    duplicates(text, &twice, report);
    for error in &broken {
        if report.is_full() {
            report.problem(&root, ""); // counted
            continue;
        }
        let at = span(error);
        // The parser's expectation of an unquoted text is of no use to anybody.
        let reason = error.message().trim_end_matches(", expected literal string");
        let message = format!("not valid TOML: {reason}");
        let problem = report.problem(&KeyPosition { at, key: String::new() }, message);
        if let Some(hint) = hint(text, at) {
            problem.hint(hint);
        }
    }
    broken.is_empty().then(|| toml_tree::convert_table(document.get_ref(), &root, 0, report))
}

/// What the parser says of a key that is there already.
const DUPLICATE: &str = "duplicate key";

fn span(error: &Error) -> Span {
    let span = error.span().unwrap_or(0..0);
    Span { source: 0, start: span.start, end: span.end }
}

/// More parts than this no key has.
const MOST_PARTS: usize = 20;

/// A key of a hundred thousand parts would nest tables so deeply that even to drop them uses up the stack.
fn too_deep(text: &str) -> Option<KeyPosition> {
    let mut start = 0;
    let mut dots = 0;
    let mut previous = '\n';
    for (at, c) in text.char_indices() {
        let blank = c == ' ' || c == '\t';
        let of_key = c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'');
        // A blank belongs to a key only beside a dot; so the numbers of a command line are not taken for one.
        let goes_on = of_key && (previous == '.' || c == '.' || !previous.is_whitespace());
        if blank {
            previous = if previous == '.' { '.' } else { ' ' };
            continue;
        }
        if !goes_on {
            (start, dots) = (at, 0);
        }
        dots += usize::from(c == '.');
        if dots > MOST_PARTS {
            let at = Span { source: 0, start, end: at };
            return Some(KeyPosition { at, key: String::new() });
        }
        previous = c;
    }
    None
}

fn duplicates(text: &str, errors: &[&Error], report: &mut ProblemReport) {
    let mut repeated_until = 0;
    for error in errors {
        if report.is_full() {
            report.problem(&KeyPosition { at: span(error), key: String::new() }, "");
            continue;
        }
        let at = span(error);
        let end = section_end(text, at.start);
        if at.start < repeated_until && end == repeated_until {
            continue; // The keys of a section that is given twice: it was said of the section.
        }
        let name = report.sources.slice(at).trim().to_owned();
        let line = text.get(..at.start).and_then(|before| before.lines().last()).unwrap_or("");
        if line.trim_start().starts_with('[') {
            repeated_until = end;
        }
        let message = match first_line(text, at.start, &name) {
            Some(line) => format!("`{name}` is given twice, first on line {line}"),
            None => format!("`{name}` is given twice"),
        };
        report
            .problem(&KeyPosition { at, key: name }, message)
            .hint("remove one of the two, or rename it");
    }
}

/// Where the section ends that something stands in.
fn section_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or("");
    rest.find("\n[").map_or(text.len(), |found| at + found)
}

/// The line on which a key that is given twice stands first; the parser tells only the second.
fn first_line(text: &str, at: usize, name: &str) -> Option<usize> {
    let second = text.get(..at)?.matches('\n').count();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let own = lines.get(second)?;
    let is_header = own.starts_with('[');
    let earlier = lines[..second].iter().enumerate().rev();
    let found = if is_header {
        earlier.map(|(index, line)| (index, header(line) == header(own))).find(|(_, same)| *same)
    } else {
        earlier
            .take_while(|(_, line)| !line.starts_with('['))
            .map(|(index, line)| (index, assigns(line, name)))
            .find(|(_, same)| *same)
    };
    found.map(|(index, _)| index + 1)
}

fn header(line: &str) -> Option<&str> {
    line.split('#').next().map(str::trim)
}

fn assigns(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
}

/// What is most likely meant, for the slips that people make.
fn hint(text: &str, at: Span) -> Option<String> {
    let start = text.get(..at.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?.trim();
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.split('#').next()?.trim());
    if value.is_empty() {
        return Some(format!("give `{key}` a value"));
    }
    if matches!(value, "True" | "False") {
        return Some(format!("write `{}`", value.to_lowercase()));
    }
    let begins = value.starts_with(|c: char| c.is_ascii_alphanumeric());
    (begins && value.chars().all(is_bare))
        .then(|| format!("text needs quotes: `{key} = \"{value}\"`"))
}

fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | ':')
}
