//! Submits trials again whose jobs Slurm has forgotten, and that never ran or were to be requeued, as the next generation of the
//! experiment: never twice, and never beside a job that lives.
//!
//! Under the experiment's claim, Slurm is asked a second time. The plan is in the journal before anything is submitted:
//! whoever comes after a crash goes on with that one.

use std::collections::BTreeSet;

use super::outcome::PollResult;
use crate::commands::generation::ChosenTrials;
use crate::commands::status::look_by;
use crate::commands::{App, generation, outside, submit};
use crate::error::{CommandError, ExitCode};
use crate::journal::{self, Event};
use crate::observe::Depth;
use crate::plan::{JobArray, Plan, Selection};
use crate::query::SlurmSource;
use crate::slurm::IndexSet;
use crate::status::{Remedy, Status, TaskStatus, TrialStatus};
use crate::store::{Claim, Stored, Target};

/// How many jobs a trial may have had that came to nothing.
const MOST: usize = 5;

/// A trial that was submitted again, or was not.
pub(super) struct Resubmitted {
    pub(super) task: String,
    pub(super) index: u32,
    /// Its job now.
    pub(super) job: String,
    pub(super) done: PollResult,
    pub(super) why: Option<String>,
}

/// What comes of trials that Slurm has forgotten.
enum NextPlan {
    Written(Plan),
    /// Slurm no longer says the same, or a version that did not say which harness its jobs run has submitted them.
    None,
    /// What they wait for outside has failed, or can't be waited for.
    Unmet(CommandError),
}

/// Submits what Slurm has forgotten, and may run now.
pub(super) fn resubmit(
    app: &App,
    stored: &Stored,
    target: &Target,
    status: &Status,
) -> Result<Vec<Resubmitted>, CommandError> {
    let chosen = chosen(stored, target, status);
    let mut all = given_up(stored, target, status);
    all.extend(unconfirmed(target, status));
    let is_interrupted = generation::is_interrupted(&stored.journal);
    if stored.damage.is_some() || (chosen.is_empty() && !is_interrupted) {
        return Ok(all);
    }
    let Some(claim) = generation::claim_unless_held(stored)? else { return Ok(all) };
    // Another process may have written until now.
    let mut now = app.home.load(&stored.id)?;
    if now.journal.len() != stored.journal.len() || now.damage.is_some() {
        return Ok(all);
    }
    let planned = if is_interrupted {
        journal::plans(&now.journal).next_back().cloned().map_or(NextPlan::None, NextPlan::Written)
    } else {
        plan_again(app, &mut now, target, &chosen, &claim)?
    };
    let planned = match planned {
        NextPlan::Written(plan) => plan,
        NextPlan::None => return Ok(all),
        NextPlan::Unmet(error) => {
            all.extend(unmet(status, &chosen, &error));
            return Ok(all);
        }
    };
    submit::submit_arrays(app, &now, &claim)?;
    let journal = app.home.load(&stored.id)?.journal;
    all.extend(planned.arrays.iter().flat_map(|array| submitted(stored, array, &journal)));
    Ok(all)
}

/// What [`resubmit`] would do, without the new jobs.
pub(super) fn dry_run(
    app: &App,
    stored: &Stored,
    target: &Target,
    status: &Status,
) -> Result<Vec<Resubmitted>, CommandError> {
    let mut all = given_up(stored, target, status);
    all.extend(unconfirmed(target, status));
    if stored.damage.is_some() || stored.is_wrapped() {
        return Ok(all);
    }
    if generation::is_interrupted(&stored.journal) {
        let planned = journal::plans(&stored.journal).next_back().into_iter();
        let arrays = planned.flat_map(|plan| &plan.arrays);
        all.extend(arrays.flat_map(|array| without_jobs(&array.task, &array.trials)));
        return Ok(all);
    }
    let chosen = chosen(stored, target, status);
    if chosen.is_empty() || !journal::is_complete(&stored.journal) {
        return Ok(all);
    }
    match selection(app, stored, status, &chosen) {
        Err(error) if error.code == ExitCode::NoAnswer => return Err(error),
        Err(error) => all.extend(unmet(status, &chosen, &error)),
        Ok(None) => {}
        Ok(Some(_)) => {
            all.extend(chosen.iter().flat_map(|(task, trials)| without_jobs(task, trials)));
        }
    }
    Ok(all)
}

/// Removes the marks of the jobs before. No new job is submitted yet that could have left one.
fn remove_marks(stored: &Stored, plan: &Plan) {
    for array in &plan.arrays {
        let task = stored.dir.task(&array.task);
        for trial in array.trials.iter() {
            std::fs::remove_file(task.trial(trial).requeue_wanted()).ok();
        }
    }
}

/// The trials of a target whose jobs Slurm seems to have forgotten.
fn unconfirmed(target: &Target, status: &Status) -> Vec<Resubmitted> {
    let of_task = |task: &TaskStatus| {
        let is_meant = |trial: &&TrialStatus| target.scope.covers(&task.name, trial.index);
        let doubtful = |trial: &&TrialStatus| trial.remedy == Some(Remedy::AskAgain);
        let one = |trial: &TrialStatus| Resubmitted {
            task: task.name.clone(),
            index: trial.index,
            job: trial.slurm_job.clone().unwrap_or_default(),
            done: PollResult::Unconfirmed,
            why: None,
        };
        task.trials.iter().filter(is_meant).filter(doubtful).map(one).collect::<Vec<_>>()
    };
    status.tasks.iter().flat_map(of_task).collect()
}

fn without_jobs<'a>(task: &'a str, trials: &'a IndexSet) -> impl Iterator<Item = Resubmitted> + 'a {
    trials.iter().map(|index| Resubmitted {
        task: task.to_owned(),
        index,
        job: String::new(),
        done: PollResult::Resubmitted,
        why: None,
    })
}

/// The trials as the next generation; none while they wait for what Slurm can't be told of yet.
fn selection(
    app: &App,
    stored: &Stored,
    status: &Status,
    wanted: &ChosenTrials,
) -> Result<Option<Selection>, CommandError> {
    if outside::holds_roots(app, stored, wanted)? {
        return Ok(None);
    }
    generation::selection(app, stored, status, wanted.clone(), None)
}

/// Plans it, if Slurm says the same once more, and writes that down.
fn plan_again(
    app: &App,
    stored: &mut Stored,
    target: &Target,
    wanted: &ChosenTrials,
    claim: &Claim,
) -> Result<NextPlan, CommandError> {
    let (status, _) = look_by(app, stored, SlurmSource::Slurm(&app.slurm), Depth::All)?;
    let is_complete = journal::is_complete(&stored.journal);
    if chosen(stored, target, &status) != *wanted || !is_complete {
        return Ok(NextPlan::None);
    }
    let selected = match selection(app, stored, &status, wanted) {
        // The other trials of the experiment are looked after all the same.
        Err(error) if error.code != ExitCode::NoAnswer => return Ok(NextPlan::Unmet(error)),
        selected => selected?,
    };
    let Some(selected) = selected else { return Ok(NextPlan::None) };
    let plan = generation::plan(app, stored, &selected, claim, None)?;
    if let Some(plan) = &plan {
        remove_marks(stored, plan);
    }
    Ok(plan.map_or(NextPlan::None, NextPlan::Written))
}

/// The trials that are not submitted again, with their forgotten jobs.
fn unmet(status: &Status, chosen: &ChosenTrials, error: &CommandError) -> Vec<Resubmitted> {
    let of_task = |task: &TaskStatus| {
        let is_chosen =
            |index: u32| chosen.get(&task.name).is_some_and(|trials| trials.contains(index));
        let trials = task.trials.iter().filter(|trial| is_chosen(trial.index));
        let one = |trial: &TrialStatus| Resubmitted {
            task: task.name.clone(),
            index: trial.index,
            job: trial.slurm_job.clone().unwrap_or_default(),
            done: PollResult::NotSubmitted,
            why: Some(error.error.to_string()),
        };
        trials.map(one).collect::<Vec<_>>()
    };
    status.tasks.iter().flat_map(of_task).collect()
}

/// The trials of an array with their new jobs.
fn submitted(stored: &Stored, array: &JobArray, journal: &[Event]) -> Vec<Resubmitted> {
    let done = PollResult::Resubmitted;
    let one = |(index, job)| Resubmitted { task: array.task.clone(), index, job, done, why: None };
    generation::jobs_of(stored, array, journal).into_iter().map(one).collect()
}

/// The trials that Slurm has forgotten and that may run now: what they wait for is done, or is submitted with them. Pure.
fn chosen(stored: &Stored, target: &Target, status: &Status) -> ChosenTrials {
    let mut chosen = ChosenTrials::new();
    for (task, seen) in stored.experiment.tasks.iter().zip(&status.tasks) {
        let may_run = |trial: &u32| {
            n_jobs(&stored.journal, &task.name, *trial) < MOST
                && generation::is_free(task, *trial, &status.tasks, &chosen)
        };
        let trials: IndexSet = forgotten(target, seen).into_iter().filter(may_run).collect();
        if trials.count() > 0 {
            chosen.insert(task.name.clone(), trials);
        }
    }
    chosen
}

/// The trials of a task whose jobs Slurm has forgotten.
fn forgotten(target: &Target, task: &TaskStatus) -> BTreeSet<u32> {
    let is_meant = target.scope.covers_task(&task.name);
    let trials = task.trials.iter().filter(|trial| trial.remedy == Some(Remedy::Resubmit));
    let all = trials.map(|trial| trial.index);
    all.filter(|index| is_meant && target.scope.covers_trial(*index)).collect()
}

/// How many jobs a trial has had since somebody retried it.
fn n_jobs(journal: &[Event], task: &str, trial: u32) -> usize {
    let retry = journal::last_retries(journal, task).get(&trial).map(|retry| retry.generation);
    let since = journal::plans(journal).filter(|plan| retry.is_none_or(|it| plan.generation >= it));
    let own = since.flat_map(|plan| &plan.arrays).filter(|array| array.task == task);
    own.filter(|array| array.trials.contains(trial)).count()
}

/// The trials whose jobs were forgotten too often.
fn given_up(stored: &Stored, target: &Target, status: &Status) -> Vec<Resubmitted> {
    let mut all = Vec::new();
    for task in &status.tasks {
        for index in forgotten(target, task) {
            if n_jobs(&stored.journal, &task.name, index) >= MOST {
                let trial = task.trials.iter().find(|trial| trial.index == index);
                let job = trial.and_then(|trial| trial.slurm_job.clone()).unwrap_or_default();
                let done = PollResult::GivenUp;
                all.push(Resubmitted { task: task.name.clone(), index, job, done, why: None });
            }
        }
    }
    all
}
