//! `requests/`: what users request of an experiment (`cancel`, `pause` …), a new file for each request, so that every file
//! has one writer.

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
    /// The budget for which it is paused, or that a `resume` renews; none where a person paused it.
    pub budget: Option<SpentBudget>,
}

/// A budget of an executor that is spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpentBudget {
    /// The executor's name.
    pub executor: String,
    /// How many times its trials were paused for it.
    pub times: u64,
    /// GPU-seconds that were spent by then.
    pub spent: u64,
    /// GPU-seconds that its trials might hold altogether until then; after a `resume`, until the next pause.
    pub limit: u64,
}

/// A request as it stands in its file.
#[derive(Serialize, Deserialize)]
struct Written {
    action: RequestedAction,
    task: Option<String>,
    trial: Option<TrialSet>,
    time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<SpentBudget>,
}

impl From<Written> for Request {
    fn from(Written { action, task, trial, time, budget }: Written) -> Self {
        Self { action, scope: Scope { task, trials: trial }, time, budget }
    }
}

impl From<Request> for Written {
    fn from(request: Request) -> Self {
        let Request { action, scope: Scope { task, trials }, time, budget } = request;
        Self { action, task, trial: trials, time, budget }
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
    /// The experiment's time is over: what waits does not start any more. `poll` writes it.
    Timeout,
    /// Run again what is over: a cancellation or a pause before that holds no more.
    Retry,
}

impl Request {
    /// Whether it is about this trial.
    #[must_use]
    pub fn covers(&self, task: &str, trial: u32) -> bool {
        self.scope.covers(task, trial)
    }
}

/// Whether a trial is cancelled by these requests, oldest first: nobody has retried it since.
pub fn is_cancelled<'a>(
    requests: impl IntoIterator<Item = &'a Request, IntoIter: DoubleEndedIterator>,
    task: &str,
    trial: u32,
) -> bool {
    use RequestedAction::{Cancel, Timeout};
    matches!(last_end(requests, task, trial), Some(Cancel | Timeout))
}

/// Whether it is so since the experiment's time was over while it waited.
pub fn is_out_of_time<'a>(
    requests: impl IntoIterator<Item = &'a Request, IntoIter: DoubleEndedIterator>,
    task: &str,
    trial: u32,
) -> bool {
    last_end(requests, task, trial) == Some(RequestedAction::Timeout)
}

/// The last request that ends a trial, or lets it run again.
fn last_end<'a>(
    requests: impl IntoIterator<Item = &'a Request, IntoIter: DoubleEndedIterator>,
    task: &str,
    trial: u32,
) -> Option<RequestedAction> {
    use RequestedAction::{Cancel, Retry, Timeout};
    let is_end = |action| matches!(action, Cancel | Retry | Timeout);
    let mut latest_first = requests.into_iter().rev();
    latest_first.find(|it| is_end(it.action) && it.covers(task, trial)).map(|it| it.action)
}

/// The request by which a trial is paused, if the last one about it was that. Oldest first.
pub fn pause<'a>(
    requests: impl IntoIterator<Item = &'a Request, IntoIter: DoubleEndedIterator>,
    task: &str,
    trial: u32,
) -> Option<&'a Request> {
    use RequestedAction::{Pause, Resume, Retry};
    let mut latest_first = requests.into_iter().rev();
    let last = latest_first
        .find(|it| matches!(it.action, Pause | Resume | Retry) && it.covers(task, trial))?;
    (last.action == Pause).then_some(last)
}

/// How many times over the budget of an executor was spent so far, as far as its trials were paused for it.
pub fn times_spent<'a>(requests: impl IntoIterator<Item = &'a Request>, executor: &str) -> u64 {
    let of = |request: &'a Request| request.budget.as_ref().filter(|it| it.executor == executor);
    requests.into_iter().filter_map(of).map(|budget| budget.times).max().unwrap_or(0)
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

/// All requests so far, for a reader that does not look again: an error of the disk is not taken for no request.
pub fn read_for_good(dir: &ExperimentDir) -> io::Result<Vec<Request>> {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    let mut requests = Vec::new();
    for path in paths(dir)? {
        match open::read(&path) {
            Ok(text) => requests.extend(checksum::from_slice::<Request>(&text)),
            Err(error) if matches!(error.kind(), NotFound | InvalidInput | PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(requests)
}

/// Reads all that `requests/` holds.
pub fn read_all(dir: &ExperimentDir) -> io::Result<Requests> {
    let Requests { mut whole, mut damaged } = Requests::default();
    for path in paths(dir)? {
        // It was renamed into place whole: what can't be read now is there at the next look.
        let Ok(text) = open::read(&path) else { continue };
        match checksum::from_slice(&text) {
            Ok(request) => whole.push((path, request)),
            Err(_) => damaged.push(path),
        }
    }
    Ok(Requests { whole, damaged })
}

/// How many requests there are. They are never removed.
pub fn count(dir: &ExperimentDir) -> io::Result<usize> {
    Ok(paths(dir)?.len())
}

/// The files of all requests, oldest first.
fn paths(dir: &ExperimentDir) -> io::Result<Vec<PathBuf>> {
    // What came in the last half minute may not be seen yet on this node of a shared disk.
    open::refresh(&dir.requests());
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
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_cancel_and_retry_holds() {
        let request = |action, trials: Option<&str>| {
            let trials = trials.map(|trials| trials.parse().unwrap());
            Request {
                action,
                scope: Scope { task: Some("train".into()), trials },
                time: 7,
                budget: None,
            }
        };
        let all = [
            request(RequestedAction::Cancel, None),
            request(RequestedAction::Retry, Some("3")),
            request(RequestedAction::Resume, None),
        ];
        assert!(!is_cancelled(&all, "train", 3));
        assert!(is_cancelled(&all, "train", 4));
        assert!(!is_cancelled(&all, "other", 4));
        let again = [&all[..], &[request(RequestedAction::Cancel, Some("3"))]].concat();
        assert!(is_cancelled(&again, "train", 3));
    }

    #[test]
    fn a_damaged_request_asks_for_nothing_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        assert_eq!(read_all(&dir).unwrap(), Requests::default());
        crate::durable::create_dir_all(&dir.requests()).unwrap();
        let scope = Scope { task: Some("train".into()), trials: Some("3,5-7".parse().unwrap()) };
        let request = Request { action: RequestedAction::Pause, scope, time: 7, budget: None };
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
