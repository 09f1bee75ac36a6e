//! A trial on a real disk: what one life of a harness does with it, and what the next one finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, Keep, MetricsLine, TaskDir, TrialDir};

use crate::attempt::history::{AttemptJournal, History};
use crate::attempt::lease::{self, Lease, LeaseClaim, LeaseHolder};
use crate::checkpoint::commit::{self, CommitOutcome, CommitRequest};
use crate::checkpoint::prune::{self, RetentionRules, StillNeeded};
use crate::checkpoint::resume;
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::checkpoint::staging;
use crate::checkpoint::store::{DiskStore, FileKind, join};
use crate::checkpoint::tree;
use crate::monitor::metrics;
use crate::os::serial_queue::SerialQueue;

/// What the program saves, and what is there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SaveShape {
    Folder,
    File,
    Many,
    Nested,
    /// The step is committed already, with the same content.
    Same,
    /// The step is committed already, with other content.
    Other,
    /// An old checkpoint is let go afterwards.
    Retention,
}

pub(super) const SHAPES: [SaveShape; 7] = [
    SaveShape::Folder,
    SaveShape::File,
    SaveShape::Many,
    SaveShape::Nested,
    SaveShape::Same,
    SaveShape::Other,
    SaveShape::Retention,
];

/// The step that is committed before, and the one that the fault hits.
pub(super) const BEFORE: u64 = 2;
pub(super) const NEW: u64 = 3;

/// File names with their content; `->` tells a link.
type FileContents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A trial's folder.
pub(super) struct Scene {
    pub(super) shape: SaveShape,
    task: TaskDir,
}

/// What the next life must go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedResume {
    /// The new checkpoint if it is in the record, else that or the one before. None is bad.
    Either,
    /// The new checkpoint: it was told.
    New,
    /// The one before, and why is said.
    Before,
}

/// What was kept of each promise after a fault.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromisesKept(pub(super) [bool; 4]);

impl Scene {
    /// Two checkpoints are committed, and a third is saved.
    pub(super) fn build(shape: SaveShape, folder: &Path) -> Self {
        let scene = Self { shape, task: TaskDir(folder.to_owned()) };
        let dir = scene.dir();
        fs::create_dir_all(dir.path()).unwrap();
        let lease = scene.claim("first");
        staging::prepare(&dir.staging(0), &dir.checkpoints(), None).unwrap();
        let journal = AttemptJournal::open(&dir.attempts(), &SerialQueue::at_once()).unwrap();
        let taken = matches!(shape, SaveShape::Same | SaveShape::Other);
        for step in if taken { 1..=NEW } else { 1..=BEFORE } {
            scene.report(step);
            let content = if shape == SaveShape::Other && step == NEW { BEFORE } else { step };
            scene.save(step, &scene.content(content));
            assert_eq!(scene.commit(&lease, step).unwrap(), CommitOutcome::Committed);
            journal.write(&checkpoint(step)).unwrap();
        }
        if !taken {
            scene.report(NEW);
        }
        scene.save(NEW, &scene.content(NEW));
        scene.report(NEW + 1); // the program goes on
        scene
    }

    /// A copy of it.
    pub(super) fn copy(&self, folder: &Path) -> Self {
        copy(&self.task.0, folder);
        Self { shape: self.shape, task: TaskDir(folder.to_owned()) }
    }

    pub(super) fn dir(&self) -> TrialDir {
        self.task.trial(0)
    }

    fn claim(&self, nonce: &str) -> Lease {
        let holder = LeaseHolder {
            slurm_job: None,
            restarts: 0,
            process: nemo_core::process_id::ProcessId {
                node: "n".into(),
                boot_id: "b".into(),
                pid: 1,
                start_ticks: 1,
            },
            nonce: nonce.into(),
        };
        match lease::claim(self.dir().path(), 0, &holder).unwrap() {
            LeaseClaim::Made(lease, _) => lease,
            stale @ LeaseClaim::Stale(_) => panic!("{stale:?}"),
        }
    }

    pub(super) fn entry(&self, step: u64) -> String {
        let end = if self.shape == SaveShape::File { ".npz" } else { "" };
        format!("step-{step}{end}")
    }

    /// What the program saves at a step.
    fn content(&self, step: u64) -> FileContents {
        let text = |name: &str| format!("{name} at {step}").into_bytes();
        let names: Vec<String> = match self.shape {
            SaveShape::File => return BTreeMap::from([(Vec::new(), text("file"))]),
            SaveShape::Many => (0..30).map(|n| format!("shard-{n}")).collect(),
            SaveShape::Nested => {
                ["model", "a/b/c", "a/d", "e/f", "a/link ->"].map(String::from).into()
            }
            SaveShape::Folder | SaveShape::Same | SaveShape::Other | SaveShape::Retention => {
                vec!["model".into(), "optimizer".into()]
            }
        };
        names.into_iter().map(|name| (name.clone().into_bytes(), text(&name))).collect()
    }

    fn save(&self, step: u64, content: &FileContents) {
        let root = self.dir().staging(0).join(self.entry(step));
        for (name, data) in content {
            let name = String::from_utf8(name.clone()).unwrap();
            let path = if name.is_empty() {
                root.clone()
            } else {
                root.join(name.trim_end_matches(" ->"))
            };
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with("->") {
                std::os::unix::fs::symlink(String::from_utf8_lossy(data).as_ref(), path).unwrap();
            } else {
                write(&path, data);
            }
        }
    }

    fn report(&self, step: u64) {
        let path = self.dir().metrics();
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        let row =
            serde_json::json!({"step": step, "attempt": 0, "time": 1.0, "values": {"loss": step}});
        text = format!("{text}{row}\n");
        write(&path, text.as_bytes());
    }

    fn request(&self, lease: &Lease, step: u64) -> CommitRequest {
        let dir = self.dir();
        let from = dir.staging(0).join(self.entry(step));
        CommitRequest {
            tree: tree::walk(&DiskStore::default(), &from).ok(),
            reported: None,
            counted_from: None,
            from,
            entry: self.entry(step).into_bytes(),
            step,
            checkpoints: dir.checkpoints(),
            attempt: lease.attempt,
            lease: lease.nonce.clone(),
            nonce: lease.nonce.clone(),
            boot_id: "b".to_owned(),
            is_hurried: false,
            metrics: Some((dir.metrics(), fs::metadata(dir.metrics()).map_or(0, |own| own.len()))),
        }
    }

    fn commit(&self, lease: &Lease, step: u64) -> std::io::Result<CommitOutcome> {
        let request = self.request(lease, step);
        commit::commit(&mut DiskStore::default(), &request, &|| lease.is_newest())
    }

    /// The lease that the first life holds.
    pub(super) fn first(&self) -> Lease {
        Lease::of_test(self.dir().path(), 0, "first")
    }

    /// One life: it commits, tries again as the saver does, records, and lets go. 0: the checkpoint was recorded.
    pub(super) fn live(&self, lease: &Lease, request: &CommitRequest) -> i32 {
        let mut tries = (0..3)
            .map(|_| commit::commit(&mut DiskStore::default(), request, &|| lease.is_newest()));
        let done = tries.find(Result::is_ok);
        let Some(Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted)) = done else {
            return if matches!(done, Some(Ok(CommitOutcome::Rejected(_)))) { 3 } else { 4 };
        };
        let record = |record: &AttemptRecord| {
            (0..3).any(|_| {
                let journal = AttemptJournal::open(&self.dir().attempts(), &SerialQueue::at_once());
                journal.and_then(|journal| journal.write(record)).is_ok()
            })
        };
        if !record(&checkpoint(NEW)) {
            return 5;
        }
        if self.shape == SaveShape::Retention {
            let rules = RetentionRules {
                task: self.task.clone(),
                trial: 0,
                keep: Keep::default(),
                metric: None,
            };
            let verified = StillNeeded::Resume { verified: BTreeSet::from([BEFORE, NEW]) };
            let steps = rules.removable(&DiskStore::default(), &verified).unwrap_or_default();
            let removed = AttemptRecord::Removed { attempt: 0, steps: steps.clone(), time: 1.0 };
            if !steps.is_empty() && record(&removed) {
                for step in steps {
                    let dir = self.dir().checkpoints();
                    prune::remove(&mut DiskStore::default(), &dir, step, "first").ok();
                }
            }
        }
        0
    }

    /// What [`Scene::live`] is about to commit.
    pub(super) fn saved(&self) -> CommitRequest {
        self.request(&self.first(), NEW)
    }

    /// The next life: finds, verifies, rolls back, goes on.
    pub(super) fn recover(&self, old: &CommitRequest, expected: ExpectedResume) -> PromisesKept {
        let dir = self.dir();
        let history = History::read(&dir.attempts()).unwrap();
        let lease = self.claim("second");
        // The one before lives on somewhere, and tries once more.
        let names =
            |dir: &TrialDir| tree::walk(&DiskStore::default(), &dir.checkpoints()).unwrap().len();
        let first = self.first();
        let late = commit::commit(&mut DiskStore::default(), old, &|| first.is_newest());
        let p4 = !matches!(late, Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted));
        let found = resume::find(
            &mut DiskStore::default(),
            &dir.checkpoints(),
            &history.recorded(None),
            "second",
        );
        let Ok(resume::FoundCheckpoint { resumed: Some(resumed), notes, .. }) = found else {
            panic!("nothing is found any more: {found:?}");
        };
        let in_record = history.steps.contains(&NEW);
        let p1 = match expected {
            ExpectedResume::Either => {
                (resumed.step == NEW || (resumed.step == BEFORE && !in_record)) && notes.is_empty()
            }
            ExpectedResume::New => resumed.step == NEW && notes.is_empty(),
            ExpectedResume::Before => resumed.step == BEFORE && notes.len() == 1,
        };
        let p2 = self.is_whole(&resumed) && self.none_is_torn();
        staging::prepare(&dir.staging(lease.attempt), &dir.checkpoints(), None).unwrap();
        metrics::roll_back(&dir.metrics(), Some((resumed.step, resumed.metrics))).unwrap();
        let rows = lines::read::<MetricsLine>(&dir.metrics()).unwrap().rows;
        let p3 = rows.iter().map(|row| row.step).eq((1..=resumed.step).map(Some));
        assert!(names(&dir) > 0);
        PromisesKept([p1, p2 && self.goes_on(&lease, resumed.step), p3, p4])
    }

    /// What a program would load is what one saved at that step.
    fn is_whole(&self, resumed: &VerifiedCheckpoint) -> bool {
        let Ok(entries) = tree::walk(&DiskStore::default(), &resumed.from) else { return false };
        let mut found = FileContents::new();
        for entry in entries.iter().filter(|entry| entry.path != b"MANIFEST") {
            let path = if entry.path.is_empty() {
                resumed.from.clone()
            } else {
                join(&resumed.from, &entry.path)
            };
            match entry.stat.kind {
                FileKind::File => found.insert(entry.path.clone(), fs::read(&path).unwrap()),
                FileKind::Link => {
                    let target =
                        fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes();
                    found.insert([&entry.path[..], b" ->"].concat(), target)
                }
                FileKind::Dir | FileKind::Other(_) => None,
            };
        }
        // Where the step was taken by other content, that is what stays.
        let step = if self.shape == SaveShape::Other { BEFORE } else { resumed.step };
        found == self.content(step)
    }

    /// Whatever has a checkpoint's name is one: those that retention was about to remove, too.
    fn none_is_torn(&self) -> bool {
        let dir = self.dir().checkpoints();
        let names = fs::read_dir(&dir).unwrap().map(|name| name.unwrap().file_name());
        let mut steps = names.filter_map(|name| resume::step_of(name.as_encoded_bytes()));
        steps
            .all(|step| resume::verify(&DiskStore::default(), &self.dir().checkpoint(step)).is_ok())
    }

    /// The next attempt can commit what comes next, under whatever was left behind.
    fn goes_on(&self, lease: &Lease, step: u64) -> bool {
        let dir = self.dir();
        let entry = format!("step-{}", step + 1);
        let from = dir.staging(lease.attempt).join(&entry);
        fs::create_dir_all(&from).unwrap();
        write(&from.join("model"), b"next");
        let request = CommitRequest {
            from,
            entry: entry.into_bytes(),
            step: step + 1,
            ..self.request(lease, step + 1)
        };
        let request = CommitRequest { tree: None, ..request };
        let done = commit::commit(&mut DiskStore::default(), &request, &|| lease.is_newest());
        let names = fs::read_dir(dir.checkpoints()).unwrap().map(|name| name.unwrap().file_name());
        let odd = names.filter(|name| name.to_string_lossy().starts_with('.')).count();
        matches!(done, Ok(CommitOutcome::Committed)) && odd == 0
    }
}

fn checkpoint(step: u64) -> AttemptRecord {
    AttemptRecord::Checkpoint { attempt: 0, step, time: 1.0, saving: None, bytes: None }
}

#[expect(clippy::disallowed_methods, reason = "as a program writes")]
fn write(path: &Path, data: &[u8]) {
    fs::write(path, data).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), target).unwrap();
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}
