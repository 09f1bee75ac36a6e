//! Which ends of an experiment are to be told, as far as its status goes. Pure.
//!
//! A trial is over when its end is certain, and no rule of the file retries it. A task has failed as soon as one trial
//! has: nobody should hear of it a week later.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::rundir::requests::SpentBudget;

use crate::experiment::{Dependency, Experiment, NoticeKind, NoticeScope, Notify, On, Task};
use crate::journal::{self, Event};
use crate::status::{Request, RequestedAction, State, Status, TaskStatus, TrialStatus};

/// One end that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What ended how.
    pub kind: NoticeKind,
    /// The task; the experiment where none is named.
    pub task: Option<String>,
    /// The trial.
    pub trial: Option<u32>,
    /// The generation of the last retry of what it is about: what was retried may end once more.
    pub generation: u32,
    /// The budget for which its trials are paused; then nothing has ended.
    pub budget: Option<SpentBudget>,
}

impl Notice {
    /// What it is about: `digits-3kz81q7m/train/3`.
    #[must_use]
    pub fn target(&self, experiment: &str) -> String {
        let task = self.task.iter().map(|task| format!("/{task}"));
        let trial = self.trial.iter().map(|trial| format!("/{trial}"));
        std::iter::once(experiment.to_owned()).chain(task).chain(trial).collect()
    }

    /// The same for the same end, whoever tells it, and however often.
    #[must_use]
    pub fn id(&self, experiment: &str) -> String {
        let target = self.target(experiment);
        match &self.budget {
            Some(budget) => {
                let SpentBudget { executor, times, .. } = budget;
                format!("{target}#budget-{executor}-{times}:{}", self.kind.as_str())
            }
            None => format!("{target}#{}:{}", self.generation, self.kind.as_str()),
        }
    }

    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        let Self { kind, task, trial, generation, budget } = self;
        if let Some(SpentBudget { executor, times, .. }) = budget {
            return format!("budget-{times}-{}-{executor}.json", kind.as_str());
        }
        let trial = trial.iter().map(|trial| format!("-{trial}"));
        let task = task.iter().map(|task| format!("-{task}"));
        let place: String = trial.chain(task).collect();
        format!("{generation}-{}{place}.json", kind.as_str())
    }
}

/// The budgets for which trials were paused, each time that one was spent.
#[must_use]
pub fn spent_budgets(notify: &Notify, requests: &[Request]) -> Vec<Notice> {
    if !notify.on.contains(&NoticeKind::Blocked) {
        return Vec::new();
    }
    let mut notices: Vec<Notice> = Vec::new();
    let pauses = requests.iter().filter(|request| request.action == RequestedAction::Pause);
    for budget in pauses.filter_map(|request| request.budget.as_ref()) {
        let (kind, budget) = (NoticeKind::Blocked, Some(budget.clone()));
        let notice = Notice { kind, task: None, trial: None, generation: 0, budget };
        if !notices.iter().any(|other| other.file_name() == notice.file_name()) {
            notices.push(notice);
        }
    }
    notices
}

/// How a trial ended; none while it may go on.
type Outcome = Option<NoticeKind>;

/// The ends that `notify` tells of. `due`: failed trials that are retried by themselves.
#[must_use]
pub fn notices(
    (experiment, notify): (&Experiment, &Notify),
    journal: &[Event],
    status: &Status,
    due: &BTreeSet<(String, u32)>,
) -> Vec<Notice> {
    let outcomes = outcomes(experiment, status, due);
    let generations = generations(experiment, journal);
    let mut ends = Vec::new();
    for task in &experiment.tasks {
        let all = outcomes.get(&*task.name).map(Vec::as_slice).unwrap_or_default();
        let last = generations.get(&*task.name);
        let about = |kind, trial: Option<u32>, generation| Notice {
            kind,
            task: Some(task.name.clone()),
            trial,
            generation,
            budget: None,
        };
        let of_trial = |(trial, outcome): (u32, &Outcome)| {
            let generation = last.and_then(|last| last.get(&trial)).copied().unwrap_or(0);
            Some((NoticeScope::Trial, about((*outcome)?, Some(trial), generation)))
        };
        ends.extend((0..).zip(all).filter_map(of_trial));
        let generation = newest(last);
        ends.extend(of_task(all).map(|kind| (NoticeScope::Task, about(kind, None, generation))));
    }
    let all: Vec<Outcome> = outcomes.values().flatten().copied().collect();
    let is_over = all.iter().all(Option::is_some);
    if experiment.tasks.len() == 1 && is_over {
        // The end of the only task is that of the experiment.
        ends.retain(|(scope, _)| *scope != NoticeScope::Task);
    }
    let generation = generations.values().map(|of_task| newest(Some(of_task))).max().unwrap_or(0);
    let whole = |kind| Notice { kind, task: None, trial: None, generation, budget: None };
    if is_over {
        ends.extend(of_task(&all).map(|kind| (NoticeScope::Experiment, whole(kind))));
    }
    let is_meant = |(scope, notice): &(NoticeScope, Notice)| {
        notify.of.contains(scope) && notify.on.contains(&notice.kind)
    };
    ends.into_iter().filter(is_meant).map(|(_, notice)| notice).collect()
}

fn newest(last: Option<&BTreeMap<u32, u32>>) -> u32 {
    last.and_then(|last| last.values().max()).copied().unwrap_or(0)
}

/// The generations of the trials that were retried, by task.
fn generations<'a>(
    experiment: &'a Experiment,
    journal: &[Event],
) -> BTreeMap<&'a str, BTreeMap<u32, u32>> {
    let of = |task: &'a Task| {
        let retries = journal::last_retries(journal, &task.name).into_iter();
        let last = retries.map(|(trial, retry)| (trial, retry.generation)).collect();
        (&*task.name, last)
    };
    experiment.tasks.iter().map(of).collect()
}

/// What trials have come to together; none while that may change.
fn of_task(trials: &[Outcome]) -> Outcome {
    let has = |kind| trials.contains(&Some(kind));
    if has(NoticeKind::Failed) {
        return Some(NoticeKind::Failed);
    }
    if trials.iter().any(Option::is_none) {
        return None;
    }
    let rest = [NoticeKind::Blocked, NoticeKind::Cancelled].into_iter().find(|kind| has(*kind));
    Some(rest.unwrap_or(NoticeKind::Completed))
}

fn outcomes<'a>(
    experiment: &'a Experiment,
    status: &Status,
    due: &BTreeSet<(String, u32)>,
) -> BTreeMap<&'a str, Vec<Outcome>> {
    let mut known: BTreeMap<&str, Vec<Outcome>> = BTreeMap::new();
    // Each task comes after those that it waits for.
    for task in &experiment.tasks {
        let seen = status.tasks.iter().find(|seen| seen.name == task.name);
        let all = seen.into_iter().flat_map(|seen| &seen.trials);
        let of = |trial: &TrialStatus| {
            let is_due = due.contains(&(task.name.clone(), trial.index));
            blocked(task, trial, &known).or_else(|| own_outcome(trial, is_due))
        };
        let all = all.map(of).collect();
        known.insert(&task.name, all);
    }
    known
}

fn own_outcome(trial: &TrialStatus, is_due: bool) -> Outcome {
    if is_due || !trial.is_final() {
        return None;
    }
    match trial.state {
        State::Failed | State::Timeout => Some(NoticeKind::Failed),
        State::Completed => Some(NoticeKind::Completed),
        State::Cancelled => Some(NoticeKind::Cancelled),
        State::Blocked => Some(NoticeKind::Blocked),
        State::Running | State::Pending | State::Preempted | State::Paused | State::Unknown => None,
    }
}

/// Slurm says only after a while that a job can never start: what has become of its parents is known before. A task for
/// the case of a failure that did not come is no loss.
fn blocked(task: &Task, trial: &TrialStatus, known: &BTreeMap<&str, Vec<Outcome>>) -> Outcome {
    if !matches!(trial.state, State::Pending | State::Blocked) {
        return None;
    }
    let of = |edge: &Dependency| {
        let parents = known.get(&*edge.task)?;
        let is_lost = |parent: &Outcome| parent.is_some_and(|kind| kind != NoticeKind::Completed);
        let (is_unmet, kind) = match edge.on {
            On::Ok => (parents.iter().any(is_lost), NoticeKind::Blocked),
            On::Each => {
                (parents.get(trial.index as usize).is_some_and(is_lost), NoticeKind::Blocked)
            }
            On::Failed => {
                (parents.iter().all(|it| *it == Some(NoticeKind::Completed)), NoticeKind::Completed)
            }
            On::Any => (false, NoticeKind::Blocked),
        };
        is_unmet.then_some(kind)
    };
    task.after.iter().find_map(of)
}

/// The tasks that a notice is about.
pub(super) fn tasks_of<'a>(
    notice: &'a Notice,
    status: &'a Status,
) -> impl Iterator<Item = &'a TaskStatus> {
    let is_meant = |task: &&TaskStatus| notice.task.as_ref().is_none_or(|name| task.name == *name);
    status.tasks.iter().filter(is_meant)
}
