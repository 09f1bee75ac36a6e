//! What a list shows of an experiment, without looking into it: `summary.json` in its folder, and `index/` over those
//! that are over. Both are derived, and may be deleted at any time.

mod facts;
mod file;
mod index;
mod known_experiment;

use std::collections::BTreeMap;

use nemo_core::rundir::{ExperimentDir, Notes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::annotations::Annotations;
use crate::experiment::{Experiment, Goal};
use crate::query::submitted_jobs;
use crate::slurm::JobId;
use crate::status::{State, Status, TaskStatus};
use crate::store::{ExperimentId, Stored};

pub use facts::{Facts, ParamValues, TaskFacts, each_trial, flatten};
pub use file::{keep, read};
pub use index::{Index, IndexEntry, NewEntry, mark_as_noted};
pub use known_experiment::{KnownExperiment, known, wanted};

/// One experiment as `list --json` shows it, but for its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRow {
    /// Its id.
    pub id: ExperimentId,
    /// Its name.
    pub name: String,
    /// Which of the experiments of its name it is, from 1.
    pub version: usize,
    /// Where it stands.
    pub state: State,
    /// For people: why, where the state does not say it all.
    pub reason: Option<String>,
    /// For search.
    pub tags: Vec<String>,
    /// For people.
    pub description: Option<String>,
    /// Free key-value pairs for search.
    pub metadata: BTreeMap<String, Value>,
    /// When it was submitted, in unix seconds.
    pub created: u64,
    /// When its last attempt ended, once it is over.
    pub ended: Option<f64>,
    /// When this was looked up, in unix seconds.
    pub as_of: f64,
    /// Whether a part of this is from an earlier look, because a source did not answer.
    pub stale: bool,
    /// How many of its trials are in each state.
    pub trials: BTreeMap<State, u32>,
    /// The best trial of its last task that ranks trials.
    pub best: Option<BestTrial>,
    /// Whether it was put away.
    pub archived: bool,
    /// Slurm's number of a wrapped job: the newest in its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_job: Option<JobId>,
}

impl ExperimentRow {
    /// What it is found by.
    #[must_use]
    pub fn annotations(&self) -> Annotations {
        let Self { tags, description, metadata, archived, .. } = self;
        let (tags, description, metadata) = (tags.clone(), description.clone(), metadata.clone());
        Annotations { tags, description, metadata, archived: *archived }
    }

    fn set_annotations(&mut self, annotations: Annotations) {
        let Annotations { tags, description, metadata, archived } = annotations;
        (self.tags, self.description, self.metadata) = (tags, description, metadata);
        self.archived = archived;
    }

    /// As `list --json` shows it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // No key or number of ours is beyond JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The part of a [`ExperimentRow`] that a table shows.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ExperimentBrief {
    /// Where it stands.
    pub state: State,
    /// For people: why, where the state does not say it all.
    #[serde(default)]
    pub reason: Option<String>,
    /// When this was looked up, in unix seconds.
    pub as_of: f64,
    /// How many of its trials are in each state.
    pub trials: BTreeMap<State, u32>,
    /// The best trial.
    pub best: Option<BestTrial>,
    /// For search.
    pub tags: Vec<String>,
    /// When its last attempt ended, once it is over.
    pub ended: Option<f64>,
    /// Whether it was put away.
    pub archived: bool,
    /// Slurm's number of a wrapped job.
    #[serde(default)]
    pub slurm_job: Option<JobId>,
}

impl From<&ExperimentRow> for ExperimentBrief {
    fn from(row: &ExperimentRow) -> Self {
        let ExperimentRow {
            state,
            reason,
            as_of,
            trials,
            best,
            tags,
            ended,
            archived,
            slurm_job,
            ..
        } = row.clone();
        Self { state, reason, as_of, trials, best, tags, ended, archived, slurm_job }
    }
}

/// The best trial of a task, so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestTrial {
    /// The task.
    pub task: String,
    /// The trial.
    pub trial: u32,
    /// The metric that ranks.
    pub metric: String,
    /// Its last value.
    pub value: f64,
    /// Which way that is better.
    pub goal: Goal,
}

/// What `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether nothing can change any more: then nobody looks into the experiment again.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// How many of its trials are not certain to be over.
    pub open: usize,
    /// What it follows from.
    pub from: InputVersions,
    /// The job arrays to ask Slurm for; none once nothing is open.
    pub jobs: Vec<NamedJob>,
    /// What a list shows.
    pub row: ExperimentRow,
    /// What else finds it.
    pub facts: Facts,
}

/// What was there when an experiment was looked into: where it differs now, there is something new.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InputVersions {
    /// Bytes of `journal.jsonl`.
    pub journal: u64,
    /// Bytes of `runner.jsonl`.
    pub runner: u64,
    /// How many requests there were.
    pub requests: usize,
    /// How many notes there were.
    pub notes: usize,
    /// When Slurm gave its last answer, in unix seconds.
    pub slurm: Option<f64>,
}

impl InputVersions {
    /// Whether the files are as they were.
    #[must_use]
    pub fn is_unchanged(&self, now: &Self) -> bool {
        (self.journal, self.runner, self.requests) == (now.journal, now.runner, now.requests)
    }
}

/// A job array, and the name that tells it from another one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedJob {
    /// Slurm's id.
    pub slurm_job: JobId,
    /// Its name.
    pub name: String,
}

impl Summary {
    /// After a look at the notes alone, which change no state.
    pub fn set_notes(&mut self, stored: (&ExperimentDir, &Experiment), notes: &Notes) {
        let (dir, experiment) = stored;
        self.facts = Facts::of(dir, experiment, Some(&self.facts), notes);
        self.from.notes = notes.count();
        let annotations =
            Annotations::of_file(experiment).after(notes.whole.iter().map(|(_, note)| note));
        self.row.set_annotations(annotations);
    }

    /// Its line of the index, if nothing can change any more.
    #[must_use]
    pub fn entry(&self) -> Option<NewEntry<'_>> {
        let (id, state) = (self.row.id.as_str(), self.row.state);
        // No key or number of ours is beyond JSON.
        let facts = serde_json::to_string(&self.facts).unwrap_or_default();
        let row = self.row.to_json().into();
        self.is_final.then(|| NewEntry { id, state, row, facts: facts.into() })
    }

    /// After a look at the open trials alone: the best of those that were not read is known from earlier.
    pub fn keep_best(&mut self, stored: &Stored, status: &Status, earlier: Option<BestTrial>) {
        let Some(earlier) = earlier else { return };
        let task = stored.experiment.tasks.iter().find(|task| task.name == earlier.task);
        let seen = status.tasks.iter().find(|task| task.name == earlier.task);
        let trial = seen.and_then(|it| it.trials.iter().find(|it| it.index == earlier.trial));
        let was_read = trial.is_none_or(|trial| !trial.metrics.is_empty());
        let is_better = |now: &BestTrial| match task.map(|task| task.goal) {
            Some(Goal::Max) => earlier.value >= now.value,
            Some(Goal::Min) | None => earlier.value <= now.value,
        };
        let best = self.row.best.as_ref();
        if !was_read && best.is_none_or(|now| now.task == earlier.task && is_better(now)) {
            self.row.best = Some(earlier);
        }
    }
}

/// What a look rests on, beside the status that it found.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What an earlier look found.
    pub earlier: Option<&'a Summary>,
    /// What people said.
    pub notes: &'a Notes,
    /// Whether nothing can change any more.
    pub is_final: bool,
    /// Which of the experiments of its name it is.
    pub version: usize,
    /// Unix seconds.
    pub now: f64,
}

/// What follows from a look.
#[must_use]
pub fn of(stored: &Stored, status: &Status, from: InputVersions, look: Look<'_>) -> Summary {
    let Look { earlier, notes, is_final, version, now } = look;
    let experiment = &stored.experiment;
    let state = status.experiment.state;
    let mut trials: BTreeMap<State, u32> = BTreeMap::new();
    for (state, n) in status.tasks.iter().flat_map(|task| &task.counts) {
        *trials.entry(*state).or_default() += n;
    }
    let row = ExperimentRow {
        id: stored.id.clone(),
        name: experiment.name.clone(),
        version,
        state,
        reason: status.experiment.reason.clone(),
        tags: Vec::new(),
        description: None,
        metadata: BTreeMap::new(),
        created: status.experiment.created,
        ended: if state.is_final() { last_end(status) } else { None },
        as_of: now,
        stale: status.experiment.stale,
        trials,
        best: best(stored, status),
        archived: false,
        slurm_job: submitted_jobs(&stored.journal)
            .last()
            .map(|job| job.slurm_job)
            .filter(|_| stored.is_wrapped()),
    };
    let every = status.tasks.iter().flat_map(|task| &task.trials);
    let open = every.filter(|trial| !trial.is_final()).count();
    // Who asks for all experiments together asks the cluster of this machine.
    let jobs = if open == 0 || experiment.cluster().is_some() {
        Vec::new()
    } else {
        submitted_jobs(&stored.journal)
    };
    let facts = earlier.map(|earlier| earlier.facts.clone()).unwrap_or_default();
    let mut summary = Summary { is_final, open, from, jobs, row, facts };
    summary.set_notes((&stored.dir, experiment), notes);
    summary
}

fn last_end(status: &Status) -> Option<f64> {
    let trials = status.tasks.iter().flat_map(|task| &task.trials);
    let ends = trials.flat_map(|trial| &trial.attempts).filter_map(|attempt| attempt.end);
    ends.reduce(f64::max)
}

/// The last task counts: it follows from those before it.
fn best(stored: &Stored, status: &Status) -> Option<BestTrial> {
    let search = |task: &TaskStatus| {
        let mut tasks = stored.experiment.tasks.iter();
        let task = tasks.find(|known| known.name == task.name)?;
        Some((task.metric.clone()?, task.goal))
    };
    status.tasks.iter().rev().find_map(|task| {
        let (trial, (metric, goal)) = (task.best?, search(task)?);
        let best = task.trials.iter().find(|known| known.index == trial)?;
        let value = best.metrics.get(&metric)?.as_f64()?;
        Some(BestTrial { task: task.name.clone(), trial, metric, value, goal })
    })
}
