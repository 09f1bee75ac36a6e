//! What several experiments, tasks or trials have in common, and in what they differ. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{TrialResult, ValueRange};
use crate::experiment::{ChangedKeys, Experiment, ResolvedConfig, Task};
use crate::status::{State, Status, best_trial};

/// A trial that stands for what was named.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedTrial {
    /// What was named.
    #[serde(skip)]
    pub id: String,
    /// The task.
    pub task: String,
    /// The trial.
    pub trial: u32,
    /// Where it stands.
    pub state: State,
    /// Why it stands for all of it.
    pub why: String,
    /// The keys that retries have changed of it.
    pub set: ChangedKeys,
    /// How many other trials of what was named have other values of such keys.
    pub trials_with_other_values: usize,
    /// The configuration that this trial ran with last, with its parameters, by dotted keys.
    #[serde(skip)]
    pub config: Vec<(String, Value)>,
    /// The parameters as the file has them, all values of a search; nothing if trials were named.
    #[serde(skip)]
    pub space: Vec<(String, Value)>,
    /// Which code it runs: `package.hash`, `git.commit` and so on.
    #[serde(skip)]
    pub code: Vec<(String, Value)>,
    /// The last value of each metric; none where it is not finite.
    #[serde(skip)]
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Keys and values.
    pub config: ConfigComparison,
    /// The code.
    pub code: CodeComparison,
    /// By name.
    pub metrics: BTreeMap<String, MetricComparison>,
}

/// The configurations.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct ConfigComparison {
    /// What all have.
    pub common: Map<String, Value>,
    /// By key, the value of each; null where it has none.
    pub different: Map<String, Value>,
    /// The same of parameters as the files have them, with all values of a search.
    pub search_space: Map<String, Value>,
}

/// The code that was submitted.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct CodeComparison {
    /// What all have.
    pub common: Map<String, Value>,
    /// By key, the value of each; null where it has none.
    pub different: Map<String, Value>,
}

/// One metric.
#[derive(Debug, PartialEq, Serialize)]
pub struct MetricComparison {
    /// The last value of each that reported it; null where it is not finite.
    pub values: BTreeMap<String, Option<f64>>,
    /// The lowest; null where none is finite.
    pub min: Option<f64>,
    /// The highest.
    pub max: Option<f64>,
    /// The mean of those that are finite.
    pub mean: Option<f64>,
}

/// Compares two or more.
#[must_use]
pub fn compare(all: &[ComparedTrial]) -> Comparison {
    let mut metrics: BTreeMap<String, MetricComparison> = BTreeMap::new();
    for name in all.iter().flat_map(|one| one.metrics.keys()) {
        let with_it = all.iter().filter_map(|one| Some((one.id.clone(), *one.metrics.get(name)?)));
        let values: BTreeMap<String, Option<f64>> = with_it.collect();
        let numbers: Vec<f64> = values.values().flatten().copied().collect();
        let range = ValueRange::of(name, &numbers);
        let (min, max) = range.as_ref().map(|range| (range.min, range.max)).unzip();
        let mean = range.map(|range| range.mean);
        metrics.insert(name.clone(), MetricComparison { values, min, max, mean });
    }
    let (common, different) = compare_entries(all, |one| &one.config);
    let have_space = all.iter().all(|one| !one.space.is_empty());
    let (_, search_space) =
        if have_space { compare_entries(all, |one| &one.space) } else { Default::default() };
    let config = ConfigComparison { common, different, search_space };
    let (common, different) = compare_entries(all, |one| &one.code);
    Comparison { config, code: CodeComparison { common, different }, metrics }
}

/// What all have in common, and for each key in which they differ the value of each.
fn compare_entries(
    all: &[ComparedTrial],
    entries: impl Fn(&ComparedTrial) -> &[(String, Value)],
) -> (Map<String, Value>, Map<String, Value>) {
    let configs: Vec<BTreeMap<&str, &Value>> =
        all.iter().map(|one| entries(one).iter().map(|(k, v)| (k.as_str(), v)).collect()).collect();
    let (mut common, mut different) = (Map::new(), Map::new());
    for (key, _) in all.iter().flat_map(&entries) {
        if common.contains_key(key) || different.contains_key(key) {
            continue;
        }
        let values: Vec<Option<&Value>> =
            configs.iter().map(|config| config.get(key.as_str()).copied()).collect();
        match values.first().copied().flatten() {
            Some(first) if values.iter().all(|value| *value == Some(first)) => {
                common.insert(key.clone(), first.clone());
            }
            _ => {
                let each = all.iter().zip(&values);
                let each = each.map(|(one, value)| (one.id.clone(), value.cloned().into()));
                different.insert(key.clone(), Value::Object(each.collect()));
            }
        }
    }
    (common, different)
}

/// The parameters of a configuration, as its file has them.
#[must_use]
pub fn space_of(resolved: &ResolvedConfig, named_task: Option<&str>) -> Vec<(String, Value)> {
    let is_meant = |key: &str| {
        let task = key.strip_prefix("task.").and_then(|rest| rest.split_once(".params."));
        task.is_some_and(|(task, _)| named_task.is_none_or(|named| named == task))
    };
    let entries = resolved.entries().into_iter().filter(|(key, _)| is_meant(key));
    entries.map(|(key, value)| (key, value.clone())).collect()
}

/// A configuration with the parameters of one trial. Of other tasks nothing if a task was named.
#[must_use]
pub fn trial_config(
    resolved: &ResolvedConfig,
    task: &str,
    params: Option<&Map<String, Value>>,
    named_task: Option<&str>,
) -> ResolvedConfig {
    let mut resolved = resolved.clone();
    if let Some(params) = params.filter(|params| !params.is_empty()) {
        let path = ["task", task, "params"];
        resolved.set(&path, Value::Object(params.clone()), "trial");
    }
    if let Some(Value::Object(tasks)) = resolved.config.get_mut("task")
        && let Some(named) = named_task
    {
        tasks.retain(|name, _| name == named);
    }
    resolved
}

/// The trial that stands for what a status shows, and why: the best by `search.metric`, else the only one, else the
/// median.
#[must_use]
pub fn representative<'a>(
    experiment: &Experiment,
    status: &Status,
    results: &'a [TrialResult],
) -> Option<(&'a TrialResult, String)> {
    let result = |task: &str, trial: u32| {
        results.iter().find(|result| result.task == task && result.trial == trial)
    };
    let best = experiment.tasks.iter().rev().find_map(|task| {
        let shown = status.tasks.iter().find(|shown| shown.name == task.name)?;
        let best = best_trial(task, &shown.trials).and_then(|best| result(&task.name, best));
        let found = best.or_else(|| best_written(task, results))?;
        Some((found, task.metric.as_deref()?, shown.trials.len()))
    });
    if let Some((found, metric, n)) = best.filter(|(.., n)| *n > 1) {
        return Some((found, format!("the best of {n} trials by {metric}")));
    }
    if let [only] = results {
        return Some((only, "the only trial".to_owned()));
    }
    // Of several tasks the last one that reported something.
    let last = results.iter().rev().find(|result| !result.metrics.is_empty()).or(results.last())?;
    let of_task: Vec<&TrialResult> = results.iter().filter(|it| it.task == last.task).collect();
    let task = experiment.tasks.iter().find(|task| task.name == last.task)?;
    median(task, &of_task)
}

/// The best by a metric that no status knows, since the program wrote it into files of its own.
fn best_written<'a>(task: &Task, results: &'a [TrialResult]) -> Option<&'a TrialResult> {
    let metric = task.metric.as_deref()?;
    let value = |trial: &TrialResult| trial.metrics.get(metric)?.last;
    let own = || results.iter().filter(|trial| trial.task == task.name && value(trial).is_some());
    let is_better = |a: &TrialResult, b: &TrialResult| {
        value(a).zip(value(b)).is_some_and(|(a, b)| task.goal.is_better(a, b))
    };
    let better = |best, trial| if is_better(trial, best) { trial } else { best };
    let sound = own().filter(|trial| trial.state != State::Failed).reduce(better);
    sound.or_else(|| own().reduce(better))
}

fn median<'a>(task: &Task, trials: &[&'a TrialResult]) -> Option<(&'a TrialResult, String)> {
    let n = trials.len();
    if let [only] = trials {
        return Some((only, format!("the only trial of {}", task.name)));
    }
    let mut names = trials.iter().flat_map(|trial| trial.metrics.keys());
    let metric = task.metric.as_ref().or_else(|| names.next());
    let value = |trial: &TrialResult| trial.metrics.get(metric?)?.last;
    let mut reported: Vec<(f64, &TrialResult)> =
        trials.iter().filter_map(|trial| Some((value(trial)?, *trial))).collect();
    reported.sort_by(|a, b| a.0.total_cmp(&b.0));
    match (reported.get(reported.len().saturating_sub(1) / 2), metric) {
        (Some((_, trial)), Some(metric)) => {
            Some((trial, format!("the median of {n} trials by {metric}")))
        }
        _ => Some((trials.get((n - 1) / 2)?, format!("the middle one of {n} trials"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(id: &str, config: &Value, metrics: &[(&str, Option<f64>)]) -> ComparedTrial {
        let entries = config.as_object().unwrap().clone().into_iter().collect();
        ComparedTrial {
            id: id.to_owned(),
            task: "train".to_owned(),
            trial: 0,
            state: State::Completed,
            why: String::new(),
            set: ChangedKeys::new(),
            trials_with_other_values: 0,
            config: entries,
            code: vec![("git.commit".to_owned(), json!(format!("{}f00", u8::from(id == "b") + 1)))],
            space: vec![("task.train.params.lr".to_owned(), json!([0.1, id]))],
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn what_is_common_is_told_from_what_differs() {
        let all = [
            one(
                "a",
                &json!({ "name": "x", "lr": 0.1 }),
                &[("loss", Some(1.0)), ("acc", Some(0.5)), ("gap", None)],
            ),
            one(
                "b",
                &json!({ "name": "x", "lr": 0.2, "width": 8 }),
                &[("loss", Some(4.0)), ("acc", None)],
            ),
        ];
        let found = serde_json::to_value(compare(&all)).unwrap();
        let expected = json!({
            "config": {
                "common": { "name": "x" },
                "different": { "lr": { "a": 0.1, "b": 0.2 }, "width": { "a": null, "b": 8 } },
                "search_space": { "task.train.params.lr": { "a": [0.1, "a"], "b": [0.1, "b"] } },
            },
            "code": {
                "common": {},
                "different": { "git.commit": { "a": "1f00", "b": "2f00" } },
            },
            "metrics": {
                "acc": { "values": { "a": 0.5, "b": null }, "min": 0.5, "max": 0.5, "mean": 0.5 },
                "gap": { "values": { "a": null }, "min": null, "max": null, "mean": null },
                "loss": { "values": { "a": 1.0, "b": 4.0 }, "min": 1.0, "max": 4.0, "mean": 2.5 },
            },
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn the_best_is_known_from_files_too() {
        let task =
            Task { metric: Some("acc".to_owned()), ..crate::plan::sample_task("t", 3, 0, &[]) };
        let trial = |trial, state, last: Option<f64>| TrialResult {
            task: "t".to_owned(),
            trial,
            state,
            params: None,
            metrics: last
                .map(|last| {
                    let summary =
                        crate::results::MetricSummary { last: Some(last), ..Default::default() };
                    ("acc".to_owned(), summary)
                })
                .into_iter()
                .collect(),
            checkpoint: None,
            artifacts: Vec::new(),
            error: None,
        };
        let results = [
            trial(0, State::Completed, Some(0.5)),
            trial(1, State::Completed, Some(0.2)),
            trial(2, State::Failed, Some(0.1)),
            trial(3, State::Running, None),
        ];
        assert_eq!(best_written(&task, &results).map(|it| it.trial), Some(1));
        assert_eq!(best_written(&task, &results[2..]).map(|it| it.trial), Some(2));
        assert_eq!(best_written(&task, &results[3..]), None);
    }
}
