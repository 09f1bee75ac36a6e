//! Detects hangs: the time since the last sign of life, and the state of the processes that hang.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nemo_core::durable;

use crate::os::clock::{Clock, Time};
use crate::os::proc_fs;
use crate::os::subprocess::{self, SubprocessResult};

/// How many times within the limit the watchdog looks for signs of life.
const LOOKS: u32 = 4;
/// How long `py-spy` may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How many processes are described.
const PROCESSES: usize = 64;

/// Counts the time since the last sign of life. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
    last: Time,
    looked: Time,
    /// No sign is expected until then.
    extended: Time,
}

impl Watchdog {
    pub(crate) fn new(limit: Duration, now: Time) -> Self {
        Self { limit, last: now, looked: now, extended: Time::ZERO }
    }

    /// Counts a sign of life.
    pub(crate) fn alive(&mut self, now: Time) {
        self.last = now;
    }

    /// Allows the next sign to take this long.
    pub(crate) fn extend(&mut self, now: Time, extend: Duration) {
        self.extended = now.saturating_add(extend);
    }

    /// When the next look is due.
    pub(crate) fn due(&self) -> Time {
        self.looked + self.limit / LOOKS
    }

    /// `sign`: whether there was a sign of life since the last look. Returns the time of the last one if it is too long
    /// ago. If a look comes much too late, this process was stopped and the program with it, so the time starts anew.
    pub(crate) fn look(&mut self, now: Time, sign: bool) -> Option<Time> {
        let was_stopped = now.saturating_sub(self.due()) > self.limit / 2;
        self.looked = now;
        if sign || was_stopped {
            self.last = now;
        }
        let is_over = now.saturating_sub(self.last) >= self.limit && now >= self.extended;
        is_over.then_some(self.last)
    }
}

/// Writes the evidence of a hang to a file.
pub(crate) fn keep_evidence(path: &Path, evidence: &str) {
    drop(durable::replace_file_durably(path, evidence.as_bytes())); // the trial doesn't depend on it
}

/// Describes the processes below `root`.
pub(crate) fn evidence(root: u32, except: &[u32], clock: &Clock) -> String {
    let mut text = String::new();
    let mut python = None;
    for pid in proc_fs::descendants(root, except).into_iter().take(PROCESSES) {
        describe(pid, &mut text);
        let command = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        python = python.or(command.starts_with(b"python").then_some(pid));
    }
    if let Some(pid) = python {
        let pid = pid.to_string();
        let told = match subprocess::ask(&["py-spy", "dump", "--pid", &pid], clock, ANSWER) {
            SubprocessResult::Ended { text, .. } => text,
            SubprocessResult::NoAnswer(why) => {
                format!("{why}\n(install `py-spy` to see the Python stack)")
            }
        };
        text.push_str(&["py-spy dump --pid ", &pid, "\n", &told, "\n"].concat());
    }
    text
}

/// Describes one process: its command, and each thread's state, system call and kernel stack, as far as we may read it.
fn describe(pid: u32, text: &mut String) {
    add_line(text, "process", &pid.to_string());
    add_line(text, "  command", &read_proc(pid, "cmdline"));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for thread in threads.take(PROCESSES) {
        let name = thread.file_name().to_string_lossy().into_owned();
        let status = read_proc(pid, &format!("task/{name}/status"));
        let (comm, state) = (status_field(&status, "Name:"), status_field(&status, "State:"));
        let wait = read_proc(pid, &format!("task/{name}/wchan"));
        add_line(text, "  thread", &format!("{name} {comm} {state} in {wait}"));
        add_line(text, "    system call", &read_proc(pid, &format!("task/{name}/syscall")));
        for frame in read_proc(pid, &format!("task/{name}/stack")).lines() {
            add_line(text, "    kernel", frame);
        }
    }
}

fn read_proc(pid: u32, name: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

fn status_field<'a>(status: &'a str, key: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim()
}

fn add_line(text: &mut String, name: &str, value: &str) {
    writeln!(text, "{name}: {value}").unwrap_or_default(); // a string takes everything
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_a_hang_and_a_sign_is_none() {
        let mut dog = Watchdog::new(S * 40, S * 100);
        assert_eq!(dog.due(), S * 110);
        assert_eq!(dog.look(S * 110, false), None);
        dog.alive(S * 115);
        for at in [120, 130, 140, 150] {
            assert_eq!(dog.look(S * at, false), None);
        }
        assert_eq!(dog.look(S * 160, false), Some(S * 115));
        assert_eq!(dog.look(S * 170, true), None);
    }

    #[test]
    fn an_extension_counts() {
        let mut dog = Watchdog::new(S * 8, Time::ZERO);
        dog.extend(S, S * 20);
        for at in (2..20).step_by(2) {
            assert_eq!(dog.look(S * at, false), None);
        }
        assert!(dog.look(S * 21, false).is_some());
    }

    #[test]
    fn a_suspended_job_does_not_hang() {
        let mut dog = Watchdog::new(S * 40, Time::ZERO);
        assert_eq!(dog.look(S * 10, false), None);
        assert_eq!(dog.look(S * 500, false), None);
        assert_eq!(dog.look(S * 530, false), None);
    }

    #[test]
    fn evidence_tells_of_threads() {
        let mut text = String::new();
        describe(std::process::id(), &mut text);
        assert!(text.contains("  thread: ") && text.contains("(running)"), "{text}");
    }
}
