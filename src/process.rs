//! Processes of this machine: which of them run, and whether one that a file names is still alive.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use nemo_core::proc_fs::descendants;
use nemo_core::proc_fs::pids;
pub use nemo_core::process_id::{Liveness, ProcessId};

/// Whether a process of this machine has this path among its arguments. A process that can't be read belongs to another
/// user, and does not count.
#[must_use]
pub fn runs_with_argument(path: &Path) -> bool {
    pids().into_iter().any(|pid| pid != std::process::id() && has_argument(pid, path))
}

fn has_argument(pid: u32, path: &Path) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).any(|argument| argument == path.as_os_str().as_bytes())
}

/// Whether this process ignores a signal, as `nohup` starts it.
#[must_use]
pub fn ignores(signal: nix::sys::signal::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}
