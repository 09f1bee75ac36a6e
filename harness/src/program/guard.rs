//! The guard: ends what a harness that was killed leaves behind, since nobody else on the node may do so.
//!
//! It waits for the end of a pipe whose other end only the harness holds: the kernel closes that, however it ends.
#![expect(clippy::disallowed_methods, reason = "one of the places that start programs")]

use std::fs;
use std::io::{self, PipeWriter, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::job::context::Context;
use crate::os::proc_fs;
use crate::os::signals;
use crate::program::processes;
use crate::protocol;

/// The variable that tells whose a process is.
pub(crate) const VARIABLE: &str = "NEMO_HARNESS";
/// How often it looks again after a KILL: a process may have forked meanwhile.
const ROUNDS: u32 = 200;

/// A guard that waits.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) pid: u32,
    pipe: PipeWriter,
}

impl Guard {
    pub(crate) fn start(context: &Context) -> io::Result<Self> {
        let (waits, pipe) = io::pipe()?;
        let mut command = Command::new(&context.exe);
        command.args(["guard", &mark(context)]).process_group(0);
        command.stdin(waits).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { pid: command.spawn()?.id(), pipe })
    }

    /// Lets it go, and waits until it is gone.
    pub(crate) fn end(self) {
        drop(self.pipe);
        waitpid(Pid::from_raw(self.pid.cast_signed()), None).ok(); // reaped before, if it died
    }
}

/// What [`VARIABLE`] holds in the programs of this harness.
pub(crate) fn mark(context: &Context) -> String {
    format!("{}.{}", context.pid, context.start_ticks)
}

/// Waits for the end of the harness, and kills what carries its mark.
pub(crate) fn run(mark: &str) -> io::Result<()> {
    signals::listen()?; // Slurm signals every process of a job
    io::stdin().read_to_end(&mut Vec::new())?;
    for _ in 0..ROUNDS {
        let left = marked(mark);
        if left.is_empty() {
            break;
        }
        for pid in left {
            processes::signal(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10));
    }
    remove_folders(mark)
}

/// Removes the folders that a killed harness could not.
fn remove_folders(mark: &str) -> io::Result<()> {
    let prefix = protocol::prefix(mark);
    for folder in [std::env::temp_dir(), "/tmp".into()] {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path()).ok(); // it may be gone since
            }
        }
    }
    Ok(())
}

fn marked(mark: &str) -> Vec<u32> {
    let is_marked = |pid: &u32| {
        proc_fs::stat(*pid).is_ok_and(|stat| !stat.is_zombie)
            && proc_fs::variable(*pid, VARIABLE).is_some_and(|value| value == mark.as_bytes())
    };
    proc_fs::pids().into_iter().filter(is_marked).collect()
}
