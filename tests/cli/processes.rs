//! The processes of this machine, which is every node of a test's Slurm.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `/proc` shows of a process: nothing but its id where it is another user's, or gone.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    environment: Vec<String>,
    /// Its program and arguments.
    pub(crate) words: Vec<String>,
}

impl Process {
    pub(crate) fn read(pid: i32) -> Self {
        Self { pid, environment: words(pid, "environ"), words: words(pid, "cmdline") }
    }

    /// Whether its environment holds `NAME=VALUE`.
    pub(crate) fn has(&self, variable: &str) -> bool {
        self.environment.iter().any(|word| word == variable)
    }

    /// The value of a variable in its environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// Its command as one line.
    pub(crate) fn line(&self) -> String {
        self.words.join(" ")
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        Some(Self::read(stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?))
    }

    /// Sends it a signal. It must live.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Kills it, if it still lives.
    pub(crate) fn kill(&self) {
        let _gone = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }
}

fn words(pid: i32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// The other processes that are as wanted.
pub(crate) fn find(is_wanted: impl Fn(&Process) -> bool) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others = pids.filter(|pid| *pid != own).map(Process::read);
    others.filter(is_wanted).collect()
}
