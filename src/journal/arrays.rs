//! The job arrays of an experiment: which were planned, and what became of each in Slurm.

use std::collections::{HashMap, HashSet};

use super::Event;
use crate::experiment::{Experiment, Task};
use crate::plan::{JobArray, Plan};
use crate::slurm::id::JobId;
use crate::slurm::indices::IndexSet;

/// What is to be asked of Slurm, one plan a generation; nothing on the local executor.
pub fn plans(journal: &[Event]) -> impl DoubleEndedIterator<Item = &Plan> {
    journal.iter().filter_map(|event| match event {
        Event::Planned { plan, .. } => Some(plan),
        _ => None,
    })
}

/// The arrays of all generations, in the order of their submission.
pub fn planned_arrays(journal: &[Event]) -> impl Iterator<Item = &JobArray> {
    plans(journal).flat_map(|plan| &plan.arrays)
}

/// The trials of a task: as many as it has or, of jobs under `nemo-harness wrap`, whose indices may begin anywhere,
/// those of their arrays.
#[must_use]
pub fn trials(journal: &[Event], task: &Task) -> IndexSet {
    let own = planned_arrays(journal).filter(|array| array.task == task.name);
    let wrapped: Vec<_> = own.filter(|array| array.wrapped.is_some()).collect();
    if wrapped.is_empty() {
        return IndexSet::below(task.n_trials);
    }
    let submitted = submitted_arrays(journal);
    let own = submitted.iter().filter(|array| array.task == task.name);
    let there: IndexSet = own.flat_map(|array| array.trials.iter()).collect();
    // The lines of a job are written as one: only damage takes some of them.
    if there.is_empty() {
        return wrapped.iter().flat_map(|array| array.trials.iter()).collect();
    }
    there
}

/// How many trials all tasks of an experiment have.
#[must_use]
pub fn n_trials(journal: &[Event], experiment: &Experiment) -> usize {
    experiment.tasks.iter().map(|task| trials(journal, task).count()).sum()
}

/// The array of a job, as it was planned.
#[must_use]
pub fn planned_array_of(journal: &[Event], wanted: JobId) -> Option<&JobArray> {
    let token = journal.iter().find_map(|event| match event {
        Event::Submitted { token, slurm_job, .. } if *slurm_job == wanted => Some(token),
        _ => None,
    })?;
    planned_as(journal, token)
}

/// Whether a token is that of a planned array.
pub(super) fn is_token_of(token: &str, array: &JobArray) -> bool {
    token.ends_with(&format!(".{}.{}", array.task, array.index))
}

/// What the journal knows of one array.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrayRecord {
    /// Nothing was asked.
    Absent,
    /// It was about to be submitted at this time.
    Intended(f64),
    /// Slurm knows it.
    Submitted(JobId),
    /// Slurm had no room for it, and is not asked for it again.
    Postponed,
}

/// Finds what became of an array.
#[must_use]
pub fn entry(journal: &[Event], wanted: &str) -> ArrayRecord {
    let mut entry = ArrayRecord::Absent;
    for event in journal {
        match event {
            Event::Intended { token, time, .. }
                if token == wanted && entry == ArrayRecord::Absent =>
            {
                entry = ArrayRecord::Intended(*time);
            }
            Event::Submitted { token, slurm_job, .. } if token == wanted => {
                return ArrayRecord::Submitted(*slurm_job);
            }
            Event::Postponed { token, .. } if token == wanted => entry = ArrayRecord::Postponed,
            Event::Submitter { .. }
            | Event::Planned { .. }
            | Event::Intended { .. }
            | Event::Submitted { .. }
            | Event::Refused { .. }
            | Event::Postponed { .. }
            | Event::Complete { .. } => {}
        }
    }
    entry
}

/// An array that Slurm took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Submitted<'a> {
    /// The name by which it is found.
    pub token: &'a str,
    /// Its job id.
    pub job: JobId,
    /// Its task.
    pub task: &'a str,
    /// What is added to an array index to get the trial.
    pub offset: u32,
    /// The trials that it runs.
    pub trials: &'a IndexSet,
    /// When Slurm took it, in unix seconds.
    pub time: f64,
    /// It is a plain job, no array.
    pub is_single: bool,
}

impl Submitted<'_> {
    /// The job of a trial, as Slurm shows it: `7_3`.
    #[must_use]
    pub fn job_of(&self, trial: u32) -> String {
        format!("{}_{}", self.job, trial.saturating_sub(self.offset))
    }

    /// The trial that an array index runs.
    #[must_use]
    pub fn trial_of(&self, index: u32) -> Option<u32> {
        let trial = self.offset.checked_add(index)?;
        self.trials.contains(trial).then_some(trial)
    }
}

/// The arrays that Slurm took, with what they run, in the order of their submission. The tasks of a wrapped array tell of
/// it side by side: each job is there once, with the trials that were told last, since the first task may not have known
/// them. Several wrapped jobs may have one name: what was intended last is the job's.
#[must_use]
pub fn submitted_arrays(journal: &[Event]) -> Vec<Submitted<'_>> {
    let mut single: HashMap<&str, bool> = HashMap::new();
    let mut intended: HashMap<&str, ArrayPlace<'_>> = HashMap::new();
    let mut known: HashMap<JobId, usize> = HashMap::new();
    let mut all: Vec<Submitted<'_>> = Vec::new();
    for event in journal {
        match event {
            Event::Planned { plan, .. } => {
                let wrapped = plan.arrays.iter().filter_map(|array| array.wrapped.as_ref());
                single.extend(wrapped.map(|own| (own.name.as_str(), !own.is_array)));
            }
            Event::Intended { token, task, offset, trials, .. } => {
                intended.insert(token, (task.as_str(), *offset, trials));
            }
            Event::Submitted { token, slurm_job: job, time } => {
                let place = intended.get(token.as_str()).copied();
                let place = place.or_else(|| planned_place(journal, token));
                let Some((task, offset, trials)) = place else { continue };
                if let Some(array) = known.get(job).and_then(|at| all.get_mut(*at)) {
                    array.trials = trials;
                    continue;
                }
                known.insert(*job, all.len());
                let is_single = single.get(token.as_str()).copied().unwrap_or(false);
                let (job, time) = (*job, *time);
                all.push(Submitted { token, job, task, offset, trials, time, is_single });
            }
            _ => {}
        }
    }
    all
}

/// A task, what is added to an array index to get the trial, and the trials of an array.
type ArrayPlace<'a> = (&'a str, u32, &'a IndexSet);

/// What an array runs: as it was intended or, where that line is damaged, as it was planned.
pub(super) fn place<'a>(journal: &'a [Event], wanted: &str) -> Option<ArrayPlace<'a>> {
    let intended = journal.iter().find_map(|event| match event {
        Event::Intended { token, task, offset, trials, .. } if token == wanted => {
            Some((task.as_str(), *offset, trials))
        }
        _ => None,
    });
    intended.or_else(|| planned_place(journal, wanted))
}

fn planned_place<'a>(journal: &'a [Event], wanted: &str) -> Option<ArrayPlace<'a>> {
    let planned = planned_as(journal, wanted)?;
    Some((planned.task.as_str(), planned.offset, &planned.trials))
}

/// The array that a token names. A task's name may end as another's does.
fn planned_as<'a>(journal: &'a [Event], token: &str) -> Option<&'a JobArray> {
    let named = planned_arrays(journal).filter(|array| is_token_of(token, array));
    named.max_by_key(|array| array.task.len())
}

/// The arrays that Slurm took, by token, each job once.
#[must_use]
pub fn submitted(journal: &[Event]) -> Vec<(String, JobId)> {
    let mut known: HashSet<JobId> = HashSet::new();
    journal
        .iter()
        .filter_map(|event| match event {
            Event::Submitted { token, slurm_job, .. } if known.insert(*slurm_job) => {
                Some((token.clone(), *slurm_job))
            }
            _ => None,
        })
        .collect()
}

/// When Slurm took the array of a trial, in unix seconds.
#[must_use]
pub fn submitted_at(arrays: &[Submitted<'_>], task: &str, trial: u32) -> Option<f64> {
    let of_trial = arrays.iter().find(|array| array.task == task && array.trials.contains(trial));
    of_trial.map(|array| array.time)
}

/// When Slurm took its newest array.
#[must_use]
pub fn last_submitted_at(journal: &[Event], task: &str, trial: u32) -> Option<f64> {
    let arrays = submitted_arrays(journal);
    let last = arrays.iter().rfind(|array| array.task == task && array.trials.contains(trial));
    last.map(|array| array.time)
}
