//! Makes an experiment's folder, whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nemo_core::environment::{self, Variable};
use nemo_core::process_id::ProcessId;
use nemo_core::rundir::{ExperimentDir, Params, TaskSpec};
use nemo_core::{checksum, durable};
use serde::Serialize;

use super::{ClaimHolder, ExperimentId, Home, StoreError, at, claim};
use crate::experiment::{Experiment, TrialParams};
use crate::journal::Event;
use crate::parallel::{join, map_chunks};

/// All that is written down of an experiment before anything is asked of Slurm.
#[derive(Debug)]
pub struct NewExperiment<'a> {
    /// Its id.
    pub id: &'a ExperimentId,
    /// The file as the user gave it.
    pub toml: &'a str,
    /// The same, resolved.
    pub experiment: &'a Experiment,
    /// What each of its trials is given.
    pub params: &'a TrialParams,
    /// The first lines of its journal.
    pub journal: &'a [Event],
    /// What its programs inherit of the environment.
    pub environment: &'a KeptEnvironment,
    /// The process that will submit it, where one will.
    pub holder: Option<&'a ClaimHolder>,
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
    remove_abandoned(&parent, new.id.made_at());
    let dir = ExperimentDir(parent.join(draft_name(new.id)));
    let mut draft = StagedFiles::default();
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
    for task in &new.tasks {
        let trials = new.params.get(&task.spec.task).map(Vec::as_slice).unwrap_or_default();
        write_task(&mut draft, &dir, task, trials)?;
    }
    draft.sync()?;
    at("rename", &dir.0, std::fs::rename(&dir.0, &finished.0))?;
    at("sync", &parent, durable::sync_dir(&parent))?;
    Ok(finished)
}

/// More at once would gain nothing.
const SYNCS_AT_ONCE: usize = 8;
/// So many files are open before they are synced and closed: less than the usual limits of a process.
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
        if self.files.len() >= OPEN_FILES { self.sync_files() } else { Ok(()) }
    }

    fn sync_files(&mut self) -> Result<(), StoreError> {
        let sync = |(path, file): &(PathBuf, File)| at("sync", path, file.sync_all());
        side_by_side(&std::mem::take(&mut self.files), sync)
    }

    /// Nobody sees any of it before the rename, and all names are there by now: files and folders may become durable in
    /// any order, and so at once.
    fn sync(mut self) -> Result<(), StoreError> {
        let folders = std::mem::take(&mut self.folders);
        let sync_folder = |path: &PathBuf| at("sync", path, durable::sync_dir(path));
        let (folders, files) = join(|| side_by_side(&folders, sync_folder), || self.sync_files());
        folders.and(files)
    }
}

/// Does the same to all, side by side: a file system commits what comes together as one.
fn side_by_side<T: Sync>(
    all: &[T],
    act: impl Fn(&T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let parts = all.chunks(all.len().div_ceil(SYNCS_AT_ONCE).max(1));
    map_chunks(parts, |part| part.iter().try_for_each(&act)).into_iter().collect()
}

/// What the name of a folder begins with that is being made.
const DRAFT: &str = ".new-";
/// Seconds after which nobody can still be making a folder.
const ABANDONED: u64 = 86_400;

/// The folder's name while this process makes it: `.new-<id>~<pid>~<start_ticks>~<host>`, so that others see whether
/// it still does.
fn draft_name(id: &ExperimentId) -> String {
    let this = ProcessId::current();
    format!("{DRAFT}{id}~{}~{}~{}", this.pid, this.start_ticks, this.node)
}

/// Removes what killed submissions left half made. What can't be removed is tried again by the next submission.
fn remove_abandoned(parent: &Path, now: u64) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| is_abandoned(name, now)) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// Whether a name is that of a draft whose maker is dead or, on another host, must have been long done.
fn is_abandoned(name: &str, now: u64) -> bool {
    let Some(rest) = name.strip_prefix(DRAFT) else { return false };
    let mut parts = rest.splitn(4, '~');
    let made = parts.next().and_then(|id| id.parse::<ExperimentId>().ok());
    let is_old = made.is_some_and(|id| id.made_at() + ABANDONED < now);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(pid), Some(start_ticks)) = (number(), number()) else { return is_old };
    let this = ProcessId::current();
    if parts.next() != Some(this.node.as_str()) {
        return is_old;
    }
    let pid = u32::try_from(pid).unwrap_or(0);
    !ProcessId { pid, start_ticks, ..this }.is_alive_on_this_node()
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
    fn only_what_nobody_makes_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let this = ProcessId::current();
        let id: ExperimentId = "digits-1rs0xg11".parse().unwrap();
        let (now, later) = (id.made_at(), id.made_at() + ABANDONED + 1);
        let other = |ticks, host: &str| format!(".new-{id}~{}~{ticks}~{host}", this.pid);
        let own = draft_name(&id);
        let dead = other(this.start_ticks + 1, &this.node);
        let elsewhere = other(this.start_ticks, "login1");
        let nameless = format!(".new-{id}");
        for name in [&own, &dead, &elsewhere, &nameless, &id.to_string()] {
            std::fs::create_dir_all(folder.path().join(name).join("tasks")).unwrap();
        }
        let left = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let expected = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            names.sort();
            names
        };
        remove_abandoned(folder.path(), now);
        assert_eq!(left(), expected(&[&own, &elsewhere, &nameless, id.as_str()]));
        remove_abandoned(folder.path(), later);
        assert_eq!(left(), expected(&[&own, id.as_str()]));
    }

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
