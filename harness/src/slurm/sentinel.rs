//! The sentinel: a job step that catches the TERM at the start of a preemption's grace, and signals the harness.
//!
//! If the cluster does not send the user's signal on preemption, or the script has none for itself, only job steps learn of
//! its start. A signal of the user's for steps (`--signal=USR2@60`) comes to them in place of TERM.
#![expect(clippy::disallowed_methods, reason = "one of the places that start programs")]

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::job::harness::Harness;
use crate::os::proc_fs;
use crate::os::signals;
use crate::program::processes;

/// How often it checks that the harness still runs, in milliseconds.
const LOOK: u16 = 30_000;

/// The `srun` that runs the step.
#[derive(Debug)]
pub(crate) struct Sentinel {
    pub(crate) pid: u32,
    /// What it says. Slurm's log must not have it: Slurm tells of the step's end as if the job had been cancelled.
    output: ChildStderr,
}

impl Sentinel {
    /// What it said last, once it has ended.
    pub(crate) fn last_words(mut self) -> String {
        let mut said = Vec::new();
        // A process that it left behind may keep the pipe open.
        if fcntl(self.output.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
            self.output.read_to_end(&mut said).ok();
        }
        let said = String::from_utf8_lossy(&said);
        said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }
}

/// Starts the step.
pub(crate) fn start(harness: &Harness) -> io::Result<Sentinel> {
    let context = &harness.context;
    let mut command = Command::new("srun");
    command.args(["--overlap", "-n1", "-N1", "--mem=0", "--"]);
    command.arg(&context.exe).arg("sentinel");
    command.args(["--harness-pid", &context.pid.to_string()]);
    command.args(["--start-ticks", &context.start_ticks.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    processes::die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let output = child.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"))?;
    Ok(Sentinel { pid: child.id(), output })
}

/// Ends the step: TERM makes `srun` kill it.
pub(crate) fn end(harness: &mut Harness) {
    // What it says of that is read by nobody, but must find the pipe open.
    let Some(Sentinel { pid, output: _output }) = harness.sentinel.take() else { return };
    processes::signal(pid, Signal::SIGTERM);
    for _ in 0..100 {
        if processes::reap().iter().any(|reaped| reaped.pid == pid) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    processes::signal(pid, Signal::SIGKILL);
}

/// Waits for TERM and passes it on as a save request, as every signal of the user's before. The start time is compared
/// because the pid may have been reused.
pub(crate) fn run(pid: u32, start_ticks: u64) -> io::Result<()> {
    let descriptor = signals::listen()?;
    while proc_fs::is_alive(pid, start_ticks) {
        let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        poll(&mut set, PollTimeout::from(LOOK)).ok();
        let heard = signals::read(&descriptor);
        let is_told = heard.iter().any(|signal| *signal != Signal::SIGCHLD);
        if is_told && proc_fs::is_alive(pid, start_ticks) {
            processes::signal(pid, Signal::SIGUSR1);
        }
        if heard.contains(&Signal::SIGTERM) {
            return Ok(());
        }
    }
    Ok(())
}
