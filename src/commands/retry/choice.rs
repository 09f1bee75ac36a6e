//! Which trials are retried: those that are over as asked for and may run now, and those that were blocked by them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::scope::Scope;
use serde::Serialize;

use crate::commands::control::TrialKey;
use crate::commands::generation::{ChosenTrials, is_free};
use crate::experiment::{Dependency, Experiment, On, Task};
use crate::journal::{RetriedTrials, Retry};
use crate::slurm::IndexSet;
use crate::status::{State, Status, TaskStatus, TrialStatus};

/// What is retried, and what is not.
#[derive(Debug, Default)]
pub(super) struct Choice {
    wanted: ChosenTrials,
    blocked: ChosenTrials,
    /// What the target means and is left as it is, though it did not complete.
    pub(super) left: Vec<LeftAlone>,
}

/// Trials that are left alone for one reason.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftAlone {
    pub(super) task: String,
    pub(super) trials: IndexSet,
    pub(super) why: String,
}

impl Choice {
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn n_wanted(&self) -> usize {
        self.wanted.values().map(IndexSet::count).sum()
    }

    pub(super) fn n_blocked(&self) -> usize {
        self.blocked.values().map(IndexSet::count).sum()
    }

    /// Whether a trial was asked for, and not only blocked by one that was.
    pub(super) fn is_wanted(&self, task: &str, trial: u32) -> bool {
        self.wanted.get(task).is_some_and(|trials| trials.contains(trial))
    }

    /// All trials of the new generation.
    pub(super) fn trials(&self) -> ChosenTrials {
        together(&self.wanted, &self.blocked)
    }

    /// The chosen trials of which it is not certain that no job of theirs is left.
    pub(super) fn open(&self, status: &Status) -> BTreeSet<TrialKey> {
        let chosen = self.trials();
        let mut open = BTreeSet::new();
        for (task, trial) in each(status, &chosen) {
            if !trial.is_final() {
                open.insert((task.to_owned(), trial.index));
            }
        }
        open
    }

    /// What the journal says of it.
    pub(super) fn retry(&self, status: &Status) -> Retry {
        let chosen = self.trials();
        let mut groups: BTreeMap<&str, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
        for (task, trial) in each(status, &chosen) {
            let of_task = groups.entry(task).or_default();
            of_task.entry(next_attempt(trial)).or_default().push(trial.index);
        }
        let group = |(from_attempt, trials): (u32, Vec<u32>)| RetriedTrials {
            from_attempt,
            trials: trials.into_iter().collect(),
            changed: None,
            rule: None,
            advice: None,
        };
        let of_task = |(task, groups): (&str, BTreeMap<u32, Vec<u32>>)| {
            (task.to_owned(), groups.into_iter().map(group).collect())
        };
        Retry { trials: groups.into_iter().map(of_task).collect(), user: None }
    }
}

/// The number of a trial's next attempt.
fn next_attempt(trial: &TrialStatus) -> u32 {
    let numbers = trial.attempts.iter().filter_map(|attempt| attempt.number);
    numbers.max().map_or(0, |number| number + 1)
}

fn each<'a>(
    status: &'a Status,
    chosen: &'a ChosenTrials,
) -> impl Iterator<Item = (&'a str, &'a TrialStatus)> {
    let tasks = status.tasks.iter().filter_map(|task| Some((task, chosen.get(&task.name)?)));
    tasks.flat_map(|(task, chosen)| {
        let trials = task.trials.iter().filter(|trial| chosen.contains(trial.index));
        trials.map(|trial| (task.name.as_str(), trial))
    })
}

fn together(one: &ChosenTrials, other: &ChosenTrials) -> ChosenTrials {
    let mut all = one.clone();
    for (task, trials) in other {
        let known = all.entry(task.clone()).or_default();
        *known = known.iter().chain(trials.iter()).collect::<BTreeSet<u32>>().into_iter().collect();
    }
    all
}

/// A trial whose job Slurm does not know any more has failed, whatever `poll` makes of it later.
fn state_to_retry(trial: &TrialStatus) -> State {
    if trial.is_dropped() { State::Failed } else { trial.state }
}

/// Chooses the trials of a scope that are in one of these states and may run now, and what they have blocked. `refused` are
/// those that can't be retried as it is asked for, and why.
pub(super) fn choose(
    experiment: &Experiment,
    scope: &Scope,
    wanted: &[State],
    refused: &BTreeMap<TrialKey, String>,
    status: &Status,
) -> Choice {
    let mut choice = Choice::default();
    let mut all = ChosenTrials::new();
    let mut hopeless: BTreeSet<&str> = BTreeSet::new();
    for (task, seen) in experiment.tasks.iter().zip(&status.tasks) {
        let mut chosen: BTreeMap<bool, Vec<u32>> = BTreeMap::new();
        let mut left: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for trial in &seen.trials {
            let is_meant = scope.covers(&task.name, trial.index);
            let is_wanted = is_meant && wanted.contains(&state_to_retry(trial));
            let refusal = refused.get(&(task.name.clone(), trial.index));
            let refusal = refusal.filter(|_| is_wanted || trial.state == State::Blocked);
            if let Some(why) = refusal {
                left.entry(why.clone()).or_default().push(trial.index);
                continue;
            }
            let is_lost = trial.state.is_final() && trial.state != State::Completed;
            let why_never = || why_never(task, trial.index, &status.tasks, &all, &hopeless);
            if let Some(why) = is_lost.then(why_never).flatten() {
                hopeless.insert(&task.name);
                let is_asked_for =
                    is_wanted || trial.state == State::Blocked || scope.trials.is_some();
                if is_meant && is_asked_for {
                    left.entry(why).or_default().push(trial.index);
                }
                continue;
            }
            let is_free = || is_free(task, trial.index, &status.tasks, &all);
            let is_after = is_after(task, trial.index, &all);
            // What runs already is waited for by the runner of this machine alone: no job names one of an earlier retry.
            let may_run = || {
                (is_after || is_meant)
                    && (waits_outside(experiment, task)
                        || is_unblocked(task, trial.index, &status.tasks, &all))
                    && (is_free() || experiment.is_local(task))
            };
            if is_wanted && is_free() {
                chosen.entry(true).or_default().push(trial.index);
            } else if trial.state == State::Blocked && (is_after && is_free() || may_run()) {
                chosen.entry(!is_after).or_default().push(trial.index);
            } else if is_meant
                && let Some(why) = why_not(task, trial, is_wanted, &status.tasks, &all)
            {
                left.entry(why).or_default().push(trial.index);
            } else if is_meant && scope.trials.is_some() {
                let why = format!("it is {}", trial.state.as_str());
                left.entry(why).or_default().push(trial.index);
            }
        }
        let name = &task.name;
        for (is_wanted, trials) in chosen {
            let own = if is_wanted { &mut choice.wanted } else { &mut choice.blocked };
            own.insert(name.clone(), trials.into_iter().collect());
        }
        choice.left.extend(left.into_iter().map(|(why, trials)| LeftAlone {
            task: name.clone(),
            trials: trials.into_iter().collect(),
            why,
        }));
        all = together(&choice.wanted, &choice.blocked);
    }
    choice
}

/// The task that has completed, though a task runs only if it fails.
pub(super) fn has_not_failed<'a>(
    task: &'a Task,
    tasks: &[TaskStatus],
    chosen: &ChosenTrials,
) -> Option<&'a str> {
    let has_completed = |name: &str| {
        let parent = tasks.iter().find(|it| it.name == name);
        parent.is_some_and(|it| it.trials.iter().all(|it| it.state == State::Completed))
    };
    let mut parents = task.after.iter().filter(|it| it.on == On::Failed).map(|it| &*it.task);
    parents.find(|name| !chosen.contains_key(*name) && has_completed(name))
}

/// Why a trial can't run, whatever is retried: it is for a failure that did not come, or waits for a trial of which that is
/// true. `hopeless` are the tasks with such trials.
fn why_never(
    task: &Task,
    trial: u32,
    tasks: &[TaskStatus],
    chosen: &ChosenTrials,
    hopeless: &BTreeSet<&str>,
) -> Option<String> {
    if let Some(parent) = has_not_failed(task, tasks, chosen) {
        return Some(format!("it runs only if `{parent}` fails, which has completed"));
    }
    let is_hopeless = |it: &&Dependency| {
        let is_for_all = match it.on {
            On::Ok => true,
            On::Each => false,
            On::Failed | On::Any => return false,
        };
        let parent = tasks.iter().find(|parent| parent.name == it.task);
        let trials = parent.into_iter().flat_map(|parent| &parent.trials);
        let mut needed = trials.filter(|it| is_for_all || it.index == trial);
        hopeless.contains(&*it.task) && needed.any(|it| it.state != State::Completed)
    };
    let parent = task.after.iter().find(is_hopeless)?;
    Some(format!("it waits for `{}`, which can't run any more", parent.task))
}

/// Whether a trial needs one of the chosen trials to complete.
fn is_after(task: &Task, trial: u32, chosen: &ChosenTrials) -> bool {
    task.after.iter().any(|dependency| {
        let parents = chosen.get(&dependency.task);
        parents.is_some_and(|parents| match dependency.on {
            On::Each => parents.contains(trial),
            On::Ok | On::Any => true,
            On::Failed => false,
        })
    })
}

/// Whether only what is outside of the experiment can have blocked a trial of a task. It may have been retried since: that is
/// found out when the trial is planned.
fn waits_outside(experiment: &Experiment, task: &Task) -> bool {
    task.after.is_empty() && !experiment.after.is_empty()
}

/// Whether what must complete for a trial still may: what did not is chosen, or runs again already.
fn is_unblocked(task: &Task, trial: u32, tasks: &[TaskStatus], chosen: &ChosenTrials) -> bool {
    let may_be_met = |dependency: &Dependency| {
        let Some(parent) = tasks.iter().find(|it| it.name == dependency.task) else { return false };
        let chosen = chosen.get(&parent.name);
        let is_lost = |it: &TrialStatus| {
            let is_over = it.state.is_final() && it.state != State::Completed;
            let is_chosen = chosen.is_some_and(|trials| trials.contains(it.index));
            is_over && !is_chosen && !it.is_brought_back()
        };
        match dependency.on {
            On::Ok => !parent.trials.iter().any(is_lost),
            On::Each => !parent.trials.iter().any(|it| it.index == trial && is_lost(it)),
            // Where no failure can come, nothing else is asked.
            On::Any | On::Failed => true,
        }
    };
    let must_complete = |it: &Dependency| matches!(it.on, On::Ok | On::Each);
    task.after.iter().any(must_complete) && task.after.iter().all(may_be_met)
}

/// What blocks a trial and is not retried with it.
fn blocked_by(task: &Task, trial: u32, tasks: &[TaskStatus], chosen: &ChosenTrials) -> String {
    let mut must_complete = task.after.iter().filter(|it| matches!(it.on, On::Ok | On::Each));
    let lost = must_complete.find_map(|dependency| {
        let parent = tasks.iter().find(|it| it.name == dependency.task)?;
        let is_chosen = |it: u32| chosen.get(&parent.name).is_some_and(|own| own.contains(it));
        let is_needed = |it: &&TrialStatus| dependency.on == On::Ok || it.index == trial;
        let is_lost = |it: &&TrialStatus| it.state.is_final() && it.state != State::Completed;
        let mut lost = parent.trials.iter().filter(is_needed).filter(is_lost);
        lost.find(|it| !it.is_brought_back() && !is_chosen(it.index)).map(|it| (&parent.name, it))
    });
    match lost {
        Some((name, it)) => {
            let (index, state) = (it.index, it.state.as_str());
            format!("it is blocked: `{name}` trial {index} is {state}; retry that too")
        }
        None => "it is blocked: retry what it waits for".to_owned(),
    }
}

/// Why a trial that is meant is not retried; none if it is not to be mentioned.
fn why_not(
    task: &Task,
    trial: &TrialStatus,
    is_wanted: bool,
    tasks: &[TaskStatus],
    chosen: &ChosenTrials,
) -> Option<String> {
    let waits_for = |what: &dyn Fn(&TaskStatus) -> String| {
        let parents = task.after.iter().filter_map(|dependency| {
            let parent = tasks.iter().find(|parent| parent.name == dependency.task)?;
            (parent.state != State::Completed).then(|| what(parent))
        });
        Some(format!("it waits for {}", parents.collect::<Vec<_>>().join(" and ")))
    };
    if is_wanted {
        return waits_for(&|it| format!("`{}`, which is {}", it.name, it.state.as_str()));
    }
    match trial.state {
        State::Running | State::Pending | State::Preempted | State::Paused | State::Unknown => {
            Some(format!("it is {}", trial.state.as_str()))
        }
        State::Blocked if is_unblocked(task, trial.index, tasks, chosen) => {
            waits_for(&|it| format!("`{}`, which runs again: retry it after that", it.name))
        }
        State::Blocked => Some(blocked_by(task, trial.index, tasks, chosen)),
        State::Completed | State::Failed | State::Timeout | State::Cancelled => None,
    }
}
