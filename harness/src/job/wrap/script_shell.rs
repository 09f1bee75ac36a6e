//! Whether the shell of the batch script waits for the harness. Slurm's signals come to that shell: it dies of them, and the
//! job ends with everything in it.

use std::os::unix::process::parent_id;
use std::path::Path;

use nix::sys::signal::Signal;

use super::variable;
use crate::os::{disposition, proc_fs};
use crate::program::shells;

/// A process of the job that waits for this one.
#[derive(Clone, Copy, Debug)]
struct ParentProcess<'a> {
    pid: u32,
    exe: &'a Path,
    /// It catches or ignores the signal, as with a `trap` in the script.
    survives: bool,
}

/// Whether it waits, so that a `wrap` without `exec` before it would be lost.
pub(super) fn waits() -> bool {
    let pid = parent_id();
    let Some(exe) = proc_fs::exe(pid) else { return false };
    let own = Signal::SIGUSR1;
    let survives = disposition::survives(pid, own) && !shells::dies_of(pid, own);
    let is_in_step = variable("SLURM_STEP_ID").is_some();
    let first = variable("SLURM_TASK_PID").and_then(|pid| pid.parse().ok());
    is_script_shell(first.filter(|_| !is_in_step), ParentProcess { pid, exe: &exe, survives })
}

/// `first`: the first process of the batch script; none in a step, to which `srun` passes signals on.
fn is_script_shell(first: Option<u32>, parent: ParentProcess<'_>) -> bool {
    first == Some(parent.pid) && shells::is_shell(parent.exe) && !parent.survives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shell_that_slurm_signals_is_told_of() {
        let bash = ParentProcess { pid: 7, exe: Path::new("/usr/bin/bash"), survives: false };
        assert!(is_script_shell(Some(7), bash));
        assert!(!is_script_shell(Some(8), bash), "a tool such as Snakemake started it");
        assert!(!is_script_shell(None, bash), "a step of `srun`");
        assert!(!is_script_shell(Some(7), ParentProcess { survives: true, ..bash }), "a trap");
        let exe = Path::new("/usr/sbin/slurmstepd");
        assert!(!is_script_shell(Some(7), ParentProcess { exe, ..bash }), "it was `exec`");
    }
}
