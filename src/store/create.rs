//! Makes an experiment's folder, whole or not at all.

use std::io::Write;
use std::path::Path;

use nemo_harness::rundir::{ExperimentDir, Params, TaskSpec, durable};
use serde::Serialize;

use super::{ExperimentId, Home, StoreError, at};
use crate::experiment::Experiment;
use crate::plan::Plan;

/// All that is written down of an experiment before anything is asked of Slurm.
#[derive(Debug)]
pub struct NewExperiment<'a> {
    /// Its id.
    pub id: &'a ExperimentId,
    /// The file as the user gave it.
    pub toml: &'a str,
    /// The same, resolved.
    pub experiment: &'a Experiment,
    /// What will be asked of Slurm; nothing on the local executor.
    pub plan: Option<&'a Plan>,
    /// Its tasks, in the same order.
    pub tasks: Vec<NewTask>,
}

/// What is written down of one task.
#[derive(Debug)]
pub struct NewTask {
    /// For the harness.
    pub spec: TaskSpec,
    /// The scripts of its arrays in order. None on the local executor.
    pub scripts: Vec<String>,
}

/// Writes the folder under another name, makes it durable, and renames it: an experiment is there whole or not at all.
///
/// The number of files does not depend on the number of trials.
#[expect(
    clippy::disallowed_methods,
    reason = "renames a folder that was made durable, then syncs its parent"
)]
pub fn create(home: &Home, new: &NewExperiment<'_>) -> Result<ExperimentDir, StoreError> {
    let parent = home.experiments();
    at("make", &parent, durable::create_dir_all(&parent))?;
    let finished = home.experiment(new.id);
    let draft = ExperimentDir(parent.join(format!(".new-{}", new.id)));
    at("make", &draft.0, std::fs::create_dir(&draft.0))?;
    write_file(&draft.experiment_toml(), new.toml.as_bytes())?;
    write_file(&draft.experiment_json(), &json(new.experiment))?;
    if let Some(plan) = new.plan {
        write_file(&plan_file(&draft), &json(plan))?;
    }
    write_file(&draft.journal(), b"")?;
    at("make", &draft.requests(), durable::create_dir_all(&draft.requests()))?;
    for (task, plain) in new.tasks.iter().zip(&new.experiment.tasks) {
        write_task(&draft, task, &plain.trials)?;
    }
    at("sync", &draft.0, durable::sync_dir(&draft.0))?;
    at("rename", &draft.0, std::fs::rename(&draft.0, &finished.0))?;
    at("sync", &parent, durable::sync_dir(&parent))?;
    Ok(finished)
}

/// `plan.json`: what is asked of Slurm, so that an interrupted submission goes on with the very same.
#[must_use]
pub fn plan_file(dir: &ExperimentDir) -> std::path::PathBuf {
    dir.0.join("plan.json")
}

fn write_task(draft: &ExperimentDir, task: &NewTask, trials: &[Params]) -> Result<(), StoreError> {
    let dir = draft.task(&task.spec.task);
    let output = dir.slurm_output();
    at("make", &output, durable::create_dir_all(&output))?;
    write_file(&dir.spec(), &json(&task.spec))?;
    write_file(&dir.trial_lines(), &trial_lines(trials))?;
    for (array, script) in task.scripts.iter().enumerate() {
        write_file(&dir.script(array), script.as_bytes())?;
    }
    at("sync", &dir.0, durable::sync_dir(&dir.0))
}

fn trial_lines(trials: &[Params]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        trial: usize,
        params: &'a Params,
    }
    let mut text = Vec::new();
    for (trial, params) in trials.iter().enumerate() {
        text.extend(compact(&Line { trial, params }));
        text.push(b'\n');
    }
    text
}

fn write_file(path: &Path, data: &[u8]) -> Result<(), StoreError> {
    at("write", path, durable::write_synced(path, data))
}

/// Our own types have no key or value that JSON could not hold.
fn compact(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Puts a copy of a program into the home, named by its content, and returns its path. One that is there is kept.
pub fn install_program(home: &Home, program: &Path) -> Result<std::path::PathBuf, StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let folder = home.programs();
    at("make", &folder, durable::create_dir_all(&folder))?;
    let content = at("read", program, std::fs::read(program))?;
    let hash = blake3::hash(&content).to_hex();
    let path = folder.join(format!("nemo-harness-{}", &hash[..12]));
    if path.is_file() {
        return Ok(path);
    }
    let persist = || {
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(&content)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o700))?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        durable::sync_dir(&folder)
    };
    at("write", &path, persist())?;
    Ok(path)
}
