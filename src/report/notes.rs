//! Notes and what they change, for people.

use serde_json::Value;

use super::escape::escape_line;
use crate::annotations::{BeforeAndAfter, NoteChange};

/// One line for each thing that changed.
#[must_use]
pub fn change_text(change: &NoteChange) -> String {
    let mut lines = Vec::new();
    if let Some(BeforeAndAfter { before, after }) = &change.tags {
        let added = after.iter().filter(|tag| !before.contains(tag)).map(|tag| format!("+{tag}"));
        let gone = before.iter().filter(|tag| !after.contains(tag)).map(|tag| format!("-{tag}"));
        lines.push(format!("tags: {}", added.chain(gone).collect::<Vec<_>>().join(" ")));
    }
    if let Some(BeforeAndAfter { before, after }) = &change.description {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| NONE.to_owned());
        lines.push(format!("description: {} (before: {})", shown(after), shown(before)));
    }
    for (key, BeforeAndAfter { before, after }) in &change.metadata {
        lines.push(format!("metadata.{key}: {} (before: {})", value(after), value(before)));
    }
    if let Some(BeforeAndAfter { after, .. }) = &change.archived {
        lines.push(if *after { "archived" } else { "restored" }.to_owned());
    }
    lines.iter().map(|line| escape_line(line).into_owned()).collect::<Vec<_>>().join("\n")
}

const NONE: &str = "none";

/// A value of metadata as people write it.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Null => NONE.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
