//! The sentinel: a job step that hears the TERM with which a preemption's grace begins, and tells the harness.
//!
//! Where the cluster does not send the user's signal on preemption, only steps hear of its start.
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

/// How often it looks whether the harness is still there, in milliseconds.
const LOOK: u16 = 30_000;

/// Starts the step; the answer is its `srun`.
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

/// Waits for the TERM, and passes it on as the request to save. The process id may have been given to another
/// process since, so its start time is compared.
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
