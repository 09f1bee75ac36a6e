//! From an experiment to a [`Plan`]: which job arrays, in which order, waiting for what. Pure.
//!
//! Nothing here knows Slurm's programs, files or the clock: the same experiment and limits give the same plan.

mod check;
mod lanes;
mod submittable;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::experiment::{Dependency, Experiment, On, Task};
use crate::slurm::indices::IndexSet;

pub use check::{PlanFault, check};
pub use submittable::{SubmitLimits, Submittable, TrialsByTask, submittable};
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

/// Which trials are submitted: all of an experiment at first, some of them again in later generations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The n-th submission of trials of the experiment, from 0.
    pub generation: u32,
    /// The trials by task; none of a task that is not named.
    pub trials: BTreeMap<String, IndexSet>,
    /// How many arrays each task had in earlier generations: their numbers go on from there.
    pub earlier_arrays: BTreeMap<String, usize>,
    /// Trials by task that run in another way than the rest of it: each set has arrays of its own.
    pub separate: BTreeMap<String, Vec<IndexSet>>,
    /// What tasks without a parent wait for.
    pub outside: Vec<OutsideEdge>,
    /// What earlier submissions may still run of tasks with `concurrent`.
    pub ongoing: BTreeMap<String, Ongoing>,
    /// The trials of earlier submissions that may still run and that others wait for, by task, with their jobs.
    pub open_parents: BTreeMap<String, OpenTrials>,
}

/// Trials of a task that may still run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenTrials {
    /// Their jobs, as few as name them all: `104`, or a task of an array, `104_1`.
    pub jobs: Vec<String>,
    /// The job of each trial.
    pub by_trial: BTreeMap<u32, String>,
}

/// What earlier submissions may still run of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ongoing {
    /// How many trials at once, at most.
    pub at_once: u32,
    /// Their jobs, as a dependency names them: `104`, or a task of an array, `104_1`.
    pub jobs: Vec<String>,
}

impl Selection {
    /// Every trial of an experiment, for the first time.
    #[must_use]
    pub fn all(experiment: &Experiment) -> Self {
        let of = |task: &Task| (task.name.clone(), IndexSet::below(task.n_trials));
        let trials = experiment.tasks.iter().map(of).collect();
        Self { generation: 0, trials, ..Self::default() }
    }

    /// The set of trials that a trial shares its arrays with; none for all that are not separate.
    fn set_of(&self, task: &str, trial: u32) -> Option<usize> {
        self.separate.get(task)?.iter().position(|set| set.contains(trial))
    }

    /// The jobs of earlier submissions that some trials of a task wait for.
    fn open_parents_of(&self, task: &Task, trials: &IndexSet) -> Vec<String> {
        let of_parent = |dependency: &Dependency| match self.open_parents.get(&dependency.task) {
            None => Vec::new(),
            Some(open) if dependency.on == On::Each => {
                trials.iter().filter_map(|trial| open.by_trial.get(&trial).cloned()).collect()
            }
            Some(open) => open.jobs.clone(),
        };
        task.after.iter().flat_map(of_parent).collect()
    }

    /// How many trials of a task may run at once beside those of earlier submissions, or, where no more may, all that it
    /// may have and the jobs that must be over first.
    fn beside_ongoing(&self, task: &Task) -> (Option<NonZeroU32>, &[String]) {
        let Some((limit, ongoing)) = task.concurrent.zip(self.ongoing.get(&task.name)) else {
            return (task.concurrent, &[]);
        };
        match NonZeroU32::new(limit.get().saturating_sub(ongoing.at_once)) {
            Some(left) => (Some(left), &[]),
            None => (Some(limit), &ongoing.jobs),
        }
    }
}

/// All that will be asked of Slurm for one generation of an experiment, parents before children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The n-th submission of trials of the experiment, from 0.
    pub generation: u32,
    /// In the order of their submission.
    pub arrays: Vec<JobArray>,
}

/// One job array: some trials of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobArray {
    /// The task whose trials it runs.
    pub task: String,
    /// Its place among all arrays of its task, from 0 and through all generations: the name of its script.
    pub index: usize,
    /// What is added to an array index to get the trial: Slurm's highest index is limited, the number of trials is not.
    pub offset: u32,
    /// The trials that it runs.
    pub trials: IndexSet,
    /// `%N`: how many may run at once.
    pub throttle: Option<NonZeroU32>,
    /// What it waits for. Empty for the head of a chain.
    pub after: Vec<ArrayDependency>,
    /// Whether it starts held: the head of a chain is released when all is in, since a parent that ended and was
    /// purged would silently satisfy its children.
    pub held: bool,
    /// What it waits for outside of the experiment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<OutsideEdge>,
    /// Jobs of earlier submissions of its task that must be over first, so that `concurrent` holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<String>,
    /// Jobs of earlier submissions with trials that its own wait for: they must be over first. What became of them its
    /// trials read themselves before they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after_jobs: Vec<String>,
    /// Somebody else submitted it, and `nemo-harness wrap` runs in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<WrappedName>,
}

/// The job of a script of somebody's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedName {
    /// Its name in Slurm.
    pub name: String,
    /// It is a job array.
    pub is_array: bool,
}

impl JobArray {
    /// Its array indices: what `--array` is given.
    #[must_use]
    pub fn indices(&self) -> IndexSet {
        self.trials.lowered(self.offset)
    }

    /// The array index of a trial, if it runs that.
    #[must_use]
    pub fn index_of(&self, trial: u32) -> Option<u32> {
        self.trials.contains(trial).then(|| trial.saturating_sub(self.offset))
    }
}

/// One dependency on an earlier array of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayDependency {
    /// An index into [`Plan::arrays`], smaller than the array's own.
    pub array: usize,
    /// What must have become of it.
    pub on: Relation,
}

/// One dependency on a job outside of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideEdge {
    /// What must have become of it.
    pub on: Relation,
    /// The job, or a task of an array: `104_1`.
    pub job: String,
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
    /// Plans the arrays of a selection: each task's trials in as few as the limits allow, of nearly equal size.
    ///
    /// An array waits for those arrays of the plan that its task's `after` means. What trials need of others that are not
    /// in the selection must have come true before.
    pub fn new(
        experiment: &Experiment,
        selection: &Selection,
        limits: Limits,
    ) -> Result<Self, PlanError> {
        let mut arrays: Vec<JobArray> = Vec::new();
        for task in &experiment.tasks {
            let own = task_arrays(task, selection, limits, &arrays)?;
            arrays.extend(own);
        }
        if arrays.len() > 1 {
            for head in arrays.iter_mut().filter(|array| array.after.is_empty()) {
                head.held = true;
            }
        }
        Ok(Self { generation: selection.generation, arrays })
    }

    /// Trials over all arrays.
    #[must_use]
    pub fn trials(&self) -> usize {
        self.arrays.iter().map(|array| array.trials.count()).sum()
    }
}

/// The arrays of one task, their edges pointing into `earlier` and into the task's own first arrays.
fn task_arrays(
    task: &Task,
    selection: &Selection,
    limits: Limits,
    earlier: &[JobArray],
) -> Result<Vec<JobArray>, PlanError> {
    let pieces = pieces(task, selection, limits, earlier);
    let (concurrent, ongoing) = selection.beside_ongoing(task);
    let lanes = lanes::lanes(pieces.len(), concurrent);
    let first = selection.earlier_arrays.get(&task.name).copied().unwrap_or(0);
    let is_root = task.after.is_empty();
    let outside = if is_root { selection.outside.clone() } else { Vec::new() };
    let mut arrays = Vec::with_capacity(pieces.len());
    for (place, ArrayPiece { offset, trials, parents }) in pieces.into_iter().enumerate() {
        let mut after = Vec::new();
        for dependency in task.after.iter().filter(|dependency| dependency.on != On::Each) {
            after.extend(edges(task, dependency, place, &trials, earlier)?);
        }
        let corresponding = parents.into_iter().flatten();
        after.extend(corresponding.map(|array| ArrayDependency { array, on: Relation::AfterCorr }));
        let before = lanes.before(place);
        if let Some(before) = before {
            after.push(ArrayDependency { array: earlier.len() + before, on: Relation::AfterAny });
        }
        let behind = if before.is_none() { ongoing.to_vec() } else { Vec::new() };
        let throttle = lanes.throttle(place);
        let throttle = throttle.filter(|throttle| (throttle.get() as usize) < trials.count());
        let index = first + place;
        let outside = outside.clone();
        let after_jobs = selection.open_parents_of(task, &trials);
        let task = task.name.clone();
        arrays.push(JobArray {
            task,
            index,
            offset,
            trials,
            throttle,
            after,
            held: false,
            outside,
            behind,
            after_jobs,
            wrapped: None,
        });
    }
    Ok(arrays)
}

/// What becomes an array.
struct ArrayPiece {
    offset: u32,
    trials: IndexSet,
    /// For each task that it follows trial by trial, the array that holds the same trials; none where they are not
    /// submitted now.
    parents: Vec<Option<usize>>,
}

/// Trials that may be in one array: their separate set, and the arrays that they follow trial by trial.
type PieceKey = (Option<usize>, Vec<Option<usize>>);

/// Cuts a task's trials where a window ends, where they run in other ways, and where the trials that they follow one by one are in different arrays:
/// `aftercorr` is about a single array that has all the indices.
fn pieces(
    task: &Task,
    selection: &Selection,
    limits: Limits,
    earlier: &[JobArray],
) -> Vec<ArrayPiece> {
    let none = IndexSet::default();
    let chosen = selection.trials.get(&task.name).unwrap_or(&none);
    let mut pieces = Vec::new();
    for window in lanes::windows(task.n_trials, limits.max_array) {
        let mut groups: Vec<(PieceKey, Vec<u32>)> = Vec::new();
        for trial in chosen.iter().filter(|trial| window.contains(trial)) {
            let key = (selection.set_of(&task.name, trial), parents(task, trial, earlier));
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, trials)) => trials.push(trial),
                None => groups.push((key, vec![trial])),
            }
        }
        pieces.extend(groups.into_iter().map(|((_, parents), trials)| ArrayPiece {
            offset: window.start,
            trials: trials.into_iter().collect(),
            parents,
        }));
    }
    pieces
}

/// The array that holds the same trial of each task that this one follows trial by trial.
fn parents(task: &Task, trial: u32, earlier: &[JobArray]) -> Vec<Option<usize>> {
    let each = task.after.iter().filter(|dependency| dependency.on == On::Each);
    let parents = each.map(|dependency| {
        earlier
            .iter()
            .position(|array| array.task == dependency.task && array.trials.contains(trial))
    });
    parents.collect()
}

/// The edges that one dependency on a whole task gives to an array of `task`, which is the `place`-th of this plan.
fn edges(
    task: &Task,
    dependency: &Dependency,
    place: usize,
    trials: &IndexSet,
    earlier: &[JobArray],
) -> Result<Vec<ArrayDependency>, PlanError> {
    let parents: Vec<usize> =
        (0..earlier.len()).filter(|&array| earlier[array].task == dependency.task).collect();
    let all = |on| parents.iter().map(|&array| ArrayDependency { array, on }).collect();
    match dependency.on {
        On::Ok => Ok(all(Relation::AfterOk)),
        On::Any => Ok(all(Relation::AfterAny)),
        On::Each => Ok(Vec::new()), // by `pieces`
        On::Failed if parents.len() <= 1 => Ok(all(Relation::AfterNotOk)),
        On::Failed if task.after.len() == 1 && place == 0 && trials.count() == 1 => {
            Ok(all(Relation::AnyAfterNotOk))
        }
        On::Failed => Err(PlanError::MixedAlternatives {
            task: task.name.clone(),
            parent: dependency.task.clone(),
        }),
    }
}
