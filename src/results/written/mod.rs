//! Metrics that a program writes by itself, without a change of its code: the files of TensorBoard, Lightning,
//! Transformers and W&B in a trial's folder. They are read where they lie, and never touched.

mod crc;
mod find;
mod lightning;
mod protobuf;
mod tensorboard;
mod transformers;
mod wandb;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, AttemptStart, TrialDir, starts};
use serde::Serialize;

pub use self::lightning::each_cell;
pub use self::tensorboard::{each_scalar, event_scalars};
pub use self::transformers::each_entry;
pub use self::wandb::{each_record, history_values};

use self::find::{FilePlace, WrittenFile, WrittenFiles};
use crate::humanize::count;

/// Who wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricSource {
    /// The program told the harness, or the harness read it from the output as it came.
    Reported,
    /// A pattern found it in the output afterwards.
    Printed,
    /// `events.out.tfevents…`
    Tensorboard,
    /// `metrics.csv`
    Lightning,
    /// `trainer_state.json`
    Transformers,
    /// `run-….wandb`
    Wandb,
}

impl MetricSource {
    /// The files of it, where it is a kind of files.
    fn files(self) -> Option<&'static str> {
        match self {
            Self::Reported | Self::Printed => None,
            Self::Tensorboard => Some("TensorBoard's files"),
            Self::Lightning => Some("Lightning's `metrics.csv`"),
            Self::Transformers => Some("Transformers' `trainer_state.json`"),
            Self::Wandb => Some("W&B's files"),
        }
    }
}

/// A value as a file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenValue {
    /// Its name.
    pub metric: String,
    /// Where the file tells.
    pub step: Option<u64>,
    /// Unix seconds, where the file tells.
    pub time: Option<f64>,
    /// Nothing if it is not a finite number.
    pub value: Option<f64>,
}

/// The same with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenRow {
    pub(super) attempt: u32,
    pub(super) source: MetricSource,
    pub(super) value: WrittenValue,
}

/// What a reader of files calls with each value.
type Take<'a> = &'a mut dyn FnMut(WrittenValue) -> io::Result<()>;

/// What a reader left out of a file, in words that go on after its name.
type LeftOut = Vec<String>;

/// A file that is damaged, where anything of it is.
fn damaged(parts: usize, noun: &str) -> Option<String> {
    (parts > 0).then(|| format!("is damaged: {} left out", count(parts, noun)))
}

/// Records that are too large to be read, where any may hold metrics.
fn too_large(records: usize, most: &str) -> Option<String> {
    (records > 0).then(|| format!("has {} of more than {most}: left out", count(records, "record")))
}

/// The most values that are searched for one of a metric: each kind of value comes soon, and files may be large.
const MOST_VALUES: usize = 10_000;

/// In which files that its program wrote a metric of a trial is found.
#[must_use]
pub fn files_with(dir: &TrialDir, metric: &str) -> Option<&'static str> {
    let (mut found, mut n_values) = (None, 0);
    let looked = each_written(dir, &BTreeSet::new(), |row| {
        n_values += 1;
        if row.value.metric == metric {
            found = Some(row.source);
        }
        let is_enough = found.is_some() || n_values == MOST_VALUES;
        if is_enough { Err(io::Error::other("enough")) } else { Ok(()) }
    });
    drop(looked);
    found.and_then(MetricSource::files)
}

/// Calls a function with each value in the files of a trial but those of metrics that are known. What was written of
/// steps that a later attempt did again is left out. Returns what could not be read.
pub(super) fn each_written(
    dir: &TrialDir,
    known: &BTreeSet<String>,
    mut take: impl FnMut(WrittenRow) -> io::Result<()>,
) -> io::Result<Vec<String>> {
    let found = WrittenFiles::of(dir);
    let mut warnings = found.warnings;
    if found.files.is_empty() {
        return Ok(warnings);
    }
    let records = lines::read::<AttemptRecord>(&dir.attempts()).map(|it| it.rows);
    let records = records.unwrap_or_default();
    let starts = starts(&records);
    let prefixes = tensorboard::prefixes(&found.files);
    let mut last = BTreeMap::new();
    for file in &found.files {
        let mut failed = None;
        let prefix = prefixes.get(&file.path);
        let left_out = file.each(&mut |mut value| {
            if let Some(prefix) = prefix.and_then(|prefix| prefix.of(&value.metric)) {
                value.metric = format!("{prefix}/{}", value.metric);
            }
            if known.contains(&value.metric) {
                return Ok(());
            }
            match attempt_of(file, &value, &starts) {
                Some(attempt) if is_next(&mut last, file.source, attempt, &value) => {
                    let row = WrittenRow { attempt, source: file.source, value };
                    // An error of who takes it is none of the file.
                    take(row).map_err(|error| {
                        failed = Some(error);
                        io::Error::other("stopped")
                    })
                }
                Some(_) | None => Ok(()),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let shown = file.path.display();
        match left_out {
            Ok(left_out) => warnings.extend(left_out.iter().map(|it| format!("`{shown}` {it}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warnings.push(format!("can't read `{shown}`: {error}")),
        }
    }
    Ok(warnings)
}

impl WrittenFile {
    fn each(&self, take: Take<'_>) -> io::Result<LeftOut> {
        match self.source {
            MetricSource::Tensorboard => tensorboard::each(&self.path, take),
            MetricSource::Lightning => lightning::each(&self.path, take),
            MetricSource::Transformers => transformers::each(&self.path, take),
            MetricSource::Wandb => wandb::each(&self.path, take),
            MetricSource::Reported | MetricSource::Printed => Ok(Vec::new()),
        }
    }
}

/// The attempt that wrote a value; nothing if a later one did that step again.
fn attempt_of(file: &WrittenFile, value: &WrittenValue, starts: &[AttemptStart]) -> Option<u32> {
    let Some(first) = starts.first() else { return Some(0) };
    if file.place == FilePlace::Checkpoint {
        // A checkpoint's file has the whole history that led to it.
        let later = starts.iter().rev();
        let by =
            later.clone().find(|start| start.resume_step.unwrap_or(0) < value.step.unwrap_or(1));
        return Some(by.unwrap_or(first).attempt);
    }
    let time = value.time.or(file.modified);
    let place = match file.place {
        FilePlace::Staging(attempt) => starts.iter().position(|start| start.attempt == attempt),
        FilePlace::Results | FilePlace::Checkpoint => {
            starts.iter().rposition(|start| time.is_none_or(|time| start.time <= time))
        }
    };
    let place = place.unwrap_or(0);
    let is_redone = super::series::is_redone(value.step, &starts[place + 1..]);
    (!is_redone).then_some(starts[place].attempt)
}

/// What was seen last of each metric: by whom, in which attempt, and at which step.
type LastSeen = BTreeMap<String, (MetricSource, u32, Option<u64>)>;

/// Whether a value is not what an earlier attempt, or another kind of file, has told already.
fn is_next(last: &mut LastSeen, source: MetricSource, attempt: u32, value: &WrittenValue) -> bool {
    match last.get_mut(&value.metric) {
        None => {
            last.insert(value.metric.clone(), (source, attempt, value.step));
            true
        }
        // The same metric in two kinds of files: the first kind is enough.
        Some((other, ..)) if *other != source => false,
        // A program that counts from 0 begins with the step that it resumed from.
        Some((_, before, step))
            if attempt > *before && value.step.is_some() && value.step <= *step =>
        {
            false
        }
        Some(seen) => {
            *seen = (source, attempt, value.step);
            true
        }
    }
}

#[cfg(test)]
mod tests;
