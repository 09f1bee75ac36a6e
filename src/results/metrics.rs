//! The metrics that a trial reported: the last and the best value of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nemo_core::lines;
use nemo_core::rundir::{MetricsLine, TrialDir};
use serde::Serialize;

use super::written::{MetricSource, WrittenValue, each_written};

use crate::experiment::{Goal, Task};

/// Parts of names of metrics of which more is better, where nobody says.
const LARGER_IS_BETTER: [&str; 14] = [
    "acc",
    "auc",
    "f1",
    "score",
    "precision",
    "recall",
    "reward",
    "return",
    "bleu",
    "rouge",
    "iou",
    "psnr",
    "ssim",
    "throughput",
];

/// What became of a metric. A value is null if it was not a finite number.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MetricSummary {
    /// The last value.
    pub last: Option<f64>,
    /// The best value.
    pub best: Option<f64>,
    /// The step of the last value.
    pub step: Option<u64>,
    /// The step of the best value.
    pub best_step: Option<u64>,
    /// Who wrote it, if it was not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<MetricSource>,
}

impl MetricSummary {
    /// Adds a value, which is the last one from now on.
    pub fn add(&mut self, step: Option<u64>, value: Option<f64>, goal: Goal) {
        (self.last, self.step) = (value, step);
        if let Some(value) = value
            && self.best.is_none_or(|best| goal.is_better(value, best))
        {
            (self.best, self.best_step) = (Some(value), step);
        }
    }
}

/// Which way a metric of a task is better: as `search.goal` says of `search.metric`, else by its name.
#[must_use]
pub fn goal_of(task: &Task, metric: &str) -> Goal {
    if task.metric.as_deref() == Some(metric) {
        return task.goal;
    }
    let name = metric.to_lowercase();
    let is_larger = LARGER_IS_BETTER.iter().any(|part| name.contains(part));
    if is_larger && !name.contains("loss") { Goal::Max } else { Goal::Min }
}

/// The last and the best value of each metric of a trial. The file may be larger than memory.
pub(super) fn summaries(
    dir: &TrialDir,
    task: &Task,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, MetricSummary> {
    let mut found: BTreeMap<String, MetricSummary> = BTreeMap::new();
    let read = each_report(&dir.metrics(), |report| {
        for (name, value) in &report.values {
            let goal = goal_of(task, name);
            found.entry(name.clone()).or_default().add(report.step, value.as_f64(), goal);
        }
    });
    warnings.extend(read);
    let reported: BTreeSet<String> = found.keys().cloned().collect();
    let written = each_written(dir, &reported, |row| {
        let WrittenValue { metric, step, value, .. } = row.value;
        let goal = goal_of(task, &metric);
        let summary = found.entry(metric).or_default();
        summary.source = Some(row.source);
        summary.add(step, value, goal);
        Ok(())
    });
    // It only fails where the function that is called does.
    warnings.extend(written.unwrap_or_default());
    found
}

/// Calls a function with each report of a trial, in their order. Returns what is damaged.
pub fn each_report(path: &Path, mut take: impl FnMut(MetricsLine)) -> Option<String> {
    let mut damaged = 0;
    let read = lines::each(path, |line| {
        let is_torn = !line.text.ends_with(b"\n") || line.text.ends_with(b"<torn>\n");
        match serde_json::from_slice::<MetricsLine>(line.text) {
            Ok(report) => take(report),
            Err(_) if is_torn || line.text.trim_ascii().is_empty() => {}
            Err(_) => damaged += 1,
        }
        Ok(())
    });
    match (read, damaged) {
        (Err(error), _) => Some(format!("can't read `{}`: {error}", path.display())),
        (Ok(()), 0) => None,
        (Ok(()), 1) => Some(format!("`{}` is damaged: 1 line is ignored", path.display())),
        (Ok(()), n) => Some(format!("`{}` is damaged: {n} lines are ignored", path.display())),
    }
}
