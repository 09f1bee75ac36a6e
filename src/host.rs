//! Which machine this is, and whether a process that was written down still lives on it.
#![expect(clippy::disallowed_methods, reason = "an edge: the clock is read here")]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub use nemo_core::proc_fs::descendants;
use nemo_core::proc_fs::pids;
pub use nemo_core::process_id::{Liveness, ProcessId};

/// Unix seconds.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Whether a process of this machine has this path among its arguments. One that can't be looked at is not ours.
#[must_use]
pub fn runs_with_argument(path: &Path) -> bool {
    let has_argument = |pid: u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == path.as_os_str().as_bytes())
    };
    pids().into_iter().any(|pid| pid != std::process::id() && has_argument(pid))
}
