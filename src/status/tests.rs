//! Stories: what each source says, and what a person is expected.

mod forgotten;
mod local_runner;
mod odd_answers;
mod parents;
mod questions;
mod runs;
mod silence;
mod waiting;
mod wrapped;

use nemo_core::rundir::ExperimentDir;
use nemo_core::rundir::{AttemptEnd, AttemptStart, Cause, Next};
use nemo_core::scope::{Scope, TrialSet};

use super::*;
use crate::experiment::{Dependency, On, Outside, OutsideDependency, SlurmExecutor};
use crate::journal::Event;
use crate::plan::{sample_experiment, sample_task};
use crate::process::ProcessId;
use crate::slurm::IndexSet;
use crate::slurm::JobId;
use crate::slurm::parse::{account, queue};

/// `prepare` is array 7 with one trial, `train` array 8 with three after it.
fn stored() -> Stored {
    let tasks =
        vec![sample_task("prepare", 1, 0, &[]), sample_task("train", 3, 0, &[("prepare", On::Ok)])];
    let mut experiment = sample_experiment(tasks);
    experiment.executors.insert("local".to_owned(), Executor::Slurm(SlurmExecutor::default()));
    let intended = |task: &str, trials| Event::Intended {
        token: format!("sample-00000100.{task}.0"),
        task: task.to_owned(),
        array: 0,
        offset: 0,
        trials: IndexSet::below(trials),
        time: 0.0,
    };
    let submitted = |task: &str, id| Event::Submitted {
        token: format!("sample-00000100.{task}.0"),
        slurm_job: JobId(id),
        time: 0.0,
    };
    Stored {
        damage: None,
        id: "sample-00000100".parse().unwrap(),
        dir: ExperimentDir("/sample".into()),
        experiment,
        journal: vec![
            intended("prepare", 1),
            submitted("prepare", 7),
            intended("train", 3),
            submitted("train", 8),
            Event::Complete { generation: 0, time: 0.0 },
        ],
    }
}

fn sources(stored: &Stored) -> StatusInputs<'_> {
    StatusInputs {
        params: Vec::new(),
        stored,
        submitting: false,
        queue: QueryResult::Rows(Vec::new()),
        accounts: QueryResult::Rows(Vec::new()),
        files: BTreeMap::new(),
        requests: Vec::new(),
        damaged_requests: Vec::new(),
        lost_outside: None,
        runner: RunnerView { records: Vec::new(), liveness: None, rebooted: false, damage: None },
        earlier: RememberedStates::default(),
        now: 1000.0,
        asked: f64::MAX,
    }
}

/// Rows of `squeue`: `id|state|reason` and, where it was put back into the queue, `|times`, as it prints them for us.
fn queue_rows(rows: &str) -> QueryResult<QueueRow> {
    let delimiter = char::from(queue::DELIMITER).to_string();
    let mut text = String::new();
    for row in rows.split(' ').filter(|row| !row.is_empty()) {
        let parts: Vec<&str> = row.split('|').collect();
        let ([id, state, reason], restarts) = match parts[..] {
            [id, state, reason] => ([id, state, reason], "0"),
            [id, state, reason, restarts] => ([id, state, reason], restarts),
            _ => panic!("{row}"),
        };
        let fields = [id, state, "100", restarts, reason];
        text.push_str(&fields.join(&delimiter));
        text.push_str(&delimiter);
        text.push('\n');
    }
    let parsed = queue::parse(text.as_bytes());
    assert_eq!(parsed.unread, []);
    QueryResult::Rows(parsed.rows)
}

/// Rows of `sacct`: `id|state|start|end` and, where it is not `0:0`, `|exit`. What ends as it starts had no node.
fn account_rows(rows: &str) -> QueryResult<AccountRow> {
    let delimiter = char::from(queue::DELIMITER).to_string();
    let mut text = String::new();
    for row in rows.split(' ').filter(|row| !row.is_empty()) {
        let parts: Vec<&str> = row.split('|').collect();
        let ([id, state, start, end], exit) = match parts[..] {
            [id, state, start, end] => ([id, state, start, end], "0:0"),
            [id, state, start, end, exit] => ([id, state, start, end], exit),
            _ => panic!("{row}"),
        };
        let state = state.replace('+', " by ");
        let nodes = if start == end { "None assigned" } else { "n1" };
        let fields = [id, &state, exit, start, start, end, nodes];
        text.push_str(&fields.join(&delimiter));
        text.push_str(&delimiter);
        text.push('\n');
    }
    let parsed = account::parse(text.as_bytes());
    assert_eq!(parsed.unread, []);
    QueryResult::Rows(parsed.rows)
}

fn start(attempt: u32, time: f64) -> AttemptRecord {
    let this = ProcessId::current();
    AttemptRecord::Start(AttemptStart {
        attempt,
        slurm_job: Some("8_0".to_owned()),
        restarts: attempt,
        process: ProcessId { node: "n1".to_owned(), ..this },
        time,
        resume_step: None,
        began: None,
    })
}

fn end(attempt: u32, time: f64, cause: Cause, next: Next) -> AttemptRecord {
    AttemptRecord::End(AttemptEnd {
        attempt,
        time,
        cause,
        exit_code: Some(0),
        signal: None,
        step: Some(10),
        checkpoint_step: Some(10),
        next,
        reason: Some("because".to_owned()),
        stopped: None,
        saving: None,
    })
}

fn earlier(state: State, certainty: Certainty) -> RememberedState {
    RememberedState { state, reason: None, certainty }
}

/// The first trial of `train`: `state: reason [causes of its attempts]`; `state?` where an end is not yet certain.
fn described(sources: &StatusInputs<'_>) -> String {
    let status = join(sources);
    let trial = &status.tasks[1].trials[0];
    let is_certain = trial.is_final() || !trial.state.is_final();
    let reason = trial.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let plain =
        reason.rsplit_once("not yet certain").map(|(plain, _)| plain.trim_end_matches("; "));
    let reason = if is_certain { &reason } else { plain.unwrap_or(&reason).trim_end_matches(": ") };
    let causes: Vec<String> = trial
        .attempts
        .iter()
        .map(|attempt| attempt.cause.map_or_else(|| "-".to_owned(), |cause| format!("{cause:?}")))
        .collect();
    let doubt = if is_certain { "" } else { "?" };
    format!("{}{doubt}{reason} [{}]", trial.state.as_str(), causes.join(" "))
}

#[track_caller]
fn check(queue: &str, accounts: &str, records: &[AttemptRecord], expected: &str) {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows(queue);
    sources.accounts = account_rows(accounts);
    let files = TrialFiles { attempts: records.to_vec(), ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    assert_eq!(described(&sources), expected);
}

#[test]
fn the_queue_tells_what_is_to_come() {
    check("8_[0-2]|PENDING|Dependency", "", &[], "pending: waits for another task []");
    check(
        "8_[0-2%2]|PENDING|Priority",
        "",
        &[],
        "pending: waits for its turn: other jobs come first []",
    );
    check("8_0|RUNNING|None", "", &[start(0, 100.0)], "running [-]");
    check("8_0|CONFIGURING|None", "", &[], "running []");
    check("8_0|COMPLETING|None", "", &[start(0, 100.0)], "running [-]");
    check(
        "8_[0-2]|PENDING|DependencyNeverSatisfied",
        "",
        &[],
        "blocked?: its dependency can never be satisfied []",
    );
    check("8_0|BRAND_NEW|None", "", &[], "unknown: Slurm says `BRAND_NEW` []");
    // Its requeue comes first, or is under way.
    check("8_0|EXPEDITING|None", "", &[start(0, 100.0)], "preempted [NodeFailure]");
    check("8_0|REQUEUED|None", "", &[start(0, 100.0)], "preempted [NodeFailure]");
    let again = [start(0, 100.0), end(0, 150.0, Cause::Preempted, Next::Requeue)];
    check(
        "8_0|PENDING|BeginTime",
        "",
        &again,
        "preempted: waits a while before it starts again [Preempted]",
    );
    check("8_0|PENDING|BeginTime", "", &[], "pending: waits for the time at which it may start []");
    check("8_0|PENDING|Resources", "", &[], "pending: waits for free resources []");
    check(
        "8_0|PENDING|AssocGrpCPUMinutesLimit",
        "",
        &[],
        "pending: waits, since the time that its account may use is spent: another account starts sooner, or ask \
         the site for more (AssocGrpCPUMinutesLimit) []",
    );
    check("8_0|PENDING|BrandNew", "", &[], "pending: waits (BrandNew) []");
    let just_now = [start(0, 100.0), end(0, 950.0, Cause::Preempted, Next::Requeue)];
    check("8_0|RUNNING|None", "", &just_now, "preempted [Preempted]");
}

#[test]
fn a_run_that_slurm_shows_long_after_its_end_is_requeued() {
    let ended = [start(0, 100.0), end(0, 150.0, Cause::Preempted, Next::Requeue)];
    let told = "preempted: has ended, but Slurm still shows that run: `nemo-slurm poll` requeues it [Preempted]";
    check("8_0|RUNNING|None", "", &ended, told);
    // It was put into the queue after that end (its row says 100): its harness has not begun yet.
    let later = [start(0, 50.0), end(0, 99.0, Cause::Preempted, Next::Requeue)];
    check("8_0|RUNNING|None", "", &later, "preempted [Preempted]");
    assert_eq!(lingering_run(&ended, 460.0), Some(0));
    assert_eq!(lingering_run(&ended, 440.0), None, "its harness may still try");
    let done = [start(0, 100.0), end(0, 150.0, Cause::Completed, Next::Done)];
    assert_eq!(lingering_run(&done, 1000.0), None);
    let again = [ended[0].clone(), ended[1].clone(), start(1, 200.0)];
    assert_eq!(lingering_run(&again, 1000.0), None);
    assert_eq!(lingering_run(&[], 1000.0), None);
}

#[test]
fn the_harness_tells_how_it_ended() {
    let ended = |cause, next| [start(0, 100.0), end(0, 150.0, cause, next)];
    check("8_0|COMPLETING|None", "", &ended(Cause::Completed, Next::Done), "completed [Completed]");
    check("", "", &ended(Cause::Completed, Next::Done), "completed [Completed]");
    check(
        "",
        "8_0|FAILED|100|150",
        &ended(Cause::Failed, Next::Failed),
        "failed: because [Failed]",
    );
    check(
        "",
        "8_0|COMPLETED|100|150",
        &ended(Cause::Cancelled, Next::Cancelled),
        "cancelled: because [Cancelled]",
    );
    check("", "", &ended(Cause::TimeLimit, Next::Timeout), "timeout: because [TimeLimit]");
    check(
        "",
        "8_0|COMPLETED|100|150",
        &ended(Cause::Preempted, Next::Requeue),
        "preempted: could not be requeued, and Slurm no longer knows its job: `nemo-slurm poll` submits it again once two answers agree, at least 5 minutes apart [Preempted]",
    );
}

#[test]
fn a_job_that_completed_is_no_trial_that_is_done() {
    let why = "unknown: Slurm says that the job completed, but the harness left no record that the trial is done";
    check("", "8_0|COMPLETED|100|150", &[start(0, 100.0)], &format!("{why} [Completed]"));
    check("", "8_0|COMPLETED|100|150", &[], &format!("{why} [Completed]"));
}

#[test]
fn an_attempt_that_another_followed_does_not_run() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_0|RUNNING|None");
    let attempts = vec![start(0, 100.0), start(1, 200.0)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    let page = crate::report::Page { now: 0.0, width: None, colour: false };
    let table = crate::report::attempts_table(&join(&sources), &page);
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert!(rows[0].contains("node failure") && rows[1].contains("running"), "{table}");
}

#[test]
fn where_the_harness_could_not_write_slurm_tells() {
    let killed = [start(0, 100.0)];
    check("", "8_0|OUT_OF_MEMORY|100|150", &killed, "failed?: ran out of memory [OutOfMemory]");
    check("", "8_0|CANCELLED+1000|100|150", &killed, "cancelled? [Cancelled]");
    check(
        "8_0|PENDING|BeginTime",
        "8_0|NODE_FAIL|100|150",
        &killed,
        "preempted: waits a while before it starts again [NodeFailure]",
    );
    check(
        "",
        "8_0|TIMEOUT|100|150",
        &killed,
        "timeout?: reached Slurm's time limit and was not requeued [TimeLimit]",
    );
    // The second attempt runs; the first one left no end, and accounting shows its row.
    let twice = [start(0, 100.0), start(1, 300.0)];
    check(
        "8_0|RUNNING|None",
        "8_0|NODE_FAIL|100|150 8_0|RUNNING|300|Unknown",
        &twice,
        "running [NodeFailure -]",
    );
    // Slurm started the job, but the harness never ran.
    check(
        "8_0|RUNNING|None",
        "8_0|NODE_FAIL|10|50 8_0|RUNNING|100|Unknown",
        &killed,
        "running [NodeFailure -]",
    );
}

#[test]
fn an_array_that_was_cancelled_as_one_has_one_row() {
    check("8|CANCELLED|None", "", &[], "cancelled? []");
    check("", "8|CANCELLED+0|Unknown|150", &[], "cancelled? []");
    check("8|CANCELLED|None 8_0|RUNNING|None", "", &[], "running []");
}

#[test]
fn an_attempt_has_what_its_log_policies_saw_and_the_nodes_it_excluded() {
    let stored = stored();
    let mut sources = sources(&stored);
    let label = |attempt, name: &str| AttemptRecord::Label {
        attempt,
        name: name.to_owned(),
        line: "a line".to_owned(),
        time: 120.0,
    };
    let exclude = AttemptRecord::ExcludeNode {
        attempt: 1,
        node: "n1".to_owned(),
        reason: "why".to_owned(),
        left: true,
        time: 310.0,
    };
    let attempts =
        vec![start(0, 100.0), label(0, "ecc"), start(1, 300.0), exclude, label(7, "lost")];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    let status = serde_json::to_value(join(&sources)).unwrap();
    let attempts = &status["tasks"][1]["trials"][0]["attempts"];
    let label = serde_json::json!([{ "name": "ecc", "line": "a line" }]);
    let node = serde_json::json!([{ "node": "n1", "reason": "why", "left": true }]);
    let empty = serde_json::json!([]);
    assert_eq!((&attempts[0]["labels"], &attempts[0]["excluded_nodes"]), (&label, &empty));
    assert_eq!((&attempts[1]["labels"], &attempts[1]["excluded_nodes"]), (&empty, &node));
}

#[test]
fn a_failed_trial_is_the_best_only_among_failed_ones() {
    let task = Task { metric: Some("loss".to_owned()), ..sample_task("train", 3, 0, &[]) };
    let with = |index, state, loss: f64| {
        let metrics = serde_json::Map::from_iter([("loss".to_owned(), loss.into())]);
        TrialStatus { metrics, ..sample_trial(index, state) }
    };
    let mut trials = [
        with(0, State::Failed, 0.1),
        with(1, State::Completed, 0.3),
        with(2, State::Cancelled, 0.2),
    ];
    assert_eq!(best_trial(&task, &trials), Some(2));
    for trial in &mut trials {
        trial.state = State::Failed;
    }
    assert_eq!(best_trial(&task, &trials), Some(0));
}

#[test]
fn the_step_that_was_told_last_stays_after_the_end() {
    let told = end(1, 300.0, Cause::Completed, Next::Done);
    let records = [start(0, 100.0), end(0, 200.0, Cause::Failed, Next::Restart), start(1, 201.0)];
    assert_eq!(step_at_end(&records), None, "the attempt that runs tells its own");
    assert_eq!(step_at_end(&[&records[..], &[told]].concat()), Some(10));
    assert_eq!(step_at_end(&[]), None);
}

#[test]
fn what_a_retry_has_set_aside_is_saved_no_more() {
    let saved = |number, step| AttemptStatus { checkpoint_step: step, ..sample_attempt(number) };
    let attempts = [saved(0, Some(30)), saved(1, Some(12))];
    let set_aside = |from_step| AttemptRecord::SetAside {
        attempt: 1,
        generation: 1,
        from_step,
        steps: vec![30],
        time: 1.0,
    };
    assert_eq!(saved_step(&[], &attempts), Some(30));
    assert_eq!(saved_step(&[set_aside(Some(10))], &attempts), Some(12));
    assert_eq!(saved_step(&[set_aside(Some(10))], &attempts[..1]), Some(10));
    assert_eq!(saved_step(&[set_aside(None)], &attempts[..1]), None);
}
