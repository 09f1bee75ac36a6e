//! What finds an experiment beyond its row in a list: its tasks, the values of their parameters, and its notes.
//!
//! It stays small however many trials there are: few values are kept one by one, many numbers as their range. Where it
//! can't tell, the trials themselves do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use nemo_core::checksum;
use nemo_core::lines;
use nemo_core::rundir::{ExperimentDir, Notes, Params, TrialLine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::experiment::Experiment;

/// The most values of a parameter that are kept one by one.
const MOST_VALUES: usize = 24;
/// The most values that are compared with each other while the trials are read.
const MOST_COMPARED: usize = 100_000;
/// The most bytes of notes that are kept.
const MOST_TEXT: usize = 4096;

/// What is kept of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Its tasks in order.
    pub tasks: Vec<TaskFacts>,
    /// The texts of its notes, one a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Whether the notes are longer than that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// Notes that can't be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged_notes: Vec<String>,
}

/// What is kept of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Its name.
    pub name: String,
    /// The values of each parameter by its dotted name; none where its trials can't be read.
    pub params: Option<BTreeMap<String, ParamValues>>,
    /// Whether each value of a parameter is there with each of the others.
    pub is_grid: bool,
}

/// The values that a parameter has in a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamValues {
    /// These.
    Each(Vec<Value>),
    /// Whole numbers: the first, the last, and what lies between two.
    Steps(i64, i64, i64),
    /// Numbers from the one to the other, each of which is there.
    Range(f64, f64),
    /// Too many to keep, and not all of them numbers.
    Many,
}

impl Facts {
    /// What an experiment's folder tells. The trials are written once: who knows them from earlier need not read them.
    #[must_use]
    pub fn of(
        dir: &ExperimentDir,
        experiment: &Experiment,
        earlier: Option<&Self>,
        notes: &Notes,
    ) -> Self {
        let known = |name: &str| {
            let tasks = earlier.map(|facts| facts.tasks.as_slice()).unwrap_or_default();
            tasks.iter().find(|task| task.name == name && task.params.is_some()).cloned()
        };
        let tasks = experiment
            .tasks
            .iter()
            .map(|task| known(&task.name).unwrap_or_else(|| TaskFacts::read(dir, &task.name)));
        let (text, is_cut) = cut(notes);
        let damaged = notes.damaged.iter().map(|path| path.to_string_lossy().into_owned());
        Self { tasks: tasks.collect(), notes: text, is_cut, damaged_notes: damaged.collect() }
    }
}

/// The texts of notes as far as they are kept, and whether there are more.
fn cut(notes: &Notes) -> (String, bool) {
    let texts = notes.whole.iter().filter_map(|(_, note)| note.text.as_deref());
    let mut text = texts.collect::<Vec<_>>().join("\n");
    let is_cut = text.len() > MOST_TEXT;
    text.truncate(text.floor_char_boundary(MOST_TEXT));
    (text, is_cut)
}

impl TaskFacts {
    fn read(dir: &ExperimentDir, name: &str) -> Self {
        let mut values = TaskValues::default();
        let read = each_trial(dir, name, |params| values.add(params));
        let is_whole = matches!(read, Ok(0));
        let is_grid = values.is_grid();
        let params = values.params.into_iter().map(|(name, seen)| (name, seen.values()));
        Self { name: name.to_owned(), params: is_whole.then(|| params.collect()), is_grid }
    }
}

/// Calls a function with the parameters of each trial of a task. Returns how many lines are damaged.
pub fn each_trial(
    dir: &ExperimentDir,
    task: &str,
    mut take: impl FnMut(Params),
) -> io::Result<usize> {
    let path = dir.task(task).trial_lines();
    let mut damaged = 0;
    // That it is not there is an error: it was written before any trial ran.
    std::fs::metadata(&path)?;
    lines::each(&path, |line| {
        match checksum::from_slice::<TrialLine>(line.text) {
            Ok(line) => take(line.params),
            Err(_) => damaged += 1,
        }
        Ok(())
    })?;
    Ok(damaged)
}

/// Parameters by dotted names. A list is a value.
pub fn flatten(params: &Params) -> Vec<(String, &Value)> {
    fn add<'a>(prefix: &str, params: &'a Params, flat: &mut Vec<(String, &'a Value)>) {
        for (name, value) in params {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Object(inner) => add(&name, inner, flat),
                _ => flat.push((name, value)),
            }
        }
    }
    let mut flat = Vec::new();
    add("", params, &mut flat);
    flat
}

/// What is seen of a task's trials while they are read.
#[derive(Default)]
struct TaskValues {
    params: BTreeMap<String, SeenValues>,
    /// Hashes of the trials.
    trials: HashSet<[u8; 16]>,
    n_trials: usize,
}

impl TaskValues {
    fn add(&mut self, params: Params) {
        for (name, value) in flatten(&params) {
            self.params.entry(name).or_default().add(value);
        }
        self.n_trials += 1;
        if self.trials.len() < MOST_COMPARED {
            let text = Value::Object(params).to_string();
            let mut digest = [0; 16];
            digest.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
            self.trials.insert(digest);
        }
    }

    /// As many different trials as a grid of these values has: then they are all of them.
    fn is_grid(&self) -> bool {
        let mut counts = self.params.values().map(SeenValues::count);
        let product = counts.try_fold(1_usize, |product, n| product.checked_mul(n?));
        product == Some(self.trials.len())
    }
}

/// The values of one parameter so far.
#[derive(Default)]
struct SeenValues {
    /// As text; none where there are too many.
    texts: BTreeSet<String>,
    is_full: bool,
    first: Vec<Value>,
    numbers: Option<(f64, f64)>,
    has_others: bool,
    integers: BTreeSet<i64>,
    has_fractions: bool,
}

impl SeenValues {
    fn add(&mut self, value: &Value) {
        let text = value.to_string();
        if self.is_full || !self.texts.insert(text) {
            return self.widen(value);
        }
        self.is_full = self.texts.len() >= MOST_COMPARED;
        if self.first.len() <= MOST_VALUES {
            self.first.push(value.clone());
        }
        match value.as_i64() {
            Some(number) => drop(self.integers.insert(number)),
            None => self.has_fractions = true,
        }
        self.widen(value);
    }

    fn widen(&mut self, value: &Value) {
        let Some(number) = value.as_f64() else { return self.has_others = true };
        let (least, most) = self.numbers.unwrap_or((number, number));
        self.numbers = Some((least.min(number), most.max(number)));
    }

    /// How many different ones; none where that is not known.
    fn count(&self) -> Option<usize> {
        (!self.is_full).then_some(self.texts.len())
    }

    fn values(self) -> ParamValues {
        if self.first.len() <= MOST_VALUES {
            return ParamValues::Each(self.first);
        }
        let steps = if self.is_full || self.has_fractions { None } else { steps(&self.integers) };
        match (steps, self.numbers) {
            (Some((first, last, step)), _) => ParamValues::Steps(first, last, step),
            (None, Some((least, most))) if !self.has_others => ParamValues::Range(least, most),
            (None, _) => ParamValues::Many,
        }
    }
}

/// The first, the last and the step of numbers that lie equally far apart.
fn steps(numbers: &BTreeSet<i64>) -> Option<(i64, i64, i64)> {
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let step = numbers.iter().nth(1)?.checked_sub(first)?;
    let mut expected = Some(first);
    let is_even = numbers.iter().all(|number| {
        let is_next = expected == Some(*number);
        expected = number.checked_add(step);
        is_next
    });
    is_even.then_some((first, last, step))
}

#[cfg(test)]
mod tests {
    use nemo_core::durable;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn facts(trials: impl Iterator<Item = Value>) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        durable::create_dir_all(&dir.task("t").0).unwrap();
        let lines = (0..).zip(trials).flat_map(|(trial, params): (u32, _)| {
            let mut line = checksum::to_vec(&json!({ "trial": trial, "params": params })).unwrap();
            line.push(b'\n');
            line
        });
        let lines: Vec<u8> = lines.collect();
        durable::write_synced(&dir.task("t").trial_lines(), &lines).unwrap();
        serde_json::to_value(TaskFacts::read(&dir, "t")).unwrap()
    }

    #[test]
    fn few_values_are_kept_and_many_are_a_range() {
        let c = [json!(0.5), json!("x"), json!(true)];
        let grid = (0..6_usize).map(|n| json!({ "a": n / 3, "b": { "c": c[n % 3] } }));
        let kept = json!({ "a": { "each": [0, 1] }, "b.c": { "each": [0.5, "x", true] } });
        assert_eq!(facts(grid), json!({ "name": "t", "params": kept, "is_grid": true }));
        let list = [json!({ "a": 1, "b": 1 }), json!({ "a": 2, "b": 2 })];
        assert_eq!(facts(list.into_iter())["is_grid"], false);
        let twice = [json!({ "a": 1 }), json!({ "a": 1 }), json!({ "a": 2 })];
        assert_eq!(facts(twice.into_iter())["is_grid"], true);
        let many = (0..100).map(|n| {
            json!({ "even": n * 2, "odd": n * n, "half": f64::from(n) / 2.0, "word": format!("w{n}") })
        });
        let kept = json!({
            "even": { "steps": [0, 198, 2] }, "odd": { "range": [0.0, 9801.0] },
            "half": { "range": [0.0, 49.5] }, "word": "many",
        });
        assert_eq!(facts(many)["params"], kept);
        assert_eq!(
            facts([json!({})].into_iter()),
            json!({ "name": "t", "params": {}, "is_grid": true })
        );
    }

    #[test]
    fn trials_that_cant_be_read_are_no_facts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        assert_eq!(TaskFacts::read(&dir, "t").params, None);
        durable::create_dir_all(&dir.task("t").0).unwrap();
        durable::write_synced(&dir.task("t").trial_lines(), b"{\"trial\":0,\n").unwrap();
        assert_eq!(TaskFacts::read(&dir, "t").params, None);
    }
}
