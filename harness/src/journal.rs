//! `attempts.jsonl`: what earlier attempts tell this one, and the lines of this one.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use nemo_harness::rundir::durable::Appender;
use nemo_harness::rundir::{AttemptRecord, Cause, Next, lines};

/// What came before, since somebody last began the trial anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The number that no attempt has had.
    pub(crate) next: u32,
    pub(crate) crashes: u32,
    /// Hangs since the last new checkpoint.
    pub(crate) hangs: u32,
    /// Attempts, up to the last, that ended without a new checkpoint.
    pub(crate) stuck: u32,
    /// The steps that were ever committed.
    pub(crate) steps: BTreeSet<u64>,
    /// Attempts that began and have no end.
    pub(crate) open: BTreeSet<u32>,
}

impl History {
    /// Reads the file; one that is not there is an empty history.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&lines::read(path)?.rows))
    }

    /// After a final end a new attempt means that somebody asked for it: the budgets begin anew.
    pub(crate) fn of(rows: &[AttemptRecord]) -> Self {
        let mut history = Self::default();
        for row in rows {
            match row {
                AttemptRecord::Start(start) => {
                    history.next = history.next.max(start.attempt + 1);
                    history.stuck += 1;
                    history.open.insert(start.attempt);
                }
                AttemptRecord::Ready { .. }
                | AttemptRecord::Removed { .. }
                | AttemptRecord::Hang { .. }
                | AttemptRecord::Label { .. }
                | AttemptRecord::ExcludeNode { .. } => {}
                AttemptRecord::Checkpoint { step, .. } => {
                    // The same step once more is no progress.
                    if history.steps.insert(*step) {
                        (history.stuck, history.hangs) = (0, 0);
                    }
                }
                AttemptRecord::End(end) => {
                    history.open.remove(&end.attempt);
                    history.crashes +=
                        u32::from(matches!(end.cause, Cause::Failed | Cause::OutOfMemory));
                    history.hangs += u32::from(end.cause == Cause::Hung);
                    // A pause is nobody's failure.
                    history.stuck -= u32::from(end.cause == Cause::Paused).min(history.stuck);
                    match end.next {
                        Next::Done | Next::Failed | Next::Cancelled | Next::Timeout => {
                            (history.crashes, history.hangs, history.stuck) = (0, 0, 0);
                        }
                        Next::Requeue | Next::Restart => {}
                    }
                }
            }
        }
        history
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Appender,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Appender::open(path)? })
    }

    /// Writes a line, durably. A full disk is tried again for a moment: these few bytes matter.
    pub(crate) fn write(&mut self, record: &AttemptRecord) -> io::Result<()> {
        self.file.line(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<AttemptRecord> {
        let row = |word: &str| -> serde_json::Value {
            let (kind, rest) = word.split_at(1);
            let number: u64 = rest.parse().unwrap_or(0);
            match kind {
                "s" => {
                    serde_json::json!({"event": "start", "attempt": number, "slurm_job": null, "node": "n", "pid": 1, "boot_id": "b", "start_ticks": 1, "time": 1.0, "resume_step": null})
                }
                "c" => {
                    serde_json::json!({"event": "checkpoint", "attempt": 0, "step": number, "time": 1.0})
                }
                _ => {
                    let (cause, next) = match kind {
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
        let steps = history.steps.clone();
        let hangs = history.hangs;
        assert_eq!(history, History { next, crashes, hangs, stuck, steps, open }, "{text}");
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
}
