//! The sentinel: a job step that catches the TERM at the start of a preemption's grace, and signals the harness.
//!
//! If the cluster does not send the user's signal on preemption, only job steps learn of its start.
#![expect(clippy::disallowed_methods, reason = "one of the places that start programs")]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::job::harness::Harness;
use crate::os::proc_fs;
use crate::os::signals;
use crate::program::processes;

/// How often it checks that the harness still runs, in milliseconds.
const LOOK: u16 = 30_000;

/// Starts the step. Returns the pid of its `srun`.
pub(crate) fn start(harness: &Harness) -> io::Result<u32> {
    let context = &harness.context;
    let mut command = Command::new("srun");
    command.args(["--overlap", "-n1", "-N1", "--mem=0", "--"]);
    command.arg(&context.exe).arg("sentinel");
    command.args(["--harness-pid", &context.pid.to_string()]);
    command.args(["--start-ticks", &context.start_ticks.to_string()]);
    command.stdin(Stdio::null()).process_group(0);
    processes::die_with_parent(&mut command);
    Ok(command.spawn()?.id())
}

/// Ends the step: TERM makes `srun` kill it.
pub(crate) fn end(harness: &mut Harness) {
    let Some(pid) = harness.sentinel.take() else { return };
    processes::signal(pid, Signal::SIGTERM);
    for _ in 0..100 {
        if processes::reap().iter().any(|reaped| reaped.pid == pid) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    processes::signal(pid, Signal::SIGKILL);
}

/// Waits for TERM and passes it on as a save request. The start time is compared because the pid may have been reused.
pub(crate) fn run(pid: u32, start_ticks: u64) -> io::Result<()> {
    let descriptor = signals::listen()?;
    while proc_fs::is_alive(pid, start_ticks) {
        let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        poll(&mut set, PollTimeout::from(LOOK)).ok();
        if signals::read(&descriptor).contains(&Signal::SIGTERM) {
            if proc_fs::is_alive(pid, start_ticks) {
                processes::signal(pid, Signal::SIGUSR1);
            }
            return Ok(());
        }
    }
    Ok(())
}
