//! `attempts.jsonl`: the record of each attempt. A start without an end means that nobody could write one.

use serde::{Deserialize, Serialize};

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
    },
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
    /// The host's name, or Slurm's name of the node.
    pub node: String,
    /// The harness's process.
    pub pid: u32,
    /// The kernel's boot id of the node.
    pub boot_id: String,
    /// The harness's start time in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Unix seconds.
    pub time: f64,
    /// The step of the checkpoint that it resumed from.
    pub resume_step: Option<u64>,
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
    /// Somebody cancelled it.
    Cancelled,
    /// The kernel or Slurm killed it for its memory.
    OutOfMemory,
    /// The program saved and asked to be started again.
    Restart,
    /// A later attempt of the same trial had taken over.
    Superseded,
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
