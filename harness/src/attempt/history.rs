//! `attempts.jsonl`: reads the records of earlier attempts, and writes those of this one.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nemo_core::durable::Appender;
use nemo_core::rundir::{AttemptRecord, Cause, Next};
use nemo_core::{lines, open};

use crate::checkpoint::resume::RecordedSteps;
use crate::os::log;
use crate::os::patience::may_pass;
use crate::os::serial_queue::SerialQueue;

/// The earlier attempts since the trial was last submitted anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The next free attempt number.
    pub(crate) next: u32,
    pub(crate) crashes: u32,
    /// Hangs since the last new checkpoint.
    pub(crate) hangs: u32,
    /// How many of the last attempts in a row ended without a new checkpoint.
    pub(crate) stuck: u32,
    /// The steps that were ever committed.
    pub(crate) steps: BTreeSet<u64>,
    /// Steps that were removed because newer or better checkpoints existed.
    pub(crate) removed: BTreeSet<u64>,
    /// Attempts that have a start and no end.
    pub(crate) open: BTreeSet<u32>,
    /// The newest attempt whose program worked.
    pub(crate) worked: Option<u32>,
    /// The last attempts in a row that resumed from one checkpoint and crashed before the next.
    failing: Option<FailingCheckpoint>,
}

/// A checkpoint that may crash the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailingCheckpoint {
    step: u64,
    crashes: u32,
    /// The attempt that resumed from it last.
    open: Option<u32>,
}

/// After this many crashes in a row from one checkpoint, the one before it is used.
const SUSPECT: u32 = 2;

impl History {
    /// Reads the file. A missing file is an empty history.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        open::refresh(path); // another node may have written to it a moment ago
        Ok(Self::of(&lines::read(path)?.rows))
    }

    /// The history of these rows. A new attempt after a final end was requested by somebody, so the budgets start anew.
    pub(crate) fn of(rows: &[AttemptRecord]) -> Self {
        let mut history = Self::default();
        for row in rows {
            match row {
                AttemptRecord::Start(start) => {
                    history.next = history.next.max(start.attempt + 1);
                    history.stuck += 1;
                    history.open.insert(start.attempt);
                    history.resumed(start.attempt, start.resume_step);
                }
                AttemptRecord::Removed { steps, .. } => history.removed.extend(steps),
                // An attempt that left its node did not try anything.
                AttemptRecord::ExcludeNode { left: true, .. } => {
                    history.stuck = history.stuck.saturating_sub(1);
                }
                AttemptRecord::Ready { attempt, .. } => history.worked = Some(*attempt),
                AttemptRecord::Hang { .. }
                | AttemptRecord::Label { .. }
                | AttemptRecord::ExcludeNode { .. } => {}
                AttemptRecord::Checkpoint { step, attempt, .. } => {
                    history.worked = Some(*attempt);
                    history.failing = None;
                    history.removed.remove(step);
                    // The same step again is no progress.
                    if history.steps.insert(*step) {
                        (history.stuck, history.hangs) = (0, 0);
                    }
                }
                AttemptRecord::End(end) => {
                    history.open.remove(&end.attempt);
                    history.crashes +=
                        u32::from(matches!(end.cause, Cause::Failed | Cause::OutOfMemory));
                    history.hangs += u32::from(end.cause == Cause::Hung);
                    history.ended(end.attempt, end.cause);
                    // A pause is no failure.
                    history.stuck -= u32::from(end.cause == Cause::Paused).min(history.stuck);
                    match end.next {
                        Next::Done | Next::Failed | Next::Cancelled | Next::Timeout => {
                            (history.crashes, history.hangs, history.stuck) = (0, 0, 0);
                            history.failing = None;
                        }
                        Next::Requeue | Next::Restart => {}
                    }
                }
            }
        }
        history
    }

    fn resumed(&mut self, attempt: u32, step: Option<u64>) {
        let before = self.failing.filter(|failing| failing.open.is_none());
        self.failing = step.map(|step| {
            let same = before.filter(|failing| failing.step == step);
            FailingCheckpoint {
                step,
                crashes: same.map_or(0, |failing| failing.crashes),
                open: Some(attempt),
            }
        });
    }

    fn ended(&mut self, attempt: u32, cause: Cause) {
        let crashed = matches!(cause, Cause::Failed | Cause::Hung);
        let own = self.failing.filter(|failing| crashed && failing.open == Some(attempt));
        self.failing = own.map(|failing| FailingCheckpoint {
            crashes: failing.crashes + 1,
            open: None,
            ..failing
        });
    }

    /// The steps that the search for a checkpoint must know. A step after which the program crashed twice is a suspect: it
    /// verifies, and yet no program may be able to resume from it.
    pub(crate) fn recorded(&self) -> RecordedSteps {
        let suspect = self.failing.filter(|failing| failing.crashes >= SUSPECT);
        RecordedSteps {
            steps: self.steps.clone(),
            removed: self.removed.clone(),
            suspect: suspect.map(|failing| failing.step),
        }
    }
}

/// How long a line is retried on a full disk, and the pauses between tries.
const LIMIT: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Writes the record of this trial in a thread, line by line.
#[derive(Debug)]
pub(crate) struct AttemptJournal {
    file: Arc<Mutex<AppendFile>>,
    records: SerialQueue,
}

/// The file. It is reopened after an error: the handle may be stale, the last line may be torn.
#[derive(Debug)]
struct AppendFile {
    path: PathBuf,
    open: Option<Appender>,
}

impl AttemptJournal {
    pub(crate) fn open(path: &Path, records: &SerialQueue) -> io::Result<Self> {
        let open = Some(Appender::open(path)?);
        let file = Arc::new(Mutex::new(AppendFile { path: path.to_owned(), open }));
        Ok(Self { file, records: records.clone() })
    }

    /// Writes a line durably, and waits for it.
    pub(crate) fn write(&self, record: &AttemptRecord) -> io::Result<()> {
        let lost = || Err(io::Error::other("the thread that writes it was lost"));
        self.write_within(record, Duration::MAX).unwrap_or_else(lost)
    }

    /// Like [`AttemptJournal::write`], but waits no longer than `limit`. Returns none if the line is still to be written.
    pub(crate) fn write_within(
        &self,
        record: &AttemptRecord,
        limit: Duration,
    ) -> Option<io::Result<()>> {
        let (file, record) = (Arc::clone(&self.file), record.clone());
        self.records.ask(move || append(&file, &record)).wait(limit)
    }

    /// Queues a line, to be written durably after all before it. The thread calls `then` with the result.
    pub(crate) fn add(
        &self,
        record: AttemptRecord,
        then: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let file = Arc::clone(&self.file);
        self.records.add(0, move || then(append(&file, &record)));
    }
}

/// Writes a line, and retries for a while on a full disk: these few bytes matter. A written line is only synced again.
fn append(file: &Mutex<AppendFile>, record: &AttemptRecord) -> io::Result<()> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    let written = again(|| file.with(|open| open.line_unsynced(record)))
        .and_then(|()| again(|| file.with(Appender::sync)));
    log::debug(|| format!("recorded: {record:?}: {written:?}"));
    written
}

fn again(mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let (mut pause, mut waited) = (FIRST_PAUSE, Duration::ZERO);
    loop {
        match work() {
            Err(error) if may_pass(&error) && waited < LIMIT => std::thread::sleep(pause),
            result => return result,
        }
        waited += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl AppendFile {
    fn with(&mut self, work: impl FnOnce(&mut Appender) -> io::Result<()>) -> io::Result<()> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Appender::open(&self.path)?,
        };
        work(self.open.insert(open)).inspect_err(|_| self.open = None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `s1` starts attempt 1, `s1@5` from step 5; `c5` commits; `d5` lets go; `x1` crashes.
    fn rows(text: &str) -> Vec<AttemptRecord> {
        let row = |word: &str| -> serde_json::Value {
            let (kind, rest) = word.split_at(1);
            let (number, from) = rest.split_once('@').unwrap_or((rest, ""));
            let (number, from): (u64, Option<u64>) = (number.parse().unwrap(), from.parse().ok());
            match kind {
                "s" => {
                    serde_json::json!({"event": "start", "attempt": number, "slurm_job": null, "node": "n", "pid": 1, "boot_id": "b", "start_ticks": 1, "time": 1.0, "resume_step": from})
                }
                "c" => {
                    serde_json::json!({"event": "checkpoint", "attempt": 0, "step": number, "time": 1.0})
                }
                "d" => {
                    serde_json::json!({"event": "removed", "attempt": 0, "steps": [number], "time": 1.0})
                }
                _ => {
                    let (cause, next) = match kind {
                        "h" => ("hung", "restart"),
                        "x" => ("failed", "restart"),
                        "p" => ("preempted", "requeue"),
                        "z" => ("paused", "requeue"),
                        _ => ("failed", "failed"),
                    };
                    serde_json::json!({"event": "end", "attempt": number, "time": 1.0, "cause": cause, "exit_code": 1, "signal": null, "step": null, "checkpoint_step": null, "next": next, "reason": null})
                }
            }
        };
        text.split_whitespace().map(|word| serde_json::from_value(row(word)).unwrap()).collect()
    }

    #[track_caller]
    fn check(text: &str, next: u32, crashes: u32, stuck: u32, open: &[u32]) {
        let history = History::of(&rows(text));
        let open = open.iter().copied().collect();
        let found = (history.next, history.crashes, history.stuck, history.open);
        assert_eq!(found, (next, crashes, stuck, open), "{text}");
    }

    #[test]
    fn budgets_count_since_the_last_final_end() {
        check("", 0, 0, 0, &[]);
        check("s0 x0 s1 x1", 2, 2, 2, &[]);
        check("s0 c5 p0 s1 p1", 2, 0, 1, &[]);
        check("s0 c5 p0 s1 c5 p1", 2, 0, 1, &[]); // the same step again
        check("s0 p0 s1", 2, 0, 2, &[1]); // died without a word
        check("s0 x0 s1 f1 s2 x2", 3, 1, 1, &[]); // begun anew by somebody
    }

    #[test]
    fn a_checkpoint_that_kills_the_program_twice_is_a_suspect() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(History::of(&rows(text)).recorded().suspect, expected, "{text}");
        };
        check("s0 c5 p0 s1@5 x1", None);
        check("s0 c5 p0 s1@5 x1 s2@5 x2", Some(5));
        check("s0 c5 p0 s1@5 x1 s2@5 h2", Some(5));
        check("s0 c5 p0 s1@5 x1 s2@5 x2 s3@4 x3", None); // the one before has its own chance
        check("s0 c5 p0 s1@5 x1 s2@5 x2 s3@4 x3 s4@4 x4", Some(4));
        check("s0 c5 p0 s1@5 x1 s2@5 c6 x2", None); // it came further
        check("s0 c5 p0 s1@5 x1 s2@5 c5 x2", None);
        check("s0 c5 p0 s1@5 x1 s2@5 p2", None); // a preemption says nothing of the checkpoint
        check("s0 c5 p0 s1@5 p1 s2@5 x2", None);
        check("s0 c5 p0 s1@5 x1 s2@5 s3@5 x3", None); // nor does a lost node
        check("s0 x0 s1 x1", None); // there is no checkpoint
        check("s0 c5 p0 s1@5 x1 s2@5 f2", None); // somebody begins anew
    }

    #[test]
    fn what_was_removed_is_known() {
        let history = History::of(&rows("s0 c1 c2 c3 d1 d2 c1"));
        assert_eq!(history.recorded().removed, BTreeSet::from([2]));
        assert_eq!(history.recorded().steps, BTreeSet::from([1, 2, 3]));
    }

    #[test]
    fn a_torn_line_anywhere_costs_that_line_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempts.jsonl");
        let rows = rows("s0 c1 c2");
        let text = |rows: &[AttemptRecord]| -> Vec<u8> {
            rows.iter()
                .flat_map(|row| [nemo_core::checksum::to_vec(row).unwrap(), vec![b'\n']].concat())
                .collect()
        };
        let (whole, before) = (text(&rows), text(&rows[..2]));
        for length in before.len()..whole.len() - 1 {
            nemo_core::durable::write_synced(&path, &whole[..length]).unwrap();
            assert_eq!(History::read(&path).unwrap().steps, BTreeSet::from([1]), "{length}");
            // The next line is one of its own.
            AttemptJournal::open(&path, &SerialQueue::at_once()).unwrap().write(&rows[2]).unwrap();
            assert_eq!(History::read(&path).unwrap().steps, BTreeSet::from([1, 2]), "{length}");
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_changes_nothing() {
        let mut rows = rows("s0 c5 p0 s1@5 x1 s2@5 x2");
        let before = History::of(&rows);
        for (at, row) in rows.iter_mut().enumerate() {
            let mut value = serde_json::to_value(&*row).unwrap();
            value["time"] = serde_json::json!(1e9 - f64::from(u32::try_from(at).unwrap()));
            *row = serde_json::from_value(value).unwrap();
        }
        assert_eq!(History::of(&rows), before);
    }
}
