//! Retries the start of processes and threads when the system is at its limit.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

const PAUSE: Duration = Duration::from_millis(100);
/// Ten seconds in all. After a longer wait the harness would react too late to a stop.
const TRIES: u32 = 100;

/// Starts a process or a thread, and retries if the system is at its limit.
pub(crate) fn until_room<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match start() {
            Err(error) if has_no_room(&error) => sleep(PAUSE),
            other => return other,
        }
    }
    start()
}

/// Whether an error comes from a limit of the system, not from the process to start.
fn has_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE))
}
