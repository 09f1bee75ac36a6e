//! `metrics.jsonl`: what a trial reported, one line a report, in the order of steps.

use serde::{Deserialize, Serialize};

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
    pub values: serde_json::Map<String, serde_json::Value>,
    /// Whether a validation reported them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub validation: bool,
}
