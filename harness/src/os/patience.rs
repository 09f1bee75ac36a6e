//! Retries disk operations before the program starts: a full disk or a lost answer may pass.

use std::io;
use std::time::Duration;

use nix::libc;
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

/// Whether an error may pass: a full disk, a restarted server, a lost answer.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StaleNetworkFileHandle, StorageFull, TimedOut};
    let is_known =
        matches!(error.kind(), QuotaExceeded | StaleNetworkFileHandle | StorageFull | TimedOut);
    is_known || matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOLCK | libc::EAGAIN))
}
