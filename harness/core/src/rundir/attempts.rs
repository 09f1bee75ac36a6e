//! `attempts.jsonl`: the record of each attempt. A start without an end means that nobody could write one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::process_id::ProcessId;

/// One line of `attempts.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AttemptRecord {
    /// An attempt began.
    Start(AttemptStart),
    /// An attempt ended.
    End(AttemptEnd),
    /// A checkpoint was committed.
    Checkpoint {
        /// The attempt that saved it.
        attempt: u32,
        /// Its step.
        step: u64,
        /// Unix seconds.
        time: f64,
        /// Seconds that the program spent on saving it, where they were measured.
        #[serde(default)]
        saving: Option<f64>,
        /// Its size.
        #[serde(default)]
        bytes: Option<u64>,
    },
    /// Checkpoints that `keep` lets go are about to be removed.
    Removed {
        /// The attempt that removes them.
        attempt: u32,
        /// Their steps.
        steps: Vec<u64>,
        /// Unix seconds.
        time: f64,
    },
    /// Checkpoints that somebody does not want to go on from were renamed, before the program started.
    SetAside {
        /// The attempt that did it.
        attempt: u32,
        /// The retry that asked for it: no later attempt of it does so again.
        generation: u32,
        /// Checkpoints of later steps were set aside; all where it is none.
        from_step: Option<u64>,
        /// The steps of those that were there.
        steps: Vec<u64>,
        /// Unix seconds.
        time: f64,
    },
    /// The program works: it said so, or its first step, report or checkpoint came.
    Ready {
        /// The attempt.
        attempt: u32,
        /// Unix seconds.
        time: f64,
    },
    /// Without a checkpoint of ours, the program went on by itself where an earlier attempt had been.
    WentOn {
        /// The attempt.
        attempt: u32,
        /// The last step of earlier attempts before its own first one.
        step: u64,
        /// Unix seconds.
        time: f64,
    },
    /// Something goes wrong though nothing has failed.
    Warning {
        /// The attempt.
        attempt: u32,
        /// Stable, such as `saves-dropped`.
        code: String,
        /// For people.
        message: String,
        /// What to do.
        hint: String,
        /// Unix seconds.
        time: f64,
    },
    /// The program gave no sign of life for too long, and is ended.
    Hang {
        /// The attempt.
        attempt: u32,
        /// When its last sign came, in unix seconds.
        since: f64,
        /// When it was noticed, in unix seconds.
        time: f64,
        /// The file with what was seen of its processes, in the trial's folder.
        evidence: Option<String>,
    },
    /// A line of the output matched a policy.
    Label {
        /// The attempt.
        attempt: u32,
        /// The policy's name.
        name: String,
        /// The line.
        line: String,
        /// Unix seconds.
        time: f64,
    },
    /// The trial's next attempts shall not run on this node.
    ExcludeNode {
        /// The attempt.
        attempt: u32,
        /// Slurm's name of the node.
        node: String,
        /// For people.
        reason: String,
        /// The attempt started here, and left at once without starting anything.
        #[serde(default)]
        left: bool,
        /// Unix seconds.
        time: f64,
    },
}

impl AttemptRecord {
    /// The number of its attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Start(start) => start.attempt,
            Self::End(end) => end.attempt,
            Self::Checkpoint { attempt, .. }
            | Self::Removed { attempt, .. }
            | Self::SetAside { attempt, .. }
            | Self::Ready { attempt, .. }
            | Self::WentOn { attempt, .. }
            | Self::Warning { attempt, .. }
            | Self::Hang { attempt, .. }
            | Self::Label { attempt, .. }
            | Self::ExcludeNode { attempt, .. } => *attempt,
        }
    }

    /// The start that it is, if it is one.
    #[must_use]
    pub fn as_start(&self) -> Option<&AttemptStart> {
        if let Self::Start(start) = self { Some(start) } else { None }
    }

    /// The end that it is, if it is one.
    #[must_use]
    pub fn as_end(&self) -> Option<&AttemptEnd> {
        if let Self::End(end) = self { Some(end) } else { None }
    }
}

/// The starts of all attempts, with the step from which each one really went on: a program that was given no checkpoint may
/// have had its own. Where programs do so, an attempt that never worked has done nothing again.
#[must_use]
pub fn starts(records: &[AttemptRecord]) -> Vec<AttemptStart> {
    let went_on = |record: &AttemptRecord| match record {
        AttemptRecord::WentOn { attempt, step, .. } => Some((*attempt, *step)),
        _ => None,
    };
    let went_on: BTreeMap<u32, u64> = records.iter().filter_map(went_on).collect();
    let worked = records.iter().filter(|record| matches!(record, AttemptRecord::Ready { .. }));
    let worked: BTreeSet<u32> = worked.map(AttemptRecord::attempt).collect();
    let (mut starts, mut reached) = (Vec::new(), None);
    for record in records {
        match record {
            AttemptRecord::Start(start) => {
                let mut start = start.clone();
                let idle = !went_on.is_empty() && !worked.contains(&start.attempt);
                let own = went_on.get(&start.attempt).copied().or(start.resume_step);
                start.resume_step = if idle { own.max(reached) } else { own };
                starts.push(start);
            }
            AttemptRecord::End(end) => reached = end.step.or(reached),
            AttemptRecord::Checkpoint { step, .. } => reached = reached.max(Some(*step)),
            _ => {}
        }
    }
    starts
}

/// Who runs an attempt, where, and from which step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptStart {
    /// From 0.
    pub attempt: u32,
    /// Slurm's id as `squeue` shows it (`12` or `12_3`); none for a local attempt.
    pub slurm_job: Option<String>,
    /// Slurm's count of restarts of this job.
    #[serde(default)]
    pub restarts: u32,
    /// The harness: `node`, `boot_id`, `pid` and `start_ticks`.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Unix seconds.
    pub time: f64,
    /// The step of the checkpoint that it resumed from.
    pub resume_step: Option<u64>,
    /// When its harness, or the attempt before it in the same job, let it begin: verifying checkpoints comes after.
    #[serde(default)]
    pub began: Option<f64>,
}

/// How an attempt ended and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// From 0.
    pub attempt: u32,
    /// Unix seconds.
    pub time: f64,
    /// Why it ended.
    pub cause: Cause,
    /// The program's exit code, where it exited.
    pub exit_code: Option<i32>,
    /// The signal that killed the program, where one did.
    pub signal: Option<i32>,
    /// The last step that the program told.
    pub step: Option<u64>,
    /// The newest committed checkpoint.
    pub checkpoint_step: Option<u64>,
    /// What follows.
    pub next: Next,
    /// For people: what happened, in one line.
    pub reason: Option<String>,
    /// When it began to be stopped, in unix seconds, where it was stopped.
    #[serde(default)]
    pub stopped: Option<f64>,
    /// Seconds that the program spent on saving during the whole attempt, where they were measured.
    #[serde(default)]
    pub saving: Option<f64>,
}

/// Why an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The program did its work.
    Completed,
    /// The program crashed, or could not be started.
    Failed,
    /// The scheduler wanted the place.
    Preempted,
    /// The segment's time was over.
    TimeLimit,
    /// The node or its daemon was lost.
    NodeFailure,
    /// The harness could not be started, or was killed before it could write a record.
    StartFailed,
    /// Somebody cancelled it.
    Cancelled,
    /// The kernel or Slurm killed it for its memory.
    OutOfMemory,
    /// The program saved and asked to be started again.
    Restart,
    /// A later attempt of the same trial had taken over.
    Superseded,
    /// It gave no sign of life.
    Hung,
    /// Somebody paused it.
    Paused,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Nothing: the trial is done.
    Done,
    /// Nothing: the trial has failed.
    Failed,
    /// Nothing: the trial was cancelled.
    Cancelled,
    /// Nothing: the experiment's time is over.
    Timeout,
    /// Another attempt, through the scheduler's queue.
    Requeue,
    /// Another attempt at once, in the same job.
    Restart,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str, attempt: u32, step: Option<u64>) -> AttemptRecord {
        let text = serde_json::json!({
            "event": event, "attempt": attempt, "time": 1.0, "slurm_job": null, "node": "n", "pid": 1, "boot_id": "b",
            "start_ticks": 1, "resume_step": null, "cause": "preempted", "exit_code": null, "signal": null, "step": step,
            "checkpoint_step": null, "next": "requeue", "reason": null,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn an_attempt_begins_where_its_program_went_on() {
        let one = |attempt, step: Option<u64>, reached| {
            let mut own = vec![record("start", attempt, None)];
            own.extend(step.map(|step| record("went_on", attempt, Some(step))));
            own.push(record("ready", attempt, None));
            own.push(record("end", attempt, Some(reached)));
            own
        };
        let steps = |records: &[AttemptRecord]| -> Vec<Option<u64>> {
            starts(records).iter().map(|start| start.resume_step).collect()
        };
        let from_start = [one(0, None, 9), one(1, None, 7)].concat();
        assert_eq!(steps(&from_start), [None, None]);
        let idle = vec![record("start", 2, None), record("end", 2, None)];
        let own = [one(0, None, 9), one(1, Some(8), 20), idle, one(3, Some(19), 30)].concat();
        assert_eq!(steps(&own), [None, Some(8), Some(20), Some(19)]);
        assert_eq!(steps(&[own, one(4, None, 5)].concat())[4], None, "it really began anew");
    }
}
