//! From an experiment to a [`Plan`]: which job arrays, in which order, waiting for what. Pure.
//!
//! Nothing here knows Slurm's programs, files or the clock: the same experiment and limits give the same plan.

mod check;
mod lanes;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::experiment::{Dependency, Experiment, On, Task};

pub use check::{Note, check};
#[cfg(test)]
pub(crate) use tests::{experiment as sample_experiment, task as sample_task};

/// What a cluster allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many tasks one job array may have. Slurm's MaxArraySize caps the highest index, which starts at 0:
    /// with 1001 the tasks 0 to 1000 fit.
    pub max_array: NonZeroU32,
}

impl Default for Limits {
    /// Slurm's own defaults.
    fn default() -> Self {
        Self { max_array: NonZeroU32::MIN.saturating_add(1000) }
    }
}

/// All that will be asked of Slurm for an experiment, parents before children. It serialises as `plan.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of their submission.
    pub arrays: Vec<JobArray>,
}

/// One job array: a run of trials of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobArray {
    /// The task whose trials it runs.
    pub task: String,
    /// Its place among the arrays of its task, from 0: the name of its script.
    pub index: usize,
    /// The trial that its array task 0 runs.
    pub offset: u32,
    /// How many trials it runs.
    pub trials: NonZeroU32,
    /// `%N`: how many may run at once.
    pub throttle: Option<NonZeroU32>,
    /// What it waits for. Empty for the head of a chain.
    pub after: Vec<Edge>,
    /// Whether it starts held: the head of a chain is released when all is in, since a parent that ended and was
    /// purged would silently satisfy its children.
    pub held: bool,
}

/// One dependency on an earlier array of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// An index into [`Plan::arrays`], smaller than the array's own.
    pub array: usize,
    /// What must have become of it.
    pub on: Relation,
}

/// Slurm's kinds of dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// All of it completed.
    AfterOk,
    /// Some of it failed.
    AfterNotOk,
    /// Some array of the task failed: alternatives, any of which is enough.
    AnyAfterNotOk,
    /// All of it is over.
    AfterAny,
    /// Each array task waits for the one with its own index.
    AfterCorr,
}

/// Why an experiment can't be planned.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Slurm can't mix alternatives with further conditions in one dependency.
    #[error(
        "task `{task}` waits for a failure in `{parent}`, which needs several job arrays, and for something else too: \
         Slurm can't express that"
    )]
    MixedAlternatives {
        /// The task that waits.
        task: String,
        /// The task that it waits for.
        parent: String,
    },
}

impl PlanError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::MixedAlternatives { parent, .. } => {
                format!("let it wait for `{parent}` alone, or lower the number of its trials")
            }
        }
    }
}

impl Plan {
    /// Plans an experiment's arrays: each task's trials in as few as the limits allow, of nearly equal size.
    pub fn new(experiment: &Experiment, limits: Limits) -> Result<Self, PlanError> {
        let mut arrays: Vec<JobArray> = Vec::new();
        for task in &experiment.tasks {
            let chunks = task_arrays(task, limits, &arrays)?;
            arrays.extend(chunks);
        }
        if arrays.len() > 1 {
            for head in arrays.iter_mut().filter(|array| array.after.is_empty()) {
                head.held = true;
            }
        }
        Ok(Self { arrays })
    }

    /// Trials over all arrays.
    #[must_use]
    pub fn trials(&self) -> u64 {
        self.arrays.iter().map(|array| u64::from(array.trials.get())).sum()
    }
}

/// The arrays of one task, their edges pointing into `earlier` and into the task's own first arrays.
fn task_arrays(
    task: &Task,
    limits: Limits,
    earlier: &[JobArray],
) -> Result<Vec<JobArray>, PlanError> {
    let n_trials = u32::try_from(task.trials.len()).unwrap_or(u32::MAX);
    let sizes = lanes::chunk_sizes(n_trials, limits.max_array);
    let lanes = lanes::lanes(sizes.len(), task.concurrent);
    let mut arrays = Vec::with_capacity(sizes.len());
    let mut offset = 0;
    for (index, trials) in sizes.into_iter().enumerate() {
        let mut after = Vec::new();
        for dependency in &task.after {
            after.extend(edges(task, dependency, index, earlier)?);
        }
        if let Some(before) = lanes.before(index) {
            after.push(Edge { array: earlier.len() + before, on: Relation::AfterAny });
        }
        let throttle = lanes.throttle(index).filter(|throttle| *throttle < trials);
        let task = task.name.clone();
        arrays.push(JobArray { task, index, offset, trials, throttle, after, held: false });
        offset += trials.get();
    }
    Ok(arrays)
}

/// The edges that one dependency gives to the `index`-th array of `task`.
fn edges(
    task: &Task,
    dependency: &Dependency,
    index: usize,
    earlier: &[JobArray],
) -> Result<Vec<Edge>, PlanError> {
    let parents: Vec<usize> =
        (0..earlier.len()).filter(|&array| earlier[array].task == dependency.task).collect();
    let all = |on| parents.iter().map(|&array| Edge { array, on }).collect();
    match dependency.on {
        On::Ok => Ok(all(Relation::AfterOk)),
        On::Any => Ok(all(Relation::AfterAny)),
        // Both tasks have as many trials, so that their arrays have the same sizes.
        On::Each => Ok(vec![Edge { array: parents[index], on: Relation::AfterCorr }]),
        On::Failed if parents.len() == 1 => Ok(all(Relation::AfterNotOk)),
        On::Failed if task.after.len() == 1 && index == 0 && task.trials.len() == 1 => {
            Ok(all(Relation::AnyAfterNotOk))
        }
        On::Failed => Err(PlanError::MixedAlternatives {
            task: task.name.clone(),
            parent: dependency.task.clone(),
        }),
    }
}
