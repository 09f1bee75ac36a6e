//! Starts the processes of the local executor: the runner, and the harness of each trial.
#![expect(clippy::disallowed_methods, reason = "an edge: programs are started here")]

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{ExperimentDir, TaskDir};
use nemo_core::{durable, lines};

use crate::file_error::{FileError, IoResultExt};
use crate::process::{Liveness, ProcessId};

/// How long a runner may take to say that it is there.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long a program may be open for writing elsewhere, and how often it is tried again.
const BUSY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Why the runner did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system did not start it.
    #[error("can't start the local runner")]
    File(#[from] FileError),
    /// It ended at once.
    #[error("the local runner ended at once; see `{}`", log.display())]
    Ended {
        /// What it had to say.
        log: PathBuf,
    },
}

/// Whether the experiment's runner lives, on this machine as far as can be told.
pub fn is_running(dir: &ExperimentDir) -> Result<Option<ProcessId>, FileError> {
    let records = records(dir)?;
    let last = RunnerRecord::last_runner(&records);
    Ok(last.filter(|process| process.liveness() == Liveness::Alive).cloned())
}

/// Whether the last runner ended by itself, since nothing was left to run.
pub fn has_finished(dir: &ExperimentDir) -> Result<bool, FileError> {
    Ok(matches!(records(dir)?.last(), Some(RunnerRecord::Finished { .. })))
}

/// Whether a runner has written that it knows of the trials of this generation.
pub fn knows_generation(dir: &ExperimentDir, wanted: u32) -> Result<bool, FileError> {
    let is_known = |record: &RunnerRecord| matches!(record, RunnerRecord::Runner { generation, .. } if *generation >= wanted);
    Ok(records(dir)?.iter().any(is_known))
}

fn records(dir: &ExperimentDir) -> Result<Vec<RunnerRecord>, FileError> {
    let log = dir.runner_log();
    Ok(lines::read(&log).at("read", &log)?.rows)
}

/// Starts the runner, and returns when it has taken over. It does not depend on the terminal.
pub fn start_runner(
    program: &Path,
    home: &Path,
    id: &str,
    dir: &ExperimentDir,
) -> Result<(), SpawnError> {
    let log = dir.0.join("runner.out");
    let output = OpenOptions::new().append(true).create(true).open(&log).at("open", &log)?;
    let mut child = Command::new(program)
        .arg("run-local")
        .arg(id)
        .arg("--home")
        .arg(home)
        .stdin(Stdio::null())
        .stdout(output.try_clone().at("open", &log)?)
        .stderr(output)
        .spawn()
        .at("run", program)?;
    let began = Instant::now();
    while began.elapsed() < START_LIMIT {
        if is_running(dir)?.is_some_and(|process| process.pid == child.id()) {
            return Ok(());
        }
        if child.try_wait().at("wait for", program)?.is_some() {
            return if has_finished(dir)? { Ok(()) } else { Err(SpawnError::Ended { log }) };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(SpawnError::Ended { log })
}

/// What a trial's harness is told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct HarnessOptions<'a> {
    /// The file that is read instead of `task.json`.
    pub spec: Option<&'a str>,
    /// The GPUs that it has for itself.
    pub gpus: Option<&'a str>,
}

/// Starts the harness of one trial, in a process group of its own: a Ctrl-C at the terminal is not for it.
pub fn harness(
    program: &Path,
    dir: &TaskDir,
    trial: u32,
    own: HarnessOptions<'_>,
) -> Result<Child, FileError> {
    let folder = dir.slurm_output();
    durable::create_dir_below(&dir.0, &folder).at("make", &folder)?;
    let log = folder.join(format!("local_{trial}.out"));
    let output = OpenOptions::new().append(true).create(true).open(&log).at("open", &log)?;
    let began = Instant::now();
    loop {
        let started = Command::new(program)
            .arg("run")
            .arg("--local")
            .arg("--task-dir")
            .arg(&dir.0)
            .arg("--trial")
            .arg(trial.to_string())
            .args(own.spec.map(|spec| ["--spec", spec]).into_iter().flatten())
            .args(own.gpus.map(|gpus| ["--gpus", gpus]).into_iter().flatten())
            .stdin(Stdio::null())
            .stdout(output.try_clone().at("open", &log)?)
            .stderr(output.try_clone().at("open", &log)?)
            .process_group(0)
            .spawn();
        match started {
            // Somebody who forked meanwhile has it open for writing until they run another program.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && began.elapsed() < BUSY =>
            {
                std::thread::sleep(LOOK);
            }
            started => return started.at("run", program),
        }
    }
}

/// Whether another moment may do better: the limit of processes, memory, open files or disk is reached, or a file is
/// still being written.
pub(super) fn is_passing(error: &FileError) -> bool {
    const KINDS: [ErrorKind; 8] = [
        ErrorKind::ExecutableFileBusy,
        ErrorKind::Interrupted,
        ErrorKind::OutOfMemory,
        ErrorKind::QuotaExceeded,
        ErrorKind::StaleNetworkFileHandle,
        ErrorKind::StorageFull,
        ErrorKind::TimedOut,
        ErrorKind::WouldBlock,
    ];
    const CODES: [i32; 3] = [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::EIO];
    let code = error.source.raw_os_error();
    KINDS.contains(&error.source.kind()) || code.is_some_and(|code| CODES.contains(&code))
}

/// Waits for a harness. Its exit code, or the signal that killed it.
pub fn wait(mut child: Child) -> (Option<i32>, Option<i32>) {
    child.wait().map_or((None, None), |status| (status.code(), status.signal()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_is_still_being_written_is_run_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("harness");
        std::fs::write(&program, "#!/bin/sh\nexit 7\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let writer = OpenOptions::new().write(true).open(&program).unwrap();
        let closer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(writer);
        });
        let child =
            harness(&program, &TaskDir(folder.path().to_owned()), 3, HarnessOptions::default())
                .unwrap();
        closer.join().unwrap();
        assert_eq!(wait(child), (Some(7), None));
    }
}
