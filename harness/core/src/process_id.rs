//! A process's identity in files. It differs from that of a later process with the same pid, and across boots and hosts.

use std::fmt;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::proc_fs;

/// The identity of a process, unique across reuse of the pid, boots and hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The host's name, or Slurm's name of the node.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It runs on this host.
    Alive,
    /// It is over.
    Dead,
    /// It ran on another host.
    Elsewhere,
}

impl ProcessId {
    /// This process. Fields that can't be read are left empty, so that no other process matches.
    #[must_use]
    pub fn current() -> Self {
        Self::of(std::process::id())
    }

    /// A process of this host, by its pid.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let start_ticks = proc_fs::stat(pid).map_or(0, |stat| stat.start_ticks);
        let boot_id = boot_id().unwrap_or_default();
        Self { node: host_name().unwrap_or_default(), boot_id, pid, start_ticks }
    }

    /// Whether it still runs. After a reboot it does not, even if its pid is in use again.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        if boot_id().is_ok_and(|here| here == self.boot_id) {
            if self.is_alive_on_this_node() { Liveness::Alive } else { Liveness::Dead }
        } else if host_name().is_ok_and(|here| here == self.node) {
            Liveness::Dead
        } else {
            Liveness::Elsewhere
        }
    }

    /// Whether a process with this pid and start time runs on this host and is not a zombie.
    #[must_use]
    pub fn is_alive_on_this_node(&self) -> bool {
        proc_fs::stat(self.pid)
            .is_ok_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_zombie)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.node)
    }
}

/// This host's name.
pub fn host_name() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// The kernel's boot id: a process id means nothing after another boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_pid() {
        let this = ProcessId::current();
        assert_eq!(this.liveness(), Liveness::Alive);
        let reused = ProcessId { start_ticks: this.start_ticks + 1, ..this.clone() };
        assert_eq!(reused.liveness(), Liveness::Dead);
        let rebooted = ProcessId { boot_id: "earlier".to_owned(), ..this.clone() };
        assert_eq!(rebooted.liveness(), Liveness::Dead);
        let other = ProcessId { node: "elsewhere".to_owned(), ..rebooted };
        assert_eq!(other.liveness(), Liveness::Elsewhere);
    }
}
