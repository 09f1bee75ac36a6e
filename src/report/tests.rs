//! What a person sees of a status.

use super::*;
use crate::status::{Counters, ExperimentStatus, State, Status, TaskStatus, TrialStatus, recount};

/// An experiment of these tasks, submitted a minute ago.
fn status(tasks: Vec<TaskStatus>) -> Status {
    Status {
        schema: 1,
        experiment: ExperimentStatus {
            id: "sample-00000100".to_owned(),
            name: "sample".to_owned(),
            state: State::Running,
            reason: None,
            created: 100,
            stale: false,
            dir: "/home/ada/.nemo_slurm/experiments/sample-00000100".to_owned(),
        },
        tasks,
        warnings: Vec::new(),
    }
}

fn task(name: &str, trials: Vec<TrialStatus>) -> TaskStatus {
    let mut task = TaskStatus {
        name: name.to_owned(),
        state: State::Pending,
        counts: std::collections::BTreeMap::new(),
        best: None,
        trials,
    };
    recount(&mut task);
    task
}

fn trial(index: u32, state: State, reason: &str) -> TrialStatus {
    TrialStatus {
        index,
        state,
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        params: serde_json::Map::new(),
        slurm_job: None,
        step: None,
        progress: None,
        message: None,
        labels: Vec::new(),
        metrics: serde_json::Map::new(),
        counters: Counters::default(),
        attempts: Vec::new(),
    }
}

#[test]
fn a_reason_names_its_trials() {
    let waits = "waits for free resources";
    let reasons = ["", waits, waits, "exited with code 1", waits, waits, "", waits];
    let trials = (0..).zip(reasons).map(|(index, why)| trial(index, State::Pending, why)).collect();
    let only = trial(0, State::Blocked, "what it waits for can never be");
    let status = status(vec![task("train", trials), task("evaluate", vec![only])]);
    insta::assert_snapshot!(reasons::reasons(&status).join("\n"), @"
    train, trials 1-2, 4-5, 7: waits for free resources
    train/3: exited with code 1
    evaluate/0: what it waits for can never be
    ");
}

#[test]
fn reasons_that_are_not_shown_are_counted() {
    let one = |index| trial(index, State::Failed, &format!("exited after {index} s"));
    let shown = |trials: u32| {
        let lines = reasons::reasons(&status(vec![task("train", (0..trials).map(one).collect())]));
        (lines.len(), lines.last().cloned().unwrap_or_default())
    };
    assert_eq!(shown(10), (10, "train/9: exited after 9 s".to_owned()));
    assert_eq!(shown(11), (11, "… and 1 more reason; `--json` shows all".to_owned()));
    assert_eq!(shown(30), (11, "… and 20 more reasons; `--json` shows all".to_owned()));
}
