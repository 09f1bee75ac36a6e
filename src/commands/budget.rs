//! Pauses the trials of an executor whose budget of GPU-hours is spent. `resume` lets them spend as much again.
//!
//! The request is written before Slurm is told: whoever is killed in between leaves the rest to the next one, and `status`
//! says why they are paused. Two at once write the same, which counts once.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::rundir::requests::{self, SpentBudget};
use nemo_core::scope::{Scope, TrialSet};

use super::control::{self, TrialKey};
use super::{App, goodput, pause};
use crate::error::CommandError;
use crate::experiment::{Budget, Experiment};
use crate::goodput as ledger;
use crate::humanize::{count, gpu_hours};
use crate::report::say;
use crate::status::{Request, RequestedAction, State, Status, TaskStatus, TrialStatus};
use crate::store::{Stored, Target};

/// A trial that is paused for a budget.
pub(super) struct PausedTrial {
    pub(super) task: String,
    pub(super) index: u32,
    pub(super) job: Option<String>,
    pub(super) why: String,
}

/// Pauses what has spent its budget. The status must be of all trials. Returns the trials that were told.
pub(super) fn enforce(
    app: &App,
    stored: &Stored,
    status: &Status,
) -> Result<Vec<PausedTrial>, CommandError> {
    if !stored.experiment.has_budget() {
        return Ok(Vec::new());
    }
    let mut requests = control::requests(stored)?;
    for stop in spent_now(stored, status, &requests)? {
        for task in tasks_of(&stored.experiment, &stop.executor) {
            let part = target(stored, task, None);
            control::request_for(stored, &part, RequestedAction::Pause, Some(stop.clone()))?;
        }
    }
    requests = control::requests(stored)?;
    let mut told = Vec::new();
    for task in &status.tasks {
        told.extend(pause_task(app, stored, status, (task, &requests))?);
    }
    Ok(told)
}

/// What [`enforce`] would pause.
pub(super) fn dry_run(stored: &Stored, status: &Status) -> Result<Vec<PausedTrial>, CommandError> {
    let mut requests = control::requests(stored)?;
    for stop in spent_now(stored, status, &requests)? {
        for task in tasks_of(&stored.experiment, &stop.executor) {
            requests.push(Request {
                action: RequestedAction::Pause,
                scope: target(stored, task, None).scope,
                time: 0,
                budget: Some(stop.clone()),
            });
        }
    }
    Ok(status.tasks.iter().flat_map(|task| trials_to_pause(task, &requests)).collect())
}

/// The budgets that are spent, and that nobody has stopped yet.
fn spent_now(
    stored: &Stored,
    status: &Status,
    requests: &[Request],
) -> Result<Vec<SpentBudget>, CommandError> {
    let open = open_budgets(&stored.experiment, status, requests);
    // It takes a look at every trial's folder.
    let spent =
        if open.is_empty() { BTreeMap::new() } else { goodput::gpu_seconds(stored, status)? };
    Ok(stops(open, requests, &spent))
}

/// The trials of a task that are to be paused for a budget, and are not yet.
fn trials_to_pause(task: &TaskStatus, requests: &[Request]) -> Vec<PausedTrial> {
    // One that was asked to save runs on until it has, and may never have heard of it: it is asked again.
    let is_left = |trial: &&TrialStatus| !trial.state.is_final() && trial.state != State::Paused;
    let paused = |trial: &TrialStatus| {
        let why = reason(task, trial, requests)?;
        let (task, job) = (task.name.clone(), trial.slurm_job.clone());
        Some(PausedTrial { task, index: trial.index, job, why })
    };
    task.trials.iter().filter(is_left).filter_map(paused).collect()
}

/// Why a trial is to be paused, if a budget is spent.
fn reason(task: &TaskStatus, trial: &TrialStatus, requests: &[Request]) -> Option<String> {
    let pause = requests::pause(requests, &task.name, trial.index)?;
    Some(crate::status::spent_budget(pause.budget.as_ref()?))
}

fn tasks_of<'a>(experiment: &'a Experiment, executor: &'a str) -> impl Iterator<Item = &'a str> {
    let of = experiment.tasks.iter().filter(move |task| task.executor == executor);
    of.map(|task| task.name.as_str())
}

fn target(stored: &Stored, task: &str, trials: Option<TrialSet>) -> Target {
    Target { id: stored.id.clone(), scope: Scope { task: Some(task.to_owned()), trials } }
}

/// The budgets of executors of which anything would go on.
fn open_budgets<'a>(
    experiment: &'a Experiment,
    status: &Status,
    requests: &[Request],
) -> Vec<(&'a str, Budget)> {
    let goes_on = |task: &TaskStatus, trial: &TrialStatus| {
        !trial.state.is_final() && requests::pause(requests, &task.name, trial.index).is_none()
    };
    let any_goes_on = |executor: &str| {
        let of = |task: &&TaskStatus| tasks_of(experiment, executor).any(|it| it == task.name);
        let mut tasks = status.tasks.iter().filter(of);
        tasks.any(|task| task.trials.iter().any(|trial| goes_on(task, trial)))
    };
    experiment.budgets().filter(|(name, _)| any_goes_on(name)).collect()
}

/// Those of them that are spent.
fn stops(
    open: Vec<(&str, Budget)>,
    requests: &[Request],
    spent: &BTreeMap<String, u64>,
) -> Vec<SpentBudget> {
    let of_budget = |(name, budget): (&str, Budget)| {
        let (spent, limit) = (spent.get(name).copied().unwrap_or(0), limit(name, budget, requests));
        let times = requests::times_spent(requests, name) + 1;
        (spent >= limit).then(|| SpentBudget { executor: name.to_owned(), times, spent, limit })
    };
    open.into_iter().filter_map(of_budget).collect()
}

/// The GPU-seconds that an executor's trials may hold altogether: as much as was held when `resume` let them go on, and
/// the budget once more. What they held to save after the pause is not taken from that.
fn limit(executor: &str, budget: Budget, requests: &[Request]) -> u64 {
    let each = budget.gpu_seconds();
    let of = |it: &&Request| it.budget.as_ref().is_some_and(|it| it.executor == executor);
    let last = requests.iter().rev().find(of).and_then(|request| {
        Some((request.action == RequestedAction::Resume, request.budget.as_ref()?))
    });
    match last {
        None => each,
        Some((true, resumed)) => resumed.limit,
        Some((false, paused)) => paused.spent.saturating_add(each),
    }
}

/// What `resume` of a target lets the executors spend that were paused for their budgets.
pub(super) fn renewed(
    stored: &Stored,
    status: &Status,
    target: &Target,
) -> Result<Vec<SpentBudget>, CommandError> {
    if !stored.experiment.has_budget() {
        return Ok(Vec::new());
    }
    let (requests, spent) = (control::requests(stored)?, goodput::gpu_seconds(stored, status)?);
    let is_meant = |name: &str| {
        let mut tasks = tasks_of(&stored.experiment, name);
        tasks.any(|task| target.scope.covers_task(task))
    };
    let of_budget = |(name, budget): (&str, Budget)| {
        let times = Some(requests::times_spent(&requests, name)).filter(|times| *times > 0)?;
        let spent = spent.get(name).copied().unwrap_or(0);
        let limit = spent.saturating_add(budget.gpu_seconds());
        is_meant(name).then(|| SpentBudget { executor: name.to_owned(), times, spent, limit })
    };
    Ok(stored.experiment.budgets().filter_map(of_budget).collect())
}

/// Carries out on Slurm what the requests say of a task, as far as nobody has yet. The local runner does so by itself.
fn pause_task(
    app: &App,
    stored: &Stored,
    status: &Status,
    (task, requests): (&TaskStatus, &[Request]),
) -> Result<Vec<PausedTrial>, CommandError> {
    let mut left = trials_to_pause(task, requests);
    let is_local = stored
        .experiment
        .tasks
        .iter()
        .any(|it| it.name == task.name && stored.experiment.is_local(it));
    if left.is_empty() || is_local {
        return Ok(left);
    }
    let keys: BTreeSet<TrialKey> = left.iter().map(|it| (it.task.clone(), it.index)).collect();
    // All of it is one id for Slurm, where nothing of it goes on.
    let is_stopped = |it: &TrialStatus| it.state.is_final() || reason(task, it, requests).is_some();
    let is_whole = task.trials.iter().all(is_stopped);
    let set = TrialSet::new(left.iter().map(|it| it.index)).filter(|_| !is_whole);
    let target = target(stored, &task.name, set);
    let troubles = pause::pause_jobs(app, stored, status, &target, &keys);
    if let Some(error) = troubles.unwritten {
        return Err(error);
    }
    // The next look tells those that could not be told now.
    left.retain(|it| !troubles.unsure.contains(&(it.task.clone(), it.index)));
    let (unsignalled, unsure) =
        (troubles.unsignalled_in_words(&stored.id), troubles.unsure_in_words(&stored.id));
    for words in unsignalled.into_iter().chain(unsure) {
        say(&format!("warning: {words}"));
    }
    match troubles.slurm.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(left),
    }
}

/// Budgets that nothing can spend, since no task of the executor has GPUs.
pub(super) fn unspendable(experiment: &Experiment) -> Vec<String> {
    let has_gpus = |executor: &str| {
        let mut tasks = experiment.tasks.iter().filter(|task| task.executor == executor);
        tasks.any(|task| ledger::resources(experiment, task).gpus > 0)
    };
    let without = experiment.budgets().filter(|(name, _)| !has_gpus(name));
    without
        .map(|(name, _)| {
            format!(
                "warning: the trials of executor `{name}` have no GPUs, so its budget is never spent: set `gpus_per_node` \
                 (`gpus_per_trial` on this machine), or remove `budget`"
            )
        })
        .collect()
}

/// What `plan` says of each budget.
pub(super) fn in_words(experiment: &Experiment) -> Vec<String> {
    let of = |(name, budget): (&str, Budget)| {
        let mut most = 0_u32;
        for task in experiment.tasks.iter().filter(|task| task.executor == name) {
            most = most.max(ledger::resources(experiment, task).gpus);
        }
        let hours = gpu_hours(budget.gpu_seconds());
        format!(
            "After {hours} GPU-hours the trials of `{name}` ({} each) are saved and paused.",
            count(most as usize, "GPU")
        )
    };
    experiment.budgets().map(of).collect()
}

/// Says what was paused.
pub(super) fn say_paused(stored: &Stored, paused: &[PausedTrial]) {
    for trial in paused {
        say(&format!("{}/{}/{}: is paused: {}", stored.id, trial.task, trial.index, trial.why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_before_a_resume_is_not_taken_from_the_next_budget() {
        let budget = Budget { gpu_hours: 100.0 / 3600.0 };
        let of = |action, spent, limit| Request {
            action,
            scope: Scope::default(),
            time: 0,
            budget: Some(SpentBudget { executor: "it".to_owned(), times: 1, spent, limit }),
        };
        assert_eq!(limit("it", budget, &[]), 100);
        let paused = of(RequestedAction::Pause, 100, 100);
        assert_eq!(limit("it", budget, std::slice::from_ref(&paused)), 200);
        // The saves took long.
        let resumed = of(RequestedAction::Resume, 207, 307);
        assert_eq!(limit("it", budget, &[paused.clone(), resumed.clone()]), 307);
        assert_eq!(limit("other", budget, &[paused.clone(), resumed.clone()]), 100);
        // Nobody looked for a while.
        let late = of(RequestedAction::Pause, 450, 307);
        assert_eq!(limit("it", budget, &[paused, resumed, late]), 550);
    }
}
