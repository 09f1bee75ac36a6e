//! The signals that this process listens to: blocked, and read from a file descriptor like any other event.
#![expect(unsafe_code, reason = "setting a signal to its default can't be said without")]

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What is listened to. CHLD tells of processes that ended.
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

/// Reads what has come, each once.
pub(crate) fn read(descriptor: &SignalFd) -> Vec<Signal> {
    let mut heard = Vec::new();
    while let Ok(Some(info)) = descriptor.read_signal() {
        if let Some(signal) = i32::try_from(info.ssi_signo).ok().and_then(|n| n.try_into().ok()) {
            heard.push(signal);
        }
    }
    heard
}
