//! The trial that is run: its task's specification and its parameters, as they were submitted.

use std::fs;
use std::path::Path;

use nemo_core::checksum;
use nemo_core::durable;
use nemo_core::rundir::{self, Params, TaskDir, TaskSpec, TrialDir, trials};
use nix::sys::signal::Signal;

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
    /// What asks the program to save.
    pub(crate) signal: Signal,
}

impl Trial {
    /// Reads the task's files, and makes the trial's folder.
    pub(crate) fn open(
        task_dir: &Path,
        index: u32,
        patience: Patience<'_>,
    ) -> Result<Self, String> {
        let found = patience.with(|| fs::canonicalize(task_dir));
        let task_dir = found.map_err(|error| with_path(task_dir, &error))?;
        let task_dir = TaskDir(task_dir);
        let path = task_dir.spec();
        let text = patience.with(|| fs::read(&path)).map_err(|error| with_path(&path, &error))?;
        let spec: TaskSpec =
            checksum::from_slice(&text).map_err(|error| with_path(&path, &error))?;
        if spec.schema != 1 {
            let text = format!("`{}` has schema {}", path.display(), spec.schema);
            return Err(format!("{text}, this nemo-harness reads schema 1; take a newer one"));
        }
        let lines = task_dir.trial_lines();
        let line = patience.with(|| trials::read_one(&lines, index));
        let line = line.map_err(|error| with_path(&lines, &error))?;
        let dir = task_dir.trial(index);
        let made = patience.with(|| durable::create_dir_all(dir.path()));
        made.map_err(|error| with_path(dir.path(), &error))?;
        let signal = save_signal(&spec.checkpoint.signal)?;
        let trial = Self { spec, index, params: line.params, task: task_dir, dir, signal };
        let params = serde_json::to_vec_pretty(&trial.params).map_err(|error| error.to_string())?;
        let path = trial.dir.params();
        if fs::read(&path).ok().as_ref() != Some(&params) {
            let written = patience.with(|| durable::replace_file_durably(&path, &params));
            written.map_err(|error| with_path(&path, &error))?;
        }
        Ok(trial)
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

fn save_signal(name: &str) -> Result<Signal, String> {
    let signal = rundir::save_signal(name).and_then(|short| format!("SIG{short}").parse().ok());
    let names = rundir::SAVE_SIGNALS.join(", ");
    signal.ok_or_else(|| format!("checkpoint.signal `{name}` is none of {names}"))
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
            spec: serde_json::from_value(spec).unwrap(),
            index: 2,
            params,
            task: TaskDir("/x/train".into()),
            dir: TrialDir("/x/train/trials/2".into()),
            signal: Signal::SIGUSR1,
        }
    }

    #[test]
    fn a_parameter_called_seed_is_the_seed() {
        assert_eq!(trial(json!({})).seed(), 44);
        assert_eq!(trial(json!({"seed": 7})).seed(), 7);
    }

    #[test]
    fn signals_are_named_with_or_without_sig() {
        assert_eq!(save_signal("SIGUSR2"), Ok(Signal::SIGUSR2));
        assert!(rundir::SAVE_SIGNALS.iter().all(|name| save_signal(name).is_ok()));
        assert!(save_signal("KILL").is_err());
    }
}
