//! Retries disk operations before the program starts: a full disk or a lost answer may pass.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signalfd::SignalFd;

use crate::os::clock::{Clock, Time};
use crate::os::log::log_stderr;
use crate::os::signals;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The limit of the retries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience<'a> {
    pub(crate) signals: &'a SignalFd,
    pub(crate) clock: Clock,
    pub(crate) until: Time,
}

impl Patience<'_> {
    /// Runs an operation, and retries it while it fails for a reason that may pass, unless TERM or INT comes.
    pub(crate) fn with<T>(self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match work() {
                Err(error) if may_pass(&error) && self.clock.now() + pause < self.until => error,
                result => return result,
            };
            if pause == FIRST_PAUSE {
                log_stderr(&format!("the disk failed: {error}; trying again"));
            }
            if signals::wait_for_stop(self.signals, pause) {
                return Err(error);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Errors of a machine or its disks that may pass: a full disk, a restarted server, a lost answer, too little memory.
const PASSING: [Errno; 12] = [
    Errno::ETXTBSY,
    Errno::EAGAIN,
    Errno::ENOMEM,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EIO,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
    Errno::ENOSPC,
    Errno::EDQUOT,
    Errno::ENOLCK,
    Errno::ENOTCONN,
];

/// Whether an error depends on the place and time, not on the request.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| PASSING.contains(&errno))
}
