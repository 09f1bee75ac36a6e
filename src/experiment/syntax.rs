//! Mistakes of TOML itself, in words of ours.

use std::collections::BTreeSet;

use toml::de::{DeTable, Error};

use super::problem_report::{KeyPosition, ProblemReport, nearest};
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
    let (twice, others): (Vec<&Error>, Vec<&Error>) =
        errors.iter().partition(|error| error.message() == DUPLICATE);
    duplicates(text, &twice, report);
    let (extended, broken): (Vec<&Error>, Vec<&Error>) =
        others.iter().partition(|error| error.message().starts_with(EXTENDED));
    values_with_tables(text, &extended, report);
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
    others.is_empty().then(|| toml_tree::convert_table(document.get_ref(), &root, 0, report))
}

/// What the parser says of a key that is there already.
const DUPLICATE: &str = "duplicate key";

/// What it says of a table whose name has a value already.
const EXTENDED: &str = "cannot extend value of type ";

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

/// Says of each value that is a table elsewhere where both stand. The parser tells it of the table, up to two times.
fn values_with_tables(text: &str, errors: &[&Error], report: &mut ProblemReport) {
    let mut said = BTreeSet::new();
    for error in errors {
        let table = span(error);
        let name = report.sources.slice(table).trim().to_owned();
        let value = value_of(text, table.start, &name).unwrap_or(table);
        if !said.insert(value.start) {
            continue;
        }
        let line = report.sources.position(table).line;
        let message = format!("`{name}` has a value here, and is a table on line {line}");
        let place = KeyPosition { at: value, key: name.clone() };
        let hint = executor_at_top(text, value, &name);
        let hint = hint.unwrap_or_else(|| "remove one of the two, or rename it".to_owned());
        report.problem(&place, message).hint(hint);
    }
}

/// The key with a value that stands last before a place.
fn value_of(text: &str, at: usize, name: &str) -> Option<Span> {
    let mut start = 0;
    let mut found = None;
    for line in text.get(..at)?.split_inclusive('\n') {
        let key = start + (line.len() - line.trim_start().len());
        let rest = line.trim_start().strip_prefix(name);
        if rest.is_some_and(|rest| rest.trim_start().starts_with('=')) {
            found = Some(Span { source: 0, start: key, end: key + name.len() });
        }
        start += line.len();
    }
    found
}

/// The hint for a name of an executor at the top of a file that defines executors: the tasks choose, or `[defaults]`.
fn executor_at_top(text: &str, at: Span, name: &str) -> Option<String> {
    if name != "executor" || text.get(..at.start)?.lines().any(|line| line.starts_with('[')) {
        return None;
    }
    let headers = text.lines().filter_map(|line| line.trim().strip_prefix("[executor."));
    let defined: Vec<&str> = headers.filter_map(|rest| rest.split([']', '.']).next()).collect();
    let value = text.get(at.end..)?.lines().next()?.trim_matches([' ', '=', '"', '\'']);
    let alike = || nearest(value, defined.iter().copied()).or(defined.first().copied());
    let meant = Some(value).filter(|value| defined.contains(value)).or_else(alike)?;
    Some(format!("write `executor = \"{meant}\"` below `[defaults]`, or in a task, instead"))
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
