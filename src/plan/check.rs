//! Holds any plan against its experiment and the limits, independent of the planner that made it.

use std::collections::BTreeSet;
use std::fmt;

use super::{JobArray, Limits, Plan, Relation, Selection};
use crate::experiment::{Experiment, On, Task};
use crate::slurm::indices::IndexSet;

/// Something that is wrong with a plan.
#[derive(Debug, PartialEq, Eq)]
pub struct PlanFault {
    /// The array's place in the plan, where one is to blame.
    pub array: Option<usize>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for PlanFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.array {
            Some(array) => write!(f, "array {array}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Every trial of the selection once, edges backwards and as asked for, limits kept. An empty answer means a valid plan.
#[must_use]
pub fn check(
    experiment: &Experiment,
    selection: &Selection,
    plan: &Plan,
    limits: Limits,
) -> Vec<PlanFault> {
    let mut faults = Vec::new();
    for (place, array) in plan.arrays.iter().enumerate() {
        let texts = array_faults(place, array, plan, limits);
        faults.extend(texts.into_iter().map(|text| PlanFault { array: Some(place), text }));
    }
    for task in &experiment.tasks {
        let texts = task_faults(task, selection, plan);
        faults.extend(texts.into_iter().map(|text| PlanFault { array: None, text }));
    }
    for array in &plan.arrays {
        if !experiment.tasks.iter().any(|task| task.name == array.task) {
            let text = format!("no task is called `{}`", array.task);
            faults.push(PlanFault { array: None, text });
        }
    }
    faults
}

fn array_faults(place: usize, array: &JobArray, plan: &Plan, limits: Limits) -> Vec<String> {
    let mut faults = Vec::new();
    match (array.trials.first(), array.trials.last()) {
        (Some(first), Some(last)) => {
            if first < array.offset {
                faults.push(format!("trial {first} is below its offset {}", array.offset));
            }
            let highest = last.saturating_sub(array.offset);
            if highest >= limits.max_array.get() {
                faults.push(format!("index {highest} is not below {}", limits.max_array));
            }
        }
        _ => faults.push("holds no trial".to_owned()),
    }
    for edge in array.after.iter().filter(|edge| edge.array >= place) {
        faults.push(format!("waits for array {}, which is not submitted before it", edge.array));
    }
    if array.after.is_empty() && !array.held && plan.arrays.len() > 1 {
        faults.push("could end before its dependents are submitted".to_owned());
    }
    faults
}

fn task_faults(task: &Task, selection: &Selection, plan: &Plan) -> Vec<String> {
    let own: Vec<&JobArray> = plan.arrays.iter().filter(|array| array.task == task.name).collect();
    let mut faults = Vec::new();
    faults.extend(coverage(task, selection, &own));
    faults.extend(numbering(task, selection, &own));
    faults.extend(mixture(task, selection, &own));
    faults.extend(throttle(task, selection, plan));
    for dependency in &task.after {
        for array in &own {
            faults.extend(dependency_note(array, &dependency.task, dependency.on, plan));
            faults.extend(open_parent_note(array, &dependency.task, dependency.on, selection));
        }
    }
    faults
}

/// Every trial of the selection is in exactly one array, and no other is.
fn coverage(task: &Task, selection: &Selection, own: &[&JobArray]) -> Option<String> {
    let mut found: Vec<u32> = own.iter().flat_map(|array| array.trials.iter()).collect();
    found.sort_unstable();
    let wanted = selection.trials.get(&task.name).into_iter().flat_map(IndexSet::iter);
    let is_whole = found.iter().copied().eq(wanted);
    (!is_whole).then(|| format!("the arrays of `{}` do not hold each trial once", task.name))
}

/// Every array has a name of its own, through all generations.
fn numbering(task: &Task, selection: &Selection, own: &[&JobArray]) -> Option<String> {
    let first = selection.earlier_arrays.get(&task.name).copied().unwrap_or(0);
    let is_right = (first..).zip(own).all(|(number, array)| array.index == number);
    (!is_right).then(|| format!("the arrays of `{}` are not numbered from {first}", task.name))
}

/// No array has trials that run in different ways.
fn mixture(task: &Task, selection: &Selection, own: &[&JobArray]) -> Option<String> {
    let separate = selection.separate.get(&task.name)?;
    let is_mixed = |array: &&&JobArray| {
        separate.iter().any(|set| {
            let inside = array.trials.iter().filter(|trial| set.contains(*trial)).count();
            inside > 0 && inside < array.trials.count()
        })
    };
    let array = own.iter().find(is_mixed)?;
    Some(format!("array {} of `{}` mixes trials that run differently", array.index, task.name))
}

/// Arrays of the task that may run at the same time keep `concurrent` together.
fn throttle(task: &Task, selection: &Selection, plan: &Plan) -> Option<String> {
    let limit = task.concurrent?.get();
    let own = plan.arrays.iter().filter(|array| array.task == task.name);
    let followed: BTreeSet<usize> =
        own.flat_map(|array| array.after.iter().map(|edge| edge.array)).collect();
    // One array of each chain runs at a time, so that the ends of the chains stand for all.
    let ends = plan
        .arrays
        .iter()
        .enumerate()
        .filter(|(place, array)| array.task == task.name && !followed.contains(place));
    let at_once: usize = ends
        .map(|(_, array)| {
            array.throttle.map_or(array.trials.count(), |throttle| throttle.get() as usize)
        })
        .sum();
    let at_once = at_once + ongoing_beside(task, selection, plan);
    (at_once > limit as usize)
        .then(|| format!("{at_once} trials of `{}` could run at once", task.name))
}

/// How many trials of earlier submissions may run beside the task's arrays: none where each of these waits for them, or for
/// another of the task's.
fn ongoing_beside(task: &Task, selection: &Selection, plan: &Plan) -> usize {
    let mut own = plan.arrays.iter().filter(|array| array.task == task.name).peekable();
    let is_own = |place: usize| plan.arrays.get(place).is_some_and(|array| array.task == task.name);
    let waits = |array: &JobArray| {
        !array.behind.is_empty() || array.after.iter().any(|edge| is_own(edge.array))
    };
    if own.peek().is_none() || own.all(waits) {
        return 0;
    }
    selection.ongoing.get(&task.name).map_or(0, |ongoing| ongoing.at_once as usize)
}

/// The array waits for every array of the parent in the way that was asked for.
fn dependency_note(array: &JobArray, parent: &str, on: On, plan: &Plan) -> Option<String> {
    let wanted: &[Relation] = match on {
        On::Ok => &[Relation::AfterOk],
        On::Failed => &[Relation::AfterNotOk, Relation::AnyAfterNotOk],
        On::Any => &[Relation::AfterAny],
        On::Each => &[Relation::AfterCorr],
    };
    let waits_for = |place: usize| {
        array.after.iter().any(|edge| edge.array == place && wanted.contains(&edge.on))
    };
    let mut parents = (0..plan.arrays.len()).filter(|&place| plan.arrays[place].task == parent);
    let is_met = match on {
        On::Each => parents.all(|place| corresponds(array, &plan.arrays[place], waits_for(place))),
        On::Ok | On::Failed | On::Any => parents.all(waits_for),
    };
    (!is_met).then(|| {
        format!("array {} of `{}` does not wait for `{parent}` as asked", array.index, array.task)
    })
}

/// The array waits for what earlier submissions may still run of the parent.
fn open_parent_note(
    array: &JobArray,
    parent: &str,
    on: On,
    selection: &Selection,
) -> Option<String> {
    let open = selection.open_parents.get(parent)?;
    let is_waited_for = |job: &String| array.after_jobs.contains(job);
    let is_met = match on {
        On::Each => array.trials.iter().filter_map(|it| open.by_trial.get(&it)).all(is_waited_for),
        On::Ok | On::Failed | On::Any => open.jobs.iter().all(is_waited_for),
    };
    (!is_met).then(|| {
        let (index, task) = (array.index, &array.task);
        format!("array {index} of `{task}` does not wait for what still runs of `{parent}`")
    })
}

/// A trial waits for the one of its own number, by the same array index, where the parent's array holds it. Where it
/// does not hold it, Slurm must not be asked: it would look for an index that is not there.
fn corresponds(array: &JobArray, parent: &JobArray, waits: bool) -> bool {
    if waits {
        array.trials.iter().all(|trial| parent.index_of(trial) == array.index_of(trial))
    } else {
        array.trials.iter().all(|trial| !parent.trials.contains(trial))
    }
}
