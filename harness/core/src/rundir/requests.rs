//! `requests/`: what somebody wishes for an experiment, a new file for each wish, so that every file has one writer.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::paths::ExperimentDir;
use crate::scope::{Scope, TrialSet};
use crate::{checksum, open};

/// Somebody's wish, as a file in the experiment's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Request {
    /// What is wanted.
    pub action: RequestedAction,
    /// Of which trials.
    pub scope: Scope,
    /// Unix seconds.
    pub time: u64,
}

/// A request as it stands in its file.
#[derive(Serialize, Deserialize)]
struct Written {
    action: RequestedAction,
    task: Option<String>,
    trial: Option<TrialSet>,
    time: u64,
}

impl From<Written> for Request {
    fn from(Written { action, task, trial, time }: Written) -> Self {
        Self { action, scope: Scope { task, trials: trial }, time }
    }
}

impl From<Request> for Written {
    fn from(Request { action, scope: Scope { task, trials }, time }: Request) -> Self {
        Self { action, task, trial: trials, time }
    }
}

/// What can be wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestedAction {
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
        self.scope.covers(task, trial)
    }
}

/// All requests so far, oldest first.
pub fn read(dir: &ExperimentDir) -> io::Result<Vec<(PathBuf, Request)>> {
    Ok(read_all(dir)?.whole)
}

/// What `requests/` holds.
#[derive(Debug, Default, PartialEq)]
pub struct Requests {
    /// The requests, oldest first.
    pub whole: Vec<(PathBuf, Request)>,
    /// Files that are not as they were written: those ask for nothing.
    pub damaged: Vec<PathBuf>,
}

/// Reads all that `requests/` holds.
pub fn read_all(dir: &ExperimentDir) -> io::Result<Requests> {
    // What came in the last half minute may not be seen yet on this node of a shared disk.
    open::refresh(&dir.requests());
    let entries = match fs::read_dir(dir.requests()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Requests::default()),
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
    let Requests { mut whole, mut damaged } = Requests::default();
    for path in paths {
        // It was renamed into place whole: what can't be read now is there at the next look.
        let Ok(text) = fs::read(&path) else { continue };
        match checksum::from_slice(&text) {
            Ok(request) => whole.push((path, request)),
            Err(_) => damaged.push(path),
        }
    }
    Ok(Requests { whole, damaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_request_asks_for_nothing_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        assert_eq!(read_all(&dir).unwrap(), Requests::default());
        crate::durable::create_dir_all(&dir.requests()).unwrap();
        let scope = Scope { task: Some("train".into()), trials: Some("3,5-7".parse().unwrap()) };
        let request = Request { action: RequestedAction::Pause, scope, time: 7 };
        let text = checksum::to_vec(&request).unwrap();
        let path = dir.requests().join("1-1.json");
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            crate::durable::write_synced(&path, &flipped).unwrap();
            let Requests { whole, damaged } = read_all(&dir).unwrap();
            let is_named = whole.is_empty() && damaged == [path.clone()];
            let is_right = whole == [(path.clone(), request.clone())]; // only the checksum's name was hit
            assert!(is_named || is_right, "bit {bit}: {whole:?}");
        }
        crate::durable::write_synced(&path, &text).unwrap();
        assert_eq!(read(&dir).unwrap(), [(path, request)]);
    }
}
