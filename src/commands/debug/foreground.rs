//! What `debug` runs in the foreground, and the signals that end it: the terminal is gone, or somebody ends this process.
//! Whatever comes, this process lives until its temporary folder is removed.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits for a program, for a while")]

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::process;

/// How long a program may take to end that was told to.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// The signals that would end this process, which are read here instead.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Listens from now on. What is ignored stays so, as `nohup` wants it.
    pub(super) fn listen() -> io::Result<Self> {
        let ends = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTERM];
        let mut set = SigSet::empty();
        for signal in ends.into_iter().filter(|signal| !process::ignores(*signal)) {
            set.add(signal);
        }
        set.add(Signal::SIGCHLD); // wakes whoever waits for the program
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// A signal that came before the program runs.
    pub(super) fn interrupted(&self) -> Option<Signal> {
        self.read(|signal| signal != Signal::SIGCHLD)
    }

    /// A signal that ends the program. Ctrl-C is for the program alone: the terminal sends it to both.
    fn end(&self) -> Option<Signal> {
        self.read(|signal| matches!(signal, Signal::SIGHUP | Signal::SIGTERM))
    }

    /// The first of those that have come which is meant.
    fn read(&self, is_meant: impl Fn(Signal) -> bool) -> Option<Signal> {
        let mut first = None;
        while let Ok(Some(info)) = self.0.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            first = first.or(signal.filter(|signal| is_meant(*signal)));
        }
        first
    }

    fn wait(&self, time: Option<Duration>) {
        let timeout = time.and_then(|time| PollTimeout::try_from(time).ok());
        let timeout = timeout.unwrap_or(PollTimeout::NONE);
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout).ok(); // else it looks early
    }
}

/// Runs a program to its end. Where this process is told to end, the program is, with all that it has started.
pub(super) fn run(command: &mut Command, signals: &Signals) -> io::Result<ExitStatus> {
    // What outlives its parent is then found below this process.
    prctl::set_child_subreaper(true)?;
    let mut child = command.spawn()?; // signals stay blocked until the harness becomes the program
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        signals.wait(None);
        if let Some(signal) = signals.end() {
            end(&mut child, signal, signals);
            return child.wait();
        }
    }
}

/// Passes a signal on. Kills the program if it does not end in time, or if another signal comes.
fn end(child: &mut Child, signal: Signal, signals: &Signals) {
    let began = Instant::now();
    send(signal);
    while began.elapsed() < PATIENCE && signals.end().is_none() {
        child.try_wait().ok(); // off the process table
        if below().is_empty() {
            return;
        }
        signals.wait(Some(LOOK));
    }
    while !below().is_empty() {
        send(Signal::SIGKILL);
        child.try_wait().ok();
        std::thread::sleep(LOOK);
    }
}

fn below() -> Vec<u32> {
    process::descendants(std::process::id(), &[])
}

fn send(signal: Signal) {
    for pid in below().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
        kill(Pid::from_raw(pid), signal).ok(); // it has just ended
    }
}
