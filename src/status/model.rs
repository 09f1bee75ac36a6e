//! What a status is, as `status --json` shows it. Fields may be added; they are never renamed.

use std::collections::BTreeMap;

use nemo_core::rundir::{Cause, Params};
use serde::{Deserialize, Serialize};

use super::finality::Certainty;
use super::trial_warning::TrialWarning;
use super::unreported::UnreportedMetrics;
use crate::trial_error::TrialError;

/// Where a trial, a task or an experiment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the definition")]
pub enum State {
    Running,
    Pending,
    /// Was stopped by the scheduler, and will run again.
    Preempted,
    /// Held, with its checkpoint.
    Paused,
    /// Slurm can't tell now.
    Unknown,
    Completed,
    Failed,
    Timeout,
    Cancelled,
    /// What it waits for can never be.
    Blocked,
}

impl State {
    /// As it is spelt in JSON and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Preempted => "preempted",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
        }
    }

    /// The state that is spelt so.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
        Self::Blocked,
        Self::Running,
        Self::Pending,
        Self::Preempted,
        Self::Paused,
        Self::Unknown,
    ];

    /// Whether nothing more will come by itself, as far as is known now: [`TrialStatus::is_final`] tells whether that
    /// is certain.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled | Self::Blocked => {
                true
            }
            Self::Running | Self::Pending | Self::Preempted | Self::Paused | Self::Unknown => false,
        }
    }
}

/// Everything that `status --json` shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The format's number.
    pub schema: u32,
    /// The whole.
    pub experiment: ExperimentStatus,
    /// Its tasks, in the experiment's order.
    pub tasks: Vec<TaskStatus>,
    /// In words: sources that did not answer, and metrics that never came.
    pub warnings: Vec<String>,
    /// Metrics that never came. Who shows the status makes warnings of them.
    #[serde(skip)]
    pub unreported: Vec<UnreportedMetrics>,
    /// Those of the warnings that are about some trials.
    #[serde(skip)]
    pub(super) of_trials: Vec<TrialWarning>,
}

/// The whole experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExperimentStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// For people: why, where the state does not say it all.
    pub reason: Option<String>,
    /// When it was submitted, in unix seconds.
    pub created: u64,
    /// Whether a part of this is from an earlier look, because a source did not answer.
    pub stale: bool,
    /// Its folder.
    pub dir: String,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskStatus {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// How many of its trials are in each state.
    pub counts: BTreeMap<State, u32>,
    /// Where it runs: the executor's name in the experiment.
    pub executor: String,
    /// Its folder.
    pub dir: String,
    /// When its first attempt started, in unix seconds.
    pub start: Option<f64>,
    /// When its last attempt ended, in unix seconds, once the whole task has.
    pub end: Option<f64>,
    /// The trial that is best by the task's metric, so far.
    pub best: Option<u32>,
    /// Its trials.
    pub trials: Vec<TrialStatus>,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialStatus {
    /// Its index in the task.
    pub index: u32,
    /// Where it stands.
    pub state: State,
    /// For people: why.
    pub reason: Option<String>,
    /// Whether nothing that Slurm says later changes the state.
    #[serde(rename = "final", serialize_with = "Certainty::is_final")]
    pub certainty: Certainty,
    /// What `nemo-slurm poll` does about it.
    #[serde(skip)]
    pub remedy: Option<Remedy>,
    /// Its parameters, once [`set_params`](super::set_params) was told them.
    pub params: Option<Params>,
    /// Slurm's id of its array task.
    pub slurm_job: Option<String>,
    /// Completed steps, where the program tells them.
    pub step: Option<u64>,
    /// The part of the whole that is done, from 0 to 1, where the program tells.
    pub progress: Option<f64>,
    /// What the program says of itself.
    pub message: Option<String>,
    /// The log policies that its output matched.
    pub labels: Vec<String>,
    /// The last value of each metric.
    pub metrics: serde_json::Map<String, serde_json::Value>,
    /// Why it failed, once [`set_errors`](crate::trial_error::set_errors) was told. Most trials of ten thousand have none:
    /// it has no room among them.
    pub error: Option<Box<TrialError>>,
    /// How often each kind of end has come.
    pub counters: Counters,
    /// All its attempts so far.
    pub attempts: Vec<AttemptStatus>,
}

/// What brings back a trial whose job no harness could save, or that lost its runner. Nobody wished for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Its job has ended, and Slurm can run it again.
    Requeue,
    /// Slurm could not start its job, and holds it.
    Release,
    /// Slurm cancelled its job before it ran, since it took what it waits for as failed: it is not.
    PutBack,
    /// Slurm has forgotten its job, which never ran, or which was to be requeued.
    Resubmit,
    /// Slurm seems to have forgotten its job, which was to be requeued: that is asked again.
    AskAgain,
    /// It runs on this machine, and the runner there is gone.
    StartRunner,
}

impl Remedy {
    /// Whether Slurm no longer knows the job, as far as it says now: nothing may wait for it.
    #[must_use]
    pub fn is_forgotten(self) -> bool {
        match self {
            Self::Resubmit | Self::AskAgain => true,
            Self::Requeue | Self::Release | Self::PutBack | Self::StartRunner => false,
        }
    }
}

impl TrialStatus {
    /// Whether Slurm no longer knows its job, though it was to go on.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.state == State::Preempted && self.remedy.is_some_and(Remedy::is_forgotten)
    }

    /// Whether nothing more can come of it: its harness said so, or Slurm did twice. A job that is not final may still
    /// run, whatever its state: who cancels must tell it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.certainty == Certainty::Final
    }

    /// Whether `nemo-slurm poll` would run it again: then its end is none yet.
    #[must_use]
    pub fn is_brought_back(&self) -> bool {
        self.remedy.is_some() && !self.is_final()
    }
}

/// How often a trial's attempts ended for each reason that is not its program's own wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// The program crashed, out of memory included.
    pub crashes: u32,
    /// The scheduler wanted the place.
    pub preemptions: u32,
    /// A segment's time was over.
    pub time_limits: u32,
    /// A node, its daemon or the harness was lost.
    pub node_failures: u32,
    /// It gave no sign of life.
    pub hangs: u32,
}

impl Counters {
    pub(super) fn of(attempts: &[AttemptStatus]) -> Self {
        let mut counters = Self::default();
        for cause in attempts.iter().filter_map(|attempt| attempt.cause) {
            match cause {
                Cause::Failed | Cause::OutOfMemory => counters.crashes += 1,
                Cause::Preempted => counters.preemptions += 1,
                Cause::TimeLimit => counters.time_limits += 1,
                Cause::NodeFailure | Cause::StartFailed => counters.node_failures += 1,
                Cause::Hung => counters.hangs += 1,
                Cause::Completed
                | Cause::Cancelled
                | Cause::Restart
                | Cause::Superseded
                | Cause::Paused => {}
            }
        }
        counters
    }
}

/// One attempt. Times are unix seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptStatus {
    /// From 0; none where Slurm started the job but the harness never got to run.
    pub number: Option<u32>,
    /// Slurm's id of its array task.
    pub slurm_job: Option<String>,
    /// Where it ran.
    pub node: Option<String>,
    /// When it started.
    pub start: Option<f64>,
    /// When it ended.
    pub end: Option<f64>,
    /// Why it ended; none while it runs, or where nobody can tell.
    pub cause: Option<Cause>,
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// The signal that killed the program.
    pub signal: Option<i32>,
    /// The step that it resumed from.
    pub resume_step: Option<u64>,
    /// The newest checkpoint at its end.
    pub checkpoint_step: Option<u64>,
    /// For people: what happened.
    pub reason: Option<String>,
    /// The log policies that its output matched, oldest first.
    pub labels: Vec<Label>,
    /// The nodes that the trial does not use again because of it.
    pub excluded_nodes: Vec<ExcludedNode>,
}

/// A line of the output that a log policy waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// The policy's name.
    pub name: String,
    /// The line.
    pub line: String,
}

/// A node that a trial does not use again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExcludedNode {
    /// Slurm's name of it.
    pub node: String,
    /// For people: why.
    pub reason: String,
    /// Whether the attempt left it at once, without starting anything.
    pub left: bool,
}
