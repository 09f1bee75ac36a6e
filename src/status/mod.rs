//! What has become of an experiment: a pure join of the journal, `squeue`, `sacct` and the trials' own folders.
//!
//! Each source may be silent. A silence leaves what was known, marked as old; it never makes a trial failed or ended.

mod attempts;
mod local;
mod slurm_view;
mod summary;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;

use nemo_harness::rundir::runner::RunnerRecord;
use nemo_harness::rundir::{AttemptRecord, Cause, MetricsLine, Params, Progress};
use serde::{Deserialize, Serialize};

use crate::experiment::{Executor, Task};
use crate::host::Liveness;
use crate::slurm::{AccountRow, QueueRow};
use crate::store::Stored;

pub use summary::recount;

/// A status as one line of JSON.
#[must_use]
pub fn json(status: &Status) -> String {
    // No key or number of ours is beyond JSON.
    serde_json::to_string(status).unwrap_or_default()
}

/// The final state that a trial's own folder tells, if it tells one.
#[must_use]
pub fn final_state(files: &TrialFiles) -> Option<State> {
    final_end(&files.attempts)
}

/// The same, from the record alone.
#[must_use]
pub fn final_end(records: &[AttemptRecord]) -> Option<State> {
    trial::last_end(records).and_then(trial::final_end).map(|(state, _)| state)
}

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

    /// Whether nothing more will come by itself.
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
    /// Sources that did not answer, in words. Where there are any, what they would have told may be old.
    pub warnings: Vec<String>,
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
    /// Its parameters.
    pub params: Params,
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
    /// How often each kind of end has come.
    pub counters: Counters,
    /// All its attempts so far.
    pub attempts: Vec<AttemptStatus>,
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
    fn of(attempts: &[AttemptStatus]) -> Self {
        let mut counters = Self::default();
        for cause in attempts.iter().filter_map(|attempt| attempt.cause) {
            match cause {
                Cause::Failed | Cause::OutOfMemory => counters.crashes += 1,
                Cause::Preempted => counters.preemptions += 1,
                Cause::TimeLimit => counters.time_limits += 1,
                Cause::NodeFailure => counters.node_failures += 1,
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
}

/// What a source said.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T> {
    /// Its rows.
    Rows(Vec<T>),
    /// Its rows, but some of what it printed could not be read: that a row is missing says nothing.
    Partly(Vec<T>, String),
    /// There was nothing to ask it, or it is switched off on this cluster.
    NotAsked,
    /// It gave no answer: nothing follows from that.
    Failed(String),
}

impl<T> Answer<T> {
    fn rows(&self) -> &[T] {
        match self {
            Self::Rows(rows) | Self::Partly(rows, _) => rows,
            Self::NotAsked | Self::Failed(_) => &[],
        }
    }

    /// Why what it did not say may be so all the same.
    fn trouble(&self) -> Option<&str> {
        match self {
            Self::Failed(why) | Self::Partly(_, why) => Some(why),
            Self::Rows(_) | Self::NotAsked => None,
        }
    }
}

/// What a trial's folder tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrialFiles {
    /// `attempts.jsonl`.
    pub attempts: Vec<AttemptRecord>,
    /// The last values of its metrics, and their steps.
    pub metrics: Vec<MetricsLine>,
    /// What the program of an attempt that has no end told last.
    pub progress: Option<Progress>,
    /// Whether the harness of its last attempt still runs on this machine; none where it runs elsewhere.
    pub alive: Option<bool>,
    /// Whether its harness could not have the job requeued.
    pub requeue_wanted: bool,
}

/// Somebody's wish, as a file in the experiment's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is wanted.
    pub action: Action,
    /// One task; all where none is named.
    pub task: Option<String>,
    /// One trial; all where none is named.
    pub trial: Option<u32>,
    /// Unix seconds.
    pub time: u64,
}

/// What can be wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End it for good, saved if there is time.
    Cancel,
    /// Save, stop, and run again from the checkpoint.
    Preempt,
    /// Save, stop, and wait.
    Pause,
    /// Go on after a pause.
    Resume,
}

impl Request {
    /// Whether it is about this trial.
    #[must_use]
    pub fn covers(&self, task: &str, trial: u32) -> bool {
        self.task.as_deref().is_none_or(|wanted| wanted == task)
            && self.trial.is_none_or(|wanted| wanted == trial)
    }
}

/// What the local runner wrote, and whether it lives.
#[derive(Clone, Debug, PartialEq)]
pub struct RunnerView {
    /// `runner.jsonl`.
    pub records: Vec<RunnerRecord>,
    /// Whether the last runner lives; none if there never was one.
    pub liveness: Option<Liveness>,
    /// Whether it ended because the machine was restarted.
    pub rebooted: bool,
}

/// What was known at an earlier look: state and reason by task and trial.
pub type Remembered = BTreeMap<String, BTreeMap<u32, (State, Option<String>)>>;

/// Everything that a status follows from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The experiment's folder.
    pub stored: &'a Stored,
    /// Whether the process of `submit` still works on it.
    pub submitting: bool,
    /// `squeue`'s answer for all its arrays.
    pub queue: Answer<QueueRow>,
    /// `sacct`'s answer for all its arrays.
    pub accounts: Answer<AccountRow>,
    /// The folders of its trials, by task.
    pub files: BTreeMap<String, BTreeMap<u32, TrialFiles>>,
    /// What was asked for by `cancel`.
    pub requests: Vec<Request>,
    /// The local runner.
    pub runner: RunnerView,
    /// What was known before.
    pub earlier: Remembered,
}

/// Joins what the sources say.
#[must_use]
pub fn join(sources: &Sources<'_>) -> Status {
    let stored = sources.stored;
    let mut tasks: Vec<TaskStatus> = Vec::new();
    for task in &stored.experiment.tasks {
        let trials = match &stored.experiment.executors[&task.executor] {
            Executor::Slurm(_) => slurm_trials(task, sources, &tasks),
            Executor::Local(_) => local::trials(task, sources),
        };
        tasks.push(summary::task_status(task, trials));
    }
    let (state, reason) = summary::whole(sources, &tasks);
    let warnings = warnings(sources);
    Status {
        schema: 1,
        experiment: ExperimentStatus {
            id: stored.id.to_string(),
            name: stored.experiment.name.clone(),
            state,
            reason,
            created: stored.id.made_at(),
            stale: !warnings.is_empty(),
            dir: stored.dir.0.to_string_lossy().into_owned(),
        },
        tasks,
        warnings,
    }
}

fn slurm_trials(task: &Task, sources: &Sources<'_>, earlier: &[TaskStatus]) -> Vec<TrialStatus> {
    let seen = slurm_view::of_task(task, sources);
    let none = BTreeMap::new();
    let files = sources.files.get(&task.name).unwrap_or(&none);
    let nothing = TrialFiles::default();
    let trial = |(index, seen): (u32, slurm_view::Seen<'_>)| {
        let files = files.get(&index).unwrap_or(&nothing);
        let attempts = attempts::merge(files, &seen);
        let case = trial::Case { task, index, seen: &seen, files, sources, parents: earlier };
        let (state, reason) = trial::state(&case, &attempts);
        status(task, index, state, reason, seen.shown(), files, attempts)
    };
    (0..).zip(seen).map(trial).collect()
}

fn status(
    task: &Task,
    index: u32,
    state: State,
    reason: Option<String>,
    slurm_job: Option<String>,
    files: &TrialFiles,
    attempts: Vec<AttemptStatus>,
) -> TrialStatus {
    let mut metrics = serde_json::Map::new();
    for line in &files.metrics {
        metrics.extend(line.values.clone());
    }
    let reported = files.metrics.iter().filter_map(|line| line.step).max();
    let saved = attempts.iter().filter_map(|attempt| attempt.checkpoint_step).max();
    let params = task.trials[index as usize].clone();
    let told = files.progress.as_ref();
    let step = reported.max(saved).max(told.and_then(|told| told.step));
    let mut labels: Vec<String> = Vec::new();
    for record in &files.attempts {
        if let AttemptRecord::Label { name, .. } = record
            && !labels.contains(name)
        {
            labels.push(name.clone());
        }
    }
    TrialStatus {
        index,
        state,
        reason,
        params,
        slurm_job,
        step,
        progress: told.and_then(Progress::part),
        message: told.and_then(|told| told.status.clone()),
        labels,
        metrics,
        counters: Counters::of(&attempts),
        attempts,
    }
}

fn warnings(sources: &Sources<'_>) -> Vec<String> {
    let queue = sources.queue.trouble().map(|why| format!("squeue: {why}"));
    let accounts = sources.accounts.trouble().map(|why| format!("sacct: {why}"));
    queue.into_iter().chain(accounts).collect()
}
