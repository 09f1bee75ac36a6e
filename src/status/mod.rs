//! What has become of an experiment: a pure join of the journal, `squeue`, `sacct` and the trials' own folders.
//!
//! Each source may be silent. A silence leaves what was known, marked as old; it never makes a trial failed or ended.

mod attempts;
mod earlier;
mod finality;
mod local;
mod model;
mod params;
mod pending_reason;
mod questions;
mod reported;
mod runs;
#[cfg(test)]
mod samples;
mod slurm_view;
mod start_failure;
mod summary;
#[cfg(test)]
mod tests;
mod trial;
mod trial_warning;
mod unreported;
mod waiting;
pub use waiting::spent as spent_budget;

use std::collections::BTreeMap;
use std::path::PathBuf;

use nemo_core::lines::Damage;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{AttemptRecord, MetricsLine, Progress};

use crate::experiment::{Executor, Task};
use crate::parallel::map_chunks;
use crate::process::Liveness;
use crate::slurm::{AccountRow, QueueRow};
use crate::store::Stored;

pub use attempts::is_guess;
pub use earlier::{RememberedState, RememberedStates};
pub use finality::Certainty;
pub use local::held_by_others;
pub use model::{
    AttemptStatus, Counters, ExcludedNode, ExperimentStatus, Label, Remedy, State, Status,
    TaskStatus, TrialStatus,
};
pub use nemo_core::rundir::{Request, RequestedAction};
pub use params::{TaskParams, set_params};
pub use questions::{needs_accounts, tells_all};
#[cfg(test)]
pub(crate) use samples::{sample_attempt, sample_status, sample_task, sample_trial};
pub use summary::{best_trial, meant, recount, state_of, was_not_needed};
pub use trial::lingering_run;
pub use trial_warning::TrialWarning;
pub use unreported::UnreportedMetrics;

/// The final state that a trial's own folder tells, if it tells one.
#[must_use]
pub fn final_state(files: &TrialFiles) -> Option<State> {
    trial::last_end(files).and_then(trial::final_end).map(|(state, _)| state)
}

/// The same, from the record alone.
#[must_use]
pub fn final_end(records: &[AttemptRecord]) -> Option<State> {
    trial::last_end_of(records).and_then(trial::final_end).map(|(state, _)| state)
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
    /// Why none are read: the program has put something else in the place of the file.
    pub no_metrics: Option<String>,
    /// What the program of an attempt that has no end told last.
    pub progress: Option<Progress>,
    /// When each attempt was last heard of whose end a later one wrote by guess, in unix seconds.
    pub signs: BTreeMap<u32, f64>,
    /// Whether the harness of its last attempt still runs on this machine; none where it runs elsewhere.
    pub alive: Option<bool>,
    /// Whether its harness could not have the job requeued.
    pub requeue_wanted: bool,
    /// The lines of `attempts.jsonl` that are not as they were written.
    pub damage: Option<Damage>,
    /// The number of its first attempt since it was retried last: an end before that decides nothing any more.
    pub retried_from: Option<u32>,
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

/// Everything that a status follows from.
#[derive(Debug)]
pub struct StatusInputs<'a> {
    /// The experiment's folder.
    pub stored: &'a Stored,
    /// Whether the process of `submit` still works on it.
    pub submitting: bool,
    /// `squeue`'s answer for all its arrays.
    pub queue: QueryResult<QueueRow>,
    /// When `squeue` was asked, in unix seconds. The answer may be one that was kept.
    pub asked: f64,
    /// `sacct`'s answer for all its arrays.
    pub accounts: QueryResult<AccountRow>,
    /// The folders of its trials, by task.
    pub files: BTreeMap<String, BTreeMap<u32, TrialFiles>>,
    /// What the trials that are shown were given.
    pub params: Vec<TaskParams>,
    /// What was asked for by `cancel`, `pause` and their like.
    pub requests: Vec<Request>,
    /// Requests that are not as they were written.
    pub damaged_requests: Vec<PathBuf>,
    /// Why what waits for other experiments, and is not submitted yet, can't be.
    pub lost_outside: Option<String>,
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
    let held = local::held_by_others(stored);
    for task in &stored.experiment.tasks {
        let trials = match &stored.experiment.executors[&task.executor] {
            Executor::Slurm(_) => slurm_trials(task, sources, &tasks),
            Executor::Local(_) => local::trials(task, sources, &held, &tasks),
        };
        tasks.push(summary::task_status(task, &stored.dir, trials));
    }
    let (state, reason) = summary::whole(sources, &tasks);
    let mut warnings = warnings(sources);
    let is_old = !warnings.is_empty();
    warnings.extend(damage(sources));
    let unreported = unreported::of_all(sources, &tasks);
    let without_metric: Vec<&str> = unreported.iter().map(|own| own.task.as_str()).collect();
    let of_trials = damage_of_trials(sources).chain(reported::warnings(sources, &without_metric));
    let mut status = Status {
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
        unreported: Vec::new(),
        of_trials: Vec::new(),
    };
    status.warn_of_trials(of_trials);
    status.unreported = unreported;
    status
}

fn slurm_trials(
    task: &Task,
    sources: &StatusInputs<'_>,
    earlier: &[TaskStatus],
) -> Vec<TrialStatus> {
    let all = slurm_view::of_task(task, sources);
    let none = BTreeMap::new();
    let files = sources.files.get(&task.name).unwrap_or(&none);
    let nothing = TrialFiles::default();
    let trial = |&(index, ref seen): &(u32, slurm_view::SlurmRows<'_>)| {
        let files = files.get(&index).unwrap_or(&nothing);
        let attempts = attempts::merge(files, seen);
        let evidence = trial::TrialEvidence { task, index, seen, files, sources, parents: earlier };
        let standing = standing(&evidence, attempts::since_retry(&attempts, files, seen));
        let attempts = attempts::accounted(attempts, standing.state);
        status(index, standing, seen.shown(), files, attempts)
    };
    if all.len() <= FEW_TRIALS {
        return all.iter().map(trial).collect();
    }
    // Each follows from its own evidence alone.
    let parts = all.chunks(all.len().div_ceil(PARTS));
    let mut joined =
        map_chunks(parts, |part| part.iter().map(trial).collect::<Vec<_>>()).into_iter();
    let mut trials = joined.next().unwrap_or_default();
    trials.reserve_exact(all.len() - trials.len());
    joined.for_each(|part| trials.extend(part));
    trials
}

/// With fewer trials than this a thread costs more than it saves.
const FEW_TRIALS: usize = 2_000;
/// Into how many parts more of them are shared out.
const PARTS: usize = 4;

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
    let is_agreed = certainty == Certainty::Final;
    let is_due = !verdict.once_agreed || is_agreed;
    let remedy = if is_due { verdict.remedy } else { verdict.until_agreed };
    // What is to run again is never final.
    let certainty = match evidence.earlier() {
        Some(earlier) if verdict.once_agreed && is_agreed => earlier.certainty,
        _ => certainty,
    };
    AssessedState { state, reason, certainty, remedy }
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
    let saved = saved_step(&files.attempts, &attempts);
    let progress = files.progress.as_ref();
    let told = progress.and_then(|progress| progress.step).or_else(|| step_at_end(&files.attempts));
    let step = reported.max(saved).max(told);
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
        error: None,
        counters: Counters::of(&attempts),
        attempts,
    }
}

/// The last step that the program told in an attempt that has ended, if that is the last one.
fn step_at_end(records: &[AttemptRecord]) -> Option<u64> {
    let mut latest = records.iter().rev();
    let last = latest.find(|record| record.as_start().is_some() || record.as_end().is_some())?;
    last.as_end()?.step
}

/// The newest step that is saved. What a retry has set aside counts no more.
fn saved_step(records: &[AttemptRecord], attempts: &[AttemptStatus]) -> Option<u64> {
    let cut = records.iter().rev().find_map(|record| match record {
        AttemptRecord::SetAside { attempt, from_step, .. } => Some((*attempt, *from_step)),
        _ => None,
    });
    let counts = |attempt: &&AttemptStatus| {
        cut.is_none_or(|(first, _)| attempt.number.is_some_and(|number| number >= first))
    };
    let steps = attempts.iter().filter(counts).filter_map(|attempt| attempt.checkpoint_step);
    steps.max().max(cut.and_then(|(_, from_step)| from_step))
}

/// The files that nothing was concluded from, wholly or in part.
fn damage(sources: &StatusInputs<'_>) -> impl Iterator<Item = String> {
    let all = [&sources.stored.damage, &sources.runner.damage].into_iter();
    let requests = sources.damaged_requests.iter().map(|path| {
        format!("`{}` is damaged: its request is ignored; repeat the command", path.display())
    });
    let metrics = sources.files.values().flat_map(BTreeMap::values);
    let metrics = metrics.filter_map(|files| files.no_metrics.clone());
    all.flatten().map(Damage::to_string).chain(requests).chain(metrics)
}

/// The same, of those of the trials.
fn damage_of_trials(sources: &StatusInputs<'_>) -> impl Iterator<Item = TrialWarning> {
    sources.files.iter().flat_map(|(task, trials)| {
        trials.iter().filter_map(|(trial, files)| {
            let damage = files.damage.as_ref()?;
            Some(TrialWarning::of_trial(task, *trial, damage.to_string()))
        })
    })
}

/// The sources that did not answer.
fn warnings(sources: &StatusInputs<'_>) -> Vec<String> {
    let warning = |program, why| format!("{program}: {why} (what is shown may be old)");
    let queue = sources.queue.trouble().map(|why| warning("squeue", why));
    let accounts = sources.accounts.trouble().map(|why| warning("sacct", why));
    queue.into_iter().chain(accounts).collect()
}
