//! Waits for room in the system: at the limit of processes, what can't be started now may start in a moment.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

/// Between two tries.
pub const PAUSE: Duration = Duration::from_millis(100);
/// Ten seconds in all: longer, and a stop would be heard too late.
pub const TRIES: u32 = 100;

/// Tries to start a process or a thread, again and again where the system has no room for another one.
pub fn until_room<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match start() {
            Err(error) if is_lacking(&error) => sleep(PAUSE),
            other => return other,
        }
    }
    start()
}

/// Whether an error tells of a limit that others may leave again, and nothing of what was to be started.
#[must_use]
pub fn is_lacking(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE))
}
