//! What tasks have to do with each other: names in `after`, cycles, the order, numbers of trials.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::problem_report::{ProblemReport, choices};
use super::tasks::{TaskDependency, TaskDraft};
use super::{On, Task};

/// The tasks of an experiment by their names.
#[derive(Debug)]
pub struct TaskGraph<'a>(pub(super) HashMap<&'a str, &'a Task>);

impl<'a> TaskGraph<'a> {
    /// The task of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Task> {
        self.0.get(name).copied()
    }

    /// Every task that one waits for, directly or not, and whether it does so `per_trial`: those are the tasks that its
    /// command may name, and `true` is where `{task.dir}` is the folder of the same trial.
    #[must_use]
    pub fn upstream(&self, task: &str) -> BTreeMap<&'a str, bool> {
        let own = self.get(task);
        own.map(|own| upstream(&own.name, |task| self.after(task))).unwrap_or_default()
    }

    /// The same of one of them: a search that ends where it is found. None if the task does not wait for it.
    #[must_use]
    pub fn waits(&self, task: &str, wanted: &str) -> Option<bool> {
        self.get(wanted)?;
        waits(&self.get(task)?.name, wanted, |task| self.after(task))
    }

    fn after(&self, task: &str) -> impl Iterator<Item = (&'a str, On)> + use<'a> {
        let after = self.get(task).map(|task| task.after.as_slice()).unwrap_or_default();
        after.iter().map(|edge| (edge.task.as_str(), edge.on))
    }
}

/// Checks every edge.
pub(super) fn check(drafts: &[TaskDraft], report: &mut ProblemReport) {
    let by_name: BTreeMap<&str, &TaskDraft> =
        drafts.iter().map(|draft| (draft.name.as_str(), draft)).collect();
    for draft in drafts {
        for edge in &draft.after {
            let name = edge.to.task.as_str();
            if name == draft.name {
                report.problem(&edge.place, format!("`{name}` waits for itself"));
                continue;
            }
            match by_name.get(name) {
                None => {
                    let others = by_name.keys().copied().filter(|other| *other != draft.name);
                    let hint = if by_name.len() == 1 {
                        format!("`{}` is the only task of this file", draft.name)
                    } else {
                        choices(name, "the other tasks are", others)
                    };
                    report.problem(&edge.place, format!("there is no task `{name}`")).hint(hint);
                }
                Some(upstream) => check_each(draft, edge, upstream, report),
            }
        }
    }
}

fn check_each(
    draft: &TaskDraft,
    edge: &TaskDependency,
    upstream: &TaskDraft,
    report: &mut ProblemReport,
) {
    let (Some(own), Some(theirs)) = (&draft.search.trials, &upstream.search.trials) else { return };
    let (own, theirs) = (own.len(), theirs.len());
    if edge.to.on == On::Each && own != theirs {
        let message = format!(
            "`on = \"each\"` goes trial by trial, but `{}` has {} and `{}` has {}",
            upstream.name,
            count(theirs),
            draft.name,
            count(own)
        );
        report
            .problem(&edge.place, message)
            .hint("give both the same parameters, or wait for all with `on = \"ok\"`");
    }
}

pub(super) fn count(trials: usize) -> String {
    if trials == 1 { "1 trial".to_owned() } else { format!("{trials} trials") }
}

/// The indices of the tasks, each after those it waits for, else as written. Reports every cycle.
pub(super) fn order(drafts: &[TaskDraft], report: &mut ProblemReport) -> Vec<usize> {
    let index: BTreeMap<&str, usize> =
        drafts.iter().enumerate().map(|(index, draft)| (draft.name.as_str(), index)).collect();
    let mut waits: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); drafts.len()];
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    for (own, draft) in drafts.iter().enumerate() {
        for edge in &draft.after {
            // What waits for itself, or for nothing that there is, was reported before.
            if let Some(&other) = index.get(edge.to.task.as_str()).filter(|other| **other != own) {
                waits[own].insert(other);
                dependents[other].push(own);
            }
        }
    }
    let mut left: BTreeSet<usize> = (0..drafts.len()).collect();
    let mut ready: BTreeSet<usize> =
        left.iter().copied().filter(|task| waits[*task].is_empty()).collect();
    let mut order = Vec::with_capacity(drafts.len());
    while !left.is_empty() {
        if ready.is_empty() {
            // Everything left waits for something left: going up leads round a cycle.
            let cycle = cycle(&waits, left.first().copied().unwrap_or(0));
            report_cycle(drafts, &cycle, report);
            ready.extend(cycle);
        }
        let Some(task) = ready.pop_first() else { break };
        if !left.remove(&task) {
            continue;
        }
        order.push(task);
        for &dependent in &dependents[task] {
            waits[dependent].remove(&task);
            if waits[dependent].is_empty() {
                ready.insert(dependent);
            }
        }
    }
    order
}

fn cycle(waits: &[BTreeSet<usize>], start: usize) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let Some(&next) = waits[last].first() else { return path };
        if let Some(first) = path.iter().position(|task| *task == next) {
            return path.split_off(first);
        }
        path.push(next);
    }
}

fn report_cycle(drafts: &[TaskDraft], cycle: &[usize], report: &mut ProblemReport) {
    // The cycle begins with the task that was written first.
    let lowest = cycle.iter().min().and_then(|least| cycle.iter().position(|task| task == least));
    let mut cycle = cycle.to_vec();
    cycle.rotate_left(lowest.unwrap_or(0));
    let names: Vec<&str> =
        cycle.iter().chain(cycle.first()).map(|t| drafts[*t].name.as_str()).collect();
    let edge =
        drafts[cycle[0]].after.iter().find(|edge| names.get(1) == Some(&edge.to.task.as_str()));
    let place = edge.map_or(&drafts[cycle[0]].place, |edge| &edge.place);
    report
        .problem(place, format!("tasks wait for each other: {}", names.join(" → ")))
        .hint("remove one of these from an `after`");
}

/// Whether a task waits for another, as [`upstream`] tells it: a search that ends where that is found.
pub(super) fn waits<'a, F, I>(task: &'a str, wanted: &str, after: F) -> Option<bool>
where
    F: Fn(&str) -> I,
    I: IntoIterator<Item = (&'a str, On)>,
{
    [true, false].into_iter().find(|&per_trial| {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![task]);
        while let Some(task) = queue.pop() {
            for (next, on) in after(task) {
                if per_trial && on != On::Each || !seen.insert(next) {
                    continue;
                }
                if next == wanted {
                    return true;
                }
                queue.push(next);
            }
        }
        false
    })
}

/// Every task that one waits for, directly or not, and whether it does so `per_trial`: by one way at least, trial by
/// trial all along.
pub(super) fn upstream<'a, F, I>(task: &'a str, after: F) -> BTreeMap<&'a str, bool>
where
    F: Fn(&str) -> I,
    I: IntoIterator<Item = (&'a str, On)>,
{
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    let mut queue = vec![(task, true)];
    while let Some((task, per_trial)) = queue.pop() {
        for (next, on) in after(task) {
            let per_trial = per_trial && on == On::Each;
            // Seen before, unless this way is the first that goes trial by trial.
            if found.get(next).is_some_and(|known| *known || !per_trial) {
                continue;
            }
            found.insert(next, per_trial);
            queue.push((next, per_trial));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_search_ends_where_the_task_is_found() {
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let looked = Cell::new(0);
        let after = |on: On| {
            let (names, looked) = (&names, &looked);
            move |task: &str| {
                looked.set(looked.get() + 1);
                let before = task.parse::<usize>().unwrap().checked_sub(1);
                before.map(|before| (names[before].as_str(), on))
            }
        };
        let check = |wanted: &str, on: On, expected: Option<bool>, most: usize| {
            assert_eq!(upstream("999", after(on)).get(wanted).copied(), expected);
            looked.set(0);
            assert_eq!(waits("999", wanted, after(on)), expected);
            assert!(looked.get() <= most, "{wanted}: {}", looked.get());
        };
        check("998", On::Ok, Some(false), 2);
        check("998", On::Each, Some(true), 1);
        check("0", On::Ok, Some(false), 1000);
        check("0", On::Each, Some(true), 1000);
        check("none", On::Each, None, 2000);
    }
}
