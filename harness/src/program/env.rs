//! The variables that a program is started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use nemo_core::environment::parameter_variable;

use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::job::context::JobContext;
use crate::job::trial::Trial;
use crate::program::command::{AttemptNames, ProgramCommand, fill_variable, plain};
use crate::program::{guard, jobs, scratch, trackers};

/// The values that differ from attempt to attempt.
#[derive(Clone, Debug)]
pub(crate) struct AttemptEnv<'a> {
    pub(crate) attempt: u32,
    pub(crate) resumed: Option<&'a VerifiedCheckpoint>,
    /// Unix seconds.
    pub(crate) deadline: Option<f64>,
    pub(crate) socket: Option<PathBuf>,
    /// A folder on the node.
    pub(crate) scratch: Option<PathBuf>,
    /// What placeholders stand for.
    pub(crate) names: &'a AttemptNames,
    /// A folder that comes first in PATH.
    pub(crate) bin: Option<PathBuf>,
}

/// The variables. A later one replaces an earlier one of the same name.
pub(crate) fn variables(
    trial: &Trial,
    context: &JobContext,
    own: &AttemptEnv<'_>,
    command: &ProgramCommand,
) -> Result<Vec<(String, OsString)>, String> {
    let mut all = of_file(trial, context, own.names)?;
    all.extend(of_attempt(trial, own).map(|(name, value)| (name.to_owned(), value)));
    all.insert(guard::VARIABLE.to_owned(), guard::mark(context).into());
    all.insert(jobs::VARIABLE.to_owned(), jobs::value(&jobs::own()).into());
    if let Some(folder) = &own.scratch {
        all.insert(scratch::VARIABLE.to_owned(), folder.into());
    }
    if let Some(socket) = &own.socket {
        all.insert("NEMO_SOCKET".to_owned(), socket.into());
        all.insert("NOTIFY_SOCKET".to_owned(), socket.into());
    }
    if let Some(bin) = &own.bin {
        let path = all.get("PATH").unwrap_or(&context.path);
        let folders = std::iter::once(bin.clone()).chain(std::env::split_paths(path));
        if let Ok(path) = std::env::join_paths(folders) {
            all.insert("PATH".to_owned(), path);
        }
    }
    if let Some(hang) = trial.spec.restart.hang {
        // Users of sd_notify derive their period from it.
        let micros = hang.saturating_mul(1_000_000).to_string();
        all.insert("WATCHDOG_USEC".to_owned(), micros.into());
    }
    all.extend(command.env.iter().map(|(name, value)| (name.clone(), value.into())));
    Ok(all.into_iter().collect())
}

/// What follows from the file of the experiment: defaults, `env` of the executor, and the parameters.
fn of_file(
    trial: &Trial,
    context: &JobContext,
    names: &AttemptNames,
) -> Result<BTreeMap<String, OsString>, String> {
    let mut all: BTreeMap<String, OsString> = BTreeMap::new();
    let mut defaults = vec![("PYTHONUNBUFFERED", "1".into())];
    let threads = trial.spec.threads.filter(|_| context.slurm.is_some());
    defaults.extend(threads.map(|threads| ("OMP_NUM_THREADS", threads.to_string().into())));
    let is_set = |name: &str| context.is_set(name) || trial.spec.env.contains_key(name);
    defaults.extend(trackers::variables(trial, is_set));
    let unset = defaults.into_iter().filter(|(name, _)| !is_set(name));
    all.extend(unset.map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in &trial.spec.env {
        let filled = fill_variable(trial, names, value);
        let filled = filled.map_err(|why| format!("`env.{name}`: {why}"))?;
        all.insert(name.clone(), filled.into());
    }
    for (name, value) in &trial.params {
        all.insert(parameter_variable(name), plain(value).replace('\0', "").into());
    }
    Ok(all)
}

/// What tells a program which attempt it is.
fn of_attempt(trial: &Trial, own: &AttemptEnv<'_>) -> [(&'static str, OsString); 13] {
    let AttemptEnv { attempt, resumed, deadline, names, .. } = own;
    let resume_from = resumed.map(|resumed| resumed.from.clone().into_os_string());
    let resume_step = resumed.map(|resumed| resumed.reached().to_string());
    [
        ("NEMO_EXPERIMENT", trial.spec.experiment.clone().into()),
        ("NEMO_TASK", trial.spec.task.clone().into()),
        ("NEMO_TRIAL", trial.index.to_string().into()),
        ("NEMO_RUN_ID", trial.run_id().into()),
        ("NEMO_ATTEMPT", attempt.to_string().into()),
        ("NEMO_PARAMS", trial.dir.params().into()),
        ("NEMO_SEED", trial.seed().to_string().into()),
        ("NEMO_DIR", trial.dir.path().into()),
        ("NEMO_RESULT", trial.dir.result().into()),
        ("NEMO_CHECKPOINT_DIR", names.checkpoint_dir.clone().into()),
        ("NEMO_RESUME_FROM", resume_from.unwrap_or_default()),
        ("NEMO_RESUME_STEP", resume_step.unwrap_or_default().into()),
        ("NEMO_DEADLINE", deadline.map_or(String::new(), |at| format!("{at:.0}")).into()),
    ]
}
