//! Searches for a checkpoint in a thread: verifying a huge one takes minutes, and the harness must react to TERM.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::restore::{self, RestorePlan};
use super::resume::{self, FoundCheckpoint, RecordedSteps};
use super::store::DiskStore;
use super::taken::{self, CommitFinisher, FinishedCommits};
use nemo_core::room::until_room;

use crate::attempt::lease::Lease;
use crate::attempt::start_error::StartError;
use crate::os::signals;

/// How long the thread may take to stop when a disk holds it up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The outcome of a search.
#[derive(Debug)]
pub(crate) enum SearchOutcome {
    Found(Box<FoundCheckpoint>, FinishedCommits),
    /// TERM or INT came first. The checkpoint is unknown, so nothing may be started.
    Stopped,
}

/// The checkpoint that the thread found, and the commits that it finished.
type SearchResult = Result<(FoundCheckpoint, FinishedCommits), StartError>;

/// Commits saves of earlier attempts, calls [`resume::find`], and puts what it found where the program looks. Gives up when TERM or INT comes. Other signals stay
/// pending.
pub(crate) fn find(
    signals: &SignalFd,
    checkpoints: &Path,
    recorded: &RecordedSteps,
    lease: &Lease,
    own: &CommitFinisher,
    restore: Option<&RestorePlan>,
) -> Result<SearchOutcome, StartError> {
    let failed =
        |error: std::io::Error| StartError::Node(format!("the search for a checkpoint: {error}"));
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = Arc::new(EventFd::from_flags(flags).map_err(|error| failed(error.into()))?);
    let disk = DiskStore::default();
    let stop = Arc::clone(&disk.stop);
    let (sender, answer) = channel();
    until_room(|| {
        let owned = (
            checkpoints.to_owned(),
            recorded.clone(),
            lease.clone(),
            own.clone(),
            restore.cloned(),
        );
        let (mut disk, wake, sender) = (disk.clone(), Arc::clone(&wake), sender.clone());
        std::thread::Builder::new().name("verify".to_owned()).spawn(move || {
            let (checkpoints, recorded, lease, own, restore) = owned;
            let is_newest = || lease.is_newest_exactly();
            let finished = taken::finish(&mut disk, &checkpoints, &own, &is_newest);
            let result = finished.map_err(|error| StartError::node(&checkpoints, &error));
            let result = result.and_then(|finished| {
                let mut found = resume::find(&mut disk, &checkpoints, &recorded, &lease.nonce)?;
                if let Some(plan) = restore {
                    let resumed = found.resumed.as_ref();
                    found.leaves_own = resumed.is_none() && plan.leaves_own();
                    let prepared = restore::prepare(&mut disk, &plan, resumed, &is_newest);
                    found.restored =
                        prepared.map_err(|error| StartError::node(&plan.target, &error))?;
                }
                Ok((found, finished))
            });
            // Nobody receives it if the search was given up.
            sender.send(result).ok();
            wake.write(1).ok();
        })
    })
    .map_err(failed)?;
    drop(sender); // the thread has its own
    let (result, others) = wait(signals, &wake, &answer);
    if result.is_none() {
        stop.store(true, Ordering::Relaxed);
    }
    let searched = match result.or_else(|| answer.recv_timeout(PATIENCE).ok()) {
        Some(Ok((found, finished))) => Ok(SearchOutcome::Found(Box::new(found), finished)),
        Some(Err(why)) if !stop.load(Ordering::Relaxed) => Err(why),
        Some(Err(_)) | None => Ok(SearchOutcome::Stopped),
    };
    let is_found = matches!(searched, Ok(SearchOutcome::Found(..)));
    signals::give_back(others.into_iter().filter(|signal| is_found || !signals::is_stop(*signal)));
    searched
}

/// Waits for the answer or a signal that stops. Returns the other signals that came.
fn wait(
    signals: &SignalFd,
    wake: &EventFd,
    answer: &Receiver<SearchResult>,
) -> (Option<SearchResult>, Vec<Signal>) {
    let mut heard = Vec::new();
    loop {
        let mut set =
            [signals.as_fd(), wake.as_fd()].map(|open| PollFd::new(open, PollFlags::POLLIN));
        poll(&mut set, PollTimeout::NONE).ok(); // both are read without blocking
        wake.read().ok();
        if let Ok(result) = answer.try_recv() {
            return (Some(result), heard);
        }
        heard.extend(signals::read(signals));
        if heard.iter().any(|signal| signals::is_stop(*signal)) {
            return (None, heard);
        }
    }
}
