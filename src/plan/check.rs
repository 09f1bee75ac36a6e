//! Holds any plan against its experiment and the limits, independent of the planner that made it.

use std::collections::BTreeMap;
use std::fmt;

use super::{JobArray, Limits, Plan, Relation};
use crate::experiment::{Experiment, On, Task};

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

/// Every trial once, edges backwards and as asked for, limits kept. An empty answer means a sound plan.
#[must_use]
pub fn check(experiment: &Experiment, plan: &Plan, limits: Limits) -> Vec<Note> {
    let mut notes = Vec::new();
    for (place, array) in plan.arrays.iter().enumerate() {
        let mut note = |text: String| notes.push(Note { array: Some(place), text });
        if array.trials > limits.max_array {
            note(format!("{} tasks are more than {}", array.trials, limits.max_array));
        }
        for edge in array.after.iter().filter(|edge| edge.array >= place) {
            note(format!("waits for array {}, which is not submitted before it", edge.array));
        }
        if array.after.is_empty() && !array.held && plan.arrays.len() > 1 {
            note("could end before its dependents are submitted".to_owned());
        }
    }
    for task in &experiment.tasks {
        notes.extend(task_notes(task, plan).into_iter().map(|text| Note { array: None, text }));
    }
    for array in &plan.arrays {
        if !experiment.tasks.iter().any(|task| task.name == array.task) {
            let text = format!("no task is called `{}`", array.task);
            notes.push(Note { array: None, text });
        }
    }
    notes
}

fn task_notes(task: &Task, plan: &Plan) -> Vec<String> {
    let own: Vec<&JobArray> = plan.arrays.iter().filter(|array| array.task == task.name).collect();
    let mut notes = Vec::new();
    notes.extend(coverage(task, &own));
    notes.extend(throttle(task, plan));
    for dependency in &task.after {
        for array in &own {
            notes.extend(dependency_note(array, &dependency.task, dependency.on, plan));
        }
    }
    notes
}

/// Every trial is in exactly one array.
fn coverage(task: &Task, own: &[&JobArray]) -> Option<String> {
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    for array in own {
        for trial in array.offset..array.offset.saturating_add(array.trials.get()) {
            *times.entry(trial).or_default() += 1;
        }
    }
    let whole = (0..).zip(&task.trials).all(|(trial, _)| times.get(&trial) == Some(&1));
    let covered = whole && times.len() == task.trials.len();
    (!covered).then(|| format!("the arrays of `{}` do not hold each trial once", task.name))
}

/// Arrays of the task that may run at the same time keep `concurrent` together.
fn throttle(task: &Task, plan: &Plan) -> Option<String> {
    let limit = task.concurrent?.get();
    let own = |place: &usize| plan.arrays[*place].task == task.name;
    let followed = |place: usize| {
        let waits = |array: &JobArray| {
            array.task == task.name && array.after.iter().any(|edge| edge.array == place)
        };
        plan.arrays.iter().any(waits)
    };
    // One array of each chain runs at a time, so that the ends of the chains stand for all.
    let at_once: u32 = (0..plan.arrays.len())
        .filter(own)
        .filter(|&place| !followed(place))
        .map(|place| {
            let array = &plan.arrays[place];
            array.throttle.unwrap_or(array.trials).get()
        })
        .sum();
    (at_once > limit).then(|| format!("{at_once} trials of `{}` could run at once", task.name))
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
    let mut parents =
        (0..plan.arrays.len()).filter(|&place| plan.arrays[place].task == parent).peekable();
    let met = match on {
        On::Each => parents.any(|place| {
            let other = &plan.arrays[place];
            waits_for(place) && (other.offset, other.trials) == (array.offset, array.trials)
        }),
        On::Ok | On::Failed | On::Any => parents.peek().is_some() && parents.all(waits_for),
    };
    (!met).then(|| {
        format!("array {} of `{}` does not wait for `{parent}` as asked", array.index, array.task)
    })
}
