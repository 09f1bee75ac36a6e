//! `--set KEY=VALUE`: changes the tree of a file before it is read.

use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::problem_report::{KeyPosition, ProblemReport, choices};
use super::source::{SourceTexts, Span};
use super::tasks::TaskDraft;
use super::toml_tree::{self, Table, TableEntry, TomlNode, TomlValue};

/// A change of one key, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The key's parts.
    path: Vec<String>,
    /// The value as TOML, or else as a string.
    value: String,
    /// The whole as given.
    text: String,
}

/// Why a text is not an [`Override`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// There is no `=`.
    #[error("`{0}` has no `=`: write KEY=VALUE, for example task.train.search.concurrent=4")]
    NoValue(String),
    /// The key is not one of TOML.
    #[error("`{0}` is not a key: write its parts with dots, for example task.train.params.lr")]
    Key(String),
    /// The value looks like a list and is none.
    #[error("`{value}` is not a list: {reason}")]
    List {
        /// The value as given.
        value: String,
        /// What the parser says.
        reason: String,
    },
}

impl Override {
    /// The dotted key.
    #[must_use]
    pub fn key(&self) -> String {
        self.path.join(".")
    }

    /// The parts of the key.
    pub(super) fn path(&self) -> &[String] {
        &self.path
    }

    /// The value as given.
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// The same change of another key.
    pub(super) fn moved_to(self, path: Vec<String>) -> Self {
        Self { path, ..self }
    }

    /// The value as JSON; null where there is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        if self.value.is_empty() {
            return serde_json::Value::Null;
        }
        let text = || serde_json::Value::from(self.value.as_str());
        DeValue::parse(&self.value).map_or_else(|_| text(), |value| json(value.get_ref()))
    }
}

/// What TOML has, as JSON has it: a number that JSON has not is a text.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().into(), Into::into),
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(float) if float.is_finite() => float.into(),
            _ => number.as_str().into(),
        },
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = table
                .iter()
                .map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref())));
            serde_json::Value::Object(entries.collect())
        }
    }
}

/// Longer keys do not exist in any file.
const LONGEST_PATH: usize = 16;

impl FromStr for Override {
    type Err = OverrideError;

    fn from_str(text: &str) -> Result<Self, OverrideError> {
        let (key, value) = split(text).ok_or_else(|| OverrideError::NoValue(text.to_owned()))?;
        let path = path(key).ok_or_else(|| OverrideError::Key(key.to_owned()))?;
        let value = value.trim();
        match DeValue::parse(value) {
            // Few strings begin with a bracket, and a list with a slip in it must not become one.
            Err(error) if value.starts_with('[') => {
                let (value, reason) = (value.to_owned(), error.message().to_owned());
                Err(OverrideError::List { value, reason })
            }
            Ok(_) | Err(_) => Ok(Self { path, value: value.to_owned(), text: text.to_owned() }),
        }
    }
}

/// Cuts at the first `=` outside of quotes.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some((&text[..at], &text[at + 1..])),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None | Some(_), _) => {}
        }
    }
    None
}

/// The parts of a dotted key, as TOML reads it.
fn path(key: &str) -> Option<Vec<String>> {
    if key.contains('\n') || key.matches('.').count() >= LONGEST_PATH {
        return None;
    }
    let text = format!("{key} = 0");
    let table = DeTable::parse(&text).ok()?;
    let mut table = table.get_ref();
    let mut path = Vec::new();
    loop {
        let (name, value) = table.iter().next()?;
        path.push(name.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

/// Makes the changes, one after the other.
pub(super) fn apply(
    root: &mut Table,
    overrides: &[(usize, &Override)],
    report: &mut ProblemReport,
) {
    for (source, change) in overrides {
        let sources = report.sources;
        let text = sources.text(*source);
        let end = text.len();
        let key_start = end - change.text.len();
        let start = text.rfind(&change.value).unwrap_or(key_start);
        let key = change.path.join(".");
        let key_at = Span { source: *source, start: key_start, end: start.saturating_sub(1) };
        let place = KeyPosition { at: key_at, key: key.clone() };
        if !is_known(root, change, &place, report) {
            continue;
        }
        let mut node = match DeValue::parse(&change.value) {
            Ok(value) => toml_tree::convert(&value, &place, change.path.len(), report),
            Err(_) => TomlNode { at: key_at, value: TomlValue::Text(change.value.clone()) },
        };
        move_to(&mut node, Span { source: *source, start, end });
        set(root, &change.path, node, &place, report);
    }
}

/// Puts the whole of a value at the place of its argument.
fn move_to(node: &mut TomlNode, at: Span) {
    node.at = at;
    match &mut node.value {
        TomlValue::List(items) => items.iter_mut().for_each(|item| move_to(item, at)),
        TomlValue::Table(table) => {
            for entry in &mut table.entries {
                entry.at = at;
                move_to(&mut entry.node, at);
            }
        }
        TomlValue::Text(_)
        | TomlValue::Integer(_)
        | TomlValue::Float(_)
        | TomlValue::Flag(_)
        | TomlValue::Date(_) => {}
    }
}

fn set(
    table: &mut Table,
    path: &[String],
    node: TomlNode,
    place: &KeyPosition,
    report: &mut ProblemReport,
) {
    let [name, rest @ ..] = path else { return };
    if table.get(name).is_none() {
        let empty = TomlNode { at: place.at, value: TomlValue::Table(Table::default()) };
        table.entries.push(TableEntry { name: name.clone(), at: place.at, node: empty });
    }
    let Some(entry) = table.get_mut(name) else { return };
    if rest.is_empty() {
        entry.at = place.at;
        entry.node = node;
        return;
    }
    match &mut entry.node.value {
        TomlValue::Table(inner) => set(inner, rest, node, place, report),
        other => {
            let message =
                format!("`{name}` is {}, not a table with a key `{}`", other.describe(), rest[0]);
            report.problem(place, message);
        }
    }
}

/// Reports a change to a task that there is not: it would otherwise be a new one, without a command.
fn is_known(
    root: &Table,
    change: &Override,
    place: &KeyPosition,
    report: &mut ProblemReport,
) -> bool {
    let tasks: Vec<&str> = match root.get("task").map(|entry| &entry.node.value) {
        Some(TomlValue::Table(tasks)) => {
            tasks.entries.iter().map(|entry| entry.name.as_str()).collect()
        }
        Some(_) | None => Vec::new(),
    };
    match change.path.as_slice() {
        [first, name, ..] if first == "task" && !tasks.contains(&name.as_str()) => {
            let hint = choices(name, "the tasks are", tasks);
            report.problem(place, format!("there is no task `{name}`")).hint(hint);
            false
        }
        _ => true,
    }
}

/// The arguments that give a task a parameter that its file does not.
pub(super) fn adding(root: &Table, overrides: &[(usize, &Override)]) -> Vec<usize> {
    let adds = |change: &Override| match change.path.as_slice() {
        [first, task, params, name @ ..] if first == "task" && params == "params" => {
            let table = inner(root, "task").and_then(|tasks| inner(tasks, task));
            let params = table.and_then(|task| inner(task, "params"));
            !name.is_empty() && params.is_none_or(|params| is_missing(params, name))
        }
        _ => false,
    };
    overrides.iter().filter(|(_, change)| adds(change)).map(|(source, _)| *source).collect()
}

fn inner<'a>(table: &'a Table, name: &str) -> Option<&'a Table> {
    match &table.get(name)?.node.value {
        TomlValue::Table(inner) => Some(inner),
        _ => None,
    }
}

fn is_missing(table: &Table, path: &[String]) -> bool {
    let [name, rest @ ..] = path else { return false };
    match inner(table, name) {
        Some(inner) => is_missing(inner, rest),
        None => table.get(name).is_none(),
    }
}

/// Reports a new parameter that neither the task's command nor its executor names: most often it is another one's,
/// misspelt.
pub(super) fn check_added(
    adding: &[usize],
    drafts: &[TaskDraft],
    named_by_executor: impl Fn(&TaskDraft, &str) -> bool,
    report: &mut ProblemReport,
) {
    for draft in drafts {
        let (added, given): (Vec<_>, Vec<_>) =
            draft.search.names.iter().partition(|(_, place)| adding.contains(&place.at.source));
        let Some(run) = draft.run.as_ref() else { continue };
        for (name, place) in added {
            if run.names(name) || named_by_executor(draft, name) {
                continue;
            }
            let names = given.iter().map(|(name, _)| name.as_str());
            let meant = match choices(name, "the parameters are", names) {
                _ if given.is_empty() => String::new(),
                question if question.ends_with('?') => format!("{question} "),
                all => format!("{all}; "),
            };
            report
                .problem(place, format!("`{}` has no parameter `{name}`", draft.name))
                .hint(format!("{meant}a new one must be in `run`, as `{{{name}}}`"));
        }
    }
}

/// Adds the arguments to the texts that places refer to.
pub(super) fn register<'a>(
    sources: &mut SourceTexts,
    overrides: &'a [Override],
) -> Vec<(usize, &'a Override)> {
    overrides
        .iter()
        .map(|change| (sources.push(format!("--set {}", change.text)), change))
        .collect()
}
