//! Finds the files of a trial that hold metrics.

use std::cmp::Ordering;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nemo_core::open;
use nemo_core::rundir::{ExperimentDir, TrialDir};

use super::{MetricSource, transformers};

/// Deeper folders are not looked into.
const DEEPEST: u32 = 8;
/// After so many names nothing more is looked for.
const MOST_NAMES: usize = 20_000;

/// A file with metrics.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenFile {
    pub(super) path: PathBuf,
    pub(super) source: MetricSource,
    /// When it was written last, in unix seconds: it tells the attempt where the file has no times of its own.
    pub(super) modified: Option<f64>,
    /// Where in the trial's folder it is.
    pub(super) place: FilePlace,
}

/// Where a file is tells what it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FilePlace {
    /// Below the folder that an attempt saves to.
    Staging(u32),
    /// Anywhere else, `artifacts/` above all.
    Results,
    /// In a committed checkpoint.
    Checkpoint,
}

/// All of them, in the order in which they are read.
#[derive(Debug, Default)]
pub(super) struct WrittenFiles {
    pub(super) files: Vec<WrittenFile>,
    pub(super) warnings: Vec<String>,
    n_names: usize,
}

impl WrittenFiles {
    /// Looks through a trial's folder. Links are not followed: what they lead to is not the trial's own.
    pub(super) fn of(dir: &TrialDir) -> Self {
        let mut found = Self::default();
        let entries = fs::read_dir(dir.path());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name != "staging" && name != "checkpoints" {
                found.add(&entry, DEEPEST, FilePlace::Results);
            }
        }
        let staging = dir.staging(0);
        let staging = staging.parent().map(fs::read_dir);
        for attempt in staging.into_iter().flatten().flatten().flatten() {
            let number = attempt.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number {
                found.add(&attempt, DEEPEST, FilePlace::Staging(number));
            }
        }
        for step in fs::read_dir(dir.checkpoints()).into_iter().flatten().flatten() {
            let name = step.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("step-"));
            if number.is_some_and(|number| number.parse::<u64>().is_ok()) {
                found.add(&step, 3, FilePlace::Checkpoint);
            }
        }
        if found.n_names > MOST_NAMES {
            found.warnings.push(format!(
                "`{}` has more than {MOST_NAMES} files: not all were looked through for metrics",
                dir.path().display()
            ));
        }
        found.leave_out_shipped(dir);
        found.keep_newest_state();
        found.files.sort_by(order);
        found
    }

    fn add(&mut self, entry: &DirEntry, depth: u32, place: FilePlace) {
        self.n_names += 1;
        if self.n_names > MOST_NAMES {
            return;
        }
        let Ok(kind) = entry.file_type() else { return };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_dir() && depth > 0 && !name.starts_with(".tmp") {
            for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                self.add(&inner, depth - 1, place);
            }
            return;
        }
        let source = source_of(&name).filter(|_| kind.is_file());
        let is_meant = |source: &MetricSource| match place {
            FilePlace::Results => true,
            // Its history, once it is committed. The rest of a checkpoint may be copies.
            FilePlace::Checkpoint => *source == MetricSource::Transformers,
            FilePlace::Staging(_) => *source != MetricSource::Transformers,
        };
        let Some(source) = source.filter(is_meant) else { return };
        self.files.push(WrittenFile {
            path: entry.path(),
            source,
            modified: modified(entry),
            place,
        });
    }

    /// The working folder holds copies of what was shipped: what the program has not changed since is not its own.
    fn leave_out_shipped(&mut self, dir: &TrialDir) {
        let work = dir.work();
        if !self.files.iter().any(|file| file.path.starts_with(&work)) {
            return;
        }
        let experiment = dir.path().ancestors().nth(4).map(|path| ExperimentDir(path.to_owned()));
        let Some(package) = experiment.as_ref().and_then(crate::package::of) else { return };
        let is_shipped = |file: &WrittenFile| {
            let below = file.path.strip_prefix(&work).ok();
            below.is_some_and(|below| is_same(&file.path, &package.dir.files().join(below)))
        };
        self.files.retain(|file| !is_shipped(file));
    }

    /// Each state has the whole history: only the one of the highest step counts, a committed one before others.
    fn keep_newest_state(&mut self) {
        let is_state = |file: &&WrittenFile| file.source == MetricSource::Transformers;
        let states = self.files.iter().filter(is_state);
        let newest = states.max_by_key(|file| {
            (transformers::global_step(&file.path), file.place, file.path.clone())
        });
        let newest = newest.map(|file| file.path.clone());
        self.files.retain(|file| !is_state(&file) || Some(&file.path) == newest.as_ref());
    }
}

/// Whether both files are there and have the same bytes.
fn is_same(own: &Path, shipped: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).ok().map(|it| it.len());
    let bytes = |path: &Path| open::read(path).ok();
    length(shipped).is_some_and(|it| Some(it) == length(own))
        && bytes(own).is_some_and(|it| Some(it) == bytes(shipped))
}

fn source_of(name: &str) -> Option<MetricSource> {
    if name.starts_with("events.out.tfevents") {
        Some(MetricSource::Tensorboard)
    } else if name == "metrics.csv" {
        Some(MetricSource::Lightning)
    } else if name == "trainer_state.json" {
        Some(MetricSource::Transformers)
    } else if name.starts_with("run-") && has_extension(name, "wandb") {
        Some(MetricSource::Wandb)
    } else {
        None
    }
}

fn has_extension(name: &str, wanted: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == wanted)
}

fn modified(entry: &DirEntry) -> Option<f64> {
    let modified = entry.metadata().ok()?.modified().ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// By kind, then as they were written: the names of event files begin with the time.
fn order(a: &WrittenFile, b: &WrittenFile) -> Ordering {
    let time = |file: &WrittenFile| file.modified.unwrap_or_default();
    let of_name = |file: &WrittenFile| (file.source, file.path.file_name().map(ToOwned::to_owned));
    match a.source {
        MetricSource::Tensorboard if b.source == a.source => of_name(a).cmp(&of_name(b)),
        _ => a.source.cmp(&b.source).then(time(a).total_cmp(&time(b))).then(a.path.cmp(&b.path)),
    }
}
