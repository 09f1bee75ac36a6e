//! Lets a thread give way to the program that trains.
#![expect(unsafe_code, reason = "two system calls that change only the calling thread")]

use nix::libc;

/// As `nice` does: a tenth of a busy processor is left, so that a commit still ends soon.
const NICE: libc::c_int = 10;
/// The lowest priority of the class that everybody is in. The idle class could starve for ever.
const IO_PRIORITY: libc::c_int = 2 << 13 | 7;
/// In `ioprio_set`: a thread, 0 the calling one.
const IO_WHO_THREAD: libc::c_int = 1;

/// Lowers the calling thread's priority. Nobody but root can raise it again: the thread should end with its work.
pub(super) fn give_way() {
    // SAFETY: neither call takes a pointer. Where one fails the thread only stays as it is.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        libc::syscall(libc::SYS_ioprio_set, IO_WHO_THREAD, 0, IO_PRIORITY);
    }
}
