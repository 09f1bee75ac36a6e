//! The last answers of `squeue` and `sacct`, kept in the home: several who wait ask one question between them.
//!
//! `cache/squeue-<cluster>` is replaced whole. Who asks next claims the answer's next number by making a file of that
//! name; the others wait for the answer.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits for another process's answer")]

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nemo_core::durable;
use nemo_core::open;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::slurm::SlurmError;
use crate::slurm::parse::{account, queue};
use crate::store::Home;

/// Between two looks whether another process has its answer.
const PAUSE: Duration = Duration::from_millis(50);

/// Where answers are kept.
#[derive(Clone, Debug)]
pub struct QueryCache {
    cache: PathBuf,
    cluster: String,
    /// Whether answers are kept for others.
    keeps: bool,
    /// How long another process may take for its answer before it counts as gone.
    patience: Duration,
}

/// A program that is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum QueryProgram {
    Squeue,
    Sacct,
}

/// What a program said, of which jobs, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CachedOutput {
    /// Counts the answers.
    number: u64,
    /// When it was asked, in unix seconds.
    pub(super) asked: f64,
    /// The names of the jobs that it was asked for.
    names: HashSet<String>,
    /// What it printed.
    pub(super) text: String,
    /// Why it printed nothing.
    pub(super) failure: Option<QueryFailure>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum QueryFailure {
    /// The cluster keeps no accounts.
    AccountingOff,
    /// In words.
    Other(String),
}

impl CachedOutput {
    fn serves(&self, names: &HashSet<String>, not_before: f64) -> bool {
        // One from the future is of a clock that was set back since.
        (not_before..=clock::now()).contains(&self.asked) && names.is_subset(&self.names)
    }
}

impl QueryCache {
    /// Those of a home, for the cluster that `SLURM_CONF` names.
    #[must_use]
    pub fn new(home: &Home, slurm_conf: &str, timeout: Duration) -> Self {
        // A version that asks for other fields can't read these answers.
        let fields = [&queue::FIELDS[..], &account::FIELDS[..]].concat().join(",");
        let key = format!("{slurm_conf}\n{fields}");
        let cluster = blake3::hash(key.as_bytes()).to_hex()[..12].to_owned();
        let patience = timeout + Duration::from_secs(5);
        Self { cache: home.cache(), cluster, keeps: true, patience }
    }

    /// The same for who writes nothing.
    #[must_use]
    pub fn read_only(&self) -> Self {
        Self { keeps: false, ..self.clone() }
    }

    /// An answer about these jobs that is not older than `not_before` (unix seconds): a kept one, another process's that
    /// is on its way, or one that `ask` gets now. `ask` also returns the names of the jobs that it asked for.
    pub(super) fn answer(
        &self,
        program: QueryProgram,
        names: &HashSet<String>,
        not_before: f64,
        ask: impl Fn() -> (HashSet<String>, Result<Vec<u8>, SlurmError>),
    ) -> CachedOutput {
        let mut waited = Instant::now();
        loop {
            let kept = self.read(program);
            if let Some(said) = kept.as_ref().filter(|said| said.serves(names, not_before)) {
                return said.clone();
            }
            let number = kept.map_or(0, |said| said.number + 1);
            if !self.keeps {
                return said(number, &ask);
            }
            let claim = self.claim(program, number);
            if self.is_claimed(&claim) {
                // Somebody may have had this very number, and be through by now.
                let is_new = self.read(program).is_none_or(|kept| kept.number < number);
                let said = is_new.then(|| said(number, &ask));
                if let Some(said) = &said {
                    self.keep(program, said);
                }
                drop(std::fs::remove_file(claim));
                match said {
                    Some(said) => return said,
                    None => continue,
                }
            }
            if waited.elapsed() > self.patience {
                // Whoever claimed it is gone.
                drop(std::fs::remove_file(claim));
                waited = Instant::now();
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether this process is the one that asks. Where nothing can be written everybody asks for itself.
    fn is_claimed(&self, claim: &std::path::Path) -> bool {
        drop(durable::create_dir_all(&self.cache));
        match OpenOptions::new().write(true).create_new(true).open(claim) {
            Err(error) => error.kind() != std::io::ErrorKind::AlreadyExists,
            Ok(_) => true,
        }
    }

    fn read(&self, program: QueryProgram) -> Option<CachedOutput> {
        let text = open::read(&self.path(program)).ok()?;
        nemo_core::checksum::from_slice(&text).ok()
    }

    fn keep(&self, program: QueryProgram, said: &CachedOutput) {
        if let Ok(text) = nemo_core::checksum::to_vec(said) {
            // Without it others ask for themselves.
            drop(durable::replace_file(&self.path(program), &text));
        }
    }

    fn path(&self, program: QueryProgram) -> PathBuf {
        let name = match program {
            QueryProgram::Squeue => "squeue",
            QueryProgram::Sacct => "sacct",
        };
        self.cache.join(format!("{name}-{}", self.cluster))
    }

    fn claim(&self, program: QueryProgram, number: u64) -> PathBuf {
        self.path(program).with_extension(number.to_string())
    }
}

fn said(
    number: u64,
    ask: impl Fn() -> (HashSet<String>, Result<Vec<u8>, SlurmError>),
) -> CachedOutput {
    let asked = clock::now();
    let (names, answer) = ask();
    let (text, failure) = match answer {
        Ok(text) => (String::from_utf8_lossy(&text).into_owned(), None),
        Err(SlurmError::AccountingOff) => (String::new(), Some(QueryFailure::AccountingOff)),
        Err(error) => (String::new(), Some(QueryFailure::Other(error.to_string()))),
    };
    CachedOutput { number, asked, names, text, failure }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn many_who_ask_at_once_share_one_answer() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let shared = QueryCache::new(&home, "", Duration::from_secs(30));
        let asked = AtomicUsize::new(0);
        let began = clock::now();
        let ask = || {
            asked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            (names(&["a", "b"]), Ok(b"7".to_vec()))
        };
        std::thread::scope(|scope| {
            for own in ["a", "b", "a", "b", "a", "b"] {
                let shared = &shared;
                scope.spawn(move || {
                    let said = shared.answer(QueryProgram::Squeue, &names(&[own]), began, ask);
                    assert_eq!((said.text.as_str(), said.failure), ("7", None));
                });
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // What it was not asked for it does not tell, nor what is newer.
        shared.answer(QueryProgram::Squeue, &names(&["c"]), began, ask);
        shared.answer(QueryProgram::Squeue, &names(&["a"]), clock::now(), ask);
        shared.answer(QueryProgram::Sacct, &names(&["a"]), began, ask);
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn one_that_died_while_it_asked_is_not_waited_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let shared = QueryCache {
            patience: Duration::from_millis(200),
            ..QueryCache::new(&home, "", PAUSE)
        };
        assert!(shared.is_claimed(&shared.claim(QueryProgram::Squeue, 0)));
        let said = shared.answer(QueryProgram::Squeue, &names(&["a"]), 0.0, || {
            (names(&["a"]), Err(SlurmError::AccountingOff))
        });
        assert_eq!(said.failure, Some(QueryFailure::AccountingOff));
    }
}
