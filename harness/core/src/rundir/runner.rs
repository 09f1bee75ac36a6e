//! `runner.jsonl`: what the local executor's runner did. Its only writer is the runner that holds the last `Runner` line.

use serde::{Deserialize, Serialize};

use crate::process_id::ProcessId;

/// One line of `runner.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunnerRecord {
    /// A runner took over.
    Runner {
        /// Its `node`, `boot_id`, `pid` and `start_ticks`.
        #[serde(flatten)]
        process: ProcessId,
        /// Unix seconds.
        time: f64,
        /// The generation of trials up to which it knows what is to be run.
        #[serde(default)]
        generation: u32,
    },
    /// A trial's harness was started.
    Started {
        /// The task.
        task: String,
        /// The trial.
        trial: u32,
        /// The harness's process, and its group's.
        pid: u32,
        /// The GPUs that it was given.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gpus: Vec<String>,
        /// Unix seconds.
        time: f64,
    },
    /// A trial's harness ended.
    Ended {
        /// The task.
        task: String,
        /// The trial.
        trial: u32,
        /// Its exit code, as the harness means it.
        exit_code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
        /// Unix seconds.
        time: f64,
    },
    /// A trial will not run: it was cancelled, or its dependency can never be met.
    Dropped {
        /// The task.
        task: String,
        /// The trial.
        trial: u32,
        /// Whether somebody cancelled it; else its dependency can never be met.
        cancelled: bool,
    },
    /// A trial's harness can't be started here, now or later.
    NotStarted {
        /// The task.
        task: String,
        /// The trial.
        trial: u32,
        /// Why.
        reason: String,
    },
    /// Everything is over.
    Finished {
        /// Unix seconds.
        time: f64,
    },
}

impl RunnerRecord {
    /// The runner that took over last.
    #[must_use]
    pub fn last_runner(records: &[Self]) -> Option<&ProcessId> {
        records.iter().rev().find_map(|record| match record {
            Self::Runner { process, .. } => Some(process),
            _ => None,
        })
    }
}
