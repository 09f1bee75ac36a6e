//! Runs other programs for their output, always with a time limit and without blocking the event loop.
#![expect(clippy::disallowed_methods, reason = "one of the places that start programs")]

use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::os::clock::{Clock, Time};
use crate::os::log;
use crate::program::guard;
use crate::program::processes::{self, Reaped};

/// The longest output that is kept.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// How often a silent program is checked, in milliseconds: another process may hold its output open.
const LOOK: u16 = 50;

/// The result of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubprocessResult {
    /// It ended with this exit code. The text holds both outputs.
    Ended { code: Option<i32>, text: String },
    /// It could not be started or took too long.
    NoAnswer(String),
}

/// Environment variables that would make `scontrol` ask another cluster or print more.
const CHANGE_ANSWERS: [&str; 6] = [
    "SLURM_CLUSTERS",
    "SCONTROL_ALL",
    "SCONTROL_FEDERATION",
    "SCONTROL_FUTURE",
    "SCONTROL_LOCAL",
    "SCONTROL_SIBLING",
];

/// A program that runs for its output.
#[derive(Debug)]
pub(crate) struct Subprocess {
    pub(crate) pid: u32,
    pipe: Option<PipeReader>,
    text: Vec<u8>,
    deadline: Time,
    ended: Option<Reaped>,
}

impl Subprocess {
    /// Starts it in a process group of its own. Slurm's programs print times as seconds since 1970.
    pub(crate) fn start(argv: &[&str], deadline: Time) -> io::Result<Self> {
        Self::start_in(argv, &[], deadline)
    }

    /// The same with further variables.
    fn start_in(argv: &[&str], env: &[(&str, OsString)], deadline: Time) -> io::Result<Self> {
        let mut command = Command::new(argv.first().copied().unwrap_or_default());
        command.args(argv.get(1..).unwrap_or_default());
        command.env("SLURM_TIME_FORMAT", "%s").env("LC_ALL", "C");
        for name in CHANGE_ANSWERS {
            command.env_remove(name);
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        log::debug(|| format!("run: {}", argv.join(" ")));
        Self::spawn(command, deadline)
    }

    /// Starts a command of the user's, as the program was started.
    pub(crate) fn start_beside(
        argv: &[OsString],
        env: &[(String, OsString)],
        workdir: &Path,
        deadline: Time,
    ) -> io::Result<Self> {
        let mut command = Command::new(argv.first().map_or("".as_ref(), OsString::as_os_str));
        command.args(argv.get(1..).unwrap_or_default()).current_dir(workdir);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        Self::spawn(command, deadline)
    }

    fn spawn(mut command: Command, deadline: Time) -> io::Result<Self> {
        let (pipe, other) = io::pipe()?;
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(other.try_clone()?).stderr(other);
        processes::outlive_term(&mut command);
        guard::stop_if_orphaned();
        let pid = command.spawn()?.id();
        Ok(Self { pid, pipe: Some(pipe), text: Vec::new(), deadline, ended: None })
    }

    /// The pipe to poll, until the end of its output.
    pub(crate) fn pipe(&self) -> Option<&PipeReader> {
        self.pipe.as_ref()
    }

    /// When it has taken too long.
    pub(crate) fn until(&self) -> Time {
        self.deadline
    }

    /// It has less time than was said.
    pub(crate) fn hurry(&mut self, until: Time) {
        self.deadline = self.deadline.min(until);
    }

    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    let room = MAX_OUTPUT_BYTES.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&buffer[..length.min(room)]);
                }
                Err(_) => return,
            }
        }
    }

    /// Kills it, with what it started.
    pub(crate) fn kill(&self) {
        processes::signal_group(self.pid, Signal::SIGKILL);
    }

    /// It has ended.
    pub(crate) fn reaped(&mut self, reaped: Reaped) {
        self.ended = Some(reaped);
    }

    /// The result, if there is one. A program that takes too long is killed.
    pub(crate) fn outcome(&mut self, now: Time) -> Option<SubprocessResult> {
        if let Some(ended) = self.ended {
            self.read();
            let text = String::from_utf8_lossy(&self.text).trim().to_owned();
            log::debug(|| format!("process {} ended: {ended:?}: {text}", self.pid));
            return Some(SubprocessResult::Ended { code: ended.code, text });
        }
        if now < self.deadline {
            return None;
        }
        processes::signal(self.pid, Signal::SIGKILL);
        Some(SubprocessResult::NoAnswer("it gave no answer in time".to_owned()))
    }
}

/// Runs a program and waits for it. Only for times without events: before the program's start and after its end.
pub(crate) fn ask(argv: &[&str], clock: &Clock, limit: Duration) -> SubprocessResult {
    ask_in(argv, &[], clock, limit)
}

/// The same with further variables.
pub(crate) fn ask_in(
    argv: &[&str],
    env: &[(&str, OsString)],
    clock: &Clock,
    limit: Duration,
) -> SubprocessResult {
    ask_unless(argv, env, clock, limit, &|| false)
}

/// The same, given up as soon as `is_stopped`. What the program has started is killed with it.
pub(crate) fn ask_unless(
    argv: &[&str],
    env: &[(&str, OsString)],
    clock: &Clock,
    limit: Duration,
    is_stopped: &dyn Fn() -> bool,
) -> SubprocessResult {
    let mut question = match Subprocess::start_in(argv, env, clock.now() + limit) {
        Ok(question) => question,
        Err(error) => return SubprocessResult::NoAnswer(format!("`{}`: {error}", argv.join(" "))),
    };
    let pid = Pid::from_raw(question.pid.cast_signed());
    loop {
        question.read();
        let (code, signal) = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => (Some(code), None),
            Ok(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
            _ => (None, None),
        };
        guard::stop_if_orphaned();
        if code.is_some() || signal.is_some() {
            question.reaped(Reaped { pid: question.pid, code, signal });
        }
        if let Some(outcome) = question.outcome(clock.now()) {
            if matches!(outcome, SubprocessResult::NoAnswer(_)) {
                question.kill();
            }
            return outcome;
        }
        if is_stopped() {
            question.kill();
            return SubprocessResult::NoAnswer("a signal came first".to_owned());
        }
        match question.pipe() {
            // The pipe is closed when the program ends, which wakes the poll.
            Some(pipe) => {
                poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], LOOK).ok();
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
