//! What a trial's command takes over from the tasks before it: their results, and the best of their trials. Read when the
//! attempt starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nemo_core::placeholder::{TaskValue, names};
use nemo_core::retention;
use nemo_core::rundir::{
    AttemptRecord, InputSpec, MetricSpec, MetricsLine, Next, TaskDir, TrialDir,
};
use nemo_core::{lines, open};
use serde_json::{Map, Value};

use crate::attempt::start_error::StartError;
use crate::checkpoint::manifest::{self, CheckpointForm, Manifest, ManifestEntry};
use crate::checkpoint::resume::step_of;
use crate::checkpoint::store::join;
use crate::job::trial::{Trial, with_path};
use crate::os::patience::may_pass;
use crate::program::command::plain;

/// The values of placeholders that are read from other tasks, by the name between the braces.
pub(crate) type TaskValues = BTreeMap<String, String>;

/// How many keys of a result a message names.
const NAMED: usize = 10;

/// Reads every value that the trial's commands and environment name. Of one that is missing the error says what and where.
pub(crate) fn read(trial: &Trial) -> Result<TaskValues, StartError> {
    let mut values = TaskValues::new();
    // What is named by a command that runs hours later only is to be missed now.
    for name in trial.spec.templates().flat_map(names) {
        let named = TaskValue::of(name, |task| trial.spec.inputs.contains_key(task));
        let Some((task, wanted)) = named else { continue };
        let Some(input) = trial.spec.inputs.get(task) else { continue };
        let source = InputReader { task, input, index: trial.index };
        let found = source.value(wanted).map_err(|error| error.about(name))?;
        values.extend(found.map(|found| (name.to_owned(), found)));
    }
    Ok(values)
}

/// Why a value can't be had.
enum InputError {
    /// It is not there.
    Missing(String),
    /// This node can't read it now.
    Node(String),
}

impl InputError {
    fn file(path: &Path, error: &io::Error) -> Self {
        let text = with_path(path, error);
        if may_pass(error) { Self::Node(text) } else { Self::Missing(text) }
    }

    fn about(self, name: &str) -> StartError {
        let text = |why: &str| format!("`{{{name}}}` has no value: {why}");
        match self {
            Self::Missing(why) => StartError::Permanent(text(&why)),
            Self::Node(why) => StartError::Node(text(&why)),
        }
    }
}

/// A task that ran before.
struct InputReader<'a> {
    task: &'a str,
    input: &'a InputSpec,
    /// The trial that asks.
    index: u32,
}

impl InputReader<'_> {
    /// The value; none of folders that are known by their names.
    fn value(&self, wanted: TaskValue<'_>) -> Result<Option<String>, InputError> {
        Ok(match wanted {
            TaskValue::Dir | TaskValue::Dirs => None,
            TaskValue::Result(key) => {
                let index = if self.input.per_trial { self.index } else { 0 };
                Some(self.result(index, key)?)
            }
            TaskValue::BestDir => Some(shown(self.dir(self.best()?).path())),
            TaskValue::BestCheckpoint => Some(shown(&self.best_checkpoint(self.best()?)?)),
            TaskValue::BestResult(key) => Some(self.result(self.best()?, key)?),
        })
    }

    fn dir(&self, index: u32) -> TrialDir {
        TaskDir(self.input.dir.clone()).trial(index)
    }

    fn result(&self, index: u32, key: &str) -> Result<String, InputError> {
        let dir = self.dir(index);
        let mut result = object(&dir.reported_result())?;
        result.extend(object(&dir.result())?);
        if let Some(value) = lookup(&result, key) {
            return Ok(plain(value));
        }
        let whose = format!("trial {index} of `{}`", self.task);
        let path = dir.result();
        Err(InputError::Missing(if result.is_empty() {
            format!("{whose} left no result in `{}` (NEMO_RESULT), nor by message", path.display())
        } else {
            let known: Vec<&str> = result.keys().take(NAMED).map(String::as_str).collect();
            format!("the result of {whose} has no `{key}`, but `{}`", known.join("`, `"))
        }))
    }

    /// The best trial by the metric; the only one where there is one. One that failed is the best only among others that
    /// failed.
    fn best(&self) -> Result<u32, InputError> {
        if self.input.trials == 1 {
            return Ok(0);
        }
        let Some(metric) = &self.input.metric else {
            let why = format!("`{}` has no `search.metric`", self.task);
            return Err(InputError::Missing(why));
        };
        let mut reported: Vec<(u32, f64)> = Vec::new();
        for index in 0..self.input.trials {
            reported
                .extend(last_value(&self.dir(index), &metric.name)?.map(|value| (index, value)));
        }
        let mut sound = Vec::new();
        for (index, value) in &reported {
            sound.extend((!has_failed(&self.dir(*index))?).then_some((*index, *value)));
        }
        let best = metric.best(sound).or_else(|| metric.best(reported.iter().copied()));
        best.ok_or_else(|| {
            let why = format!("no trial of `{}` reported `{}`", self.task, metric.name);
            InputError::Missing(why)
        })
    }

    /// The checkpoint with the best report at its own step, else the newest. All of it is there.
    fn best_checkpoint(&self, index: u32) -> Result<PathBuf, InputError> {
        let dir = self.dir(index);
        let names = match std::fs::read_dir(dir.checkpoints()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(InputError::file(&dir.checkpoints(), &error));
            }
            names => names.into_iter().flatten().flatten().map(|entry| entry.file_name()),
        };
        let steps: BTreeSet<u64> =
            names.filter_map(|name| step_of(name.as_encoded_bytes())).collect();
        let mut bad = None;
        for step in ranked(&dir, &steps, self.input.metric.as_ref())? {
            let path = dir.checkpoint(step);
            match look_at(&path) {
                Ok(manifest) => {
                    return Ok(match manifest.form {
                        CheckpointForm::Folder => path,
                        CheckpointForm::File => join(&path, &manifest.entry),
                    });
                }
                Err(InputError::Missing(why)) => bad = Some(why),
                Err(error @ InputError::Node(_)) => return Err(error),
            }
        }
        let none = || format!("trial {index} of `{}` has no checkpoint", self.task);
        Err(InputError::Missing(bad.unwrap_or_else(none)))
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The most that a program's `result.json` may have, in bytes.
const LONGEST_RESULT: u64 = 16 << 20;

/// A JSON object; empty where there is no such file.
fn object(path: &Path) -> Result<Map<String, Value>, InputError> {
    // What another node wrote a moment ago is to be seen.
    open::refresh(path);
    let text = match open::read_at_most(path, LONGEST_RESULT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        text => text.map_err(|error| InputError::file(path, &error))?,
    };
    serde_json::from_slice(&text).map_err(|error| {
        InputError::Missing(format!("`{}` is no JSON object: {error}", path.display()))
    })
}

/// A value by its name, or one of a nested table by the names on the way, joined by dots.
fn lookup<'a>(result: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    if let Some(value) = result.get(key) {
        return Some(value);
    }
    let mut parts = key.split('.');
    let first = result.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// The last value of a metric that a trial reported; none if that is no finite number.
fn last_value(dir: &TrialDir, metric: &str) -> Result<Option<f64>, InputError> {
    let mut last = None;
    each_report(dir, |mut row| {
        if let Some(value) = row.values.remove(metric) {
            last = value.as_f64();
        }
    })?;
    Ok(last)
}

fn each_report(dir: &TrialDir, mut take: impl FnMut(MetricsLine)) -> Result<(), InputError> {
    let path = dir.metrics();
    open::refresh(&path);
    let read = lines::each(&path, |line| {
        if let Ok(row) = serde_json::from_slice::<MetricsLine>(line.text) {
            take(row);
        }
        Ok(())
    });
    read.map_err(|error| InputError::file(&path, &error))
}

/// What can't be read now says nothing.
fn has_failed(dir: &TrialDir) -> Result<bool, InputError> {
    let path = dir.attempts();
    open::refresh(&path);
    let read = lines::read::<AttemptRecord>(&path);
    let records = read.map_err(|error| InputError::Node(with_path(&path, &error)))?.rows;
    let last = records.iter().rev().find_map(AttemptRecord::as_end);
    Ok(last.is_some_and(|end| end.next == Next::Failed))
}

/// What a checkpoint holds, if all its files are there with their lengths. They are not read: of a large one that takes
/// minutes in which no signal is heard, and the program reads them anyway.
fn look_at(checkpoint: &Path) -> Result<Manifest, InputError> {
    let listed = checkpoint.join(manifest::NAME);
    open::refresh(&listed);
    let text = open::read(&listed).map_err(|error| InputError::file(&listed, &error))?;
    let manifest =
        manifest::parse(&text).map_err(|why| InputError::Missing(with_path(&listed, &why)))?;
    for (name, part) in &manifest.parts {
        let path = join(checkpoint, name);
        let found = fs::symlink_metadata(&path).map_err(|error| InputError::file(&path, &error))?;
        let is_alike = match part {
            ManifestEntry::Dir => found.is_dir(),
            ManifestEntry::Link(_) => found.is_symlink(),
            ManifestEntry::File(digest) => found.is_file() && found.len() == digest.size,
        };
        if !is_alike {
            return Err(InputError::Missing(with_path(&path, &"it is not as it was committed")));
        }
    }
    Ok(manifest)
}

/// The steps with a report of their own, the best first, then the others, the newest first.
fn ranked(
    dir: &TrialDir,
    steps: &BTreeSet<u64>,
    metric: Option<&MetricSpec>,
) -> Result<Vec<u64>, InputError> {
    let mut rows = Vec::new();
    if metric.is_some() {
        each_report(dir, |row| {
            rows.extend(Some(row).filter(|row| row.step.is_some_and(|step| steps.contains(&step))));
        })?;
    }
    let loss = |step: u64| {
        let metric = metric?;
        retention::loss_at(&rows, step, &metric.name, metric.larger_is_better)
    };
    let mut all: Vec<(f64, u64)> =
        steps.iter().rev().map(|&step| (loss(step).unwrap_or(f64::INFINITY), step)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: of equals without a report the newest stays first
    Ok(all.into_iter().map(|(_, step)| step).collect())
}

#[cfg(test)]
mod tests {
    use nemo_core::durable;
    use nemo_core::rundir::CommandSpec;

    use super::*;
    use crate::checkpoint::store::{DiskStore, Store};

    fn is_missing(error: &InputError) -> bool {
        matches!(error, InputError::Missing(_))
    }

    #[test]
    fn a_checkpoint_is_looked_at_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        durable::write_synced(&model, b"whole").unwrap();
        let digests = DiskStore::default().digests(&[(model.clone(), 5)]).unwrap();
        let text = manifest::print(&Manifest {
            step: 7,
            attempt: 1,
            lease: "ab".to_owned(),
            form: CheckpointForm::Folder,
            entry: b"step-7".to_vec(),
            metrics: 0,
            reported: None,
            parts: vec![(b"model".to_vec(), ManifestEntry::File(digests[0]))],
        });
        durable::write_synced(&folder.path().join(manifest::NAME), text.as_bytes()).unwrap();
        durable::write_synced(&model, b"other").unwrap();
        assert!(look_at(folder.path()).is_ok(), "its program reads it");
        durable::write_synced(&model, b"oth").unwrap();
        assert!(is_missing(&look_at(folder.path()).err().unwrap()), "it is too short");
        fs::remove_file(&model).unwrap();
        assert!(is_missing(&look_at(folder.path()).err().unwrap()), "it is gone");
    }

    #[test]
    fn what_the_commands_of_checkpoints_name_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut trial = crate::job::trial::tests::trial(serde_json::json!({}));
        trial.spec.inputs.get_mut("each").unwrap().dir = folder.path().to_owned();
        let result = TaskDir(folder.path().to_owned()).trial(2).result();
        fs::create_dir_all(result.parent().unwrap()).unwrap();
        durable::write_synced(&result, br#"{"port": 7, "model": "small"}"#).unwrap();
        let checkpoint = &mut trial.spec.checkpoint;
        checkpoint.command = Some(CommandSpec::Shell("take {each.result.port}".to_owned()));
        let words = ["go-on", "{resume_from}", "{each.result.model}"].map(str::to_owned);
        checkpoint.resume = Some(CommandSpec::Exec(words.to_vec()));
        let values: Vec<(String, String)> = read(&trial).unwrap().into_iter().collect();
        let expected = [("each.result.model", "small"), ("each.result.port", "7")];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        fs::remove_file(&result).unwrap();
        let Err(StartError::Permanent(why)) = read(&trial) else { panic!("there is none") };
        assert!(why.contains("{each.result."), "{why}");
    }

    #[test]
    fn attempts_that_cannot_be_read_are_not_taken_for_sound() {
        let folder = tempfile::tempdir().unwrap();
        let dir = TaskDir(folder.path().to_owned()).trial(0);
        fs::create_dir_all(dir.path()).unwrap();
        assert!(matches!(has_failed(&dir), Ok(false)), "it was never started");
        fs::create_dir_all(dir.attempts()).unwrap(); // a folder can't be read as a file
        assert!(matches!(has_failed(&dir), Err(InputError::Node(_))));
    }
}
