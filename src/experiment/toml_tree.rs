//! TOML as a tree in which everything knows its place. Turns the `toml` crate's tree into ours.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem_report::{KeyPosition, ProblemReport};
use super::source::Span;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct TomlNode {
    pub(super) at: Span,
    pub(super) value: TomlValue,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum TomlValue {
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
    Date(String),
    List(Vec<TomlNode>),
    Table(Table),
}

/// Keys and values in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<TableEntry>,
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct TableEntry {
    pub(super) name: String,
    pub(super) at: Span,
    pub(super) node: TomlNode,
}

/// Deeper nesting is refused: walking it would use up the stack.
const DEEPEST: usize = 40;

impl Table {
    pub(super) fn get(&self, name: &str) -> Option<&TableEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut TableEntry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }
}

impl TomlValue {
    /// What it is, for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(text) if text.chars().count() <= 40 => format!("the string {text:?}"),
            Self::Text(_) => "a string".to_owned(),
            Self::Integer(number) => format!("the integer {number}"),
            Self::Float(number) => format!("the number {number:?}"),
            Self::Flag(flag) => format!("`{flag}`"),
            Self::Date(date) => format!("the date {date}"),
            Self::List(items) if items.is_empty() => "an empty list".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// The dotted key of something inside of `key`.
pub(super) fn dotted(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

/// Reads a whole file.
pub(super) fn convert_table(
    table: &DeTable<'_>,
    place: &KeyPosition,
    depth: usize,
    report: &mut ProblemReport,
) -> Table {
    let source = place.at.source;
    let mut entries: Vec<TableEntry> = table
        .iter()
        .map(|(name, value)| {
            let span = name.span();
            let at = Span { source, start: span.start, end: span.end };
            let key = dotted(&place.key, name.get_ref());
            if name.get_ref().contains('\0') {
                report.problem(
                    &KeyPosition { at, key: key.clone() },
                    "a key can't contain a NUL byte",
                );
            }
            let node = convert(value, &KeyPosition { at, key }, depth + 1, report);
            TableEntry { name: name.get_ref().to_string(), at, node }
        })
        .collect();
    entries.sort_by_key(|entry| entry.at);
    Table { entries }
}

/// Reads one value. `place` is that of its key.
pub(super) fn convert(
    value: &Spanned<DeValue<'_>>,
    place: &KeyPosition,
    depth: usize,
    report: &mut ProblemReport,
) -> TomlNode {
    let at = Span { source: place.at.source, start: value.span().start, end: value.span().end };
    let here = KeyPosition { at, key: place.key.clone() };
    if depth > DEEPEST {
        report.problem(place, format!("is nested more than {DEEPEST} levels deep"));
        return TomlNode { at, value: TomlValue::Flag(false) };
    }
    let value = match value.get_ref() {
        DeValue::String(text) => {
            if text.contains('\0') {
                report.problem(&here, "a string can't contain a NUL byte");
            }
            TomlValue::Text(text.to_string())
        }
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            if parsed.is_err() {
                report.problem(&here, "the integer is too large: it has more than 64 bits");
            }
            TomlValue::Integer(parsed.unwrap_or(1))
        }
        DeValue::Float(number) => {
            TomlValue::Float(number.as_str().parse().unwrap_or(f64::INFINITY))
        }
        DeValue::Boolean(flag) => TomlValue::Flag(*flag),
        DeValue::Datetime(date) => TomlValue::Date(date.to_string()),
        DeValue::Array(items) => TomlValue::List(
            items.iter().map(|item| convert(item, &here, depth + 1, report)).collect(),
        ),
        DeValue::Table(table) => TomlValue::Table(convert_table(table, &here, depth, report)),
    };
    TomlNode { at, value }
}
