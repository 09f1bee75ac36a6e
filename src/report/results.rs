//! What trials came to, as a table and as CSV.

use std::collections::BTreeSet;

use nemo_core::log_line;

use super::Page;
use super::csv::csv_line;
use super::grid::{ColumnFit, Grid, TextCell};
use super::status::pairs;
use super::table::coloured;
use crate::humanize::{bytes, count, metric};
use crate::results::{MetricRow, MetricSummary, ParameterValue, TrialResult, plain};
use crate::summary::flatten;

/// A row for each trial.
#[must_use]
pub fn results_table(trials: &[TrialResult], page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("trial", ColumnFit::Whole),
        ("state", ColumnFit::Whole),
        ("parameters", ColumnFit::Words),
        ("metrics", ColumnFit::Words),
        ("checkpoint", ColumnFit::Spare(1)),
        ("artifacts", ColumnFit::Spare(0)),
        ("error", ColumnFit::Words),
    ]);
    for trial in trials {
        grid.row([
            TextCell::from(format!("{}/{}", trial.task, trial.trial)),
            coloured(trial.state),
            TextCell::from(trial.params.as_ref().map_or_else(|| "?".to_owned(), pairs)),
            TextCell::from(metrics(trial)),
            TextCell::from(checkpoint(trial)),
            TextCell::from(artifacts(trial)),
            TextCell::from(trial.error.as_ref().map_or("", |error| error.class.as_str())),
        ]);
    }
    grid.without_empty().lines_telling(page).join("\n")
}

/// `loss=0.25 (best 0.2 at 30)`.
fn metrics(trial: &TrialResult) -> String {
    let one = |(name, summary): (&String, &MetricSummary)| {
        let MetricSummary { last, best, best_step, .. } = summary;
        let last_text = metric(&serde_json::json!(last));
        let at = best_step.map_or_else(String::new, |step| format!(" at {step}"));
        match best.filter(|best| last.is_none_or(|last| (best - last).abs() > 0.0)) {
            Some(best) => format!("{name}={last_text} (best {}{at})", metric(&best.into())),
            None => format!("{name}={last_text}"),
        }
    };
    trial.metrics.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn checkpoint(trial: &TrialResult) -> String {
    let checkpoint = trial.checkpoint.as_ref();
    checkpoint.map_or_else(String::new, |it| format!("{} ({})", it.step, bytes(it.bytes)))
}

fn artifacts(trial: &TrialResult) -> String {
    let total = trial.artifacts.iter().map(|artifact| artifact.bytes).sum();
    match trial.artifacts.len() {
        0 => String::new(),
        n => format!("{} ({})", count(n, "file"), bytes(total)),
    }
}

/// A line for each trial, with a column for each parameter and three for each metric.
#[must_use]
pub fn results_csv(trials: &[TrialResult]) -> String {
    let params: BTreeSet<String> = trials
        .iter()
        .flat_map(|trial| trial.params.iter().flat_map(flatten))
        .map(|(name, _)| name)
        .collect();
    let metrics: BTreeSet<&String> = trials.iter().flat_map(|trial| trial.metrics.keys()).collect();
    let mut titles = ["task", "trial", "state"].map(str::to_owned).to_vec();
    titles.extend(params.iter().map(|name| format!("params.{name}")));
    for name in &metrics {
        titles.extend(["last", "best", "step"].map(|part| format!("metrics.{name}.{part}")));
    }
    titles.extend(
        [
            "checkpoint.step",
            "checkpoint.path",
            "checkpoint.bytes",
            "artifacts",
            "error.class",
            "error.message",
        ]
        .map(str::to_owned),
    );
    let mut lines = vec![csv_line(titles.iter().map(String::as_str))];
    lines.extend(trials.iter().map(|trial| csv_row(trial, &params, &metrics)));
    lines.join("\n")
}

fn csv_row(trial: &TrialResult, params: &BTreeSet<String>, metrics: &BTreeSet<&String>) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let whole = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let given = trial.params.iter().flat_map(flatten).collect::<Vec<_>>();
    let mut cells =
        vec![trial.task.clone(), trial.trial.to_string(), trial.state.as_str().to_owned()];
    for name in params {
        let value = given.iter().find(|(own, _)| own == name);
        cells.push(value.map_or_else(String::new, |(_, value)| plain(value)));
    }
    for name in metrics {
        let summary = trial.metrics.get(*name).cloned().unwrap_or_default();
        cells.extend([number(summary.last), number(summary.best), whole(summary.step)]);
    }
    let checkpoint = trial.checkpoint.as_ref();
    cells.push(whole(checkpoint.map(|it| it.step)));
    cells.push(checkpoint.map_or_else(String::new, |it| it.path.clone()));
    cells.push(whole(checkpoint.map(|it| it.bytes)));
    let names: Vec<&str> = trial.artifacts.iter().map(|artifact| &*artifact.name).collect();
    cells.push(names.join(";"));
    let error = trial.error.as_ref();
    cells.push(error.map_or_else(String::new, |error| error.class.as_str().to_owned()));
    cells.push(error.map_or_else(String::new, |error| error.message.clone()));
    csv_line(cells.iter().map(String::as_str))
}

/// A row for each value of each parameter.
#[must_use]
pub fn by_parameter_table(values: &[ParameterValue], page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("task", ColumnFit::Spare(0)),
        ("parameter", ColumnFit::Whole),
        ("value", ColumnFit::Whole),
        ("", ColumnFit::Whole),
        ("trials", ColumnFit::Whole),
        ("failed", ColumnFit::Whole),
        ("not finite", ColumnFit::Whole),
        ("errors", ColumnFit::Words),
        ("best of", ColumnFit::Spare(3)),
        ("mean", ColumnFit::Spare(3)),
        ("min", ColumnFit::Spare(2)),
        ("max", ColumnFit::Spare(2)),
    ]);
    let is_one_task = values.windows(2).all(|two| two[0].task == two[1].task);
    for value in values {
        let errors = value.errors.iter().map(|(class, n)| format!("{n} {class}"));
        let range = value.metric.as_ref();
        let shown = |number: Option<f64>| {
            TextCell::from(number.map_or_else(String::new, |number| metric(&number.into())))
        };
        grid.row([
            TextCell::from(if is_one_task { "" } else { &value.task }),
            TextCell::from(&value.parameter),
            TextCell::from(plain(&value.value)),
            TextCell::from(value.outcome.as_str()),
            TextCell::from(value.trials),
            TextCell::from(value.failed),
            TextCell::from(not_finite(value.not_finite)),
            TextCell::from(errors.collect::<Vec<_>>().join(", ")),
            TextCell::from(range.map_or("", |range| &range.name)),
            shown(range.map(|range| range.mean)),
            shown(range.map(|range| range.min)),
            shown(range.map(|range| range.max)),
        ]);
    }
    grid.without_empty().lines_telling(page).join("\n")
}

/// Nothing for none: the column is left out where no trial ended so.
fn not_finite(n: usize) -> String {
    if n == 0 { String::new() } else { n.to_string() }
}

/// The same as CSV.
#[must_use]
pub fn by_parameter_csv(values: &[ParameterValue]) -> String {
    let titles = [
        "task",
        "parameter",
        "value",
        "outcome",
        "trials",
        "completed",
        "failed",
        "metric",
        "min",
        "max",
        "mean",
        "not_finite",
    ];
    let mut lines = vec![csv_line(titles)];
    for value in values {
        let counts = [value.trials, value.completed, value.failed].map(|n| n.to_string());
        let range = value.metric.as_ref();
        let numbers = range.map_or_else(Default::default, |range| {
            [
                range.name.clone(),
                range.min.to_string(),
                range.max.to_string(),
                range.mean.to_string(),
            ]
        });
        let mut cells = vec![
            value.task.clone(),
            value.parameter.clone(),
            plain(&value.value),
            value.outcome.as_str().to_owned(),
        ];
        cells.extend(counts);
        cells.extend(numbers);
        cells.push(value.not_finite.to_string());
        lines.push(csv_line(cells.iter().map(String::as_str)));
    }
    lines.join("\n")
}

/// A row for each value of a metric.
#[must_use]
pub fn metrics_table(rows: &[MetricRow], page: &Page) -> String {
    let mut grid = Grid::new(&[
        ("trial", ColumnFit::Whole),
        ("attempt", ColumnFit::Spare(1)),
        ("step", ColumnFit::Whole),
        ("time", ColumnFit::Spare(0)),
        ("metric", ColumnFit::Whole),
        ("value", ColumnFit::Whole),
    ]);
    for row in rows {
        grid.row([
            TextCell::from(format!("{}/{}", row.task, row.trial)),
            TextCell::from(row.attempt),
            TextCell::from(row.step.map_or_else(String::new, |step| step.to_string())),
            TextCell::from(row.time.map_or_else(String::new, log_line::time)),
            TextCell::from(&row.metric),
            TextCell::from(metric(&serde_json::json!(row.value))),
        ]);
    }
    grid.without_empty().lines(page).join("\n")
}

/// The names of the columns of [`metric_csv_row`].
#[must_use]
pub fn metric_csv_titles() -> &'static str {
    "task,trial,attempt,step,time,metric,value"
}

/// A value of a metric as a line of CSV.
#[must_use]
pub fn metric_csv_row(row: &MetricRow) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let step = row.step.map_or_else(String::new, |step| step.to_string());
    let (trial, attempt) = (row.trial.to_string(), row.attempt.to_string());
    let (time, value) = (number(row.time), number(row.value));
    csv_line([&row.task, &trial, &attempt, &step, &time, &row.metric, &value].map(String::as_str))
}
