//! Trials that never ran, and whose jobs Slurm has forgotten.

use super::*;
use crate::experiment::{Outside, OutsideDependency};
use crate::plan::{JobArray, OutsideEdge, Plan, Relation};

fn remedies(sources: &StatusInputs<'_>) -> Vec<Option<Remedy>> {
    join(sources).tasks[1].trials.iter().map(|trial| trial.remedy).collect()
}

/// `prepare` is done; Slurm called its job failed.
fn prepared(sources: &mut StatusInputs<'_>) {
    let attempts = vec![start(0, 100.0), end(0, 140.0, Cause::Completed, Next::Done)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("prepare".to_owned(), [(0, files)].into());
}

#[test]
fn what_slurm_took_out_and_forgot_is_submitted_again() {
    let stored = stored();
    let mut sources = sources(&stored);
    prepared(&mut sources);
    sources.accounts = account_rows("7_0|FAILED|100|150 8_[0-2]|CANCELLED|150|150");
    assert_eq!(remedies(&sources), [Some(Remedy::Resubmit); 3]);
    let trials = join(&sources).tasks.swap_remove(1).trials;
    assert!(trials.iter().all(|trial| trial.state == State::Pending && !trial.is_final()));
    // `squeue` still has it, or can't say.
    sources.queue = queue_rows("8_[0-2]|CANCELLED|DependencyNeverSatisfied");
    assert_eq!(remedies(&sources), [Some(Remedy::PutBack); 3]);
    sources.queue = QueryResult::Failed("away".to_owned());
    assert_eq!(remedies(&sources), [None; 3]);
    sources.queue = queue_rows("");
    // Somebody cancelled it, or it is long ago.
    sources.accounts = account_rows("7_0|FAILED|100|150 8_[0-2]|CANCELLED+1000|150|150");
    assert_eq!(remedies(&sources), [None; 3]);
    sources.accounts = account_rows("7_0|FAILED|100|150 8_[0-2]|CANCELLED|150|150");
    sources.now = 1e9;
    assert_eq!(remedies(&sources), [None; 3]);
}

#[test]
fn what_waits_for_a_failure_is_not() {
    let stored = stored();
    let mut sources = sources(&stored);
    let attempts = vec![start(0, 100.0), end(0, 140.0, Cause::Failed, Next::Failed)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("prepare".to_owned(), [(0, files)].into());
    sources.accounts = account_rows("7_0|FAILED|100|150 8_[0-2]|CANCELLED|150|150");
    assert_eq!(remedies(&sources), [None; 3]);
}

#[test]
fn a_lost_array_needs_two_answers_that_agree() {
    let stored = stored();
    let mut sources = sources(&stored);
    prepared(&mut sources);
    sources.accounts = account_rows("7_0|COMPLETED|100|150");
    assert_eq!(remedies(&sources), [None; 3]);
    let certainty = join(&sources).tasks[1].trials[0].certainty;
    assert_eq!(certainty, Certainty::Agreed(1000.0));
    let known = RememberedState { state: State::Unknown, reason: None, certainty };
    sources.earlier.add("train", 0..=2, known);
    sources.now = 1299.0;
    assert_eq!(remedies(&sources), [None; 3]);
    sources.now = 1300.0;
    assert_eq!(remedies(&sources), [Some(Remedy::Resubmit); 3]);
    assert_eq!(join(&sources).tasks[1].trials[0].certainty, certainty, "it is not final");
    // One of it is known: the others were cancelled one by one.
    sources.accounts = account_rows("7_0|COMPLETED|100|150 8_1|RUNNING|150|150");
    assert_eq!(remedies(&sources), [None; 3]);
    // Accounting has no say here, so nothing is known of what was cancelled.
    sources.accounts = QueryResult::Off;
    assert_eq!(remedies(&sources), [None; 3]);
}

/// What Slurm still says of the job before decides nothing.
#[test]
fn the_newest_job_counts() {
    let mut stored = stored();
    let plan = |trials: &str| -> Event {
        let token = "sample-00000100.train.1".to_owned();
        let (task, trials) = ("train".to_owned(), trials.parse().unwrap());
        Event::Intended { token, task, array: 1, offset: 0, trials, time: 0.0 }
    };
    stored.journal.push(plan("1-2"));
    let token = "sample-00000100.train.1".to_owned();
    stored.journal.push(Event::Submitted { token, slurm_job: JobId(9), time: 0.0 });
    let mut sources = sources(&stored);
    prepared(&mut sources);
    sources.accounts = account_rows("7_0|FAILED|100|150 8_[0-2]|CANCELLED|150|150");
    sources.queue =
        queue_rows("9_[1-2]|PENDING|Priority 8_[0-2]|CANCELLED|DependencyNeverSatisfied");
    assert_eq!(remedies(&sources), [Some(Remedy::PutBack), None, None]);
    sources.queue = queue_rows("");
    assert_eq!(remedies(&sources), [Some(Remedy::Resubmit), None, None]);
}

/// It was saved and was to go on, and nobody could requeue it.
fn dropped(sources: &mut StatusInputs<'_>, next: Next) {
    prepared(sources);
    let attempts = vec![start(0, 100.0), end(0, 150.0, Cause::Preempted, next)];
    let files = TrialFiles { attempts, requeue_wanted: true, ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    let row = "8_0|FAILED|100|150|93:0 8_[1-2]|PENDING|Unknown|Unknown";
    sources.accounts = account_rows(&format!("7_0|COMPLETED|100|150 {row}"));
    sources.queue = queue_rows("8_[1-2]|PENDING|Priority");
}

fn first(sources: &StatusInputs<'_>) -> (State, Option<Remedy>) {
    let trial = join(sources).tasks.swap_remove(1).trials.swap_remove(0);
    (trial.state, trial.remedy)
}

#[test]
fn what_could_not_be_requeued_and_was_forgotten_needs_two_answers_that_agree() {
    for next in [Next::Requeue, Next::Restart] {
        let stored = stored();
        let mut sources = sources(&stored);
        dropped(&mut sources, next);
        assert_eq!(first(&sources), (State::Preempted, Some(Remedy::AskAgain)));
        let certainty = join(&sources).tasks[1].trials[0].certainty;
        let known = RememberedState { state: State::Preempted, reason: None, certainty };
        sources.earlier.add("train", 0..=0, known);
        sources.now = 1300.0;
        assert_eq!(first(&sources), (State::Preempted, Some(Remedy::Resubmit)));
        // Slurm knows it again, or can't say.
        sources.queue = queue_rows("8_0|FAILED|None");
        assert_eq!(first(&sources), (State::Preempted, Some(Remedy::Requeue)));
        sources.queue = QueryResult::Failed("away".to_owned());
        assert_ne!(first(&sources).1, Some(Remedy::Resubmit));
    }
}

#[test]
fn what_is_over_by_its_record_or_by_somebody_s_hand_is_not_brought_back() {
    let stored = stored();
    let mut sources = sources(&stored);
    dropped(&mut sources, Next::Failed);
    assert_eq!(first(&sources), (State::Failed, None));
    dropped(&mut sources, Next::Requeue);
    sources.accounts = account_rows("7_0|COMPLETED|100|150 8_0|CANCELLED+1000|100|150");
    assert_eq!(first(&sources), (State::Cancelled, None));
}

/// What the experiment waits for failed, or somebody cancelled a job that waited for nothing.
#[test]
fn a_root_is_blocked_only_where_slurm_cancelled_it_for_what_is_outside() {
    let reason = "what the experiment waits for (`after` at its top) did not complete";
    for (jobs, state, queue, expected) in [
        (&["4711"][..], "CANCELLED", "", State::Blocked),
        (&["4711"], "CANCELLED", "7_[0]|CANCELLED|DependencyNeverSatisfied", State::Blocked),
        (&["4711"], "CANCELLED+1000", "", State::Cancelled),
        (&[], "CANCELLED", "", State::Cancelled),
        (&[], "CANCELLED+1000", "", State::Cancelled),
    ] {
        let mut stored = stored();
        stored.experiment.after =
            vec![OutsideDependency { of: Outside::Experiment("prep-1".to_owned()), on: On::Ok }];
        stored.journal.insert(0, planned_root(jobs));
        let mut sources = sources(&stored);
        sources.queue = queue_rows(queue);
        sources.accounts = account_rows(&format!("7_[0]|{state}|150|150"));
        let trial = join(&sources).tasks.swap_remove(0).trials.swap_remove(0);
        let is_told = trial.reason.is_some_and(|why| why.contains(reason));
        let is_blocked = expected == State::Blocked;
        assert_eq!((trial.state, is_told), (expected, is_blocked), "{jobs:?} {state} {queue}");
    }
}

/// The array of `prepare`, which waits for these jobs outside.
fn planned_root(jobs: &[&str]) -> Event {
    let edge = |job: &&str| OutsideEdge { on: Relation::AfterOk, job: (*job).to_owned() };
    let array = JobArray {
        task: "prepare".to_owned(),
        index: 0,
        offset: 0,
        trials: IndexSet::below(1),
        throttle: None,
        after: Vec::new(),
        held: true,
        outside: jobs.iter().map(edge).collect(),
        behind: Vec::new(),
        after_jobs: Vec::new(),
        wrapped: None,
    };
    Event::Planned { plan: Plan { generation: 0, arrays: vec![array] }, retry: None }
}
