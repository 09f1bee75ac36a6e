//! Keeps what a program sends by message for its experiment: notes and metadata, in files like those of `nemo-slurm note`,
//! and artifacts, which are copied.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;

use nemo_core::rundir::{ExperimentDir, Note, TaskDir, TrialDir, notes};
use nemo_core::scope::TrialSet;
use nemo_core::{durable, open};
use serde_json::{Map, Value};

use crate::job::trial::with_path;
use crate::os::clock::unix_now;
use crate::os::log::log_stderr;
use crate::os::serial_queue::SerialQueue;

/// The `user` of a note that a program sent.
const PROGRAM: &str = "program";
/// The most notes of one attempt: each is a file.
const MAX_NOTES: u32 = 32;
/// The largest artifact, in bytes. Other records wait while it is copied.
const MAX_ARTIFACT: u64 = 256 << 20;

/// Keeps the notes and artifacts of one attempt.
#[derive(Debug)]
pub(super) struct ProgramNotes {
    dir: TrialDir,
    records: SerialQueue,
    n_notes: u32,
}

impl ProgramNotes {
    pub(super) fn new(dir: TrialDir, records: &SerialQueue) -> Self {
        Self { dir, records: records.clone(), n_notes: 0 }
    }

    /// Adds a note, unless the trial has said the same before.
    pub(super) fn note(&mut self, text: Option<String>, metadata: Map<String, Value>) {
        if self.n_notes == MAX_NOTES {
            log_stderr(&format!("the program has sent {MAX_NOTES} notes; no more are kept"));
        }
        self.n_notes = self.n_notes.saturating_add(1);
        if self.n_notes > MAX_NOTES {
            return;
        }
        let metadata: BTreeMap<String, Value> = metadata.into_iter().collect();
        let dir = self.dir.clone();
        self.add("the program's note", move || write_note(&dir, text, metadata));
    }

    /// Copies a file to the artifacts.
    pub(super) fn artifact(&self, path: &Path) {
        let (dir, path) = (self.dir.clone(), path.to_owned());
        self.add("the program's artifact", move || copy(&dir, &path, MAX_ARTIFACT));
    }

    fn add(&self, what: &'static str, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        if self.records.is_full() {
            return log_stderr(&format!("{what} is not kept: the disk does not answer"));
        }
        self.records.add(0, move || {
            if let Err(error) = work() {
                log_stderr(&format!("{what} is not kept: {error}"));
            }
        });
    }
}

fn write_note(
    dir: &TrialDir,
    text: Option<String>,
    metadata: BTreeMap<String, Value>,
) -> io::Result<()> {
    let (experiment, task, trial) = place(dir).ok_or_else(|| {
        io::Error::other(format!("`{}` is in no experiment", dir.path().display()))
    })?;
    let content = (&task, trial, &text, &metadata);
    let hash = blake3::hash(&serde_json::to_vec(&content)?).to_hex();
    let name = format!("said-{task}-{trial}-{hash}.json");
    // A program that resumes says it again. The name says so: the notes of all trials are not read for one of them.
    if experiment.notes().join(&name).try_exists()? {
        return Ok(());
    }
    let note = Note {
        time: unix_now(),
        user: PROGRAM.to_owned(),
        task: Some(task),
        trials: TrialSet::new([trial]),
        text,
        metadata,
        ..Note::default()
    };
    notes::write(&experiment, &name, &note)
}

/// The experiment of a trial, its task and its index.
fn place(dir: &TrialDir) -> Option<(ExperimentDir, String, u32)> {
    let index = dir.path().file_name()?.to_str()?.parse().ok()?;
    let task = TaskDir(dir.path().parent()?.parent()?.to_owned());
    let name = task.0.file_name()?.to_str()?.to_owned();
    Some((ExperimentDir::of_task(&task)?, name, index))
}

fn copy(dir: &TrialDir, path: &Path, most: u64) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::new(error.kind(), with_path(path, &error));
    let name = path.file_name().filter(|name| is_plain(name));
    let name = name.ok_or_else(|| io::Error::other("it has no name that can be kept"))?;
    let source = open::to_read_named(path).map_err(failed)?;
    let too_large = || {
        let why = "it is larger than 256 MiB: the program can move it into the folder `artifacts` of NEMO_DIR itself";
        failed(io::Error::other(why))
    };
    if source.metadata().map_err(failed)?.len() > most {
        return Err(too_large());
    }
    let target = dir.artifacts().join(name);
    durable::rewrite_durably(&target, |file| {
        // It may grow meanwhile, and a file of the kernel's tells no size.
        let copied = io::copy(&mut source.take(most + 1), file)?;
        if copied > most { Err(too_large()) } else { Ok(()) }
    })
}

/// Not one of a temporary file.
fn is_plain(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_known_by_its_name_without_a_look_at_others() {
        let folder = tempfile::tempdir().unwrap();
        let experiment = ExperimentDir(folder.path().to_owned());
        let dir = experiment.task("train").trial(3);
        let say = |text: &str| write_note(&dir, Some(text.to_owned()), BTreeMap::new()).unwrap();
        say("one");
        let (path, _) = notes::read_all(&experiment).unwrap().whole.remove(0);
        // What it says is not asked for.
        durable::write_synced(&path, b"damaged").unwrap();
        say("one");
        say("two");
        let found = notes::read_all(&experiment).unwrap();
        assert_eq!((found.damaged, found.whole.len()), (vec![path], 1));
    }

    #[test]
    fn an_artifact_that_is_no_file_or_has_no_end_holds_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let dir = TrialDir(path("trial"));
        std::fs::create_dir_all(dir.artifacts()).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        durable::write_synced(&path("file"), b"text").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let refused = |path: &Path| copy(&dir, path, 4095).unwrap_err().to_string();
        let fifo = refused(&path("fifo"));
        assert!(fifo.contains("fifo") && fifo.contains("it is a FIFO"), "{fifo}");
        // It says that it is empty.
        let endless = refused(Path::new("/proc/self/pagemap"));
        assert!(endless.contains("pagemap") && endless.contains("larger than"), "{endless}");
        copy(&dir, &path("link"), 4095).unwrap();
        let kept = std::fs::read_dir(dir.artifacts()).unwrap().map(|it| it.unwrap().file_name());
        assert_eq!(kept.collect::<Vec<_>>(), ["link"]);
    }
}
