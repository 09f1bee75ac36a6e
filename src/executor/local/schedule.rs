//! Which trials may start now, and which never will. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::experiment::{On, Task};

/// A trial: its task's place among all, and its own within the task.
pub(super) type TrialRef = (usize, usize);

/// Where a trial stands for the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalPhase {
    /// It has yet to run, for the first time or again.
    Waiting,
    /// Its harness lives.
    Running,
    /// It has yet to run, but not before somebody resumes it.
    Paused,
    /// It did its work.
    Completed,
    /// It is over otherwise: failed, cancelled, timed out.
    Lost,
    /// What it waits for can never be.
    Dropped,
    /// The same, until another experiment is retried: no word is left of it.
    BlockedOutside,
}

impl LocalPhase {
    fn is_over(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Paused => false,
            Self::Completed | Self::Lost | Self::Dropped | Self::BlockedOutside => true,
        }
    }

    /// Whether it will never complete.
    fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::Dropped | Self::BlockedOutside)
    }
}

/// A task as the runner needs it.
#[derive(Debug)]
pub(super) struct LocalTask<'a> {
    pub(super) task: &'a Task,
    /// Whether another executor runs it: it is only waited for.
    pub(super) is_elsewhere: bool,
    /// How many trials of its executor may run at once, over all tasks.
    pub(super) parallel: usize,
    /// One for each trial.
    pub(super) phases: Vec<LocalPhase>,
}

impl LocalTask<'_> {
    /// How many of its trials run.
    fn running(&self) -> usize {
        self.phases.iter().filter(|phase| **phase == LocalPhase::Running).count()
    }
}

/// What follows from where all trials stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ScheduleDecision {
    pub(super) start: Vec<TrialRef>,
    pub(super) drop: Vec<TrialRef>,
}

/// Whether everything on this machine is over.
pub(super) fn is_over(tasks: &[LocalTask<'_>]) -> bool {
    let mut own = tasks.iter().filter(|task| !task.is_elsewhere);
    own.all(|task| task.phases.iter().all(|phase| phase.is_over()))
}

/// Decides what to start, within each executor's `parallel` and each task's `concurrent`, and what to give up.
pub(super) fn decide(tasks: &[LocalTask<'_>]) -> ScheduleDecision {
    let mut decision = ScheduleDecision::default();
    let mut busy: BTreeMap<&str, usize> = BTreeMap::new();
    for task in tasks.iter().filter(|task| !task.is_elsewhere) {
        *busy.entry(task.task.executor.as_str()).or_default() += task.running();
    }
    let by_name: TasksByName<'_> =
        tasks.iter().map(|task| (task.task.name.as_str(), task)).collect();
    for (place, task) in tasks.iter().enumerate().filter(|(_, task)| !task.is_elsewhere) {
        let busy = busy.entry(task.task.executor.as_str()).or_default();
        let concurrent = task.task.concurrent.map_or(usize::MAX, |n| n.get() as usize);
        let mut own = task.running();
        for trial in
            (0..task.phases.len()).filter(|&trial| task.phases[trial] == LocalPhase::Waiting)
        {
            match readiness(task.task, trial, &by_name) {
                DependencyStatus::Never => decision.drop.push((place, trial)),
                DependencyStatus::Ready if *busy < task.parallel && own < concurrent => {
                    (*busy, own) = (*busy + 1, own + 1);
                    decision.start.push((place, trial));
                }
                DependencyStatus::Ready | DependencyStatus::NotYet => {}
            }
        }
    }
    decision
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DependencyStatus {
    Ready,
    NotYet,
    Never,
}

/// What waits for others is looked at again whenever a trial ends: of thousands of tasks none is searched for.
type TasksByName<'a> = HashMap<&'a str, &'a LocalTask<'a>>;

fn readiness(task: &Task, trial: usize, tasks: &TasksByName<'_>) -> DependencyStatus {
    let each = task.after.iter().map(|dependency| {
        let parent = tasks.get(dependency.task.as_str());
        parent.map_or(DependencyStatus::Never, |parent| met(dependency.on, trial, &parent.phases))
    });
    each.max().unwrap_or(DependencyStatus::Ready)
}

/// The same rules as Slurm's `afterok`, `afternotok`, `afterany` and `aftercorr`.
fn met(on: On, trial: usize, parent: &[LocalPhase]) -> DependencyStatus {
    let any_lost = parent.iter().any(|phase| phase.is_lost());
    let all_over = parent.iter().all(|phase| phase.is_over());
    match on {
        On::Ok if any_lost => DependencyStatus::Never,
        On::Ok | On::Any if all_over => DependencyStatus::Ready,
        On::Failed if all_over && any_lost => DependencyStatus::Ready,
        On::Failed if all_over => DependencyStatus::Never,
        On::Ok | On::Any | On::Failed => DependencyStatus::NotYet,
        On::Each => match parent.get(trial) {
            Some(LocalPhase::Completed) => DependencyStatus::Ready,
            Some(LocalPhase::Waiting | LocalPhase::Running | LocalPhase::Paused) => {
                DependencyStatus::NotYet
            }
            Some(LocalPhase::Lost | LocalPhase::Dropped | LocalPhase::BlockedOutside) | None => {
                DependencyStatus::Never
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample_task as task;

    fn phases(text: &str) -> Vec<LocalPhase> {
        let phase = |c| match c {
            'w' => LocalPhase::Waiting,
            'r' => LocalPhase::Running,
            'c' => LocalPhase::Completed,
            'l' => LocalPhase::Lost,
            _ => LocalPhase::Dropped,
        };
        text.chars().map(phase).collect()
    }

    /// Two tasks on one executor: `parent` runs alone, `child` after it.
    #[track_caller]
    fn check(on: On, parallel: usize, concurrent: u32, now: (&str, &str), expected: &str) {
        let parent = task("parent", now.0.len(), 0, &[]);
        let child = task("child", now.1.len(), concurrent, &[("parent", on)]);
        let tasks = [
            LocalTask { task: &parent, is_elsewhere: false, parallel, phases: phases(now.0) },
            LocalTask { task: &child, is_elsewhere: false, parallel, phases: phases(now.1) },
        ];
        let ScheduleDecision { start, drop } = decide(&tasks);
        assert_eq!(format!("{start:?} {drop:?}"), expected, "{on:?} {now:?}");
    }

    #[test]
    fn trials_start_when_they_may() {
        use On::{Any, Each, Failed, Ok};
        check(Ok, 2, 0, ("www", "w"), "[(0, 0), (0, 1)] []");
        check(Ok, 2, 0, ("rcw", "w"), "[(0, 2)] []");
        check(Ok, 2, 0, ("rcc", "w"), "[] []");
        check(Ok, 2, 0, ("ccc", "www"), "[(1, 0), (1, 1)] []");
        check(Ok, 9, 2, ("ccc", "rww"), "[(1, 1)] []");
        check(Ok, 2, 0, ("lwr", "w"), "[(0, 1)] [(1, 0)]");
        check(Any, 2, 0, ("lcd", "w"), "[(1, 0)] []");
        check(Any, 2, 0, ("lr", "w"), "[] []");
        check(Failed, 2, 0, ("lr", "w"), "[] []");
        check(Failed, 2, 0, ("lc", "w"), "[(1, 0)] []");
        check(Failed, 2, 0, ("cc", "w"), "[] [(1, 0)]");
        check(Each, 4, 0, ("rcl", "www"), "[(1, 1)] [(1, 2)]");
    }

    #[test]
    fn it_ends_when_all_is_over() {
        let one = task("one", 3, 0, &[]);
        let check = |is_elsewhere, text| {
            is_over(&[LocalTask { task: &one, is_elsewhere, parallel: 1, phases: phases(text) }])
        };
        assert!(check(false, "cld"));
        assert!(!check(false, "clr") && !check(false, "clw"));
        assert!(check(true, "clr"), "others see to that");
    }
}
