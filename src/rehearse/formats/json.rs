//! JSON: each number or text, and each list of numbers as one array. Pure.

use serde_json::Value;

use super::Leaf;

pub(super) fn read(bytes: &[u8]) -> Option<Vec<Leaf<'static>>> {
    let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if !b"{[".contains(is_json) {
        return None;
    }
    let mut leaves = Vec::new();
    gather(&serde_json::from_slice(bytes).ok()?, String::new(), &mut leaves);
    Some(leaves)
}

fn gather(value: &Value, name: String, leaves: &mut Vec<Leaf<'static>>) {
    let mut numbers = Vec::new();
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                gather(value, name, leaves);
            }
        }
        Value::Array(items) if !collect(items, &mut numbers) => {
            for (index, value) in items.iter().enumerate() {
                gather(value, format!("{name}[{index}]"), leaves);
            }
        }
        Value::Array(_) => leaves.push(Leaf::numbers(name, &numbers)),
        Value::Number(number) => match number.as_f64() {
            Some(number) => leaves.push(Leaf::scalar(name, number)),
            None => leaves.push(Leaf::text(name, number.to_string())),
        },
        Value::Null | Value::Bool(_) => leaves.push(Leaf::text(name, value.to_string())),
        Value::String(text) => leaves.push(Leaf::text(name, text.as_bytes())),
    }
}

/// The numbers of nested lists, if they hold nothing else.
fn collect(items: &[Value], numbers: &mut Vec<f64>) -> bool {
    items.iter().all(|item| match item {
        Value::Array(items) => collect(items, numbers),
        item => item.as_f64().is_some_and(|number| {
            numbers.push(number);
            true
        }),
    })
}
