//! A home of its own for each test, and the program run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use nemo_core::rundir::TrialDir;
use serde_json::Value;
use tempfile::TempDir;

use crate::promises;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// How long a command may run that nobody wants to run long.
const NEVER_LONGER: Duration = Duration::from_mins(8);

/// A home, a folder for experiments' files, and a PATH.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) path: String,
    pub(crate) slurm_conf: Option<String>,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = TempDir::new().unwrap();
        Self { folder, path, slurm_conf: std::env::var("SLURM_CONF").ok() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an experiment's file, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program with arguments, ready to run.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nemo-slurm"));
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    /// Puts any command into this world.
    pub(crate) fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.folder.path())
            .env("NEMO_SLURM_HOME", self.path("home"))
            .env("NEMO_HARNESS", harness())
            .env("PATH", &self.path)
            .env("NO_COLOR", "1")
            .env("COLUMNS", "120")
            .stdin(Stdio::null());
        match &self.slurm_conf {
            Some(conf) => command.env("SLURM_CONF", conf),
            None => command.env_remove("SLURM_CONF"),
        };
    }

    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Printed {
        printed_in_time(&mut self.command(arguments))
    }

    /// Runs a command that must succeed, and returns its stdout without the last line break.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let printed = self.run(arguments);
        assert_eq!(printed.code, 0, "{arguments:?}: {printed:?}");
        printed.stdout.trim_end().to_owned()
    }

    /// What one of Slurm's programs prints. It must succeed.
    #[track_caller]
    pub(crate) fn slurm(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        self.surround(&mut command);
        let printed = printed(&command.args(arguments).output().unwrap());
        assert_eq!(printed.code, 0, "{program} {arguments:?}: {printed:?}");
        printed.stdout
    }

    /// `status --json` of a target.
    #[track_caller]
    pub(crate) fn status(&self, target: &str) -> Value {
        serde_json::from_str(&self.ok(&["status", target, "--json"])).unwrap()
    }

    /// Asserts all promises of every trial that ran, after a fault.
    #[track_caller]
    pub(crate) fn hold(&self, fault: &str, id: &str) {
        hold_in(fault, &self.experiment(id));
    }

    /// The folder of an experiment.
    pub(crate) fn experiment(&self, id: &str) -> PathBuf {
        self.path("home").join("experiments").join(id)
    }

    /// Looks at a status until it is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, target: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status(target);
            if wanted(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {status:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Asserts all promises of every trial that ran in an experiment's folder, after a fault.
#[track_caller]
pub(crate) fn hold_in(fault: &str, experiment: &Path) {
    let trials = experiment.join("tasks/train/trials");
    let trials: Vec<PathBuf> =
        std::fs::read_dir(trials).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!trials.is_empty(), "{fault}: no trial ran");
    for trial in trials {
        promises::hold(fault, &TrialDir(trial), promises::Left::InOrder);
    }
}

/// The harness that was built with this program.
pub(crate) fn harness() -> PathBuf {
    let harness = Path::new(env!("CARGO_BIN_EXE_nemo-slurm")).with_file_name("nemo-harness");
    assert!(harness.is_file(), "build it first: cargo build --workspace");
    harness
}

/// Runs a command. One that does not come back fails its test: the others go on, and the reason is seen.
#[track_caller]
fn printed_in_time(command: &mut Command) -> Printed {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        let is_late = is_over.recv_timeout(NEVER_LONGER) == Err(RecvTimeoutError::Timeout);
        is_late && Command::new("kill").args(["-KILL", &pid]).status().is_ok()
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    let printed = printed(&output);
    assert!(!guard.join().unwrap(), "{command:?} ran for {NEVER_LONGER:?}: {printed:?}");
    printed
}

pub(crate) fn printed(output: &Output) -> Printed {
    Printed {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The states of a task's trials, in order.
pub(crate) fn states(status: &Value, task: &str) -> Vec<String> {
    trials(status, task).iter().map(|trial| text(&trial["state"])).collect()
}

/// The trials of a task.
pub(crate) fn trials<'a>(status: &'a Value, task: &str) -> &'a [Value] {
    let tasks = status["tasks"].as_array().unwrap();
    let task = tasks.iter().find(|status| status["name"] == task).unwrap();
    task["trials"].as_array().unwrap()
}

/// The causes of a trial's attempts, in order.
pub(crate) fn causes(trial: &Value) -> Vec<String> {
    trial["attempts"].as_array().unwrap().iter().map(|attempt| text(&attempt["cause"])).collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
