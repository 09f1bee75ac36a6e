//! Which trials are retried: those that are over as asked for and may run now, and those that were blocked by them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::scope::Scope;
use serde::Serialize;

use crate::commands::control::TrialKey;
use crate::commands::generation::{ChosenTrials, is_free, is_linkable};
use crate::experiment::{Dependency, Experiment, On, Task};
use crate::journal::{RetriedTrials, Retry};
use crate::slurm::IndexSet;
use crate::status::{State, Status, TaskStatus, TrialStatus};

/// What is retried, and what is not.
#[derive(Debug, Default)]
pub(super) struct Choice {
    wanted: ChosenTrials,
    blocked: ChosenTrials,
    /// What is in the scope and is left as it is, though it did not complete.
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

    /// Adds what becomes of one task.
    fn add(&mut self, task: &str, of_task: TaskChoice) {
        let TaskChoice { wanted, blocked, left, has_never_runnable: _ } = of_task;
        for (all, trials) in [(&mut self.wanted, wanted), (&mut self.blocked, blocked)] {
            if !trials.is_empty() {
                all.insert(task.to_owned(), trials.into_iter().collect());
            }
        }
        self.left.extend(left.into_iter().map(|(why, trials)| LeftAlone {
            task: task.to_owned(),
            trials: trials.into_iter().collect(),
            why,
        }));
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
    let filter = RetryFilter { experiment, scope, wanted, refused, tasks: &status.tasks };
    let mut choice = Choice::default();
    let mut parents = ParentChoices::default();
    for (task, seen) in experiment.tasks.iter().zip(&status.tasks) {
        let mut of_task = TaskChoice::default();
        for trial in &seen.trials {
            of_task.add(trial.index, filter.choose_trial(task, trial, &parents));
        }
        if of_task.has_never_runnable {
            parents.never_runnable.insert(&task.name);
        }
        choice.add(&task.name, of_task);
        parents.chosen = choice.trials();
    }
    choice
}

/// What a retry asks for, and what it finds.
struct RetryFilter<'a> {
    experiment: &'a Experiment,
    scope: &'a Scope,
    wanted: &'a [State],
    refused: &'a BTreeMap<TrialKey, String>,
    tasks: &'a [TaskStatus],
}

/// What became of the tasks before: each task comes after those that it waits for.
#[derive(Default)]
struct ParentChoices<'a> {
    chosen: ChosenTrials,
    /// Tasks with trials that can't run, whatever is retried.
    never_runnable: BTreeSet<&'a str>,
}

/// What becomes of one trial.
#[derive(Debug, PartialEq, Eq)]
enum TrialChoice {
    /// It is retried for its own sake.
    Wanted,
    /// It is retried since what blocked it is.
    Blocked,
    /// It is left as it is, for this reason.
    Left(String),
    /// It can't run, whatever is retried. The reason is for who asked for it: nobody did where there is none.
    NeverRunnable(Option<String>),
    /// It has nothing to do with this retry.
    Untouched,
}

impl RetryFilter<'_> {
    fn choose_trial(
        &self,
        task: &Task,
        trial: &TrialStatus,
        parents: &ParentChoices<'_>,
    ) -> TrialChoice {
        let is_in_scope = self.scope.covers(&task.name, trial.index);
        let is_wanted = is_in_scope && self.wanted.contains(&state_to_retry(trial));
        let is_blocked = trial.state == State::Blocked;
        let refusal = self.refused.get(&(task.name.clone(), trial.index));
        if let Some(why) = refusal.filter(|_| is_wanted || is_blocked) {
            return TrialChoice::Left(why.clone());
        }
        let names_trials = self.scope.trials.is_some();
        if let Some(why) = self.why_never(task, trial, parents) {
            let is_asked_for = is_in_scope && (is_wanted || is_blocked || names_trials);
            return TrialChoice::NeverRunnable(is_asked_for.then_some(why));
        }
        if is_wanted && is_free(task, trial.index, self.tasks, &parents.chosen) {
            return TrialChoice::Wanted;
        }
        if is_blocked && let Some(choice) = self.unblocked(task, trial.index, &parents.chosen) {
            return choice;
        }
        if !is_in_scope {
            return TrialChoice::Untouched;
        }
        let why = why_not(task, trial, is_wanted, self.tasks, &parents.chosen);
        // Who names a trial is told of it in any case.
        let why = why.or_else(|| names_trials.then(|| format!("it is {}", trial.state.as_str())));
        why.map_or(TrialChoice::Untouched, TrialChoice::Left)
    }

    /// Why a trial that is over can't run, whatever is retried.
    fn why_never(
        &self,
        task: &Task,
        trial: &TrialStatus,
        parents: &ParentChoices<'_>,
    ) -> Option<String> {
        let is_lost = trial.state.is_final() && trial.state != State::Completed;
        let ParentChoices { chosen, never_runnable } = parents;
        is_lost.then(|| why_never(task, trial.index, self.tasks, chosen, never_runnable)).flatten()
    }

    /// How a blocked trial is retried: with what blocked it, or by itself where that runs again already. None if it stays
    /// blocked.
    fn unblocked(&self, task: &Task, trial: u32, chosen: &ChosenTrials) -> Option<TrialChoice> {
        let is_free = is_free(task, trial, self.tasks, chosen);
        let may_run = || {
            let is_unblocked = || is_unblocked(task, trial, self.tasks, chosen);
            // What runs already is waited for by the runner of this machine, or by its job.
            let can_wait = || {
                let is_local = self.experiment.is_local(task);
                is_free || is_local || is_linkable(task, trial, self.tasks, chosen)
            };
            (waits_outside(self.experiment, task) || is_unblocked()) && can_wait()
        };
        if is_after(task, trial, chosen) {
            return (is_free || may_run()).then_some(TrialChoice::Blocked);
        }
        let is_in_scope = self.scope.covers(&task.name, trial);
        (is_in_scope && may_run()).then_some(TrialChoice::Wanted)
    }
}

/// What becomes of the trials of one task.
#[derive(Default)]
struct TaskChoice {
    wanted: Vec<u32>,
    blocked: Vec<u32>,
    /// By the reason.
    left: BTreeMap<String, Vec<u32>>,
    has_never_runnable: bool,
}

impl TaskChoice {
    fn add(&mut self, trial: u32, choice: TrialChoice) {
        match choice {
            TrialChoice::Wanted => self.wanted.push(trial),
            TrialChoice::Blocked => self.blocked.push(trial),
            TrialChoice::Left(why) => self.leave(trial, why),
            TrialChoice::NeverRunnable(told) => {
                self.has_never_runnable = true;
                if let Some(why) = told {
                    self.leave(trial, why);
                }
            }
            TrialChoice::Untouched => {}
        }
    }

    fn leave(&mut self, trial: u32, why: String) {
        self.left.entry(why).or_default().push(trial);
    }
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
/// true. `never_runnable` are the tasks with such trials.
fn why_never(
    task: &Task,
    trial: u32,
    tasks: &[TaskStatus],
    chosen: &ChosenTrials,
    never_runnable: &BTreeSet<&str>,
) -> Option<String> {
    if let Some(parent) = has_not_failed(task, tasks, chosen) {
        return Some(format!("it runs only if `{parent}` fails, which has completed"));
    }
    let is_never_met = |it: &&Dependency| {
        let is_for_all = match it.on {
            On::Ok => true,
            On::Each => false,
            On::Failed | On::Any => return false,
        };
        let parent = tasks.iter().find(|parent| parent.name == it.task);
        let trials = parent.into_iter().flat_map(|parent| &parent.trials);
        let mut needed = trials.filter(|it| is_for_all || it.index == trial);
        never_runnable.contains(&*it.task) && needed.any(|it| it.state != State::Completed)
    };
    let parent = task.after.iter().find(is_never_met)?;
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

/// Why a trial in the scope is not retried; none if it is not to be mentioned.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{sample_experiment, sample_task as task_of_file};
    use crate::status::{Certainty, sample_task, sample_trial};
    use State::{Blocked, Completed, Failed, Running};

    /// One trial of `score`, which waits for `train` in this way: `train` has two trials in these states, some of them chosen.
    fn choose_score(
        (on, train, chosen): (On, [State; 2], &[u32]),
        state: State,
        scope: &Scope,
    ) -> TrialChoice {
        let trial = |(index, state)| TrialStatus {
            certainty: Certainty::Final,
            ..sample_trial(index, state)
        };
        let waiting = task_of_file("score", 2, 0, &[("train", on)]);
        let tasks = [sample_task("train", (0..).zip(train).map(trial).collect())];
        let mut parents = ParentChoices::default();
        if !chosen.is_empty() {
            parents.chosen.insert("train".to_owned(), chosen.iter().copied().collect());
        }
        let (experiment, refused) = (sample_experiment(Vec::new()), BTreeMap::new());
        let (wanted, tasks, experiment) = (&[Failed][..], &tasks[..], &experiment);
        let filter = RetryFilter { experiment, scope, wanted, refused: &refused, tasks };
        filter.choose_trial(&waiting, &trial((0, state)), &parents)
    }

    #[test]
    fn a_trial_is_retried_for_its_own_sake_or_with_what_blocked_it() {
        let all = Scope::default();
        let train = Scope { task: Some("train".to_owned()), trials: None };
        let done = (On::Ok, [Completed, Completed], &[][..]);
        assert_eq!(choose_score(done, Failed, &all), TrialChoice::Wanted);
        assert_eq!(choose_score(done, Failed, &train), TrialChoice::Untouched);
        assert_eq!(choose_score(done, Completed, &all), TrialChoice::Untouched);
        let retried = (On::Ok, [Completed, Failed], &[1][..]);
        assert_eq!(choose_score(retried, Blocked, &train), TrialChoice::Blocked);
        // What failed was retried before.
        let runs_again = (On::Ok, [Completed, Running], &[][..]);
        assert_eq!(choose_score(runs_again, Blocked, &all), TrialChoice::Wanted);
        assert_eq!(choose_score(runs_again, Blocked, &train), TrialChoice::Untouched);
    }

    #[test]
    fn what_is_not_retried_has_a_reason_where_it_was_asked_for() {
        let all = Scope::default();
        let left = |why: &str| TrialChoice::Left(why.to_owned());
        let failed = (On::Each, [Failed, Completed], &[][..]);
        let blocked = "it is blocked: `train` trial 0 is failed; retry that too";
        assert_eq!(choose_score(failed, Blocked, &all), left(blocked));
        assert_eq!(choose_score(failed, Running, &all), left("it is running"));
        let done = (On::Failed, [Completed, Completed], &[][..]);
        let never = "it runs only if `train` fails, which has completed".to_owned();
        assert_eq!(choose_score(done, Blocked, &all), TrialChoice::NeverRunnable(Some(never)));
        let train = Scope { task: Some("train".to_owned()), trials: None };
        assert_eq!(choose_score(done, Blocked, &train), TrialChoice::NeverRunnable(None));
        let named = Scope { task: Some("score".to_owned()), trials: "0".parse().ok() };
        assert_eq!(choose_score(failed, Completed, &named), left("it is completed"));
    }
}
