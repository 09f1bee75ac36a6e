//! Which values of the parameters fail, and which are stable. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::TrialResult;
use crate::status::State;
use crate::summary::flatten;

/// What becomes of trials with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that are over failed, or lost their metric.
    Fails,
    /// Some did.
    Mixed,
    /// All that are over completed, and their metric stayed a finite number.
    Stable,
    /// None is over.
    Open,
}

impl Outcome {
    /// As it is spelt in JSON and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::Mixed => "mixed",
            Self::Stable => "stable",
            Self::Open => "open",
        }
    }
}

/// The trials of a task with one value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParameterValue {
    /// The task.
    pub task: String,
    /// The parameter's dotted name.
    pub parameter: String,
    /// Its value.
    pub value: Value,
    /// What becomes of such trials.
    pub outcome: Outcome,
    /// How many there are.
    pub trials: usize,
    /// How many completed.
    pub completed: usize,
    /// How many failed or reached their time limit.
    pub failed: usize,
    /// How many completed whose metric ended without a finite number.
    pub not_finite: usize,
    /// How many failed with each class of error.
    pub errors: BTreeMap<&'static str, usize>,
    /// The task's metric.
    pub metric: Option<ValueRange>,
}

/// What a metric came to in several trials: their best values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueRange {
    /// The metric.
    pub name: String,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// By a value's text: the value, and the trials that have it.
type TrialsByValue<'a> = BTreeMap<String, (&'a Value, Vec<&'a TrialResult>)>;

/// A line for each value of each parameter that has several. `metric` names the metric of a task.
#[must_use]
pub fn by_parameter<'a>(
    trials: &[TrialResult],
    metric: impl Fn(&str) -> Option<&'a str>,
) -> Vec<ParameterValue> {
    let mut values: BTreeMap<(&str, String), TrialsByValue<'_>> = BTreeMap::new();
    for trial in trials {
        for (name, value) in trial.params.iter().flat_map(flatten) {
            let parameter = values.entry((&trial.task, name)).or_default();
            let known = parameter.entry(value.to_string()).or_insert_with(|| (value, Vec::new()));
            known.1.push(trial);
        }
    }
    values.retain(|_, values| values.len() > 1);
    let mut lines: Vec<ParameterValue> = Vec::new();
    for ((task, name), values) in &values {
        let of_value = |(value, trials): &(&Value, Vec<&TrialResult>)| {
            line(task, name, value, trials, metric(task))
        };
        lines.extend(values.values().map(of_value));
    }
    lines.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| order(&a.value, &b.value)));
    lines
}

fn key(line: &ParameterValue) -> (&str, &str) {
    (&line.task, &line.parameter)
}

/// Numbers by size, all else as text.
fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.to_string().cmp(&b.to_string()),
    }
}

fn line(
    task: &str,
    parameter: &str,
    value: &Value,
    trials: &[&TrialResult],
    metric: Option<&str>,
) -> ParameterValue {
    let count = |states: &[State]| trials.iter().filter(|it| states.contains(&it.state)).count();
    let (completed, failed) = (count(&[State::Completed]), count(&[State::Failed, State::Timeout]));
    let not_finite = trials.iter().filter(|it| ended_not_finite(it, metric)).count();
    let mut errors = BTreeMap::new();
    for error in trials.iter().filter_map(|trial| trial.error.as_ref()) {
        *errors.entry(error.class.as_str()).or_default() += 1;
    }
    ParameterValue {
        task: task.to_owned(),
        parameter: parameter.to_owned(),
        value: value.clone(),
        outcome: match (completed - not_finite, failed + not_finite) {
            (0, 0) => Outcome::Open,
            (0, _) => Outcome::Fails,
            (_, 0) => Outcome::Stable,
            (_, _) => Outcome::Mixed,
        },
        trials: trials.len(),
        completed,
        failed,
        not_finite,
        errors,
        metric: metric.and_then(|metric| range(metric, trials)),
    }
}

/// Whether a trial completed, but its metric ended in NaN or infinity: its best value is from before that. Any metric counts
/// where the file names none.
fn ended_not_finite(trial: &TrialResult, metric: Option<&str>) -> bool {
    let mut own = trial.metrics.iter().filter(|(name, _)| metric.is_none_or(|it| it == *name));
    trial.state == State::Completed && own.any(|(_, summary)| summary.last.is_none())
}

fn range(metric: &str, trials: &[&TrialResult]) -> Option<ValueRange> {
    let best = trials.iter().filter_map(|trial| trial.metrics.get(metric)?.best);
    let values: Vec<f64> = best.collect();
    ValueRange::of(metric, &values)
}

impl ValueRange {
    /// The range of some values; nothing of none.
    #[must_use]
    pub fn of(name: &str, values: &[f64]) -> Option<Self> {
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        #[expect(clippy::cast_precision_loss, reason = "a count of trials")]
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Some(Self { name: name.to_owned(), min, max, mean })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::results::MetricSummary;

    fn trial(trial: u32, state: State, lr: f64, width: u32, loss: Option<f64>) -> TrialResult {
        let params = json!({ "lr": lr, "model": { "width": width }, "seed": 1 });
        let loss = loss.map(|best| MetricSummary {
            last: Some(best),
            best: Some(best),
            ..MetricSummary::default()
        });
        TrialResult {
            task: "train".to_owned(),
            trial,
            state,
            params: params.as_object().cloned(),
            metrics: loss.into_iter().map(|loss| ("loss".to_owned(), loss)).collect(),
            checkpoint: None,
            artifacts: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn values_that_fail_are_told_from_stable_ones() {
        let trials = [
            trial(0, State::Failed, 0.5, 32, None),
            trial(1, State::Timeout, 0.5, 64, None),
            trial(2, State::Completed, 0.01, 32, Some(0.5)),
            trial(3, State::Completed, 0.01, 64, Some(0.3)),
            trial(4, State::Running, 2e-3, 32, None),
        ];
        let lines = by_parameter(&trials, |_| Some("loss"));
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                let ParameterValue { parameter, value, outcome, trials, failed, .. } = line;
                format!("{parameter}={value} {} {failed}/{trials}", outcome.as_str())
            })
            .collect();
        assert_eq!(
            told,
            [
                "lr=0.002 open 0/1",
                "lr=0.01 stable 0/2",
                "lr=0.5 fails 2/2",
                "model.width=32 mixed 1/3",
                "model.width=64 mixed 1/2",
            ]
        );
        let metric = lines[1].metric.as_ref().unwrap();
        assert_eq!((metric.min, metric.max, metric.mean), (0.3, 0.5, 0.4));
    }

    /// A summary of values of which the last was NaN or infinite has no last value.
    #[test]
    fn what_ends_without_a_finite_value_is_not_stable() {
        let ended_in = |last, trial: TrialResult| {
            let metrics = trial.metrics.into_iter();
            let metrics =
                metrics.map(|(name, own)| (name, MetricSummary { last, ..own })).collect();
            TrialResult { metrics, ..trial }
        };
        let well =
            |place, lr| ended_in(Some(0.4), trial(place, State::Completed, lr, place, Some(0.3)));
        let lost = |place, lr| ended_in(None, trial(place, State::Completed, lr, place, Some(0.3)));
        let trials =
            [well(0, 0.1), well(1, 0.1), lost(2, 0.2), well(3, 0.2), lost(4, 0.3), lost(5, 0.3)];
        let told = |metric: Option<&'static str>| -> Vec<String> {
            let lines = by_parameter(&trials, |_| metric).into_iter();
            let lines = lines.filter(|line| line.parameter == "lr");
            lines
                .map(|it| format!("{} {} {}", it.value, it.outcome.as_str(), it.not_finite))
                .collect()
        };
        let expected = ["0.1 stable 0", "0.2 mixed 1", "0.3 fails 2"];
        assert_eq!(told(Some("loss")), expected);
        assert_eq!(told(None), expected, "of any metric, where the file names none");
        assert_eq!(told(Some("accuracy"))[2], "0.3 stable 0", "another metric is meant");
    }
}
