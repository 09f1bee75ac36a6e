//! Puts back trials that Slurm cancelled before they ran, since it took what they wait for as failed, where that is done by
//! its own record or is to run again. They wait for the end of those jobs alone: each looks at the records itself before it
//! runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::experiment::{On, Task};
use crate::slurm::{IndexSet, JobControl, SlurmError};
use crate::status::{Remedy, State, Status, TaskStatus, TrialStatus};
use crate::store::{Stored, Target};

/// How often it is tried: Slurm may cancel a job once more before its dependency is changed.
const TRIES: u32 = 3;

/// Trials that Slurm took out together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TakenOut {
    pub(super) task: String,
    array: String,
    /// The trials, and their indices in the array.
    places: Vec<(u32, u32)>,
    /// What they shall wait for: `afterany:7`. Empty for nothing.
    dependency: String,
}

impl TakenOut {
    /// Each trial with its job.
    pub(super) fn each(&self) -> impl Iterator<Item = (u32, String)> {
        self.places.iter().map(|(trial, index)| (*trial, format!("{}_{index}", self.array)))
    }

    /// Their jobs as Slurm takes them: `8_[0-2]`.
    fn jobs(&self) -> String {
        let indices: IndexSet = self.places.iter().map(|(_, index)| *index).collect();
        format!("{}_[{indices}]", self.array)
    }
}

/// The trials of a target that Slurm took out, and whose parents are none of the `hopeless`. Pure.
pub(super) fn taken_out(
    stored: &Stored,
    target: &Target,
    status: &Status,
    mut hopeless: BTreeSet<(String, u32)>,
) -> Vec<TakenOut> {
    let mut all = Vec::new();
    for (task, seen) in stored.experiment.tasks.iter().zip(&status.tasks) {
        let mut groups: BTreeMap<(String, String), Vec<(u32, u32)>> = BTreeMap::new();
        let is_meant = target.scope.covers_task(&task.name);
        for trial in &seen.trials {
            let place = trial.slurm_job.as_ref().and_then(|job| job.split_once('_'));
            let Some((array, index)) = place.filter(|_| trial.remedy == Some(Remedy::PutBack))
            else {
                continue;
            };
            let parents = open_parents(task, trial.index, &status.tasks);
            let is_hopeless = |(name, parent): &(&str, &TrialStatus)| {
                hopeless.contains(&((*name).to_owned(), parent.index))
            };
            let Ok(index) = index.parse() else { continue };
            if parents.iter().any(is_hopeless) {
                hopeless.insert((task.name.clone(), trial.index));
            } else if is_meant && target.scope.covers_trial(trial.index) {
                let key = (array.to_owned(), dependency(task, &parents));
                groups.entry(key).or_default().push((trial.index, index));
            }
        }
        let group = |((array, dependency), places)| TakenOut {
            task: task.name.clone(),
            array,
            places,
            dependency,
        };
        all.extend(groups.into_iter().map(group));
    }
    all
}

/// The trials before one that are not over, with their tasks.
fn open_parents<'a>(
    task: &'a Task,
    index: u32,
    tasks: &'a [TaskStatus],
) -> Vec<(&'a str, &'a TrialStatus)> {
    let of = |on: On, parent: &'a TaskStatus| {
        let is_needed = move |trial: &&TrialStatus| on != On::Each || trial.index == index;
        let is_open = |trial: &&TrialStatus| {
            trial.state != State::Completed && (!trial.state.is_final() || trial.remedy.is_some())
        };
        let trials = parent.trials.iter().filter(is_needed).filter(is_open);
        trials.map(|trial| (parent.name.as_str(), trial))
    };
    let parent = |name: &str| tasks.iter().find(|task| task.name == name);
    let all = task.after.iter().filter_map(|it| Some(of(it.on, parent(&it.task)?)));
    all.flatten().collect()
}

/// The end of the parents' jobs: of one task where each trial follows its own, else of whole arrays.
fn dependency(task: &Task, parents: &[(&str, &TrialStatus)]) -> String {
    let job = |(name, trial): &(&str, &TrialStatus)| {
        let job = trial.slurm_job.as_deref()?;
        let is_each = |on: On| on == On::Each;
        let whole = task.after.iter().any(|it| it.task == *name && !is_each(it.on));
        Some(if whole { job.split('_').next().unwrap_or(job) } else { job }.to_owned())
    };
    let jobs: BTreeSet<String> = parents.iter().filter_map(job).collect();
    if jobs.is_empty() {
        return String::new();
    }
    format!("afterany:{}", jobs.into_iter().collect::<Vec<_>>().join(":"))
}

/// Puts them back, to wait for what they must. A process that is killed between the two leaves them to Slurm, which takes
/// them out again.
pub(super) fn put_back(slurm: &JobControl, taken: &TakenOut) -> Result<(), SlurmError> {
    let jobs = [taken.jobs()];
    let mut answer = Ok(());
    for _ in 0..TRIES {
        slurm.requeue(&jobs)?;
        answer = slurm.wait_for(&jobs, &taken.dependency);
        if !is_over(&answer) {
            break;
        }
    }
    answer
}

fn is_over(answer: &Result<(), SlurmError>) -> bool {
    matches!(answer, Err(SlurmError::Refused { reason, .. }) if reason.contains("already finished"))
}
