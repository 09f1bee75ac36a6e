//! `task.json`: all that the harness must know to run any trial of a task. Written once, at submission.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A task as the harness sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// 1, until the format changes in a way that an older harness can't read.
    pub schema: u32,
    /// The experiment's id.
    pub experiment: String,
    /// The task's name.
    pub task: String,
    /// The command, its placeholders not yet filled.
    pub command: CommandSpec,
    /// Where the program runs.
    pub workdir: PathBuf,
    /// Shell lines that run before the program, in its environment (`module load cuda`).
    #[serde(default)]
    pub setup: Vec<String>,
    /// Environment for the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The experiment's seed; a trial's is this plus its index.
    pub seed: u64,
    /// How the program is asked to save.
    pub checkpoint: CheckpointSpec,
    /// When a trial is given up.
    pub restart: RestartSpec,
    /// Metrics by pattern: name to regular expression with one group.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
    /// The tasks that the command may name, for `{task.dir}` and `{task.dirs}`.
    #[serde(default)]
    pub inputs: BTreeMap<String, InputSpec>,
    /// Whether a sentinel step must listen for the start of a preemption's grace.
    #[serde(default)]
    pub sentinel: bool,
    /// When the whole experiment must be over, in unix seconds.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Seconds between the scheduler's SIGTERM and its SIGKILL, where it told.
    #[serde(default)]
    pub kill_wait: Option<u64>,
    /// How long one segment may last, in seconds, where no scheduler sees to it (local executor).
    #[serde(default)]
    pub time_limit: Option<u64>,
}

/// The program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandSpec {
    /// A text for `sh`, in which every value is only ever data.
    Shell(String),
    /// A list, run as it is.
    Exec(Vec<String>),
}

/// How the program is asked to save, and how long before the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// `USR1`, `USR2`, `TERM`, `INT` or `HUP`.
    pub signal: String,
    /// Seconds before the end of a segment at which it is told.
    pub lead: u64,
}

/// When a trial is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// How many crashes are followed by another attempt.
    pub crashes: u32,
    /// How many attempts in a row may end without a new checkpoint.
    pub no_progress: u32,
}

/// Another task whose folders a command names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpec {
    /// `tasks/<task>/`.
    pub dir: PathBuf,
    /// How many trials it has.
    pub trials: u32,
    /// Trial by trial: `{task.dir}` is the folder of the trial with the same index.
    #[serde(default)]
    pub each: bool,
}
