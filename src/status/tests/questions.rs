//! When `sacct` is asked: only about what neither the queue nor the folders tell.

use super::*;

/// Whether `sacct` is asked, with these rows in the queue and these records of the first trial of `train`.
#[track_caller]
fn asks(queue: &str, records: &[AttemptRecord], expected: bool) {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows(&format!("7_0|PENDING|Priority 8_[1-2]|PENDING|Priority {queue}"));
    if !records.is_empty() {
        let files = TrialFiles { attempts: records.to_vec(), ..TrialFiles::default() };
        sources.files.insert("train".to_owned(), [(0, files)].into());
    }
    assert_eq!(needs_accounts(&sources), expected, "{queue} {records:?}");
}

fn preempted(attempt: u32) -> [AttemptRecord; 2] {
    let time = 100.0 * f64::from(attempt + 1);
    [start(attempt, time), end(attempt, time + 50.0, Cause::Preempted, Next::Requeue)]
}

#[test]
fn the_accounts_are_not_asked_about_what_waits_or_runs_for_the_first_time() {
    asks("8_0|PENDING|Priority", &[], false);
    asks("8_0|PENDING|Dependency", &[], false);
    asks("8_0|RUNNING|None", &[], false);
    asks("8_0|RUNNING|None", &[start(0, 100.0)], false);
    asks("8_0|COMPLETING|None", &[start(0, 100.0)], false);
}

#[test]
fn the_accounts_are_asked_about_runs_that_left_no_word() {
    asks("8_0|PENDING|BeginTime|1", &[], true);
    asks("8_0|RUNNING|None|1", &[start(1, 200.0)], true);
    asks("8_0|PENDING|BeginTime|1", &preempted(0), false);
    asks("8_0|RUNNING|None|1", &preempted(0), false);
    asks("8_0|RUNNING|None|2", &preempted(0), true);
    asks("8_0|RUNNING|None|2", &[preempted(0), preempted(1)].concat(), false);
    // It was killed, and nobody wrote down how it ended.
    asks("8_0|PENDING|BeginTime|1", &[start(0, 100.0)], true);
    // The next attempt only guessed.
    let guess = AttemptEnd {
        exit_code: None,
        signal: None,
        ..end(0, 150.0, Cause::NodeFailure, Next::Requeue).as_end().unwrap().clone()
    };
    asks(
        "8_0|RUNNING|None|1",
        &[start(0, 100.0), AttemptRecord::End(guess), start(1, 200.0)],
        true,
    );
}

#[test]
fn the_accounts_are_asked_about_what_left_the_queue_without_a_word() {
    asks("", &[], true);
    asks("8_0|CANCELLED|None", &[], true);
    asks("", &[start(0, 100.0)], true);
    asks("", &preempted(0), true);
    let done = [start(0, 100.0), end(0, 150.0, Cause::Completed, Next::Done)];
    asks("", &done, false);
    let later = [start(1, 200.0), end(1, 250.0, Cause::Completed, Next::Done)];
    asks("", &later, true); // of its first run there is no word
    asks("", &[preempted(0), later].concat(), false);
    asks("8_0|COMPLETED|None", &done, false);
}

#[test]
fn the_accounts_are_asked_where_the_queue_tells_too_little() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = QueryResult::Failed("could not be reached".to_owned());
    assert!(needs_accounts(&sources));
    let rows = queue_rows("7_0|PENDING|Priority 8_[0-2]|PENDING|Priority").rows().to_vec();
    sources.queue = QueryResult::Partly(rows.clone(), "1 row can't be read".to_owned());
    assert!(needs_accounts(&sources));
    sources.queue = QueryResult::Rows(rows);
    assert!(!needs_accounts(&sources));
    sources.queue = QueryResult::NotAsked;
    assert!(!needs_accounts(&sources));
}

#[test]
fn what_is_certain_to_be_over_is_not_asked_about() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_[0-2]|PENDING|Priority");
    assert!(needs_accounts(&sources));
    sources.earlier.add("prepare", 0..=0, earlier(State::Cancelled, Certainty::Open));
    assert!(needs_accounts(&sources));
    sources.earlier.add("prepare", 0..=0, earlier(State::Cancelled, Certainty::Final));
    assert!(!needs_accounts(&sources));
}

/// What its job before a retry left, or did not leave, is shown as long as the trial is.
#[test]
fn the_accounts_are_asked_about_the_jobs_before_a_retry() {
    use crate::journal::{RetriedTrials, Retry};
    use crate::plan::{JobArray, Plan};

    let mut stored = stored();
    let trials: IndexSet = "0".parse().unwrap();
    let group = RetriedTrials {
        from_attempt: 1,
        trials: trials.clone(),
        changed: None,
        rule: None,
        advice: None,
    };
    let retry = Retry { trials: [("train".to_owned(), vec![group])].into(), user: None };
    let task = "train".to_owned();
    let array = JobArray {
        task: task.clone(),
        index: 1,
        offset: 0,
        trials: trials.clone(),
        throttle: None,
        after: Vec::new(),
        outside: Vec::new(),
        held: false,
        behind: Vec::new(),
        after_jobs: Vec::new(),
        wrapped: None,
    };
    let plan = Plan { generation: 1, arrays: vec![array] };
    let token = "sample-00000100.train.1".to_owned();
    stored.journal.extend([
        Event::Planned { plan, retry: Some(retry) },
        Event::Intended { token: token.clone(), task, array: 1, offset: 0, trials, time: 0.0 },
        Event::Submitted { token, slurm_job: JobId(9), time: 0.0 },
        Event::Complete { generation: 1, time: 0.0 },
    ]);
    let mut sources = sources(&stored);
    sources.queue =
        queue_rows("7_0|PENDING|Priority 8_[1-2]|PENDING|Priority 9_0|PENDING|Priority");
    assert!(needs_accounts(&sources));
}
