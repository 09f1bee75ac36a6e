//! What an experiment is found by: tags, a description and metadata, as its file gives them and its notes change them, and
//! whether it was put away. Pure.

use std::collections::BTreeMap;

use nemo_core::rundir::Note;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::experiment::Experiment;

/// The free part of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    /// Names.
    pub tags: Vec<String>,
    /// For people.
    pub description: Option<String>,
    /// Free keys and values.
    pub metadata: BTreeMap<String, Value>,
    /// Whether it was put away.
    #[serde(default)]
    pub archived: bool,
}

/// What was there before a note, and after it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BeforeAndAfter<T> {
    /// Before.
    pub before: T,
    /// After.
    pub after: T,
}

/// What a note changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NoteChange {
    /// The tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BeforeAndAfter<Vec<String>>>,
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<BeforeAndAfter<Option<String>>>,
    /// Values by dotted keys; null is a key that is not there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, BeforeAndAfter<Value>>,
    /// Whether it was put away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<BeforeAndAfter<bool>>,
}

impl NoteChange {
    /// Whether all stayed as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { tags, description, metadata, archived } = self;
        tags.is_none() && description.is_none() && metadata.is_empty() && archived.is_none()
    }
}

impl Annotations {
    /// As the file gives them.
    #[must_use]
    pub fn of_file(experiment: &Experiment) -> Self {
        let Experiment { tags, description, metadata, .. } = experiment;
        let (tags, description, metadata) = (tags.clone(), description.clone(), metadata.clone());
        Self { tags, description, metadata, archived: false }
    }

    /// After these notes, which are in their order.
    #[must_use]
    pub fn after<'a>(mut self, notes: impl IntoIterator<Item = &'a Note>) -> Self {
        for note in notes {
            self.apply(note);
        }
        self
    }

    /// Applies a note, and tells what it changed.
    pub fn apply(&mut self, note: &Note) -> NoteChange {
        let before = self.tags.clone();
        self.tags.retain(|tag| !note.untagged.contains(tag));
        for tag in &note.tags {
            if !self.tags.contains(tag) {
                self.tags.push(tag.clone());
            }
        }
        let after = self.tags.clone();
        let tags = (before != after).then_some(BeforeAndAfter { before, after });
        let description = note.description.as_ref().and_then(|text| self.describe(text));
        let mut metadata = BTreeMap::new();
        for (key, value) in &note.metadata {
            let before = value_at(&self.metadata, key).cloned().unwrap_or_default();
            if before != *value {
                if let Some((table, lost)) = self.replaced_by_table(key) {
                    metadata.insert(table, BeforeAndAfter { before: lost, after: Value::Null });
                }
                set(&mut self.metadata, key, value);
                metadata.insert(key.clone(), BeforeAndAfter { before, after: value.clone() });
            }
        }
        let archived = note.archived.and_then(|after| self.put_away(after));
        NoteChange { tags, description, metadata, archived }
    }

    fn put_away(&mut self, after: bool) -> Option<BeforeAndAfter<bool>> {
        let before = std::mem::replace(&mut self.archived, after);
        (before != after).then_some(BeforeAndAfter { before, after })
    }

    /// The value that gives way where a dotted key makes a table of it, and its key.
    fn replaced_by_table(&self, key: &str) -> Option<(String, Value)> {
        if self.metadata.contains_key(key) {
            return None;
        }
        let tables = key.match_indices('.').map(|(at, _)| &key[..at]);
        let values = tables.filter_map(|table| Some((table, value_at(&self.metadata, table)?)));
        let mut lost = values.filter(|(_, value)| !value.is_object());
        lost.next().map(|(table, value)| (table.to_owned(), value.clone()))
    }

    /// An empty text is none.
    fn describe(&mut self, text: &str) -> Option<BeforeAndAfter<Option<String>>> {
        let after = Some(text.to_owned()).filter(|text| !text.is_empty());
        let before = std::mem::replace(&mut self.description, after.clone());
        (before != after).then_some(BeforeAndAfter { before, after })
    }
}

/// The value of a dotted key: of the table whose name is the longest part of it.
#[must_use]
pub fn value_at<'a>(metadata: &'a BTreeMap<String, Value>, key: &str) -> Option<&'a Value> {
    if let Some(value) = metadata.get(key) {
        return Some(value);
    }
    let mut cuts = key.rmatch_indices('.');
    cuts.find_map(|(at, _)| within(metadata.get(&key[..at])?, &key[at + 1..]))
}

/// The value of a dotted key in nested objects.
#[must_use]
pub fn within<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    if let Some(value) = object.get(key) {
        return Some(value);
    }
    let mut cuts = key.rmatch_indices('.');
    cuts.find_map(|(at, _)| within(object.get(&key[..at])?, &key[at + 1..]))
}

/// Sets a dotted key, making tables where there are none; null takes it away.
fn set(metadata: &mut BTreeMap<String, Value>, key: &str, value: &Value) {
    if let Some((table, rest)) = key.split_once('.')
        && !metadata.contains_key(key)
    {
        let inner = metadata
            .entry(table.to_owned())
            .or_insert_with(|| Value::Object([].into_iter().collect()));
        set_within(inner, rest, value);
    } else if value.is_null() {
        metadata.remove(key);
    } else {
        metadata.insert(key.to_owned(), value.clone());
    }
}

fn set_within(table: &mut Value, key: &str, value: &Value) {
    if !table.is_object() {
        *table = Value::Object([].into_iter().collect());
    }
    let Some(object) = table.as_object_mut() else { return };
    if let Some((inner, rest)) = key.split_once('.')
        && !object.contains_key(key)
    {
        set_within(object.entry(inner.to_owned()).or_insert(Value::Null), rest, value);
    } else if value.is_null() {
        object.remove(key);
    } else {
        object.insert(key.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn annotations(value: Value) -> Annotations {
        serde_json::from_value(value).unwrap()
    }

    fn note(value: &Value) -> Note {
        let mut all = json!({ "time": 1.0, "user": "ada" });
        all.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_note_tells_what_was_there_before() {
        let mut own = annotations(json!({
            "tags": ["a", "b"], "description": "first", "metadata": { "model": "gpt", "data": { "rows": 3 } }
        }));
        let all = note(&json!({
            "tags": ["c", "b"], "untagged": ["a", "x"], "description": "second",
            "metadata": { "model": "vit", "data.rows": 4, "data.kind.name": "wiki", "lr": null }
        }));
        assert_eq!(
            serde_json::to_value(own.apply(&all)).unwrap(),
            json!({
                "tags": { "before": ["a", "b"], "after": ["b", "c"] },
                "description": { "before": "first", "after": "second" },
                "metadata": {
                    "data.kind.name": { "before": null, "after": "wiki" },
                    "data.rows": { "before": 3, "after": 4 },
                    "model": { "before": "gpt", "after": "vit" },
                },
            })
        );
        let expected = json!({ "model": "vit", "data": { "rows": 4, "kind": { "name": "wiki" } } });
        assert_eq!(serde_json::to_value(&own.metadata).unwrap(), expected);
        assert!(own.apply(&all).is_empty(), "once more changes nothing");
        let none =
            own.apply(&note(&json!({ "description": "", "metadata": { "data.kind": null } })));
        assert_eq!(serde_json::to_value(none).unwrap()["description"]["after"], Value::Null);
        assert_eq!(own.metadata["data"], json!({ "rows": 4 }));
    }

    #[test]
    fn a_value_that_gives_way_to_a_table_is_told() {
        let mut own = annotations(
            json!({ "tags": [], "description": null, "metadata": { "a": { "b": 1 } } }),
        );
        let change = own.apply(&note(&json!({ "metadata": { "a.b.c": 2 } })));
        assert_eq!(
            serde_json::to_value(change.metadata).unwrap(),
            json!({
                "a.b": { "before": 1, "after": null },
                "a.b.c": { "before": null, "after": 2 },
            })
        );
        assert_eq!(own.metadata["a"], json!({ "b": { "c": 2 } }));
    }

    #[test]
    fn dotted_keys_lead_into_tables() {
        let own = annotations(json!({
            "tags": [], "description": null, "metadata": { "a": { "b": { "c": 1 } }, "a.b": { "d": 2 }, "e": 3 }
        }));
        let value = |key: &str| value_at(&own.metadata, key).cloned().unwrap_or_default();
        assert_eq!(value("e"), json!(3));
        assert_eq!(value("a.b"), json!({ "d": 2 }));
        assert_eq!(value("a.b.d"), json!(2));
        assert_eq!(value("a.b.c"), json!(1));
        assert_eq!(value("e.f"), Value::Null);
        assert_eq!(value("x"), Value::Null);
    }
}
