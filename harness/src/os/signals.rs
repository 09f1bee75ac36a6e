//! The signals of this process. They are blocked and read from a file descriptor like any other event.
#![expect(unsafe_code, reason = "setting a signal to its default can't be said without")]

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::os::clock::Clock;

/// The signals that are read. CHLD reports processes that ended.
const HANDLED: [Signal; 6] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGCHLD,
];

/// Blocks the signals and opens the descriptor that they are read from.
///
/// All are set to their defaults first: one that was inherited as ignored would be ignored by the program too,
/// and an ignored CHLD would reap children behind our back. The program starts with an empty mask.
pub(crate) fn listen() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for handled in HANDLED {
        set.add(handled);
    }
    set.thread_block()?; // before the defaults, so that none acts in between
    for handled in HANDLED.into_iter().chain([Signal::SIGPIPE]) {
        let action = match handled {
            Signal::SIGPIPE => SigHandler::SigIgn,
            _ => SigHandler::SigDfl,
        };
        // SAFETY: no handler is installed, so nothing can run in a signal's context.
        unsafe { signal(handled, action) }?;
    }
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(SignalFd::with_flags(&set, flags)?)
}

/// Reads the signals that have come, each once.
pub(crate) fn read(descriptor: &SignalFd) -> Vec<Signal> {
    let mut heard = Vec::new();
    while let Ok(Some(info)) = descriptor.read_signal() {
        if let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|n| n.try_into().ok()) {
            heard.push(signal);
        }
    }
    heard
}

/// Whether a signal stops any waiting.
pub(crate) fn is_stop(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// Sends signals to this process again. They are blocked, and stay pending until they are read.
pub(crate) fn give_back(signals: impl Iterator<Item = Signal>) {
    for signal in signals {
        kill(Pid::this(), signal).ok(); // a process may always signal itself
    }
}

/// Waits for this time unless TERM or INT is pending. Returns whether one is. All signals stay pending.
pub(crate) fn wait_for_stop(descriptor: &SignalFd, pause: Duration) -> bool {
    let clock = Clock::start();
    let mut heard = Vec::new();
    loop {
        let left = pause.saturating_sub(clock.now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        let is_over = matches!(poll(&mut set, timeout), Ok(0)) || left.is_zero();
        heard.extend(read(descriptor));
        let is_stopped = heard.iter().any(|signal| is_stop(*signal));
        if is_over || is_stopped {
            give_back(heard.into_iter());
            return is_stopped;
        }
    }
}
