//! `metrics.jsonl`: what a trial reported, one line a report, in the order of steps.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// One report. On a resume, lines of later steps than the checkpoint's are taken out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Completed steps, where the program tells them.
    pub step: Option<u64>,
    /// The attempt that reported.
    pub attempt: u32,
    /// Unix seconds.
    pub time: f64,
    /// Values by name. One that is not a finite number is null.
    #[serde(deserialize_with = "metric_values")]
    pub values: Map<String, Value>,
    /// Whether a validation reported them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub validation: bool,
}

/// A value as a metric: a number, or null where it is not finite. Yes and no count as 1 and 0. Texts, lists and tables
/// are none.
#[must_use]
pub fn metric_value(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Number(_) => Some(value),
        Value::Bool(flag) => Some(u8::from(flag).into()),
        Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An earlier harness wrote `true` and `false`.
fn metric_values<'de, D: Deserializer<'de>>(source: D) -> Result<Map<String, Value>, D::Error> {
    let mut values = Map::deserialize(source)?;
    for value in values.values_mut() {
        if let Value::Bool(flag) = *value {
            *value = u8::from(flag).into();
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_numbers() {
        let line = r#"{"step":1,"attempt":0,"time":1.0,"values":{"a":true,"b":false,"c":0.5}}"#;
        let line: MetricsLine = serde_json::from_str(line).unwrap();
        assert_eq!(Value::Object(line.values), serde_json::json!({ "a": 1, "b": 0, "c": 0.5 }));
        assert_eq!(metric_value(true.into()), Some(1.into()));
        assert_eq!(metric_value("text".into()), None);
    }
}
