//! Holds any plan against its experiment and the limits, independent of the planner that made it.

use std::fmt;

use super::{JobArray, Limits, Plan, Relation, Selection};
use crate::experiment::{Experiment, On, Task};
use crate::slurm::indices::IndexSet;

/// Something that is wrong with a plan.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    /// The array's place in the plan, where one is to blame.
    pub array: Option<usize>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Note {
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
) -> Vec<Note> {
    let mut notes = Vec::new();
    for (place, array) in plan.arrays.iter().enumerate() {
        let texts = array_notes(place, array, plan, limits);
        notes.extend(texts.into_iter().map(|text| Note { array: Some(place), text }));
    }
    for task in &experiment.tasks {
        let texts = task_notes(task, selection, plan);
        notes.extend(texts.into_iter().map(|text| Note { array: None, text }));
    }
    for array in &plan.arrays {
        if !experiment.tasks.iter().any(|task| task.name == array.task) {
            let text = format!("no task is called `{}`", array.task);
            notes.push(Note { array: None, text });
        }
    }
    notes
}

fn array_notes(place: usize, array: &JobArray, plan: &Plan, limits: Limits) -> Vec<String> {
    let mut notes = Vec::new();
    match (array.trials.first(), array.trials.last()) {
        (Some(first), Some(last)) => {
            if first < array.offset {
                notes.push(format!("trial {first} is below its offset {}", array.offset));
            }
            let highest = last.saturating_sub(array.offset);
            if highest >= limits.max_array.get() {
                notes.push(format!("index {highest} is not below {}", limits.max_array));
            }
        }
        _ => notes.push("holds no trial".to_owned()),
    }
    for edge in array.after.iter().filter(|edge| edge.array >= place) {
        notes.push(format!("waits for array {}, which is not submitted before it", edge.array));
    }
    if array.after.is_empty() && !array.held && plan.arrays.len() > 1 {
        notes.push("could end before its dependents are submitted".to_owned());
    }
    notes
}

fn task_notes(task: &Task, selection: &Selection, plan: &Plan) -> Vec<String> {
    let own: Vec<&JobArray> = plan.arrays.iter().filter(|array| array.task == task.name).collect();
    let mut notes = Vec::new();
    notes.extend(coverage(task, selection, &own));
    notes.extend(numbering(task, selection, &own));
    notes.extend(throttle(task, plan));
    for dependency in &task.after {
        for array in &own {
            notes.extend(dependency_note(array, &dependency.task, dependency.on, plan));
        }
    }
    notes
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

/// Arrays of the task that may run at the same time keep `concurrent` together.
fn throttle(task: &Task, plan: &Plan) -> Option<String> {
    let limit = task.concurrent?.get();
    let own = |place: &usize| plan.arrays[*place].task == task.name;
    let followed = |place: usize| {
        plan.arrays.iter().any(|array| {
            array.task == task.name && array.after.iter().any(|edge| edge.array == place)
        })
    };
    // One array of each chain runs at a time, so that the ends of the chains stand for all.
    let at_once: usize = (0..plan.arrays.len())
        .filter(own)
        .filter(|&place| !followed(place))
        .map(|place| {
            let array = &plan.arrays[place];
            array.throttle.map_or(array.trials.count(), |throttle| throttle.get() as usize)
        })
        .sum();
    (at_once > limit as usize)
        .then(|| format!("{at_once} trials of `{}` could run at once", task.name))
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

/// A trial waits for the one of its own number, by the same array index, where the parent's array holds it. Where it
/// does not hold it, Slurm must not be asked: it would look for an index that is not there.
fn corresponds(array: &JobArray, parent: &JobArray, waits: bool) -> bool {
    if waits {
        array.trials.iter().all(|trial| parent.index_of(trial) == array.index_of(trial))
    } else {
        array.trials.iter().all(|trial| !parent.trials.contains(trial))
    }
}
