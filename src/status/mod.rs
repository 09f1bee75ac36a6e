//! What has become of an experiment: a pure join of the journal, `squeue`, `sacct` and the trials' own folders.
//!
//! Each source may be silent. A silence leaves what was known, marked as old; it never makes a trial failed or ended.

mod attempts;
mod finality;
mod local;
mod model;
mod params;
mod runs;
mod slurm_view;
mod start_failure;
mod summary;
#[cfg(test)]
mod tests;
mod trial;
mod unreported;
mod waiting;

use std::collections::BTreeMap;
use std::path::PathBuf;

use nemo_core::lines::Damage;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{AttemptRecord, MetricsLine, Progress};

use crate::experiment::{Executor, Task};
use crate::process::Liveness;
use crate::slurm::{AccountRow, QueueRow};
use crate::store::Stored;

pub use finality::Certainty;
pub use model::{
    AttemptStatus, Counters, ExcludedNode, ExperimentStatus, Label, Remedy, State, Status,
    TaskStatus, TrialStatus,
};
pub use nemo_core::rundir::{Request, RequestedAction};
pub use params::set_params;
pub use summary::{meant, recount, state_of};

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

/// What a source said.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryResult<T> {
    /// Its rows.
    Rows(Vec<T>),
    /// Its rows, but some of what it printed could not be read: that a row is missing says nothing.
    Partly(Vec<T>, String),
    /// It was not asked: nothing follows from that.
    NotAsked,
    /// It is switched off on this cluster.
    Off,
    /// It gave no answer: nothing follows from that.
    Failed(String),
}

impl<T> QueryResult<T> {
    /// The rows that it has.
    #[must_use]
    pub fn rows(&self) -> &[T] {
        match self {
            Self::Rows(rows) | Self::Partly(rows, _) => rows,
            Self::NotAsked | Self::Off | Self::Failed(_) => &[],
        }
    }

    /// The same answer, of these rows alone.
    #[must_use]
    pub fn part(&self, places: impl Iterator<Item = usize>) -> Self
    where
        T: Clone,
    {
        let some = |rows: &[T]| places.filter_map(|place| rows.get(place).cloned()).collect();
        match self {
            Self::Rows(rows) => Self::Rows(some(rows)),
            Self::Partly(rows, why) => Self::Partly(some(rows), why.clone()),
            Self::NotAsked => Self::NotAsked,
            Self::Off => Self::Off,
            Self::Failed(why) => Self::Failed(why.clone()),
        }
    }

    /// Whether it said all that it can say: then a missing row says something too.
    fn is_whole(&self) -> bool {
        matches!(self, Self::Rows(_) | Self::Off)
    }

    /// The error that makes missing rows meaningless.
    fn trouble(&self) -> Option<&str> {
        match self {
            Self::Failed(why) | Self::Partly(_, why) => Some(why),
            Self::Rows(_) | Self::NotAsked | Self::Off => None,
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
    /// Whether it reported more before these.
    pub older_metrics: bool,
    /// What the program of an attempt that has no end told last.
    pub progress: Option<Progress>,
    /// Whether the harness of its last attempt still runs on this machine; none where it runs elsewhere.
    pub alive: Option<bool>,
    /// Whether its harness could not have the job requeued.
    pub requeue_wanted: bool,
    /// The lines of `attempts.jsonl` that are not as they were written.
    pub damage: Option<Damage>,
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
    /// The lines of `runner.jsonl` that are not as they were written.
    pub damage: Option<Damage>,
}

/// What was known of a trial at an earlier look.
#[derive(Clone, Debug, PartialEq)]
pub struct RememberedState {
    /// Where it stood.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// How sure that was.
    pub certainty: Certainty,
}

/// What was known at an earlier look, by task and trial.
pub type RememberedStates = BTreeMap<String, BTreeMap<u32, RememberedState>>;

/// Everything that a status follows from.
#[derive(Debug)]
pub struct StatusInputs<'a> {
    /// The experiment's folder.
    pub stored: &'a Stored,
    /// Whether the process of `submit` still works on it.
    pub submitting: bool,
    /// `squeue`'s answer for all its arrays.
    pub queue: QueryResult<QueueRow>,
    /// `sacct`'s answer for all its arrays.
    pub accounts: QueryResult<AccountRow>,
    /// The folders of its trials, by task.
    pub files: BTreeMap<String, BTreeMap<u32, TrialFiles>>,
    /// What was asked for by `cancel`, `pause` and their like.
    pub requests: Vec<Request>,
    /// Requests that are not as they were written.
    pub damaged_requests: Vec<PathBuf>,
    /// The local runner.
    pub runner: RunnerView,
    /// What was known before.
    pub earlier: RememberedStates,
    /// When they were asked, in unix seconds.
    pub now: f64,
}

/// Joins what the sources say.
#[must_use]
pub fn join(sources: &StatusInputs<'_>) -> Status {
    let stored = sources.stored;
    let mut tasks: Vec<TaskStatus> = Vec::new();
    for task in &stored.experiment.tasks {
        let trials = match &stored.experiment.executors[&task.executor] {
            Executor::Slurm(_) => slurm_trials(task, sources, &tasks),
            Executor::Local(_) => local::trials(task, sources),
        };
        tasks.push(summary::task_status(task, &stored.dir, trials));
    }
    let (state, reason) = summary::whole(sources, &tasks);
    let mut warnings = warnings(sources);
    let is_old = !warnings.is_empty();
    warnings.extend(damage(sources));
    warnings.extend(unreported::warnings(sources, &tasks));
    Status {
        schema: 1,
        experiment: ExperimentStatus {
            id: stored.id.to_string(),
            name: stored.experiment.name.clone(),
            state,
            reason,
            created: stored.id.made_at(),
            stale: is_old,
            dir: stored.dir.0.to_string_lossy().into_owned(),
        },
        tasks,
        warnings,
    }
}

fn slurm_trials(
    task: &Task,
    sources: &StatusInputs<'_>,
    earlier: &[TaskStatus],
) -> Vec<TrialStatus> {
    let seen = slurm_view::of_task(task, sources);
    let none = BTreeMap::new();
    let files = sources.files.get(&task.name).unwrap_or(&none);
    let nothing = TrialFiles::default();
    let trial = |(index, seen): (u32, slurm_view::SlurmRows<'_>)| {
        let files = files.get(&index).unwrap_or(&nothing);
        let attempts = attempts::merge(files, &seen);
        let evidence =
            trial::TrialEvidence { task, index, seen: &seen, files, sources, parents: earlier };
        let standing = standing(&evidence, &attempts);
        let attempts = attempts::accounted(attempts, standing.state);
        status(index, standing, seen.shown(), files, attempts)
    };
    (0..).zip(seen).map(trial).collect()
}

/// Where a trial stands, and how sure that is.
struct AssessedState {
    state: State,
    reason: Option<String>,
    certainty: Certainty,
    remedy: Option<Remedy>,
}

fn standing(evidence: &trial::TrialEvidence<'_>, attempts: &[AttemptStatus]) -> AssessedState {
    let verdict = trial::state(evidence, attempts);
    let now = evidence.sources.now;
    let certainty = finality::certainty(verdict.state, verdict.basis, evidence.earlier(), now);
    let (state, reason) = match verdict.once_certain.filter(|_| certainty == Certainty::Final) {
        Some((state, reason)) => (state, Some(reason)),
        None => (verdict.state, verdict.reason),
    };
    // What waits in the queue for what can never be is no end yet, and says so by itself.
    let waits = state == State::Blocked && verdict.basis == finality::StateSource::Open;
    let reason = if waits { reason } else { finality::with_doubt(reason, state, certainty) };
    AssessedState { state, reason, certainty, remedy: verdict.remedy }
}

fn status(
    index: u32,
    standing: AssessedState,
    slurm_job: Option<String>,
    files: &TrialFiles,
    attempts: Vec<AttemptStatus>,
) -> TrialStatus {
    let AssessedState { state, reason, certainty, remedy } = standing;
    let mut metrics = serde_json::Map::new();
    for line in &files.metrics {
        metrics.extend(line.values.clone());
    }
    let reported = files.metrics.iter().filter_map(|line| line.step).max();
    let saved = attempts.iter().filter_map(|attempt| attempt.checkpoint_step).max();
    let progress = files.progress.as_ref();
    let step = reported.max(saved).max(progress.and_then(|progress| progress.step));
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
        certainty,
        remedy,
        params: None,
        slurm_job,
        step,
        progress: progress.and_then(Progress::part),
        message: progress.and_then(|progress| progress.status.clone()),
        labels,
        metrics,
        counters: Counters::of(&attempts),
        attempts,
    }
}

/// The files that nothing was concluded from, wholly or in part.
fn damage(sources: &StatusInputs<'_>) -> impl Iterator<Item = String> {
    let of_trials = sources.files.values().flat_map(BTreeMap::values).map(|files| &files.damage);
    let all = [&sources.stored.damage, &sources.runner.damage].into_iter().chain(of_trials);
    let requests = sources.damaged_requests.iter().map(|path| {
        format!("`{}` is damaged: its request is ignored; repeat the command", path.display())
    });
    all.flatten().map(Damage::to_string).chain(requests)
}

/// The sources that did not answer.
fn warnings(sources: &StatusInputs<'_>) -> Vec<String> {
    let warning = |program, why| format!("{program}: {why} (what is shown may be old)");
    let queue = sources.queue.trouble().map(|why| warning("squeue", why));
    let accounts = sources.accounts.trouble().map(|why| warning("sacct", why));
    queue.into_iter().chain(accounts).collect()
}
