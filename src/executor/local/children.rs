//! The harnesses that this runner started: one signal tells that some of them ended, whatever their number. No threads:
//! at the user's process limit none could be started.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::runner::RunnerError;
use super::schedule::TrialRef;

/// How the harness of one trial ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExitedHarness {
    pub(super) place: TrialRef,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
}

impl ExitedHarness {
    /// The end of a process that is no child of ours: nobody can know how.
    pub(super) fn unseen(place: TrialRef) -> Self {
        Self { place, exit_code: None, signal: None }
    }

    fn seen(place: TrialRef, status: ExitStatus) -> Self {
        Self { place, exit_code: status.code(), signal: status.signal() }
    }
}

/// The children that live.
#[derive(Debug)]
pub struct Children {
    /// SIGCHLD, which is blocked. A program that is started gets an empty mask from the standard library.
    ended: SignalFd,
    live: BTreeMap<TrialRef, Child>,
}

impl Children {
    /// None yet. It must be made before any thread is: one that does not block the signal would swallow it.
    pub fn new() -> Result<Self, RunnerError> {
        let ended = Self::listen().map_err(|error| RunnerError::Signals(error.into()))?;
        Ok(Self { ended, live: BTreeMap::new() })
    }

    fn listen() -> nix::Result<SignalFd> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    }

    pub(super) fn insert(&mut self, place: TrialRef, child: Child) {
        self.live.insert(place, child);
    }

    /// Waits until some ended, at most for `time`, and takes them off the process table.
    pub(super) fn wait(&mut self, time: Duration) -> Vec<ExitedHarness> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // Interrupted, it looks a little early.
        let _ready = poll(&mut [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)], timeout);
        while let Ok(Some(_)) = self.ended.read_signal() {}
        let mut ended = Vec::new();
        self.live.retain(|&place, child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                ended.push(ExitedHarness::seen(place, status));
                false
            }
            // Somebody else took it off the table.
            Err(_) => {
                ended.push(ExitedHarness::unseen(place));
                false
            }
        });
        ended
    }
}
