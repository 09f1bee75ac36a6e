//! What the trials of an experiment came to: states, parameters, metrics, checkpoints, artifacts and errors.

mod by_parameter;
mod compare;
mod files;
mod metrics;
mod series;
mod written;

use std::collections::BTreeMap;

use nemo_core::rundir::Params;
use serde::Serialize;
use serde_json::Value;

use crate::experiment::Task;
use crate::parallel::map_chunks;
use crate::status::{State, Status, TrialStatus};
use crate::store::Stored;
use crate::trial_error::TrialError;

pub use by_parameter::{Outcome, ParameterValue, ValueRange, by_parameter};
pub use compare::{
    ComparedTrial, Comparison, MetricComparison, compare, representative, space_of, trial_config,
};
pub use files::{Artifact, Checkpoint, Hashes};
pub use metrics::{MetricSummary, each_report, goal_of};
pub use series::{MetricRow, SeriesNotes, SeriesSource, each_row};
pub use written::{
    MetricSource, WrittenValue, each_cell, each_entry, each_record, each_scalar, event_scalars,
    files_with, history_values,
};

/// How many threads read, and how few trials are worth one.
const READERS: usize = 8;
const LEAST_PART: usize = 32;

/// One trial's results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialResult {
    /// The task.
    pub task: String,
    /// The index in the task.
    pub trial: u32,
    /// Where it stands.
    pub state: State,
    /// What it was given; null where that can't be read.
    pub params: Option<Params>,
    /// What it reported, by name.
    pub metrics: BTreeMap<String, MetricSummary>,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The files below `artifacts/`.
    pub artifacts: Vec<Artifact>,
    /// Why it failed.
    pub error: Option<TrialError>,
}

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct Results {
    /// In the order of tasks and trials.
    pub trials: Vec<TrialResult>,
    /// In words.
    pub warnings: Vec<String>,
}

/// Reads the results of the trials that a status shows.
#[must_use]
pub fn read(stored: &Stored, status: &Status, hashes: Hashes) -> Results {
    let mut results = Results::default();
    for shown in &status.tasks {
        let task = stored.experiment.tasks.iter().find(|task| task.name == shown.name);
        let Some(task) = task else { continue };
        let part = shown.trials.len().div_ceil(READERS).max(LEAST_PART);
        let of_part = |part: &[TrialStatus]| -> Vec<(TrialResult, Vec<String>)> {
            part.iter().map(|trial| of_trial(stored, task, trial, hashes)).collect()
        };
        for (trial, warnings) in
            map_chunks(shown.trials.chunks(part), of_part).into_iter().flatten()
        {
            results.trials.push(trial);
            results.warnings.extend(warnings);
        }
    }
    results
}

fn of_trial(
    stored: &Stored,
    task: &Task,
    trial: &TrialStatus,
    hashes: Hashes,
) -> (TrialResult, Vec<String>) {
    let dir = stored.dir.task(&task.name).trial(trial.index);
    let mut warnings = Vec::new();
    let metrics = metrics::summaries(&dir, task, &mut warnings);
    let artifacts = files::artifacts(&dir.artifacts(), hashes, &mut warnings);
    let result = TrialResult {
        task: task.name.clone(),
        trial: trial.index,
        state: trial.state,
        params: trial.params.clone(),
        metrics,
        checkpoint: files::newest_checkpoint(&dir),
        artifacts,
        error: trial.error.as_deref().cloned(),
    };
    (result, warnings)
}

/// A parameter's value or a metric as a cell.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
