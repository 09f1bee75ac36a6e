//! Makes an experiment's folder, whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nemo_core::environment::{self, Variable};
use nemo_core::rundir::{ExperimentDir, Params, TaskSpec};
use nemo_core::{checksum, durable};
use serde::Serialize;

use super::{ExperimentId, Holder, Home, StoreError, at, claim};
use crate::beside::each_part;
use crate::experiment::Experiment;
use crate::journal::Event;

/// All that is written down of an experiment before anything is asked of Slurm.
#[derive(Debug)]
pub struct NewExperiment<'a> {
    /// Its id.
    pub id: &'a ExperimentId,
    /// The file as the user gave it.
    pub toml: &'a str,
    /// The same, resolved.
    pub experiment: &'a Experiment,
    /// The first lines of its journal.
    pub journal: &'a [Event],
    /// What its programs inherit of the environment.
    pub environment: &'a KeptEnvironment,
    /// The process that will submit it, where one will.
    pub holder: Option<&'a Holder>,
    /// Its tasks, in the same order.
    pub tasks: Vec<NewTask>,
}

/// The variables that programs inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptEnvironment {
    /// All but the secrets.
    pub plain: Vec<Variable>,
    /// Those that the file calls secrets.
    pub secrets: Vec<Variable>,
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
    let dir = ExperimentDir(parent.join(format!(".new-{}", new.id)));
    let mut draft = Draft::default();
    draft.folder(&dir.0)?;
    draft.file(&dir.experiment_toml(), new.toml.as_bytes())?;
    draft.file(&dir.experiment_json(), &file(&dir.experiment_json(), new.experiment)?)?;
    draft.file(&dir.journal(), &json_lines(&dir.journal(), new.journal)?)?;
    draft.file(&dir.environment(), &environment::to_file(&new.environment.plain))?;
    if !new.environment.secrets.is_empty() {
        draft.file(&dir.secrets(), &environment::to_file(&new.environment.secrets))?;
    }
    if let Some(holder) = new.holder {
        let (path, text) = claim::first(&dir, holder);
        draft.file(&path, &as_json(&path, text)?)?;
    }
    draft.folder(&dir.tasks())?;
    for (task, plain) in new.tasks.iter().zip(&new.experiment.tasks) {
        write_task(&mut draft, &dir, task, &plain.trials)?;
    }
    draft.sync()?;
    at("rename", &dir.0, std::fs::rename(&dir.0, &finished.0))?;
    at("sync", &parent, durable::sync_dir(&parent))?;
    Ok(finished)
}

/// More at once would gain nothing.
const SYNCS_AT_ONCE: usize = 8;

/// Files and folders that nobody sees before they are renamed: all are written first and then synced, which costs a
/// file system less than one by one.
#[derive(Default)]
struct Draft {
    entries: Vec<(PathBuf, File)>,
}

impl Draft {
    fn folder(&mut self, path: &Path) -> Result<(), StoreError> {
        at("make", path, std::fs::DirBuilder::new().mode(0o700).create(path))?;
        let folder = at("read", path, File::open(path))?;
        self.entries.push((path.to_owned(), folder));
        Ok(())
    }

    fn file(&mut self, path: &Path, data: &[u8]) -> Result<(), StoreError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let mut file = at("write", path, file)?;
        at("write", path, file.write_all(data))?;
        self.entries.push((path.to_owned(), file));
        Ok(())
    }

    /// Side by side, since a file system commits what comes together as one.
    fn sync(self) -> Result<(), StoreError> {
        let sync = |entries: &[(PathBuf, File)]| {
            entries.iter().try_for_each(|(path, entry)| at("sync", path, entry.sync_all()))
        };
        let parts = self.entries.chunks(self.entries.len().div_ceil(SYNCS_AT_ONCE).max(1));
        each_part(parts, sync).into_iter().collect()
    }
}

fn write_task(
    draft: &mut Draft,
    dir: &ExperimentDir,
    task: &NewTask,
    trials: &[Params],
) -> Result<(), StoreError> {
    let dir = dir.task(&task.spec.task);
    draft.folder(&dir.0)?;
    let output = dir.slurm_output();
    at("make", &output, std::fs::DirBuilder::new().mode(0o700).create(&output))?;
    draft.file(&dir.spec(), &file(&dir.spec(), &task.spec)?)?;
    draft.file(&dir.trial_lines(), &trial_lines(&dir.trial_lines(), trials)?)?;
    for (array, script) in task.scripts.iter().enumerate() {
        draft.file(&dir.script(array), script.as_bytes())?;
    }
    Ok(())
}

fn trial_lines(path: &Path, trials: &[Params]) -> Result<Vec<u8>, StoreError> {
    #[derive(Serialize)]
    struct Line<'a> {
        trial: usize,
        params: &'a Params,
    }
    let line = |(trial, params)| Line { trial, params };
    json_lines(path, &trials.iter().enumerate().map(line).collect::<Vec<_>>())
}

fn json_lines(path: &Path, rows: &[impl Serialize]) -> Result<Vec<u8>, StoreError> {
    let mut text = Vec::new();
    for row in rows {
        text.extend(as_json(path, checksum::to_vec(row))?);
        text.push(b'\n');
    }
    Ok(text)
}

fn file(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    as_json(path, checksum::to_vec_pretty(value))
}

/// A file that can't hold its content is never written: an empty one would stand for something.
fn as_json(path: &Path, text: serde_json::Result<Vec<u8>>) -> Result<Vec<u8>, StoreError> {
    text.map_err(|source| StoreError::NotJson { path: path.to_owned(), source })
}
