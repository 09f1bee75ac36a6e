//! The trial that is run: its task's specification and its parameters, as they were submitted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nemo_core::checksum;
use nemo_core::durable;
use nemo_core::open;
use nemo_core::package::ShippedPackage;
use nemo_core::rundir::{self, Params, TaskDir, TaskSpec, TrialDir, trials};
use nix::sys::signal::Signal;

use crate::attempt::start_error::StartError;
use crate::os::patience::Patience;

/// One trial of a task.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) spec: TaskSpec,
    pub(crate) index: u32,
    pub(crate) params: Params,
    /// Where the other trials lie.
    pub(crate) task: TaskDir,
    pub(crate) dir: TrialDir,
    /// The code that was shipped with the experiment.
    pub(crate) package: Option<ShippedPackage>,
    /// What asks the program to save; none where it saves by itself.
    pub(crate) signal: Option<Signal>,
}

/// Where a task is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskSource {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// The file in it that is read instead of `task.json`.
    pub(crate) spec: Option<String>,
    /// What that file holds, where this process has written it: another job may write it anew.
    pub(crate) text: Option<Vec<u8>>,
    /// The GPUs of this machine that the local runner has given the trial: `CUDA_VISIBLE_DEVICES`.
    pub(crate) gpus: Option<String>,
}

impl TaskSource {
    /// The folder, whatever links lead to it.
    pub(crate) fn task_dir(&self) -> std::io::Result<TaskDir> {
        fs::canonicalize(&self.dir).map(TaskDir)
    }

    /// The file that describes the task.
    pub(crate) fn spec(&self, task: &TaskDir) -> PathBuf {
        self.spec.as_ref().map_or_else(|| task.spec(), |name| task.0.join(name))
    }

    /// What it says.
    pub(crate) fn text(&self, task: &TaskDir) -> std::io::Result<Vec<u8>> {
        self.text.clone().map_or_else(|| fs::read(self.spec(task)), Ok)
    }
}

impl Trial {
    /// Reads the task's files, and makes the trial's folder.
    pub(crate) fn open(
        source: &TaskSource,
        index: u32,
        patience: Patience<'_>,
    ) -> Result<Self, StartError> {
        let found = patience.with(|| source.task_dir());
        let task_dir = found.map_err(|error| StartError::node(&source.dir, &error))?;
        let path = source.spec(&task_dir);
        let text = patience.with(|| source.text(&task_dir));
        let text = text.map_err(|error| StartError::node(&path, &error))?;
        let mut spec: TaskSpec =
            checksum::from_slice(&text).map_err(|error| with_path(&path, &error))?;
        if spec.schema != 1 {
            let text = format!("`{}` has schema {}", path.display(), spec.schema);
            let text = format!("{text}, this nemo-harness reads schema 1; take a newer one");
            return Err(StartError::Permanent(text));
        }
        if let Some(gpus) = &source.gpus {
            spec.env.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus.clone());
        }
        let lines = task_dir.trial_lines();
        let line = patience.with(|| trials::read_one(&lines, index));
        let line = line.map_err(|error| match error.kind() {
            // The disk has answered: no other node would find another line.
            ErrorKind::InvalidData => StartError::Permanent(with_path(&lines, &error)),
            _ => StartError::node(&lines, &error),
        })?;
        let dir = task_dir.trial(index);
        let made = patience.with(|| durable::create_dir_below(&task_dir.0, dir.path()));
        made.map_err(|error| StartError::node(dir.path(), &error))?;
        let package = package(&spec, patience)?;
        let signal = save_signal(&spec.checkpoint.signal)?;
        let (params, task) = (line.params, task_dir);
        let trial = Self { spec, index, params, task, dir, package, signal };
        let params = serde_json::to_vec_pretty(&trial.params).map_err(|error| error.to_string())?;
        let path = trial.dir.params();
        if open::read(&path).ok().as_ref() != Some(&params) {
            let written = patience.with(|| durable::replace_file_durably(&path, &params));
            written.map_err(|error| StartError::node(&path, &error))?;
        }
        Ok(trial)
    }

    /// Where the program runs. A trial whose code was shipped has a folder of its own.
    pub(crate) fn workdir(&self) -> PathBuf {
        match &self.package {
            Some(package) => self.dir.work().join(&package.folder),
            None => self.spec.workdir.clone(),
        }
    }

    /// What names the trial to trackers: the same in all of its attempts, and no other trial's.
    pub(crate) fn run_id(&self) -> String {
        format!("{}-{}-{}", self.spec.experiment, self.spec.task, self.index)
    }

    /// A parameter called `seed`, where there is one.
    pub(crate) fn seed(&self) -> u64 {
        let own = self.params.get("seed").and_then(serde_json::Value::as_u64);
        own.unwrap_or_else(|| self.spec.seed.wrapping_add(u64::from(self.index)))
    }
}

/// An error and the file that it is about.
pub(crate) fn with_path(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("`{}`: {error}", path.display())
}

/// What was shipped with the experiment.
fn package(spec: &TaskSpec, patience: Patience<'_>) -> Result<Option<ShippedPackage>, StartError> {
    let Some(path) = &spec.package else { return Ok(None) };
    let text = patience.with(|| fs::read(path)).map_err(|error| StartError::node(path, &error))?;
    let package = checksum::from_slice(&text).map_err(|error| with_path(path, &error))?;
    Ok(Some(package))
}

fn save_signal(name: &str) -> Result<Option<Signal>, String> {
    if name == rundir::NO_SIGNAL {
        return Ok(None);
    }
    let signal = rundir::save_signal(name).and_then(|short| format!("SIG{short}").parse().ok());
    let names = rundir::SAVE_SIGNALS.join(", ");
    signal
        .map(Some)
        .ok_or_else(|| format!("checkpoint.signal `{name}` is not one of {names}, none"))
}

/// Whether the trial is paused.
pub(crate) fn is_paused(dir: &TrialDir) -> bool {
    // This node may remember for half a minute that a file of a shared disk was not there.
    open::refresh(dir.path());
    dir.pause().exists()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Trial 2 of a task `train` that follows `prep` and, trial by trial, `each`.
    pub(crate) fn trial(params: Value) -> Trial {
        let spec = json!({
            "schema": 1, "experiment": "x-1", "task": "train", "command": {"exec": ["true"]},
            "workdir": "/", "seed": 42, "checkpoint": {"signal": "USR1", "lead": 10},
            "restart": {"crashes": 1, "no_progress": 3},
            "inputs": {"prep": {"dir": "/x/prep", "trials": 2},
                       "each": {"dir": "/x/each", "trials": 3, "per_trial": true}},
        });
        let Value::Object(params) = params else { panic!("parameters are a table") };
        Trial {
            package: None,
            spec: serde_json::from_value(spec).unwrap(),
            index: 2,
            params,
            task: TaskDir("/x/train".into()),
            dir: TrialDir("/x/train/trials/2".into()),
            signal: Some(Signal::SIGUSR1),
        }
    }

    #[test]
    fn what_another_job_writes_meanwhile_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let task = TaskDir(folder.path().to_owned());
        nemo_core::durable::write_synced(&folder.path().join("task.0.json"), b"theirs").unwrap();
        let spec = Some("task.0.json".to_owned());
        let source = TaskSource { dir: task.0.clone(), spec, text: None, gpus: None };
        assert_eq!(source.text(&task).unwrap(), b"theirs");
        let source = TaskSource { text: Some(b"ours".to_vec()), ..source };
        assert_eq!(source.text(&task).unwrap(), b"ours");
    }

    #[test]
    fn a_parameter_called_seed_is_the_seed() {
        assert_eq!(trial(json!({})).seed(), 44);
        assert_eq!(trial(json!({"seed": 7})).seed(), 7);
    }

    #[test]
    fn signals_are_named_with_or_without_sig() {
        assert_eq!(save_signal("SIGUSR2"), Ok(Some(Signal::SIGUSR2)));
        assert_eq!(save_signal("none"), Ok(None));
        assert!(rundir::SAVE_SIGNALS.iter().all(|name| save_signal(name).is_ok()));
        assert!(save_signal("KILL").is_err());
    }
}
