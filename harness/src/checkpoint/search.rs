//! The search for a checkpoint, in a thread: verifying a huge one takes minutes, and a TERM must be heard meanwhile.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use super::resume::{self, Found, Recorded};
use super::store::Disk;
use crate::attempt::start_error::StartError;
use crate::os::retry::until_room;
use crate::os::signals;

/// How long a disk may hold up the thread that was told to stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// What came of a search.
#[derive(Debug)]
pub(crate) enum Searched {
    Found(Found),
    /// TERM or INT came first. Nothing is known, so that nothing may be started.
    Stopped,
}

/// Does what [`resume::find`] does, and gives up when TERM or INT comes. All other signals are left to be read.
pub(crate) fn find(
    signals: &SignalFd,
    checkpoints: &Path,
    recorded: &Recorded,
    nonce: &str,
) -> Result<Searched, StartError> {
    let failed =
        |error: std::io::Error| StartError::Node(format!("the search for a checkpoint: {error}"));
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = Arc::new(EventFd::from_flags(flags).map_err(|error| failed(error.into()))?);
    let disk = Disk::default();
    let stop = Arc::clone(&disk.stop);
    let (sender, answer) = channel();
    until_room(|| {
        let (mut disk, wake, sender) = (disk.clone(), Arc::clone(&wake), sender.clone());
        let (checkpoints, recorded, nonce) =
            (checkpoints.to_owned(), recorded.clone(), nonce.to_owned());
        std::thread::Builder::new().name("verify".to_owned()).spawn(move || {
            // Nobody listens any more where the search was given up.
            sender.send(resume::find(&mut disk, &checkpoints, &recorded, &nonce)).ok();
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
        Some(Ok(found)) => Ok(Searched::Found(found)),
        Some(Err(why)) if !stop.load(Ordering::Relaxed) => Err(why),
        Some(Err(_)) | None => Ok(Searched::Stopped),
    };
    let is_found = matches!(searched, Ok(Searched::Found(_)));
    give_back(others.into_iter().filter(|signal| is_found || !is_stop(*signal)));
    searched
}

/// Waits for the answer, or a signal that stops; answers with what else was heard.
fn wait(
    signals: &SignalFd,
    wake: &EventFd,
    answer: &Receiver<Result<Found, StartError>>,
) -> (Option<Result<Found, StartError>>, Vec<Signal>) {
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
        if heard.iter().any(|signal| is_stop(*signal)) {
            return (None, heard);
        }
    }
}

fn is_stop(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// Sends signals to this process once more: they are blocked, and wait to be read.
fn give_back(signals: impl Iterator<Item = Signal>) {
    for signal in signals {
        kill(Pid::this(), signal).ok(); // a process may always signal itself
    }
}
