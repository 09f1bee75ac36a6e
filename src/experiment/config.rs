//! The configuration as it holds: the file with what the command line changes, and where each key is from. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::source::{SourceTexts, Span};
use super::toml_tree::{Table, TomlNode, TomlValue, dotted};
use super::{Experiment, Task};

/// A resolved configuration, with the keys of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResolvedConfig {
    /// The tables of the file.
    pub config: Json,
    /// Where each key is from, by its dotted name: `exp.toml:12`, an argument of the command line, or `default`.
    pub origin: BTreeMap<String, String>,
}

/// Where a key is from that nobody gave.
const DEFAULT: &str = "default";

impl ResolvedConfig {
    /// What a file came to. `executor` is the argument that put every task on one.
    pub(super) fn new(
        root: &Table,
        sources: &SourceTexts,
        experiment: &Experiment,
        executor: Option<&str>,
    ) -> Self {
        let mut whole = Self { config: table(root), origin: BTreeMap::new() };
        let lines = LineStarts::new(sources);
        add_origins(root, "", &lines, &mut whole.origin);
        whole.fill(&["seed"], json!(experiment.seed), DEFAULT);
        for task in &experiment.tasks {
            if let Some(name) = executor {
                whole.set(
                    &["task", &task.name, "executor"],
                    json!(name),
                    &format!("--executor {name}"),
                );
            }
            whole.fill_task(task);
        }
        whole
    }

    /// What holds for a task where the file says nothing.
    fn fill_task(&mut self, task: &Task) {
        let own = |key: &[&'static str]| -> Vec<String> {
            let key = key.iter().map(ToString::to_string);
            ["task".to_owned(), task.name.clone()].into_iter().chain(key).collect()
        };
        let keep = task.checkpoint.keep;
        let mut values = vec![
            (own(&["executor"]), json!(task.executor)),
            (own(&["checkpoint", "signal"]), json!(task.checkpoint.signal)),
            (own(&["checkpoint", "lead"]), json!(format!("{}s", task.checkpoint.lead))),
            (own(&["checkpoint", "keep", "trial_latest"]), json!(keep.trial_latest)),
            (own(&["checkpoint", "keep", "trial_best"]), json!(keep.trial_best)),
            (own(&["checkpoint", "keep", "experiment_best"]), json!(keep.experiment_best)),
            (own(&["restart", "crashes"]), json!(task.restart.crashes)),
            (own(&["restart", "no_progress"]), json!(task.restart.no_progress)),
        ];
        values.extend(task.profile.map(|profile| (own(&["profile"]), json!(profile))));
        for (path, value) in values {
            let last = path.last().map(String::as_str).unwrap_or_default();
            let shared = self.origin.get(&format!("defaults.{last}")).cloned();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.fill(&path, value, shared.as_deref().unwrap_or(DEFAULT));
        }
    }

    /// What somebody gave below a key, without the defaults.
    pub(super) fn given(&self, path: &[&str]) -> Option<Json> {
        let value = path.iter().try_fold(&self.config, |table, name| table.get(name))?;
        self.without_defaults(value, &path.join("."))
    }

    fn without_defaults(&self, value: &Json, key: &str) -> Option<Json> {
        if self.origin.get(key).is_some_and(|origin| origin == DEFAULT) {
            return None;
        }
        let Some(table) = value.as_object().filter(|table| !table.is_empty()) else {
            return Some(value.clone());
        };
        let given: serde_json::Map<String, Json> = table
            .iter()
            .filter_map(|(name, value)| {
                Some((name.clone(), self.without_defaults(value, &dotted(key, name))?))
            })
            .collect();
        (!given.is_empty()).then_some(Json::Object(given))
    }

    /// Gives a key that is not there a value.
    pub fn fill(&mut self, path: &[&str], value: Json, origin: &str) {
        let found = path.iter().try_fold(&self.config, |table, name| table.get(name));
        if found.is_none() {
            self.set(path, value, origin);
        }
    }

    /// Gives a key a value. What is no table stays as it is.
    pub fn set(&mut self, path: &[&str], value: Json, origin: &str) {
        let [tables @ .., last] = path else { return };
        let mut place = &mut self.config;
        for name in tables {
            let Some(table) = place.as_object_mut() else { return };
            place = table.entry(*name).or_insert_with(|| json!({}));
        }
        let Some(table) = place.as_object_mut() else { return };
        table.insert((*last).to_owned(), value);
        self.origin.insert(path.join("."), origin.to_owned());
    }

    /// Takes a table over from another configuration. What an argument has changed there is from `origin`, what follows from
    /// a default stays one, and all else is from where it was.
    pub(super) fn take_over(&mut self, path: &[&str], other: &Self, origin: &str) {
        let at = |config: &Json| {
            path.iter().try_fold(config, |table, name| table.get(name)).cloned().unwrap_or_default()
        };
        let (old, mut new) = (at(&self.config), at(&other.config));
        let table = path.iter().fold(String::new(), |key, name| dotted(&key, name));
        let source = |key: &str| match other.origin.get(key).map(String::as_str) {
            Some(DEFAULT) => Some(DEFAULT),
            Some(from) if from.starts_with("--") => Some(origin),
            _ => None,
        };
        let Some(keys) = new.as_object_mut() else { return };
        // The other one may need a key that nobody gave here.
        keys.retain(|name, value| {
            let key = dotted(&table, name);
            value.is_object() || old.get(name).is_some() || source(&key).is_some()
        });
        let (before, now) = (leaves(&old, &table), leaves(&new, &table));
        if before == now {
            return;
        }
        self.set(path, in_order_of(&old, new), origin);
        self.origin.remove(&path.join("."));
        self.origin.retain(|key, _| now.contains_key(key) || !before.contains_key(key));
        for (key, value) in &now {
            let from = source(key).filter(|_| before.get(key) != Some(value));
            self.origin.extend(from.map(|from| (key.clone(), from.to_owned())));
        }
    }

    /// A hash of the configuration, whatever the order of its keys.
    #[must_use]
    pub fn hash(&self) -> String {
        blake3::hash(sorted(&self.config).to_string().as_bytes()).to_hex().to_string()
    }

    /// The values by dotted keys, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, &Json)> {
        let mut entries = Vec::new();
        add_entries(&self.config, "", &mut entries);
        entries
    }
}

fn add_entries<'a>(value: &'a Json, key: &str, entries: &mut Vec<(String, &'a Json)>) {
    match value.as_object() {
        Some(table) if !table.is_empty() => {
            for (name, value) in table {
                add_entries(value, &dotted(key, name), entries);
            }
        }
        Some(_) | None if key.is_empty() => {}
        Some(_) | None => entries.push((key.to_owned(), value)),
    }
}

/// The values below a table, by dotted keys.
fn leaves(table: &Json, key: &str) -> BTreeMap<String, Json> {
    let mut entries = Vec::new();
    add_entries(table, key, &mut entries);
    entries.into_iter().map(|(key, value)| (key, value.clone())).collect()
}

/// A table with the keys of an older one first, in the order that they had.
fn in_order_of(old: &Json, new: Json) -> Json {
    let mut new = match new {
        Json::Object(new) => new,
        other => return other,
    };
    let mut table = serde_json::Map::new();
    for (name, before) in old.as_object().into_iter().flatten() {
        let own = new.shift_remove(name);
        table.extend(own.map(|own| (name.clone(), in_order_of(before, own))));
    }
    table.extend(new);
    Json::Object(table)
}

fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(table) => {
            let by_name: BTreeMap<&String, Json> =
                table.iter().map(|(name, value)| (name, sorted(value))).collect();
            Json::Object(by_name.into_iter().map(|(name, value)| (name.clone(), value)).collect())
        }
        Json::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The places of a text's lines: a file of thousands of keys is counted through once.
struct LineStarts<'a> {
    sources: &'a SourceTexts,
    starts: Vec<usize>,
}

impl<'a> LineStarts<'a> {
    fn new(sources: &'a SourceTexts) -> Self {
        let breaks = sources.text(0).match_indices('\n').map(|(at, _)| at + 1);
        Self { sources, starts: std::iter::once(0).chain(breaks).collect() }
    }

    fn origin(&self, at: Span) -> String {
        if at.source > 0 {
            return self.sources.text(at.source).to_owned();
        }
        let line = self.starts.partition_point(|start| *start <= at.start);
        format!("{}:{line}", self.sources.file_name())
    }
}

fn add_origins(
    table: &Table,
    key: &str,
    lines: &LineStarts<'_>,
    origin: &mut BTreeMap<String, String>,
) {
    for entry in &table.entries {
        let key = dotted(key, &entry.name);
        match &entry.node.value {
            TomlValue::Table(inner) if !inner.entries.is_empty() => {
                add_origins(inner, &key, lines, origin);
            }
            _ => drop(origin.insert(key, lines.origin(entry.at))),
        }
    }
}

fn table(table: &Table) -> Json {
    let entries = table.entries.iter().map(|entry| (entry.name.clone(), value(&entry.node)));
    Json::Object(entries.collect())
}

/// What TOML has, as JSON has it: a number that JSON has not is a text.
fn value(node: &TomlNode) -> Json {
    match &node.value {
        TomlValue::Text(text) | TomlValue::Date(text) => json!(text),
        TomlValue::Integer(number) => json!(number),
        TomlValue::Float(number) if number.is_finite() => json!(number),
        TomlValue::Float(number) => json!(number.to_string()),
        TomlValue::Flag(flag) => json!(flag),
        TomlValue::List(items) => items.iter().map(value).collect(),
        TomlValue::Table(inner) => table(inner),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Override, load};
    use super::*;

    fn resolved(text: &str, changes: &[&str], executor: Option<&str>) -> ResolvedConfig {
        let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
        load(text, Path::new("/x/exp.toml"), &changes, executor).unwrap().config
    }

    const TEXT: &str = "name = \"a\"\n[executor.here]\nkind = \"local\"\n[task.t]\nrun = \"true {lr}\"\n\
                        restart.crashes = 2\n[task.t.params]\nlr = [0.1,\n  0.2]\n";

    #[test]
    fn each_key_says_where_it_is_from() {
        let all = resolved(TEXT, &["task.t.params.lr=0.5", "tags=[\"x\"]"], None);
        let check = |key: &str, value: Json, origin: &str| {
            let entries = all.entries();
            let found =
                entries.iter().find(|(name, _)| name == key).map(|(_, value)| (*value).clone());
            assert_eq!(
                (found, all.origin.get(key).map(String::as_str)),
                (Some(value), Some(origin)),
                "{key}"
            );
        };
        check("name", json!("a"), "exp.toml:1");
        check("executor.here.kind", json!("local"), "exp.toml:3");
        check("task.t.restart.crashes", json!(2), "exp.toml:6");
        check("task.t.params.lr", json!(0.5), "--set task.t.params.lr=0.5");
        check("tags", json!(["x"]), "--set tags=[\"x\"]");
        check("task.t.executor", json!("here"), "default");
        check("task.t.checkpoint.lead", json!("60s"), "default");
        check("task.t.restart.no_progress", json!(3), "default");
        check("seed", json!(0), "default");
        let keys: Vec<String> = all.entries().into_iter().map(|(key, _)| key).collect();
        assert!(
            keys.iter().eq(keys.iter().filter(|key| all.origin.contains_key(*key))),
            "{keys:?}"
        );
        assert_eq!(resolved(TEXT, &[], None).origin["task.t.params.lr"], "exp.toml:8");
        assert_eq!(
            resolved(TEXT, &[], Some("slurm")).origin["task.t.executor"],
            "--executor slurm"
        );
    }

    #[test]
    fn the_hash_is_of_the_values_alone() {
        let plain = resolved(TEXT, &[], None).hash();
        assert_eq!(resolved(&format!("# a comment\n{TEXT}"), &[], None).hash(), plain);
        assert_ne!(resolved(TEXT, &["task.t.params.lr=0.5"], None).hash(), plain);
        let tables: Vec<&str> =
            TEXT.split_inclusive("0.2]\n").next().unwrap().split("[task.t]").collect();
        let (head, task) = (tables[0], tables[1]);
        let swapped = format!("name = \"a\"\n[task.t]{task}{}", head.replace("name = \"a\"\n", ""));
        assert_eq!(resolved(&swapped, &[], None).hash(), plain);
    }
}
