//! `requests/`: what somebody wishes for an experiment, a new file for each wish, so that every file has one writer.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::paths::ExperimentDir;

/// Somebody's wish, as a file in the experiment's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is wanted.
    pub action: Action,
    /// One task; all where none is named.
    pub task: Option<String>,
    /// One trial; all where none is named.
    pub trial: Option<u32>,
    /// Unix seconds.
    pub time: u64,
}

/// What can be wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End it for good, saved if there is time.
    Cancel,
    /// Save, stop, and run again from the checkpoint.
    Preempt,
    /// Save, stop, and wait.
    Pause,
    /// Go on after a pause.
    Resume,
}

impl Request {
    /// Whether it is about this trial.
    #[must_use]
    pub fn covers(&self, task: &str, trial: u32) -> bool {
        self.task.as_deref().is_none_or(|wanted| wanted == task)
            && self.trial.is_none_or(|wanted| wanted == trial)
    }
}

/// All requests so far, oldest first.
pub fn read(dir: &ExperimentDir) -> io::Result<Vec<(PathBuf, Request)>> {
    let entries = match fs::read_dir(dir.requests()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        // Renamed into place whole; one that can't be read is no request of ours.
        let request = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        Some((path, request))
    };
    Ok(paths.into_iter().filter_map(read).collect())
}
