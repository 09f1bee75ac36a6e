//! What a person sees of a status.

use nemo_core::rundir::Cause;
use serde_json::json;

use super::*;
use crate::experiment::Goal;
use crate::slurm::JobId;
use crate::status::{
    AttemptStatus, ExcludedNode, Label, State, Status, TaskStatus, TrialStatus, sample_status,
    sample_task, sample_trial,
};
use crate::summary::{BestTrial, ExperimentBrief};

/// An experiment of these tasks, submitted a minute ago.
fn status(tasks: Vec<TaskStatus>) -> Status {
    sample_status(State::Running, tasks)
}

fn trial(index: u32, state: State, reason: &str) -> TrialStatus {
    let reason = (!reason.is_empty()).then(|| reason.to_owned());
    TrialStatus { reason, params: Some(serde_json::Map::new()), ..sample_trial(index, state) }
}

fn attempt(number: u32, cause: Option<Cause>, reason: &str) -> AttemptStatus {
    let start = 1000.0 + f64::from(number) * 14_600.0;
    AttemptStatus {
        number: Some(number),
        slurm_job: Some("418093_3".to_owned()),
        node: Some("gpu-node-017".to_owned()),
        start: Some(start),
        end: cause.map(|_| start + 14_400.0),
        cause,
        exit_code: None,
        signal: None,
        resume_step: number.checked_sub(1).map(|n| u64::from(n + 1) * 12_000),
        checkpoint_step: Some(u64::from(number + 1) * 12_000),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        labels: Vec::new(),
        excluded_nodes: Vec::new(),
    }
}

/// A terminal without colour.
fn page(width: usize) -> Page {
    Page { now: 160.0, width: (width > 0).then_some(width), colour: false }
}

/// A sweep on Slurm with long names, of which one trial was interrupted and one crashed.
fn sweep() -> Status {
    let crash = "the program exited with code 1 after 4 h; last line of its error output: \
                 `RuntimeError: CUDA error: an illegal memory access was encountered, compile with \
                 TORCH_USE_CUDA_DSA`";
    let mut interrupted = trial(2, State::Running, "");
    interrupted.attempts = (0..5)
        .map(|number| attempt(number, Some(Cause::TimeLimit), "the segment's time was over: saved"))
        .chain([attempt(5, Some(Cause::Preempted), "preempted: saved"), attempt(6, None, "")])
        .collect();
    let mut crashed = trial(3, State::Failed, crash);
    crashed.attempts = vec![attempt(0, Some(Cause::Failed), crash)];
    let mut done = trial(0, State::Completed, "");
    done.attempts = vec![attempt(0, Some(Cause::Completed), "the program exited with code 0")];
    let waits = trial(1, State::Pending, "waits for free resources");
    let mut trials = vec![done, waits, interrupted, crashed];
    for (trial, rate) in trials.iter_mut().zip([0.1, 0.03, 0.01, 0.003]) {
        trial.params = Some(object(json!({ "lr": rate, "width": 128, "schedule": "cosine" })));
        trial.slurm_job = Some(format!("418093_{}", trial.index));
        if trial.state != State::Pending {
            trial.step = Some(84_000);
            trial.metrics = object(json!({ "train_loss": 0.25, "validation_accuracy": 0.9125 }));
        }
    }
    let mut train = sample_task("pretrain-large", trials);
    train.best = Some(2);
    status(vec![sample_task("prepare", vec![trial(0, State::Completed, "")]), train])
}

fn object(value: serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(object) => object,
        _ => serde_json::Map::new(),
    }
}

#[track_caller]
fn fits(text: &str, width: usize) {
    let widest = text.lines().map(fit::length).max().unwrap_or(0);
    assert!(widest <= width, "{widest} > {width}:\n{text}");
}

#[test]
fn a_status_fits_the_terminal() {
    let sweep = sweep();
    insta::assert_snapshot!(status_table(&sweep, &page(80)), @"
    sample-00000100 is running (submitted 1m 0s ago)
    TASK            STATE      TRIALS
    prepare         completed  1       1 completed
    pretrain-large  running    4       1 running, 1 pending, 1 completed, 1 failed
    prepare
    TRIAL  STATE
    0      completed
    pretrain-large
    TRIAL  STATE      PARAMETERS  STEP   METRICS                    ATTEMPTS
    0      completed  lr=0.1      84000  train_loss=0.25            1
                                         validatio…accuracy=0.9125
    1      pending    lr=0.03
    2      running    lr=0.01     84000  train_loss=0.25            7 (5 time   best
                                         validatio…accuracy=0.9125  limit, 1
                                                                    preempted)
    3      failed     lr=0.003    84000  train_loss=0.25            1 (failed)
                                         validatio…accuracy=0.9125
    pretrain-large/1: waits for free resources
    pretrain-large/3: the program exited with code 1 after 4 h; last line of its
      error output: `RuntimeError: CUDA error: an illegal memory access was
      encountered, compile with TORCH_USE_CUDA_DSA`
    ");
    insta::assert_snapshot!(status_table(&sweep, &page(0)), @"
    sample-00000100 is running (submitted 1m 0s ago)
    TASK            STATE      TRIALS
    prepare         completed  1       1 completed
    pretrain-large  running    4       1 running, 1 pending, 1 completed, 1 failed
    prepare
    TRIAL  STATE
    0      completed
    pretrain-large
    TRIAL  STATE      PARAMETERS  STEP   METRICS                                     ATTEMPTS                       JOB
    0      completed  lr=0.1      84000  train_loss=0.25 validation_accuracy=0.9125  1                              418093_0
    1      pending    lr=0.03                                                                                       418093_1
    2      running    lr=0.01     84000  train_loss=0.25 validation_accuracy=0.9125  7 (5 time limit, 1 preempted)  418093_2  best
    3      failed     lr=0.003    84000  train_loss=0.25 validation_accuracy=0.9125  1 (failed)                     418093_3
    pretrain-large/1: waits for free resources
    pretrain-large/3: the program exited with code 1 after 4 h; last line of its error output: `RuntimeError: CUDA error: an illegal memory access was encountered, compile with TORCH_USE_CUDA_DSA`
    ");
    for width in 60..=160 {
        fits(&status_table(&sweep, &page(width)), width);
    }
}

#[test]
fn an_only_trial_is_shown_too() {
    let mut measured = trial(0, State::Completed, "");
    measured.metrics = object(json!({ "loss": 0.25 }));
    let mut stepping = trial(0, State::Running, "");
    stepping.step = Some(120);
    let silent = trial(0, State::Pending, "");
    let tasks = vec![
        sample_task("measured", vec![measured]),
        sample_task("stepping", vec![stepping]),
        sample_task("silent", vec![silent]),
    ];
    insta::assert_snapshot!(status_table(&status(tasks), &page(80)), @"
    sample-00000100 is running (submitted 1m 0s ago)
    TASK      STATE      TRIALS
    measured  completed  1       1 completed
    stepping  running    1       1 running
    silent    pending    1       1 pending
    measured
    TRIAL  STATE      METRICS
    0      completed  loss=0.25
    stepping
    TRIAL  STATE    STEP
    0      running  120
    silent
    TRIAL  STATE
    0      pending
    ");
}

#[test]
fn attempts_fit_the_terminal() {
    let sweep = sweep();
    insta::assert_snapshot!(attempts_table(&sweep, &page(80)), @"
    TRIAL             ATTEMPT  CAUSE       RAN    NODE          FROM   SAVED
    pretrain-large/0  0        completed   4h 0m  gpu-node-017         12000
    pretrain-large/2  0        time limit  4h 0m  gpu-node-017         12000
        the segment's time was over: saved
    pretrain-large/2  1        time limit  4h 0m  gpu-node-017  12000  24000
        the segment's time was over: saved
    pretrain-large/2  2        time limit  4h 0m  gpu-node-017  24000  36000
        the segment's time was over: saved
    pretrain-large/2  3        time limit  4h 0m  gpu-node-017  36000  48000
        the segment's time was over: saved
    pretrain-large/2  4        time limit  4h 0m  gpu-node-017  48000  60000
        the segment's time was over: saved
    pretrain-large/2  5        preempted   4h 0m  gpu-node-017  60000  72000
        preempted: saved
    pretrain-large/2  6        running            gpu-node-017  72000  84000
    pretrain-large/3  0        failed      4h 0m  gpu-node-017         12000
        the program exited with code 1 after 4 h; last line of its error output:
          `RuntimeError: CUDA error: an illegal memory access was encountered,
          compile with TORCH_USE_CUDA_DSA`
    ");
    insta::assert_snapshot!(attempts_table(&sweep, &page(140)), @"
    TRIAL             ATTEMPT  CAUSE       RAN    NODE          FROM   SAVED  JOB       WHAT HAPPENED
    pretrain-large/0  0        completed   4h 0m  gpu-node-017         12000  418093_3  the program exited with code 0
    pretrain-large/2  0        time limit  4h 0m  gpu-node-017         12000  418093_3  the segment's time was over: saved
    pretrain-large/2  1        time limit  4h 0m  gpu-node-017  12000  24000  418093_3  the segment's time was over: saved
    pretrain-large/2  2        time limit  4h 0m  gpu-node-017  24000  36000  418093_3  the segment's time was over: saved
    pretrain-large/2  3        time limit  4h 0m  gpu-node-017  36000  48000  418093_3  the segment's time was over: saved
    pretrain-large/2  4        time limit  4h 0m  gpu-node-017  48000  60000  418093_3  the segment's time was over: saved
    pretrain-large/2  5        preempted   4h 0m  gpu-node-017  60000  72000  418093_3  preempted: saved
    pretrain-large/2  6        running            gpu-node-017  72000  84000  418093_3
    pretrain-large/3  0        failed      4h 0m  gpu-node-017         12000  418093_3  the program exited with code 1 after 4 h; last line of
                                                                                        its error output: `RuntimeError: CUDA error: an illegal
                                                                                        memory access was encountered, compile with
                                                                                        TORCH_USE_CUDA_DSA`
    ");
    for width in 60..=160 {
        fits(&attempts_table(&sweep, &page(width)), width);
    }
}

#[test]
fn an_attempt_that_saved_nothing_shows_nothing_as_saved() {
    let mut idle = attempt(1, Some(Cause::Preempted), "");
    idle.checkpoint_step = idle.resume_step;
    let mut trial = trial(0, State::Running, "");
    trial.attempts = vec![attempt(0, Some(Cause::TimeLimit), ""), idle, attempt(2, None, "")];
    insta::assert_snapshot!(attempts_table(&status(vec![sample_task("train", vec![trial])]), &page(80)), @"
    TRIAL    ATTEMPT  CAUSE       RAN    NODE          FROM   SAVED  JOB
    train/0  0        time limit  4h 0m  gpu-node-017         12000  418093_3
    train/0  1        preempted   4h 0m  gpu-node-017  12000         418093_3
    train/0  2        running            gpu-node-017  24000  36000  418093_3
    ");
}

#[test]
fn attempts_tell_of_log_policies_and_nodes_that_are_left() {
    let excluded = |reason: &str, left| ExcludedNode {
        node: "gpu-node-017".to_owned(),
        reason: reason.to_owned(),
        left,
    };
    let mut first = attempt(0, Some(Cause::Failed), "the program was killed by signal 7 (SIGBUS)");
    let line = "NVRM: Xid 63: uncorrectable ECC error".to_owned();
    first.labels = vec![Label { name: "ECC error".to_owned(), line }];
    first.excluded_nodes = vec![excluded("log policy `ECC error`", false)];
    let mut second = attempt(1, Some(Cause::Restart), "");
    second.excluded_nodes = vec![excluded("this node failed the trial before", true)];
    let mut third = attempt(2, Some(Cause::Completed), "the program exited with code 0");
    third.labels = vec![Label { name: "slow".to_owned(), line: "input is slow".to_owned() }];
    let mut trial = trial(0, State::Completed, "");
    trial.attempts = vec![first, second, third];
    let status = status(vec![sample_task("train", vec![trial])]);
    insta::assert_snapshot!(attempts_table(&status, &page(80)), @"
    TRIAL    ATTEMPT  CAUSE             RAN    NODE          FROM   SAVED  JOB
    train/0  0        failed            4h 0m  gpu-node-017         12000  418093_3
        the program was killed by signal 7 (SIGBUS)
        log policy `ECC error` matched: NVRM: Xid 63: uncorrectable ECC error
        node gpu-node-017 is not used again: log policy `ECC error`
    train/0  1        asked to restart  4h 0m  gpu-node-017  12000  24000  418093_3
        left node gpu-node-017 without starting anything: this node failed the trial
          before
    train/0  2        completed         4h 0m  gpu-node-017  24000  36000  418093_3
        log policy `slow` matched: input is slow
    ");
    let wide = attempts_table(&status, &page(0));
    assert!(wide.contains("(SIGBUS); log policy `ECC error` matched: NVRM"), "{wide}");
}

/// What was looked up 40 s ago.
fn brief() -> ExperimentBrief {
    let best = BestTrial {
        task: "train".to_owned(),
        trial: 3,
        metric: "loss".to_owned(),
        value: 0.123_456,
        goal: Goal::Min,
    };
    ExperimentBrief {
        state: State::Running,
        reason: None,
        as_of: 120.0,
        trials: [(State::Completed, 30), (State::Running, 2)].into(),
        best: Some(best),
        tags: Vec::new(),
        ended: None,
        archived: false,
        slurm_job: None,
    }
}

#[test]
fn in_a_list_ids_stay_whole() {
    let short = "sample-00000100";
    let long = "a-rather-long-experiment-name-1rsq9thy";
    let line = |id: &str, row: Option<ExperimentBrief>| ListLine {
        id: id.to_owned(),
        created: 100,
        row,
        dir: format!("/home/ada/.nemo_slurm/experiments/{id}"),
    };
    let list = [line(short, Some(brief())), line(long, None)];
    insta::assert_snapshot!(list_table(&list, &page(80)), @"
    EXPERIMENT                              STATE    TRIALS         BEST
    sample-00000100                         running  2 running, 30  loss=0.1235
                                                     completed
    a-rather-long-experiment-name-1rsq9thy  damaged
    No room for SUBMITTED, LOOKED AT, FOLDER; --json has all.
    ");
    insta::assert_snapshot!(list_table(&list, &page(0)), @"
    EXPERIMENT                              STATE    TRIALS                   BEST         SUBMITTED  LOOKED AT  FOLDER
    sample-00000100                         running  2 running, 30 completed  loss=0.1235  1m ago     40s ago    /home/ada/.nemo_slurm/experiments/sample-00000100
    a-rather-long-experiment-name-1rsq9thy  damaged                                        1m ago                /home/ada/.nemo_slurm/experiments/a-rather-long-experiment-name-1rsq9thy
    ");
}

/// The best value is what a researcher looks for: all else but the state gives way first.
#[test]
fn a_list_keeps_the_best_value_at_80_and_100_columns() {
    let tags = vec!["paper".to_owned(), "draft".to_owned()];
    let trials = [(State::Completed, 30), (State::Running, 2), (State::Failed, 4)].into();
    let line = ListLine {
        id: "digits-1rsq9thy".to_owned(),
        created: 100,
        row: Some(ExperimentBrief { trials, tags, ..brief() }),
        dir: "/home/ada/.nemo_slurm/experiments/digits-1rsq9thy".to_owned(),
    };
    insta::assert_snapshot!(list_table(std::slice::from_ref(&line), &page(80)), @"
    EXPERIMENT       STATE    TRIALS                      BEST         LOOKED AT
    digits-1rsq9thy  running  2 running, 30 completed, 4  loss=0.1235  40s ago
                              failed
    No room for TAGS, SUBMITTED, FOLDER; --json has all.
    ");
    insta::assert_snapshot!(list_table(&[line], &page(100)), @"
    EXPERIMENT       STATE    TRIALS                             BEST         SUBMITTED  LOOKED AT
    digits-1rsq9thy  running  2 running, 30 completed, 4 failed  loss=0.1235  1m ago     40s ago
    No room for TAGS, FOLDER; --json has all.
    ");
}

#[test]
fn a_list_of_wrapped_jobs_shows_the_number_to_type() {
    let row = ExperimentBrief { slurm_job: Some(JobId(4711)), best: None, ..brief() };
    let line = ListLine {
        id: "old-00000100".to_owned(),
        created: 100,
        row: Some(row),
        dir: "/home/ada/jobs/old-00000100".to_owned(),
    };
    insta::assert_snapshot!(list_table(&[line], &page(72)), @"
    EXPERIMENT    JOB   STATE    TRIALS                   LOOKED AT
    old-00000100  4711  running  2 running, 30 completed  40s ago
    No room for SUBMITTED, FOLDER; --json has all.
    ");
}

#[test]
fn a_reason_names_its_trials() {
    let waits = "waits for free resources";
    let reasons = ["", waits, waits, "exited with code 1", waits, waits, "", waits];
    let trials = (0..).zip(reasons).map(|(index, why)| trial(index, State::Pending, why)).collect();
    let only = trial(0, State::Blocked, "its dependency can never be satisfied");
    let status = status(vec![sample_task("train", trials), sample_task("evaluate", vec![only])]);
    insta::assert_snapshot!(reasons::reasons(&status, &page(0)).join("\n"), @"
    train, trials 1-2, 4-5, 7: waits for free resources
    train/3: exited with code 1
    evaluate/0: its dependency can never be satisfied
    ");
}

#[test]
fn reasons_that_are_not_shown_are_counted() {
    let one = |index| trial(index, State::Failed, &format!("exited after {index} s"));
    let shown = |trials: u32| {
        let lines = reasons::reasons(
            &status(vec![sample_task("train", (0..trials).map(one).collect())]),
            &page(0),
        );
        (lines.len(), lines.last().cloned().unwrap_or_default())
    };
    assert_eq!(shown(10), (10, "train/9: exited after 9 s".to_owned()));
    assert_eq!(shown(11), (11, "… and 1 more reason; `--json` shows all".to_owned()));
    assert_eq!(shown(30), (11, "… and 20 more reasons; `--json` shows all".to_owned()));
}

#[test]
fn counts_of_a_list_are_broken_only_where_no_column_can_be_left_out() {
    let line = |trials: &[(State, u32)]| ListLine {
        id: "resnet50-imagenet-sweep-1sfe7nrf".to_owned(),
        created: 100,
        row: Some(ExperimentBrief {
            state: State::Running,
            reason: None,
            as_of: 160.0,
            trials: trials.iter().copied().collect(),
            best: None,
            tags: Vec::new(),
            ended: None,
            archived: false,
            slurm_job: None,
        }),
        dir: "/home/ada/.nemo_slurm/experiments/resnet50-imagenet-sweep-1sfe7nrf".to_owned(),
    };
    let two = [(State::Completed, 250), (State::Failed, 12)];
    insta::assert_snapshot!(list_table(&[line(&two)], &page(80)), @"
    EXPERIMENT                        STATE    TRIALS                    SUBMITTED
    resnet50-imagenet-sweep-1sfe7nrf  running  250 completed, 12 failed  1m ago
    No room for FOLDER; --json has all.
    ");
    insta::assert_snapshot!(list_table(&[line(&two)], &page(72)), @"
    EXPERIMENT                        STATE    TRIALS
    resnet50-imagenet-sweep-1sfe7nrf  running  250 completed, 12 failed
    No room for SUBMITTED, FOLDER; --json has all.
    ");
    insta::assert_snapshot!(list_table(&[line(&two)], &page(60)), @"
    EXPERIMENT                        STATE    TRIALS
    resnet50-imagenet-sweep-1sfe7nrf  running  250 completed, 12
                                               failed
    No room for SUBMITTED, FOLDER; --json has all.
    ");
}
