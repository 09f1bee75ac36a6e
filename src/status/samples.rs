//! Statuses for tests: of a trial, a task and an experiment of which nothing is known but their states.

use std::collections::BTreeMap;

use super::{
    AttemptStatus, Certainty, Counters, ExperimentStatus, State, Status, TaskStatus, TrialStatus,
    recount,
};

pub(crate) fn sample_trial(index: u32, state: State) -> TrialStatus {
    TrialStatus {
        index,
        state,
        reason: None,
        certainty: Certainty::Open,
        remedy: None,
        params: None,
        slurm_job: None,
        step: None,
        progress: None,
        message: None,
        labels: Vec::new(),
        metrics: serde_json::Map::new(),
        error: None,
        counters: Counters::default(),
        attempts: Vec::new(),
    }
}

/// An attempt that began, and of which nothing else is known.
pub(crate) fn sample_attempt(number: u32) -> AttemptStatus {
    AttemptStatus {
        number: Some(number),
        slurm_job: None,
        node: Some("n1".to_owned()),
        start: Some(100.0),
        end: None,
        cause: None,
        exit_code: None,
        signal: None,
        resume_step: None,
        checkpoint_step: None,
        reason: None,
        labels: Vec::new(),
        excluded_nodes: Vec::new(),
    }
}

/// A task whose state is that of its trials.
pub(crate) fn sample_task(name: &str, trials: Vec<TrialStatus>) -> TaskStatus {
    let mut task = TaskStatus {
        name: name.to_owned(),
        state: State::Pending,
        counts: BTreeMap::new(),
        executor: "here".to_owned(),
        dir: format!("/x/tasks/{name}"),
        start: None,
        end: None,
        best: None,
        trials,
    };
    recount(&mut task);
    task
}

/// An experiment that was submitted at 100 s.
pub(crate) fn sample_status(state: State, tasks: Vec<TaskStatus>) -> Status {
    let experiment = ExperimentStatus {
        id: "sample-00000100".to_owned(),
        name: "sample".to_owned(),
        state,
        reason: None,
        created: 100,
        stale: false,
        dir: "/home/ada/.nemo_slurm/experiments/sample-00000100".to_owned(),
    };
    Status {
        schema: 1,
        experiment,
        tasks,
        warnings: Vec::new(),
        unreported: Vec::new(),
        of_trials: Vec::new(),
    }
}
