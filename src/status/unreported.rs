//! Metrics that a task names and none of its trials reports: most often a slip in a name or in a pattern. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{State, StatusInputs, TaskStatus, TrialFiles, TrialStatus};
use crate::experiment::Task;

/// The first of these that has a pattern names the step that the others are of, and is no metric itself.
const STEPS: [&str; 2] = ["step", "epoch"];

/// How many of the metrics that were reported are named.
const NAMED: usize = 8;

/// Metrics that a task names and that none of its trials has reported, though one has had its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreportedMetrics {
    /// The task.
    pub task: String,
    /// What is missing.
    pub metrics: Vec<String>,
    /// A trial that has had its time.
    pub trial: u32,
    /// What was reported.
    reported: Vec<String>,
    /// Only the last reports are known.
    is_partial: bool,
}

/// Those of each task that may have waited long enough.
pub(super) fn of_all(sources: &StatusInputs<'_>, tasks: &[TaskStatus]) -> Vec<UnreportedMetrics> {
    let tasks = sources.stored.experiment.tasks.iter().zip(tasks);
    tasks
        .filter_map(|(task, status)| of_task(task, status, sources.files.get(&task.name)))
        .collect()
}

fn of_task(
    task: &Task,
    status: &TaskStatus,
    files: Option<&BTreeMap<u32, TrialFiles>>,
) -> Option<UnreportedMetrics> {
    let trial = status.trials.iter().find(|trial| has_had_its_time(trial))?.index;
    let reported: BTreeSet<&String> =
        status.trials.iter().flat_map(|trial| trial.metrics.keys()).collect();
    // What is seldom reported may stand before the last lines: only the search needs it there.
    let is_partial = files.is_some_and(|files| files.values().any(|files| files.older_metrics));
    let step = STEPS.into_iter().find(|step| task.metrics.contains_key(*step));
    let patterns = task.metrics.keys().filter(|name| !is_partial && step != Some(name.as_str()));
    let wanted: BTreeSet<&String> = task.metric.iter().chain(patterns).collect();
    let metrics: Vec<String> = wanted.difference(&reported).map(|name| (*name).clone()).collect();
    if metrics.is_empty() {
        return None;
    }
    let reported = reported.into_iter().cloned().collect();
    Some(UnreportedMetrics { task: task.name.clone(), metrics, trial, reported, is_partial })
}

impl UnreportedMetrics {
    /// Warnings. A metric may be in files that programs write by themselves, which are named by `file_of`.
    #[must_use]
    pub fn warnings(&self, file_of: impl Fn(&str) -> Option<&'static str>) -> Vec<String> {
        let task = &self.task;
        let mut missing = Vec::new();
        let mut said = Vec::new();
        for metric in &self.metrics {
            match file_of(metric) {
                Some(file) => said.push(format!(
                    "`{metric}` of `{task}` is in {file} alone: `results` and `plot` show it, but only what is \
                     reported tells the best trial"
                )),
                None => missing.push(format!("`{metric}`")),
            }
        }
        if missing.is_empty() {
            return said;
        }
        let missing = missing.join(" or ");
        let others = if said.is_empty() || !self.reported.is_empty() {
            others(&self.reported)
        } else {
            String::new()
        };
        said.insert(0, if self.is_partial {
            format!(
                "the last reports of `{task}` do not contain {missing}: the best trial is unknown{others}"
            )
        } else {
            format!("no trial of `{task}` reported {missing}{others}")
        });
        said
    }
}

/// A trial that is done, or that ended after it had reported something else.
fn has_had_its_time(trial: &TrialStatus) -> bool {
    let reported = !trial.metrics.is_empty() && trial.step > Some(0);
    trial.state == State::Completed || (trial.state.is_final() && reported)
}

fn others(reported: &[String]) -> String {
    let named: Vec<&str> = reported.iter().take(NAMED).map(String::as_str).collect();
    match (named.as_slice(), reported.len().saturating_sub(NAMED)) {
        ([], _) => ", or any other metric".to_owned(),
        (named, 0) => format!("; reported: {}", named.join(", ")),
        (named, more) => format!("; reported: {} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{sample_task, sample_trial};

    /// What is said of trials, given as `state metric…`, of a task that wants `losss` and prints `acc`.
    #[track_caller]
    fn check(trials: &[&str], is_partial: bool, expected: &str) {
        check_patterns(&["acc", "losss"], trials, is_partial, expected);
    }

    #[track_caller]
    fn check_patterns(patterns: &[&str], trials: &[&str], is_partial: bool, expected: &str) {
        let mut task = crate::plan::sample_task("train", trials.len(), 0, &[]);
        task.metric = Some("losss".to_owned());
        task.metrics = patterns.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        let trials = (0..).zip(trials).map(|(index, text)| trial(index, text)).collect();
        let status = sample_task(&task.name, trials);
        let files = TrialFiles { older_metrics: is_partial, ..TrialFiles::default() };
        let missing = of_task(&task, &status, Some(&[(0, files)].into()));
        let said = missing.map(|own| own.warnings(|_| None)).unwrap_or_default();
        assert_eq!(said.join("; "), expected);
    }

    #[test]
    fn what_is_in_files_of_a_tracker_alone_is_named() {
        let mut task = crate::plan::sample_task("train", 1, 0, &[]);
        task.metric = Some("loss".to_owned());
        task.metrics = [("acc".to_owned(), String::new())].into();
        let status = sample_task(&task.name, vec![trial(0, "completed")]);
        let missing = of_task(&task, &status, None).unwrap();
        assert_eq!(missing.trial, 0);
        let said = missing.warnings(|name| (name == "loss").then_some("TensorBoard's files"));
        assert_eq!(
            said,
            [
                "no trial of `train` reported `acc`",
                "`loss` of `train` is in TensorBoard's files alone: `results` and `plot` show it, but only what is \
                 reported tells the best trial",
            ]
        );
    }

    fn trial(index: u32, text: &str) -> TrialStatus {
        let mut words = text.split(' ');
        let state = match words.next() {
            Some("completed") => State::Completed,
            Some("failed") => State::Failed,
            _ => State::Running,
        };
        let metrics: serde_json::Map<String, serde_json::Value> =
            words.map(|name| (name.to_owned(), 0.5.into())).collect();
        let step = (!metrics.is_empty()).then_some(7);
        TrialStatus { step, metrics, ..sample_trial(index, state) }
    }

    #[test]
    fn a_metric_that_never_comes_is_said() {
        let both = "no trial of `train` reported `losss`; reported: acc, loss";
        check(&["completed acc loss", "running"], false, both);
        check(&["completed acc", "completed loss"], false, both);
        check(&["failed acc loss"], false, both);
        let only = "no trial of `train` reported `acc` or `losss`; reported: loss";
        check(&["running", "completed loss"], false, only);
        let none = "no trial of `train` reported `acc` or `losss`, or any other metric";
        check(&["completed"], false, none);
        let many = "completed acc b c d e f g h i j";
        let more =
            "no trial of `train` reported `losss`; reported: acc, b, c, d, e, f, g, h and 2 more";
        check(&[many], false, more);
    }

    #[test]
    fn one_that_may_yet_come_is_not() {
        check(&["completed acc losss"], false, "");
        check(&["completed acc", "running losss"], false, "");
        check(&["running loss", "running"], false, "");
        check(&["failed", "running loss"], false, "");
    }

    #[test]
    fn the_step_is_no_metric() {
        check_patterns(&["losss", "step"], &["completed losss"], false, "");
        check_patterns(&["losss", "epoch"], &["completed losss"], false, "");
        let epoch = "no trial of `train` reported `epoch`; reported: losss";
        check_patterns(&["epoch", "losss", "step"], &["completed losss"], false, epoch);
    }

    #[test]
    fn where_only_the_last_reports_are_known_no_more_is_claimed() {
        let said = "the last reports of `train` do not contain `losss`: the best trial is unknown; reported: loss";
        check(&["completed loss"], true, said);
        check(&["completed losss"], true, "");
    }
}
