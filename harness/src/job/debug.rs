//! `nemo-harness debug`: runs a trial's program in place of this process, in the foreground and unsupervised. `nemo-slurm
//! debug` starts it in a copy of what the trial needs.
#![expect(clippy::disallowed_methods, reason = "an edge: this process becomes the program")]

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nemo_core::rundir::ExperimentDir;
use nix::sys::signal::SigSet;

use crate::attempt::own_paths::restore_plan;
use crate::checkpoint::restore;
use crate::checkpoint::resume::{self, RecordedSteps, VerifiedCheckpoint};
use crate::checkpoint::store::DiskStore;
use crate::job::context::JobContext;
use crate::job::environment;
use crate::job::inputs;
use crate::job::trial::{TaskSource, Trial, with_path};
use crate::job::work_folder;
use crate::os::clock::Clock;
use crate::os::log::log_stderr;
use crate::os::patience::Patience;
use crate::os::signals;
use crate::program::command::{self, AttemptNames, Shells};
use crate::program::env::{self, AttemptEnv};

/// What a lease is to an attempt: nobody else works in the copy.
const NONCE: &str = "debug";
/// How long to wait for a disk that is full or fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which attempt is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DebugOptions {
    pub(crate) source: TaskSource,
    pub(crate) trial: u32,
    pub(crate) attempt: u32,
    /// This process has the environment that the program inherits.
    pub(crate) in_environment: bool,
    /// The folder is a copy, of which the secrets are not needed once they are read.
    pub(crate) remove_secrets: bool,
}

/// Becomes the program. Returns only with an error.
pub(crate) fn run(options: &DebugOptions) -> Result<u8, String> {
    if !options.in_environment {
        environment::enter(&options.source, true).map_err(|error| error.to_string())?;
    }
    if options.remove_secrets {
        remove_secrets(&options.source)?;
    }
    let signals = signals::listen().map_err(|error| format!("signals: {error}"))?;
    let clock = Clock::start();
    let patience = Patience { signals: &signals, clock, until: clock.now() + PATIENCE };
    let context = JobContext::read(true).map_err(|error| format!("/proc: {error}"))?;
    let trial = Trial::open(&options.source, options.trial, patience);
    let mut trial = trial.map_err(|why| why.to_string())?;
    trial.spec.trackers.clear(); // what is tried here is no part of the trial's run
    let dir = &trial.dir;
    for folder in [dir.staging(options.attempt), dir.artifacts()] {
        fs::create_dir_all(&folder).map_err(|error| with_path(&folder, &error))?;
    }
    let found = resume::find(
        &mut DiskStore::default(),
        &dir.checkpoints(),
        &RecordedSteps::default(),
        NONCE,
    );
    let resumed = found.map_err(|error| error.to_string())?.resumed;
    let from = resumed.as_ref().map(|resumed| resumed.from.display().to_string());
    let names = AttemptNames {
        checkpoint_dir: dir.staging(options.attempt).display().to_string(),
        resume_from: from.unwrap_or_default(),
        values: inputs::read(&trial).map_err(|error| error.to_string())?,
    };
    let command = command::build(&trial, &names, Shells::of(&context))?;
    let own = AttemptEnv {
        attempt: options.attempt,
        resumed: resumed.as_ref(),
        deadline: None,
        socket: None,
        scratch: None,
        names: &names,
        bin: None,
    };
    let variables = env::variables(&trial, &context, &own, &command)?;
    let Some((program, arguments)) = command.argv.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let changed =
        work_folder::prepare(&trial, &context, patience).map_err(|error| error.to_string())?;
    if let Some(changed) = changed {
        log_stderr(&changed);
    }
    restore_own(&trial, resumed.as_ref())?;
    let workdir = trial.workdir();
    drop(signals);
    let mut becoming = Command::new(program);
    becoming.args(arguments).envs(variables).current_dir(&workdir);
    // What this process becomes inherits what is blocked: Ctrl-C, for one, is for it.
    SigSet::empty().thread_set_mask().map_err(|error| format!("signals: {error}"))?;
    let error = becoming.exec();
    Err(format!("{error}: `{}` in `{}`", program.display(), workdir.display()))
}

/// Puts the checkpoint where the program looks for it by itself, if that is in the copy: what lies elsewhere is not touched.
fn restore_own(trial: &Trial, resumed: Option<&VerifiedCheckpoint>) -> Result<(), String> {
    let Some(resumed) = resumed else { return Ok(()) };
    let Some(plan) = restore_plan(trial, NONCE, true)? else { return Ok(()) };
    if !plan.target.starts_with(trial.dir.path()) {
        return Ok(());
    }
    let restored = restore::prepare(&mut DiskStore::default(), &plan, Some(resumed), &|| Ok(true));
    restored.map(drop).map_err(|error| with_path(&plan.target, &error))
}

fn remove_secrets(source: &TaskSource) -> Result<(), String> {
    let task_dir = source.task_dir().map_err(|error| with_path(&source.dir, &error))?;
    let Some(path) = ExperimentDir::of_task(&task_dir).map(|dir| dir.secrets()) else {
        return Ok(());
    };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(with_path(&path, &error)),
        _ => Ok(()),
    }
}
