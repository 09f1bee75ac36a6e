//! Which trials can be submitted now: those on Slurm whose parents are over as they must be, or are submitted with them, and
//! as many as there is room for. The others come in later generations. Pure.

use std::collections::BTreeMap;

use crate::experiment::{Dependency, Experiment, On, Task};
use crate::slurm::indices::IndexSet;

/// Trials by task.
pub type TrialsByTask = BTreeMap<String, IndexSet>;

/// What can be submitted now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Submittable {
    /// By task; none of a task that is not named.
    pub trials: TrialsByTask,
    /// Whether more could be, if there were room.
    pub is_limited: bool,
}

impl Submittable {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trials.is_empty()
    }

    /// How many trials.
    #[must_use]
    pub fn count(&self) -> usize {
        self.trials.values().map(IndexSet::count).sum()
    }
}

/// What limits what is submitted, beside the dependencies.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubmitLimits {
    /// For how many trials there is room; none where nobody knows a limit.
    pub room: Option<usize>,
    /// Whether tasks without a parent wait for what Slurm can't be told of yet.
    pub holds_roots: bool,
}

/// Chooses of the wanted trials. `is_met` says of a trial that is not wanted whether what waits for it may run.
pub fn submittable(
    experiment: &Experiment,
    wanted: &TrialsByTask,
    limits: SubmitLimits,
    is_met: &dyn Fn(&str, u32, On) -> bool,
) -> Submittable {
    let mut chosen = Submittable::default();
    let mut room = limits.room.unwrap_or(usize::MAX);
    let is_held = |task: &Task| limits.holds_roots && task.after.is_empty();
    let on_slurm = experiment.tasks.iter().filter(|task| !experiment.is_local(task));
    for task in on_slurm.filter(|task| !is_held(task)) {
        let Some(own) = wanted.get(&task.name) else { continue };
        let parents = Parents { experiment, wanted, chosen: &chosen.trials, is_met };
        if !task.after.iter().all(|dependency| parents.of_whole(dependency)) {
            continue;
        }
        let ready: Vec<u32> = own.iter().filter(|trial| parents.of_trial(task, *trial)).collect();
        let fitting: IndexSet = ready.iter().copied().take(room).collect();
        chosen.is_limited |= fitting.count() < ready.len();
        room -= fitting.count();
        if fitting.count() > 0 {
            chosen.trials.insert(task.name.clone(), fitting);
        }
    }
    chosen
}

/// What is known of the trials before a task.
struct Parents<'a> {
    experiment: &'a Experiment,
    wanted: &'a TrialsByTask,
    chosen: &'a TrialsByTask,
    is_met: &'a dyn Fn(&str, u32, On) -> bool,
}

impl Parents<'_> {
    /// Whether what is the same for all trials of a task holds.
    fn of_whole(&self, dependency: &Dependency) -> bool {
        let parent = self.experiment.tasks.iter().find(|task| task.name == dependency.task);
        dependency.on == On::Each
            || parent.is_some_and(|parent| {
                (0..parent.n_trials).all(|trial| self.is_fine(&parent.name, trial, dependency.on))
            })
    }

    /// Whether the trial may follow those of its own number.
    fn of_trial(&self, task: &Task, trial: u32) -> bool {
        let mut each = task.after.iter().filter(|dependency| dependency.on == On::Each);
        each.all(|dependency| self.is_fine(&dependency.task, trial, On::Each))
    }

    fn is_fine(&self, task: &str, trial: u32, on: On) -> bool {
        let is_in = |set: &TrialsByTask| set.get(task).is_some_and(|set| set.contains(trial));
        is_in(self.chosen) || (!is_in(self.wanted) && (self.is_met)(task, trial, on))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Executor, SlurmExecutor};
    use crate::plan::{sample_experiment, sample_task};

    /// `a` and `d` run on Slurm, `b` here, `c` on Slurm after `a`: what of them is chosen, as `TASK:TRIALS`.
    #[track_caller]
    fn check(b_after: On, room: Option<usize>, done: &[&str], expected: &str) {
        check_held(b_after, (room, false), done, expected);
    }

    #[track_caller]
    fn check_held(
        b_after: On,
        (room, holds_roots): (Option<usize>, bool),
        done: &[&str],
        expected: &str,
    ) {
        let mut experiment = sample_experiment(vec![
            sample_task("a", 3, 0, &[]),
            sample_task("b", 3, 0, &[("a", b_after)]),
            sample_task("c", 2, 0, &[("a", On::Ok)]),
            sample_task("d", 3, 0, &[("b", On::Each)]),
        ]);
        let slurm = Executor::Slurm(SlurmExecutor::default());
        experiment.executors.insert("slurm".to_owned(), slurm);
        for place in [0, 2, 3] {
            experiment.tasks[place].executor = "slurm".to_owned();
        }
        let all = |task: &Task| (task.name.clone(), IndexSet::below(task.n_trials));
        let mut wanted: TrialsByTask = experiment.tasks.iter().map(all).collect();
        wanted.retain(|task, _| !done.contains(&task.as_str()));
        // Of what is over all but trial 1 is done.
        let limits = SubmitLimits { room, holds_roots };
        let found = submittable(&experiment, &wanted, limits, &|_, trial, _| trial != 1);
        let shown = found.trials.iter().map(|(task, trials)| format!("{task}:{trials}"));
        let limited = if found.is_limited { " limited" } else { "" };
        assert_eq!(shown.collect::<Vec<_>>().join(" ") + limited, expected);
    }

    #[test]
    fn what_waits_outside_holds_what_follows_it_too() {
        check_held(On::Ok, (None, true), &[], "");
        check_held(On::Each, (None, true), &["a", "c", "b"], "d:0,2");
        check_held(On::Each, (None, true), &["b"], "d:0,2");
    }

    #[test]
    fn what_waits_for_this_machine_or_for_room_comes_later() {
        check(On::Ok, None, &[], "a:0-2 c:0-1");
        check(On::Ok, Some(4), &[], "a:0-2 c:0 limited");
        check(On::Ok, Some(2), &[], "a:0-1 limited");
        check(On::Ok, Some(0), &[], " limited");
        check(On::Ok, None, &["a", "c"], "");
        check(On::Each, None, &["a", "c", "b"], "d:0,2");
        check(On::Each, Some(1), &["a", "c", "b"], "d:0 limited");
    }
}
