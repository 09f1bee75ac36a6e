//! The last output of `squeue` and of `sacct`, kept in the home: processes that ask the same share one answer.
//!
//! `cache/squeue-<cluster>` holds the newest output and its number, and is replaced whole. A process that needs a newer
//! one claims the next number by creating `cache/squeue-<cluster>.<number>`. The others wait for its output.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits for another process")]

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nemo_core::durable;
use nemo_core::open;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::slurm::SlurmError;
use crate::slurm::parse::{account, queue};
use crate::store::Home;

/// Pause between two looks for another process's output.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the outputs are kept.
#[derive(Clone, Debug)]
pub struct QueryCache {
    dir: PathBuf,
    /// Tells the outputs of one cluster from those of another.
    cluster: String,
    is_writable: bool,
    /// How long another process may take for its answer before it counts as gone.
    patience: Duration,
}

/// A program whose output is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum QueryProgram {
    Squeue,
    Sacct,
}

/// What one run of a program printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CachedOutput {
    /// Counts the runs.
    number: u64,
    /// When the program was run, in unix seconds.
    pub(super) asked: f64,
    /// The names of the jobs that it was asked for.
    names: HashSet<String>,
    /// What it printed.
    pub(super) text: String,
    /// Why it printed nothing.
    pub(super) failure: Option<QueryFailure>,
}

/// Why a program printed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum QueryFailure {
    /// The cluster has no accounting database.
    AccountingOff,
    /// The message of any other error.
    Other(String),
}

impl CachedOutput {
    /// Runs a program. `run` also returns the names of the jobs that it asked for.
    fn of(number: u64, run: impl Fn() -> (HashSet<String>, Result<Vec<u8>, SlurmError>)) -> Self {
        let asked = clock::now();
        let (names, output) = run();
        let (text, failure) = match output {
            Ok(text) => (String::from_utf8_lossy(&text).into_owned(), None),
            Err(SlurmError::AccountingOff) => (String::new(), Some(QueryFailure::AccountingOff)),
            Err(error) => (String::new(), Some(QueryFailure::Other(error.to_string()))),
        };
        Self { number, asked, names, text, failure }
    }

    fn is_usable(&self, names: &HashSet<String>, not_before: f64) -> bool {
        // A time in the future is by a clock that was set back since.
        (not_before..=clock::now()).contains(&self.asked) && names.is_subset(&self.names)
    }
}

impl QueryCache {
    /// The cache of a home for the cluster that `SLURM_CONF` names.
    #[must_use]
    pub fn new(home: &Home, slurm_conf: &str, timeout: Duration) -> Self {
        // A version of this program that asks for other fields can't read these outputs.
        let fields = [&queue::FIELDS[..], &account::FIELDS[..]].concat().join(",");
        let key = format!("{slurm_conf}\n{fields}");
        let cluster = blake3::hash(key.as_bytes()).to_hex()[..12].to_owned();
        let patience = timeout + Duration::from_secs(5);
        Self { dir: home.cache(), cluster, is_writable: true, patience }
    }

    /// The same for a command that must not write.
    #[must_use]
    pub fn read_only(&self) -> Self {
        Self { is_writable: false, ..self.clone() }
    }

    /// An output about these jobs that is not older than `not_before` (unix seconds): the kept one, the one that another
    /// process is waiting for, or that of `run`, which also returns the names of the jobs that it asked for.
    pub(super) fn get_or_run(
        &self,
        program: QueryProgram,
        names: &HashSet<String>,
        not_before: f64,
        run: impl Fn() -> (HashSet<String>, Result<Vec<u8>, SlurmError>),
    ) -> CachedOutput {
        let mut waited = Instant::now();
        loop {
            let kept = self.read(program);
            if let Some(kept) = kept.as_ref().filter(|kept| kept.is_usable(names, not_before)) {
                return kept.clone();
            }
            let number = kept.map_or(0, |kept| kept.number + 1);
            if !self.is_writable {
                return CachedOutput::of(number, &run);
            }
            let claim = self.claim_path(program, number);
            if self.try_claim(&claim) {
                let output = self.run_claimed(program, number, &run);
                drop(std::fs::remove_file(claim));
                match output {
                    Some(output) => return output,
                    None => continue,
                }
            }
            if waited.elapsed() > self.patience {
                // The process that claimed it is gone.
                drop(std::fs::remove_file(claim));
                waited = Instant::now();
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Runs a program and keeps its output. None if another process had claimed this number before, and is done.
    fn run_claimed(
        &self,
        program: QueryProgram,
        number: u64,
        run: impl Fn() -> (HashSet<String>, Result<Vec<u8>, SlurmError>),
    ) -> Option<CachedOutput> {
        let is_new = self.read(program).is_none_or(|kept| kept.number < number);
        let output = is_new.then(|| CachedOutput::of(number, run))?;
        self.keep(program, &output);
        Some(output)
    }

    /// Whether this process is the one that runs the program. Where the cache can't be written every process does.
    fn try_claim(&self, claim: &Path) -> bool {
        drop(durable::create_dir_all(&self.dir));
        match OpenOptions::new().write(true).create_new(true).open(claim) {
            Err(error) => error.kind() != std::io::ErrorKind::AlreadyExists,
            Ok(_) => true,
        }
    }

    fn read(&self, program: QueryProgram) -> Option<CachedOutput> {
        let text = open::read(&self.path(program)).ok()?;
        nemo_core::checksum::from_slice(&text).ok()
    }

    fn keep(&self, program: QueryProgram, output: &CachedOutput) {
        if let Ok(text) = nemo_core::checksum::to_vec(output) {
            // Without it other processes ask for themselves.
            drop(durable::replace_file(&self.path(program), &text));
        }
    }

    fn path(&self, program: QueryProgram) -> PathBuf {
        let name = match program {
            QueryProgram::Squeue => "squeue",
            QueryProgram::Sacct => "sacct",
        };
        self.dir.join(format!("{name}-{}", self.cluster))
    }

    fn claim_path(&self, program: QueryProgram, number: u64) -> PathBuf {
        self.path(program).with_extension(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn processes_that_ask_at_once_share_one_answer() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let cache = QueryCache::new(&home, "", Duration::from_secs(30));
        let runs = AtomicUsize::new(0);
        let began = clock::now();
        let run = || {
            runs.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            (names(&["a", "b"]), Ok(b"7".to_vec()))
        };
        std::thread::scope(|scope| {
            for own in ["a", "b", "a", "b", "a", "b"] {
                let cache = &cache;
                scope.spawn(move || {
                    let output = cache.get_or_run(QueryProgram::Squeue, &names(&[own]), began, run);
                    assert_eq!((output.text.as_str(), output.failure), ("7", None));
                });
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        // Other jobs, a newer time and another program each need a run of their own.
        cache.get_or_run(QueryProgram::Squeue, &names(&["c"]), began, run);
        cache.get_or_run(QueryProgram::Squeue, &names(&["a"]), clock::now(), run);
        cache.get_or_run(QueryProgram::Sacct, &names(&["a"]), began, run);
        assert_eq!(runs.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn a_process_that_died_while_it_asked_is_not_waited_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let cache = QueryCache {
            patience: Duration::from_millis(200),
            ..QueryCache::new(&home, "", PAUSE)
        };
        assert!(cache.try_claim(&cache.claim_path(QueryProgram::Squeue, 0)));
        let output = cache.get_or_run(QueryProgram::Squeue, &names(&["a"]), 0.0, || {
            (names(&["a"]), Err(SlurmError::AccountingOff))
        });
        assert_eq!(output.failure, Some(QueryFailure::AccountingOff));
    }
}
