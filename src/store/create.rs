//! Makes an experiment's folder, whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nemo_core::environment::{self, Variable};
use nemo_core::rundir::{ExperimentDir, Params, TaskSpec};
use nemo_core::{checksum, durable, open};
use serde::Serialize;

use super::{ClaimHolder, ConfigFile, ExperimentId, Home, StoreError, at, claim, draft};
use crate::experiment::{Experiment, TrialParams};
use crate::journal::Event;
use crate::package::Shipped;
use crate::parallel::map_chunks;

/// All that is written down of an experiment before anything is asked of Slurm.
#[derive(Debug)]
pub struct NewExperiment<'a> {
    /// Its id.
    pub id: &'a ExperimentId,
    /// The file as the user gave it.
    pub toml: &'a str,
    /// The same, resolved.
    pub experiment: &'a Experiment,
    /// The file as it holds, and the state of its code, where somebody may ask for it.
    pub config: Option<&'a ConfigFile>,
    /// What each of its trials is given.
    pub params: &'a TrialParams,
    /// The first lines of its journal.
    pub journal: &'a [Event],
    /// What its programs inherit of the environment.
    pub environment: &'a KeptEnvironment,
    /// The process that will submit it, where one will.
    pub holder: Option<&'a ClaimHolder>,
    /// The code that was shipped with it.
    pub shipped: Option<&'a Shipped>,
    /// Its tasks.
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
    draft::remove_abandoned(&parent, new.id.made_at());
    let dir = ExperimentDir(parent.join(draft::name(new.id.as_str())));
    let mut draft = StagedFiles::default();
    draft.folder(&dir.0)?;
    draft.file(&dir.experiment_toml(), new.toml.as_bytes())?;
    draft.file(&dir.experiment_json(), &file(&dir.experiment_json(), new.experiment)?)?;
    if let Some(config) = new.config {
        draft.file(&dir.config(), &file(&dir.config(), config)?)?;
    }
    if let Some(shipped) = new.shipped {
        draft.file(&dir.package(), &file(&dir.package(), &shipped.package)?)?;
        if let Some(patch) = &shipped.uncommitted {
            draft.file(&dir.uncommitted(), patch)?;
        }
    }
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
    for task in &new.tasks {
        let trials = new.params.get(&task.spec.task).map(Vec::as_slice).unwrap_or_default();
        write_task(&mut draft, &dir, task, trials)?;
    }
    draft.sync()?;
    at("rename", &dir.0, std::fs::rename(&dir.0, &finished.0))?;
    at("sync", &parent, durable::sync_dir(&parent))?;
    Ok(finished)
}

/// As many as an experiment of a few tasks has: a file system commits what comes together as one, and what is begun while
/// others are under way needs a commit of its own.
const SYNCS_AT_ONCE: usize = 32;
/// The most files that are open before they are synced and closed: less than the usual limit of a process.
const OPEN_FILES: usize = 128;

/// Files and folders that nobody sees before they are renamed: many are written first and then synced, which costs a
/// file system less than one by one.
#[derive(Default)]
struct StagedFiles {
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, File)>,
}

impl StagedFiles {
    fn folder(&mut self, path: &Path) -> Result<(), StoreError> {
        at("make", path, std::fs::DirBuilder::new().mode(0o700).create(path))?;
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path, data: &[u8]) -> Result<(), StoreError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let mut file = at("write", path, file)?;
        at("write", path, file.write_all(data))?;
        self.files.push((path.to_owned(), file));
        sync_if_many(&mut self.files)
    }

    /// Nobody sees any of it before the rename, and all names are there by now: files and folders may become durable in
    /// any order, and so at once.
    fn sync(self) -> Result<(), StoreError> {
        let Self { folders, mut files } = self;
        for path in folders {
            let folder = at("sync", &path, open::folder(&path))?;
            files.push((path, folder));
            sync_if_many(&mut files)?;
        }
        sync_all(&files)
    }
}

/// Syncs and closes what is open before it is too much for a process.
fn sync_if_many(files: &mut Vec<(PathBuf, File)>) -> Result<(), StoreError> {
    if files.len() >= OPEN_FILES { sync_all(&std::mem::take(files)) } else { Ok(()) }
}

fn sync_all(files: &[(PathBuf, File)]) -> Result<(), StoreError> {
    let sync = |part: &[(PathBuf, File)]| {
        part.iter().try_for_each(|(path, file)| at("sync", path, file.sync_all()))
    };
    let part = files.len().div_ceil(SYNCS_AT_ONCE).max(1);
    map_chunks(files.chunks(part), sync).into_iter().collect()
}

fn write_task(
    draft: &mut StagedFiles,
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
    struct ParamsLine<'a> {
        trial: usize,
        params: &'a Params,
    }
    json_lines(
        path,
        &trials
            .iter()
            .enumerate()
            .map(|(trial, params)| ParamsLine { trial, params })
            .collect::<Vec<_>>(),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_need_few_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = StagedFiles::default();
        for number in 0..1000 {
            draft.file(&folder.path().join(number.to_string()), b"x").unwrap();
            assert!(draft.files.len() < OPEN_FILES);
        }
        draft.sync().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1000);
    }
}
