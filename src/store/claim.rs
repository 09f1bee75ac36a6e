//! The claim on an experiment: its holder alone writes the journal and asks Slurm for job arrays.
//!
//! It is a file `claim.<n>.json`, made by a link as a trial's lease is. A holder that died leaves it behind: on this
//! host that is seen at once, on another one by its silence. Who holds it says so every few seconds.

mod holder;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nemo_core::claim::{ClaimDecision, ClaimOutcome, Claims};
use nemo_core::rundir::ExperimentDir;
use nemo_core::{checksum, durable, open};

use crate::clock;
use crate::process::Liveness;

pub use holder::ClaimHolder;
use holder::{ClaimStatus, judge};

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// A claim from another host is free after this long without a heartbeat. Must exceed NFS attribute caching (≤ 30 s).
const WATCH: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    /// To write the journal, and to ask Slurm.
    Submission,
    /// To run the trials of a local experiment.
    Runner,
    /// To send notifications.
    Notices,
}

impl ClaimKind {
    fn claims(self, dir: &ExperimentDir) -> Claims {
        let stem = match self {
            Self::Submission => "claim",
            Self::Runner => "runner",
            Self::Notices => "notices",
        };
        Claims::new(&dir.0, stem)
    }
}

/// What a claim does where another process holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// Only where that process is dead or silent.
    FromTheDead,
    /// Whatever that process does.
    FromAnyone,
}

/// Why an experiment can't be claimed, or is no longer.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process is at work on it.
    #[error("{} is working on it", shown(holder.as_deref()))]
    Held {
        /// Who; none where its file can't be read.
        holder: Option<Box<ClaimHolder>>,
    },
    /// Another process has taken it over.
    #[error("{} has taken it over", shown(holder.as_deref()))]
    Lost {
        /// Who; none where its file can't be read.
        holder: Option<Box<ClaimHolder>>,
    },
    /// Nothing can be told.
    #[error("can't claim `{folder}`")]
    Io {
        /// The experiment's folder.
        folder: String,
        /// What the system said.
        source: io::Error,
    },
}

fn shown(holder: Option<&ClaimHolder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), ClaimHolder::to_string)
}

/// A claim that this process holds. It gives signs of life until it is dropped, and is then released.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    number: u32,
    own: ClaimHolder,
    /// The host of the process that it was taken over from, where that is another one.
    pub taken_from: Option<String>,
    /// Whether this process made the experiment, and nobody else ever held it.
    pub is_of_new: bool,
    beats: Option<Heartbeat>,
}

/// The thread that gives signs of life.
#[derive(Debug)]
struct Heartbeat {
    end: Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Who holds the newest claim; none where nobody claimed, or its file can't be read.
#[must_use]
pub fn holder(dir: &ExperimentDir, kind: ClaimKind) -> Option<ClaimHolder> {
    let claims = kind.claims(dir);
    read(&claims, claims.newest().ok()??)
}

/// A claim's file in an experiment's folder that nobody else sees yet.
pub fn first(dir: &ExperimentDir, holder: &ClaimHolder) -> (PathBuf, serde_json::Result<Vec<u8>>) {
    (ClaimKind::Submission.claims(dir).path(0), checksum::to_vec(holder))
}

/// What `decide` leaves a claim for.
enum ClaimObstacle {
    Held(Option<ClaimHolder>),
    Watch { number: u32, text: Vec<u8>, holder: Option<ClaimHolder> },
}

/// Claims an experiment. `say` hears what takes long, and from whom it was taken over.
pub fn take(
    dir: &ExperimentDir,
    kind: ClaimKind,
    take_over: TakeOver,
    say: &dyn Fn(&str),
) -> Result<Claim, ClaimError> {
    let failed = |source| ClaimError::Io { folder: dir.0.display().to_string(), source };
    let claims = kind.claims(dir);
    let own = ClaimHolder::current().map_err(failed)?;
    let content = checksum::to_vec(&own).map_err(|error| failed(error.into()))?;
    let mut silent: Option<(u32, Vec<u8>)> = None;
    loop {
        let mut before = None;
        let outcome = claims.take(&own.nonce, &content, |newest| {
            let Some(number) = newest else { return ClaimDecision::Claim(0) };
            let text = open::read(&claims.path(number)).unwrap_or_default();
            before = checksum::from_slice::<ClaimHolder>(&text).ok();
            let is_silent = silent.as_ref() == Some(&(number, text.clone()));
            if is_silent || take_over == TakeOver::FromAnyone {
                return ClaimDecision::Claim(number + 1);
            }
            match judged(before.as_ref()) {
                ClaimStatus::Free => ClaimDecision::Claim(number + 1),
                ClaimStatus::Held => ClaimDecision::Leave(ClaimObstacle::Held(before.clone())),
                ClaimStatus::Uncertain => ClaimDecision::Leave(ClaimObstacle::Watch {
                    number,
                    text,
                    holder: before.clone(),
                }),
            }
        });
        match outcome.map_err(failed)? {
            ClaimOutcome::Claimed(number) => {
                return Ok(Claim::new(claims, number, own, before, say));
            }
            ClaimOutcome::Left(ClaimObstacle::Held(holder)) => {
                return Err(ClaimError::Held { holder: holder.map(Box::new) });
            }
            ClaimOutcome::Left(ClaimObstacle::Watch { number, text, holder }) => {
                if !is_silent(&claims, number, &text, holder.as_ref(), say) {
                    return Err(ClaimError::Held { holder: holder.map(Box::new) });
                }
                silent = Some((number, text));
            }
        }
    }
}

/// A claim whose file can't be read may be anybody's.
fn judged(holder: Option<&ClaimHolder>) -> ClaimStatus {
    let of = |holder: &ClaimHolder| judge(holder, holder.process.liveness(), clock::now());
    holder.map_or(ClaimStatus::Uncertain, of)
}

/// Watches a claim for a sign of life.
fn is_silent(
    claims: &Claims,
    number: u32,
    text: &[u8],
    holder: Option<&ClaimHolder>,
    say: &dyn Fn(&str),
) -> bool {
    let end = clock::now() + WATCH.as_secs_f64();
    say(&format!(
        "{} was working on it{}; waiting {} s for its heartbeat …",
        shown(holder),
        holder.map_or_else(String::new, |holder| last_sign(holder, clock::now())),
        WATCH.as_secs()
    ));
    while clock::now() < end {
        std::thread::sleep(LOOK);
        let is_same = open::read(&claims.path(number)).is_ok_and(|now| now == text);
        if !is_same {
            return false;
        }
    }
    true
}

fn last_sign(holder: &ClaimHolder, now: f64) -> String {
    format!(", last seen {:.0} s ago", (now - holder.seen).max(0.0))
}

impl Claim {
    /// The claim of an experiment that this process has just made, with `first`.
    #[must_use]
    pub fn of_new(dir: &ExperimentDir, own: ClaimHolder) -> Self {
        let mut claim = Self::new(ClaimKind::Submission.claims(dir), 0, own, None, &|_| ());
        claim.is_of_new = true;
        claim
    }

    fn new(
        claims: Claims,
        number: u32,
        own: ClaimHolder,
        before: Option<ClaimHolder>,
        say: &dyn Fn(&str),
    ) -> Self {
        let before = before.filter(|before| !before.released);
        if before.as_ref().is_some_and(ClaimHolder::is_at_work) {
            // It may be about to start `sbatch`, which is then seen.
            std::thread::sleep(LOOK);
        }
        let elsewhere = before.filter(|it| it.process.liveness() == Liveness::Elsewhere);
        if let Some(before) = &elsewhere {
            say(&format!("Taken over from {before}{}.", last_sign(before, clock::now())));
        }
        let taken_from = elsewhere.map(|before| before.process.node);
        let beats = Heartbeat::start(claims.path(number), own.clone());
        Self { claims, number, own, taken_from, is_of_new: false, beats }
    }

    /// Whether it still holds: to be asked before each effect.
    pub fn check(&self) -> Result<(), ClaimError> {
        match self.claims.newest() {
            Ok(Some(newest)) if newest == self.number => Ok(()),
            Ok(newest) => {
                let holder = newest.and_then(|number| read(&self.claims, number)).map(Box::new);
                Err(ClaimError::Lost { holder })
            }
            Err(source) => {
                let folder = self.claims.folder().display().to_string();
                Err(ClaimError::Io { folder, source })
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(Heartbeat { end, thread }) = self.beats.take() {
            drop(end);
            drop(thread.join());
        }
        if self.check().is_ok() {
            write(
                &self.claims.path(self.number),
                &ClaimHolder { released: true, ..self.own.clone() },
            );
        }
    }
}

impl Heartbeat {
    /// None where no thread can be started: the claim then looks silent from other hosts after a while.
    fn start(path: PathBuf, mut own: ClaimHolder) -> Option<Self> {
        let (end, ended) = channel();
        let beat = move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                own.seen = clock::now();
                write(&path, &own);
            }
        };
        let thread = std::thread::Builder::new().spawn(beat).ok()?;
        Some(Self { end, thread })
    }
}

/// A sign that can't be given is missed by nobody but those who watch.
fn write(path: &Path, holder: &ClaimHolder) {
    if let Ok(text) = checksum::to_vec(holder) {
        drop(durable::replace_file(path, &text));
    }
}

fn read(claims: &Claims, number: u32) -> Option<ClaimHolder> {
    checksum::from_slice(&open::read(&claims.path(number)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::holder::LONG_SILENCE;
    use super::*;
    use crate::process::ProcessId;

    fn take_quietly(dir: &ExperimentDir, take_over: TakeOver) -> Result<Claim, ClaimError> {
        take(dir, ClaimKind::Submission, take_over, &|_| ())
    }

    fn holder_on(node: &str, seen: f64) -> ClaimHolder {
        let process = ProcessId {
            node: node.to_owned(),
            boot_id: "another".to_owned(),
            ..ProcessId::current()
        };
        ClaimHolder { process, seen, ..ClaimHolder::current().unwrap() }
    }

    fn put(dir: &ExperimentDir, number: u32, holder: &ClaimHolder) {
        write(&ClaimKind::Submission.claims(dir).path(number), holder);
    }

    #[test]
    fn one_process_at_a_time_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        let claim = take_quietly(&dir, TakeOver::FromTheDead).unwrap();
        let error = take_quietly(&dir, TakeOver::FromTheDead).unwrap_err();
        let this = ProcessId::current();
        assert_eq!(error.to_string(), format!("{this} is working on it"));
        assert!(holder(&dir, ClaimKind::Submission).unwrap().is_at_work());
        claim.check().unwrap();
        drop(claim);
        assert!(!holder(&dir, ClaimKind::Submission).unwrap().is_at_work(), "it is released");
        take_quietly(&dir, TakeOver::FromTheDead).unwrap().check().unwrap();
    }

    #[test]
    fn who_lost_it_hears_so() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        let first = take_quietly(&dir, TakeOver::FromTheDead).unwrap();
        let second = take_quietly(&dir, TakeOver::FromAnyone).unwrap();
        assert!(matches!(first.check(), Err(ClaimError::Lost { holder: Some(_) })));
        drop(first);
        second.check().unwrap();
        assert!(
            holder(&dir, ClaimKind::Submission).unwrap().is_at_work(),
            "the loser releases nothing"
        );
    }

    #[test]
    fn the_dead_and_the_long_silent_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        let mut dead = ClaimHolder::current().unwrap();
        dead.process.start_ticks += 1;
        put(&dir, 0, &dead);
        assert_eq!(take_quietly(&dir, TakeOver::FromTheDead).unwrap().taken_from, None);
        put(&dir, 7, &holder_on("login1", clock::now() - LONG_SILENCE - 1.0));
        let said = std::cell::RefCell::new(String::new());
        let claim = take(&dir, ClaimKind::Submission, TakeOver::FromTheDead, &|text| {
            said.borrow_mut().push_str(text);
        })
        .unwrap();
        assert_eq!(claim.taken_from.as_deref(), Some("login1"));
        assert!(said.borrow().contains("on login1, last seen 601 s ago"), "{}", said.borrow());
    }

    #[test]
    fn another_host_that_gives_signs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        put(&dir, 0, &holder_on("login1", clock::now()));
        let error = std::thread::scope(|scope| {
            let taking = scope.spawn(|| take_quietly(&dir, TakeOver::FromTheDead).unwrap_err());
            while !taking.is_finished() {
                put(&dir, 0, &holder_on("login1", clock::now()));
                std::thread::sleep(Duration::from_millis(50));
            }
            taking.join().unwrap()
        });
        assert!(
            matches!(&error, ClaimError::Held { holder: Some(it) } if it.process.node == "login1")
        );
        let claim = take_quietly(&dir, TakeOver::FromAnyone).unwrap();
        assert_eq!(claim.taken_from.as_deref(), Some("login1"));
    }
}
