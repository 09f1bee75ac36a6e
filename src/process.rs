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
    let has_argument = |pid: u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == path.as_os_str().as_bytes())
    };
    pids().into_iter().any(|pid| pid != std::process::id() && has_argument(pid))
}
