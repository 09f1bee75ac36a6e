//! Metrics that a task names and none of its trials reports: most often a slip in a name or in a pattern. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{State, StatusInputs, TaskStatus, TrialFiles, TrialStatus};
use crate::experiment::Task;

/// The first of these that has a pattern names the step that the others are of, and is no metric itself.
const STEPS: [&str; 2] = ["step", "epoch"];

/// How many of the metrics that were reported are named.
const NAMED: usize = 8;

/// A warning for each task that may have waited long enough for a metric.
pub(super) fn warnings(sources: &StatusInputs<'_>, tasks: &[TaskStatus]) -> Vec<String> {
    let tasks = sources.stored.experiment.tasks.iter().zip(tasks);
    tasks
        .filter_map(|(task, status)| of_task(task, status, sources.files.get(&task.name)))
        .collect()
}

fn of_task(
    task: &Task,
    status: &TaskStatus,
    files: Option<&BTreeMap<u32, TrialFiles>>,
) -> Option<String> {
    if !status.trials.iter().any(has_had_its_time) {
        return None;
    }
    let reported: BTreeSet<&String> =
        status.trials.iter().flat_map(|trial| trial.metrics.keys()).collect();
    // What is seldom reported may stand before the last lines: only the search needs it there.
    let is_partial = files.is_some_and(|files| files.values().any(|files| files.older_metrics));
    let step = STEPS.into_iter().find(|step| task.metrics.contains_key(*step));
    let is_step = |name: &String| step == Some(name.as_str());
    let patterns = task.metrics.keys().filter(|name| !is_partial && !is_step(name));
    let wanted: BTreeSet<&String> = task.metric.iter().chain(patterns).collect();
    let missing: Vec<&String> = wanted.difference(&reported).copied().collect();
    if missing.is_empty() {
        return None;
    }
    let missing: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
    let (name, missing) = (&task.name, missing.join(" or "));
    let others = others(&reported);
    Some(if is_partial {
        format!(
            "the last reports of `{name}` do not contain {missing}: the best trial is unknown{others}"
        )
    } else {
        format!("no trial of `{name}` reported {missing}{others}")
    })
}

/// A trial that is done, or that ended after it had reported something else.
fn has_had_its_time(trial: &TrialStatus) -> bool {
    let reported = !trial.metrics.is_empty() && trial.step > Some(0);
    trial.state == State::Completed || (trial.state.is_final() && reported)
}

fn others(reported: &BTreeSet<&String>) -> String {
    let named: Vec<&str> = reported.iter().take(NAMED).map(|name| name.as_str()).collect();
    match (named.as_slice(), reported.len().saturating_sub(NAMED)) {
        ([], _) => ", or any other metric".to_owned(),
        (named, 0) => format!("; reported: {}", named.join(", ")),
        (named, more) => format!("; reported: {} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::recount;

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
        let mut status = TaskStatus {
            name: task.name.clone(),
            state: State::Pending,
            counts: BTreeMap::new(),
            executor: String::new(),
            dir: String::new(),
            start: None,
            end: None,
            best: None,
            trials,
        };
        recount(&mut status);
        let files = TrialFiles { older_metrics: is_partial, ..TrialFiles::default() };
        let said = of_task(&task, &status, Some(&[(0, files)].into()));
        assert_eq!(said.unwrap_or_default(), expected);
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
        TrialStatus {
            index,
            state,
            reason: None,
            certainty: crate::status::Certainty::Open,
            remedy: None,
            params: None,
            slurm_job: None,
            step: (!metrics.is_empty()).then_some(7),
            progress: None,
            message: None,
            labels: Vec::new(),
            metrics,
            counters: crate::status::Counters::default(),
            attempts: Vec::new(),
        }
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
