//! Which machine this is, and whether a process that was written down still lives on it.
#![expect(clippy::disallowed_methods, reason = "an edge: the clock is read here")]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A process that can be told from a later one with the same pid, and from one on another machine or boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The host's name.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It runs on this machine.
    Alive,
    /// It is over.
    Dead,
    /// It ran on another machine.
    Elsewhere,
}

/// Unix seconds.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        Self::of(std::process::id())
    }

    /// A process of this machine, by its pid.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self { node: node(), boot_id: boot_id(), pid, start_ticks: start_ticks(pid).unwrap_or(0) }
    }

    /// Whether it still runs. After a reboot it does not, even if its pid is in use again.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        if self.boot_id == boot_id() {
            let same = start_ticks(self.pid) == Some(self.start_ticks);
            if same { Liveness::Alive } else { Liveness::Dead }
        } else if self.node == node() {
            Liveness::Dead
        } else {
            Liveness::Elsewhere
        }
    }
}

/// Whether a process of this machine has this path among its arguments. One that can't be looked at is not ours.
#[must_use]
pub fn runs_with_argument(path: &Path) -> bool {
    let own = std::process::id().to_string();
    let is_process = |name: &str| name != own && name.bytes().all(|byte| byte.is_ascii_digit());
    let has_argument = |name: &str| {
        let command = std::fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == path.as_os_str().as_bytes())
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|entry| {
        entry.file_name().to_str().is_some_and(|name| is_process(name) && has_argument(name))
    })
}

/// Every process of this machine below this one, children before theirs.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let with_parents: Vec<(u32, u32)> =
        processes.filter_map(|process| Some((process, parent(process)?))).collect();
    let mut below = vec![pid];
    let mut at = 0;
    while let Some(&parent) = below.get(at) {
        let children = with_parents.iter().filter(|(_, own)| *own == parent);
        below.extend(children.map(|(child, _)| *child));
        at += 1;
    }
    below.split_off(1)
}

/// Field 4 of `/proc/PID/stat`.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn node() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat`, counted after the command's name, which may hold anything. A zombie is over.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" { None } else { fields.nth(18)?.parse().ok() }
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
