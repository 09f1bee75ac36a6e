//! `observed.json`: what was known at the last look, for the time when Slurm can't be asked or has forgotten.
//!
//! Only a hint: whoever looks may replace it, whole. Trials of one state are kept as ranges, so that it stays small.

use std::collections::BTreeMap;

use nemo_core::durable;
use nemo_core::rundir::ExperimentDir;
use serde::{Deserialize, Serialize};

use crate::status::{Certainty, Earlier, Remembered, State, Status};

/// A run of trials of one task that stood alike.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    task: String,
    first: u32,
    last: u32,
    state: State,
    reason: Option<String>,
    /// What an older version wrote was never certain.
    #[serde(default)]
    certainty: Certainty,
}

/// What was known; nothing where nobody looked before.
#[must_use]
pub fn read(dir: &ExperimentDir) -> Remembered {
    let text = std::fs::read(path(dir)).unwrap_or_default();
    let runs: Vec<Run> = serde_json::from_slice(&text).unwrap_or_default();
    expand(runs)
}

/// Keeps what is known now. A failure loses a hint, no more.
pub fn keep(dir: &ExperimentDir, status: &Status) {
    if let Ok(text) = serde_json::to_vec(&runs(status))
        && std::fs::read(path(dir)).ok().as_ref() != Some(&text)
    {
        drop(durable::replace_file_durably(&path(dir), &text));
    }
}

fn path(dir: &ExperimentDir) -> std::path::PathBuf {
    dir.0.join("observed.json")
}

pub(crate) fn expand(runs: Vec<Run>) -> Remembered {
    let mut remembered = Remembered::new();
    for run in runs {
        let task: &mut BTreeMap<_, _> = remembered.entry(run.task).or_default();
        for trial in run.first..=run.last {
            let (state, certainty) = (run.state, run.certainty);
            task.insert(trial, Earlier { state, reason: run.reason.clone(), certainty });
        }
    }
    remembered
}

pub(crate) fn runs(status: &Status) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for task in &status.tasks {
        for trial in &task.trials {
            let alike = |run: &&mut Run| {
                run.task == task.name
                    && run.last.checked_add(1) == Some(trial.index)
                    && (run.state, run.certainty) == (trial.state, trial.certainty)
                    && run.reason == trial.reason
            };
            match runs.last_mut().filter(alike) {
                Some(run) => run.last = trial.index,
                None => runs.push(Run {
                    task: task.name.clone(),
                    first: trial.index,
                    last: trial.index,
                    state: trial.state,
                    reason: trial.reason.clone(),
                    certainty: trial.certainty,
                }),
            }
        }
    }
    runs
}
