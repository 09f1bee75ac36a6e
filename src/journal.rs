//! `journal.jsonl`: what was asked of Slurm and what came of it. An intent is durable before its effect.
//!
//! Its one writer is the process that has claimed the experiment: `submit`, or `submit --continue` once that one is gone.

mod arrays;
mod generations;
mod later;
mod setting_changes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nemo_core::durable::Appender;
use nemo_core::rundir::RestartFrom;
use serde::{Deserialize, Serialize};

use crate::experiment::ChangedKeys;
use crate::file_error::{FileError, IoResultExt};
use crate::plan::Plan;
use crate::process::ProcessId;
use crate::slurm::id::JobId;
use crate::slurm::indices::IndexSet;
use crate::store::{Claim, ClaimError};

pub use arrays::{
    ArrayRecord, Submitted, entry, last_submitted_at, n_trials, planned_array_of, planned_arrays,
    plans, submitted, submitted_arrays, submitted_at, trials,
};
pub use generations::{
    LastRetry, generation_of, is_complete, is_generation_complete, last_generation, last_retries,
    refusal, refused_generations,
};
pub use later::{later_refusal, may_fit_fewer, pause, unplanned, window};
pub use setting_changes::{SettingChange, setting_changes};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process began to submit, or went on with it.
    Submitter {
        /// Which one.
        #[serde(rename = "by")]
        process: ProcessId,
        /// The version of the program.
        version: String,
        /// Unix seconds.
        time: f64,
    },
    /// What will be asked of Slurm for a generation, so that an interrupted submission goes on with the very same.
    Planned {
        /// The arrays in the order of their submission; none on the local executor.
        plan: Plan,
        /// What somebody retries with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<Retry>,
    },
    /// An array is about to be submitted: if nothing follows, it may or may not be known to Slurm.
    Intended {
        /// The name by which it is found again.
        token: String,
        /// Its task.
        task: String,
        /// Its place among the arrays of its task.
        array: usize,
        /// What is added to an array index to get the trial.
        offset: u32,
        /// The trials that it runs.
        trials: IndexSet,
        /// Unix seconds.
        time: f64,
    },
    /// Slurm took an array.
    Submitted {
        /// The array's token.
        token: String,
        /// The array's job id.
        slurm_job: JobId,
        /// Unix seconds.
        time: f64,
    },
    /// Slurm refused an array; what was in before is cancelled.
    Refused {
        /// The array's token.
        token: String,
        /// In Slurm's own words.
        reason: String,
        /// Unix seconds.
        time: f64,
    },
    /// Slurm has no room for an array now: its trials are submitted later.
    Postponed {
        /// The array's token.
        token: String,
        /// Its task.
        task: String,
        /// Its place among the arrays of its task.
        array: usize,
        /// How many trials it would run.
        trials: usize,
        /// In Slurm's own words; none if there was no room for one before it.
        reason: Option<String>,
        /// Unix seconds.
        time: f64,
    },
    /// The heads of all chains were released, and with that all of a generation is in.
    Complete {
        /// Which one, from 0.
        generation: u32,
        /// Unix seconds.
        time: f64,
    },
}

/// The trials that somebody retries, by task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Those that had the same number of attempts are together.
    pub trials: BTreeMap<String, Vec<RetriedTrials>>,
    /// Who retries them; none where it is a rule of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Some trials of a task that are retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetriedTrials {
    /// The number of their first attempt in the new generation: an end before that says nothing of it.
    pub from_attempt: u32,
    /// Which ones.
    pub trials: IndexSet,
    /// What is not as it was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// The rule of the file by which they are retried; none where a person does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The class of the failure by which `--advise` changed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a retry has changed of how its trials run. It holds for later generations too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The file in the task's folder that is read instead of `task.json`.
    pub spec: String,
    /// The changed keys, with those of earlier retries.
    #[serde(default)]
    pub set: ChangedKeys,
    /// Where they begin, if that is not their newest checkpoint.
    #[serde(default)]
    pub restart_from: Option<RestartFrom>,
    /// When they must be over, in unix seconds, where the experiment's time was over before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

impl Retry {
    /// What it changes of a trial.
    #[must_use]
    pub fn changed(&self, task: &str, trial: u32) -> Option<&Changed> {
        let groups = self.trials.get(task).into_iter().flatten();
        groups.filter(|group| group.trials.contains(trial)).find_map(|group| group.changed.as_ref())
    }

    /// Divides its groups by something that is known of each trial, and writes that into the parts.
    #[must_use]
    pub fn divided(
        self,
        known: impl Fn(&str, u32) -> Option<String>,
        write: impl Fn(RetriedTrials, Option<String>) -> RetriedTrials,
    ) -> Self {
        let split = |task: &str, group: RetriedTrials| -> Vec<RetriedTrials> {
            let mut parts: BTreeMap<Option<String>, Vec<u32>> = BTreeMap::new();
            for trial in group.trials.iter() {
                parts.entry(known(task, trial)).or_default().push(trial);
            }
            let part = |(known, trials): (Option<String>, Vec<u32>)| {
                let trials = trials.into_iter().collect();
                write(RetriedTrials { trials, ..group.clone() }, known)
            };
            parts.into_iter().map(part).collect()
        };
        let of_task = |(task, groups): (String, Vec<RetriedTrials>)| {
            let groups = groups.into_iter().flat_map(|group| split(&task, group)).collect();
            (task, groups)
        };
        Self { trials: self.trials.into_iter().map(of_task).collect(), user: self.user }
    }

    /// How many trials it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.trials.values().flatten().map(|group| group.trials.count()).sum()
    }
}

/// The process that submitted it first.
#[must_use]
pub fn submitter(journal: &[Event]) -> Option<&ProcessId> {
    journal.iter().find_map(|event| match event {
        Event::Submitter { process, .. } => Some(process),
        _ => None,
    })
}

/// When the submission began, in unix seconds.
#[must_use]
pub fn began(journal: &[Event]) -> Option<f64> {
    journal.iter().find_map(|event| match event {
        Event::Submitter { time, .. } => Some(*time),
        _ => None,
    })
}

/// The journal, open for its one writer: the process that has claimed the experiment.
#[derive(Debug)]
pub struct Journal<'a> {
    path: PathBuf,
    file: Appender,
    events: Vec<Event>,
    claim: &'a Claim,
}

impl<'a> Journal<'a> {
    /// Opens a journal whose events were read since the experiment was claimed.
    pub fn open(path: &Path, events: Vec<Event>, claim: &'a Claim) -> Result<Self, FileError> {
        let file = Appender::open(path).at("open", path)?;
        Ok(Self { path: path.to_owned(), file, events, claim })
    }

    /// What it holds.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

/// Where the executor writes down what it is about to do.
pub trait Record {
    /// What was recorded before.
    fn events(&self) -> &[Event];
    /// Whether this process may still write here and ask Slurm: another one may have taken the experiment over.
    fn check_claim(&self) -> Result<(), ClaimError>;
    /// Records one event. A crash of the machine may lose it until [`Record::sync`] returns.
    fn record(&mut self, event: Event) -> Result<(), FileError>;
    /// Makes all that was recorded durable.
    fn sync(&mut self) -> Result<(), FileError>;
}

impl Record for Journal<'_> {
    fn events(&self) -> &[Event] {
        &self.events
    }
    fn check_claim(&self) -> Result<(), ClaimError> {
        self.claim.check()
    }
    fn record(&mut self, event: Event) -> Result<(), FileError> {
        self.file.line_unsynced(&event).at("write", &self.path)?;
        self.events.push(event);
        Ok(())
    }
    fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync().at("sync", &self.path)
    }
}
