//! `attempts.jsonl`: reads the records of earlier attempts, and writes those of this one.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nemo_core::durable::Appender;
use nemo_core::rundir::{AttemptEnd, AttemptRecord, Cause, Next, RestartFrom};
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
    /// How large the newest of them was.
    pub(crate) bytes: Option<u64>,
    /// Steps that were removed because newer or better checkpoints existed.
    pub(crate) removed: BTreeSet<u64>,
    /// The retries that have set checkpoints aside.
    pub(crate) set_aside: BTreeSet<u32>,
    /// Attempts that have a start and no end.
    pub(crate) open: BTreeSet<u32>,
    /// The newest attempt whose program worked.
    pub(crate) worked: Option<u32>,
    /// The latest step from which a program went on by itself.
    pub(crate) went_on: Option<u64>,
    /// The attempt that crashed where it saved to memory, perhaps for lack of room there: it counts for nothing.
    pub(crate) had_no_room: Option<u32>,
    /// This attempt's program goes on from a file of its own, of which nothing was ever committed.
    pub(crate) leaves_own: bool,
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

/// The code of the warning that an attempt crashed where it saved to memory.
pub(super) const HAD_NO_ROOM: &str = "tier-had-no-room";

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
        let mut job = None;
        for row in rows {
            match row {
                AttemptRecord::Start(start) => {
                    // Each retry has a job of its own, whether or not the attempts before could record a final end.
                    let earlier = std::mem::replace(&mut job, start.slurm_job.as_deref());
                    if earlier.is_some() && earlier != job {
                        history.begin_anew();
                    }
                    history.next = history.next.max(start.attempt + 1);
                    history.stuck += 1;
                    history.open.insert(start.attempt);
                    history.resumed(start.attempt, start.resume_step);
                }
                AttemptRecord::Removed { steps, .. } => history.removed.extend(steps),
                AttemptRecord::SetAside { generation, from_step, .. } => {
                    let (generation, step) = (*generation, *from_step);
                    history.restarted(RestartFrom { generation, step });
                }
                // An attempt that left its node did not try anything.
                AttemptRecord::ExcludeNode { left: true, .. } => {
                    history.stuck = history.stuck.saturating_sub(1);
                }
                AttemptRecord::Warning { attempt, code, .. } if code == HAD_NO_ROOM => {
                    history.had_no_room = Some(*attempt);
                    history.stuck = history.stuck.saturating_sub(1);
                }
                AttemptRecord::Ready { attempt, .. } => history.worked = Some(*attempt),
                // What it goes on from lasts, so the attempts before made progress.
                AttemptRecord::WentOn { step, .. } if history.went_on < Some(*step) => {
                    history.went_on = Some(*step);
                    (history.stuck, history.hangs) = (1, 0);
                }
                AttemptRecord::WentOn { .. }
                | AttemptRecord::Hang { .. }
                | AttemptRecord::Warning { .. }
                | AttemptRecord::Label { .. }
                | AttemptRecord::ExcludeNode { .. } => {}
                AttemptRecord::Checkpoint { step, attempt, bytes, .. } => {
                    history.bytes = bytes.or(history.bytes);
                    history.worked = Some(*attempt);
                    history.failing = None;
                    history.removed.remove(step);
                    // The same step again is no progress.
                    if history.steps.insert(*step) {
                        (history.stuck, history.hangs) = (0, 0);
                    }
                }
                AttemptRecord::End(end) => history.end(end),
            }
        }
        history
    }

    fn end(&mut self, end: &AttemptEnd) {
        self.open.remove(&end.attempt);
        let counts = self.had_no_room != Some(end.attempt);
        let is_crash = matches!(end.cause, Cause::Failed | Cause::OutOfMemory);
        self.crashes += u32::from(is_crash && counts);
        self.hangs += u32::from(end.cause == Cause::Hung);
        self.ended(end.attempt, if counts { end.cause } else { Cause::Restart });
        // A pause is no failure.
        self.stuck -= u32::from(end.cause == Cause::Paused).min(self.stuck);
        match end.next {
            Next::Done | Next::Failed | Next::Cancelled | Next::Timeout => self.begin_anew(),
            Next::Requeue | Next::Restart => {}
        }
    }

    /// Somebody runs the trial again from an earlier step: what was committed after it is no progress that was made.
    pub(crate) fn restarted(&mut self, from: RestartFrom) {
        self.set_aside.insert(from.generation);
        self.steps.retain(|step| !from.leaves_out(*step));
        self.went_on = self.went_on.filter(|step| !from.leaves_out(*step));
        self.failing = None;
    }

    /// Somebody runs the trial again: its budgets are full.
    fn begin_anew(&mut self) {
        (self.crashes, self.hangs, self.stuck) = (0, 0, 0);
        self.had_no_room = None;
        (self.failing, self.went_on) = (None, None); // somebody may have removed what it went on from
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
    pub(crate) fn recorded(&self, wanted: Option<RestartFrom>) -> RecordedSteps {
        let restart_from = wanted.filter(|from| !self.set_aside.contains(&from.generation));
        let suspect = self.failing.filter(|failing| failing.crashes >= SUSPECT);
        RecordedSteps {
            steps: self.steps.clone(),
            removed: self.removed.clone(),
            suspect: suspect.map(|failing| failing.step),
            restart_from,
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
        let written = self.write_within(record, Duration::MAX);
        written.unwrap_or_else(|| Err(io::Error::other("the thread that writes it was lost")))
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

    /// `s1` starts attempt 1, `s1@5` from step 5; `c5` commits; `d5` lets go; `x1` crashes, for lack of room in memory after `m1`.
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
                "w" => {
                    serde_json::json!({"event": "went_on", "attempt": 0, "step": number, "time": 1.0})
                }
                "m" => {
                    serde_json::json!({"event": "warning", "attempt": number, "code": HAD_NO_ROOM, "message": "", "hint": "", "time": 1.0})
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
    fn a_crash_for_lack_of_room_in_memory_counts_for_nothing() {
        check("s0 m0 x0", 1, 0, 0, &[]);
        check("s0 m0 x0 s1 x1", 2, 1, 1, &[]);
        let no_room = |text| History::of(&rows(text)).had_no_room;
        assert_eq!((no_room("s0 m0 x0 s1 p1"), no_room("s0 m0 x0 s1 f1")), (Some(0), None));
        assert_eq!(History::of(&rows("s0 c5 p0 s1@5 m1 x1 s2@5 x2")).recorded(None).suspect, None);
    }

    #[test]
    fn going_on_by_itself_is_progress_again_after_a_retry() {
        check("s0 p0 s1 w50 p1 s2 w50 p2", 3, 0, 2, &[]); // no further than before
        check("s0 p0 s1 w50 p1 s2 f2 s3 w5 p3 s4 w7 p4", 5, 0, 1, &[]);
        let mut history = History::of(&rows("s0 p0 s1 w50"));
        history.restarted(RestartFrom { generation: 1, step: None });
        assert_eq!(history.went_on, None);
    }

    #[test]
    fn budgets_begin_anew_in_another_job() {
        let stuck = |jobs: [&str; 2]| {
            let mut rows = rows("s0 p0 s1 p1");
            for (place, job) in [0, 2].into_iter().zip(jobs) {
                let AttemptRecord::Start(start) = &mut rows[place] else { unreachable!() };
                start.slurm_job = Some(job.to_owned());
            }
            History::of(&rows).stuck
        };
        assert_eq!(stuck(["7_0", "7_0"]), 2);
        assert_eq!(stuck(["7_0", "9_0"]), 1);
    }

    #[test]
    fn a_checkpoint_that_kills_the_program_twice_is_a_suspect() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(History::of(&rows(text)).recorded(None).suspect, expected, "{text}");
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
    fn what_a_retry_has_set_aside_was_never_committed() {
        let from = |generation, step| RestartFrom { generation, step };
        let mut rows = rows("s0 c1 c2 c3 f0 s1");
        let wanted = Some(from(4, Some(1)));
        assert_eq!(History::of(&rows).recorded(wanted).restart_from, wanted);
        let set_aside = serde_json::json!({"event": "set_aside", "attempt": 1, "generation": 4, "from_step": 1, "steps": [2, 3], "time": 1.0});
        rows.push(serde_json::from_value(set_aside).unwrap());
        let history = History::of(&rows);
        assert_eq!(history.recorded(wanted).restart_from, None, "once is enough");
        assert_eq!(history.recorded(None).steps, BTreeSet::from([1]));
        let next = Some(from(5, None));
        assert_eq!(history.recorded(next).restart_from, next, "the next retry has its own");
    }

    #[test]
    fn what_was_removed_is_known() {
        let history = History::of(&rows("s0 c1 c2 c3 d1 d2 c1"));
        assert_eq!(history.recorded(None).removed, BTreeSet::from([2]));
        assert_eq!(history.recorded(None).steps, BTreeSet::from([1, 2, 3]));
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
