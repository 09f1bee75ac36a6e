//! Trials that wait for others, and what was not submitted.

use super::*;

#[test]
fn a_child_of_a_failed_parent_is_blocked_not_cancelled() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.accounts = account_rows("7_0|FAILED|100|150 8_[0-2]|CANCELLED+0|Unknown|150");
    assert_eq!(described(&sources), "blocked?: `prepare` trial 0 is failed []");
    assert_eq!(join(&sources).experiment.state, State::Failed);
    sources.accounts = account_rows("7_0|FAILED|100|150 8_0|CANCELLED+0|150|150");
    assert_eq!(described(&sources), "blocked?: `prepare` trial 0 is failed []");
    sources.requests.push(Request {
        action: RequestedAction::Cancel,
        scope: Scope::default(),
        time: 0,
        budget: None,
    });
    assert_eq!(described(&sources), "cancelled []");
}

/// Its harness was killed, or was done by its own record: Slurm called it failed, and nobody cancelled what waits for it.
#[test]
fn a_child_that_slurm_took_out_for_a_parent_that_is_not_lost_is_put_back() {
    let stored = stored();
    let mut sources = sources(&stored);
    let taken_out = "pending: Slurm cancelled it because of its dependency, which has not failed: `nemo-slurm poll` puts it back []";
    let put_back = |sources: &StatusInputs<'_>| {
        let trials = join(sources).tasks.swap_remove(1).trials;
        trials.iter().all(|trial| trial.remedy == Some(Remedy::PutBack))
    };
    let cancelled = "8_[0-2]|CANCELLED|DependencyNeverSatisfied";
    sources.accounts = account_rows("7_0|FAILED|100|150|0:9 8_[0-2]|CANCELLED|Unknown|150");
    sources.queue = queue_rows(&format!("7_0|FAILED|NonZeroExitCode {cancelled}"));
    assert_eq!(described(&sources), taken_out);
    assert!(put_back(&sources));
    // It runs again, and is done.
    sources.queue = queue_rows(&format!("7_0|RUNNING|None {cancelled}"));
    assert_eq!(described(&sources), taken_out);
    let attempts = vec![start(0, 100.0), end(0, 140.0, Cause::Completed, Next::Done)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("prepare".to_owned(), [(0, files)].into());
    sources.queue = queue_rows(&format!("7_0|PREEMPTED|None {cancelled}"));
    assert_eq!(described(&sources), taken_out);
    // Somebody's `scancel`, and what Slurm has forgotten.
    sources.queue = queue_rows("7_0|PREEMPTED|None 8_[0-2]|CANCELLED|None");
    assert!(!put_back(&sources));
    sources.queue = queue_rows("");
    assert!(!put_back(&sources));
    // It failed for good.
    let attempts = vec![start(0, 100.0), end(0, 140.0, Cause::Failed, Next::Failed)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("prepare".to_owned(), [(0, files)].into());
    sources.queue = queue_rows(&format!("7_0|FAILED|None {cancelled}"));
    assert_eq!(described(&sources), "blocked: `prepare` trial 0 is failed []");
}

#[test]
fn what_was_not_submitted_says_how_to_go_on() {
    let mut stored = stored();
    stored.journal.truncate(2);
    let mut sources = sources(&stored);
    let go_on = "pending: was not submitted: `nemo-slurm submit --continue sample-00000100` continues it []";
    assert_eq!(described(&sources), go_on);
    let reason = |sources: &StatusInputs<'_>| join(sources).experiment.reason;
    let interrupted = "its submission was interrupted: `nemo-slurm submit --continue sample-00000100` continues it";
    assert_eq!(reason(&sources).as_deref(), Some(interrupted));
    sources.submitting = true;
    assert_eq!(described(&sources), "pending: is being submitted []");
    assert_eq!(reason(&sources), None);
}

#[test]
fn a_task_for_a_failure_that_did_not_come_is_no_loss() {
    let mut stored = stored();
    stored.experiment.tasks[1].after =
        vec![Dependency { task: "prepare".to_owned(), on: On::Failed }];
    let mut sources = sources(&stored);
    let attempts = vec![start(0, 100.0), end(0, 150.0, Cause::Completed, Next::Done)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("prepare".to_owned(), [(0, files)].into());
    sources.accounts = account_rows("7_0|COMPLETED|100|150 8_[0-2]|CANCELLED+0|Unknown|150");
    assert_eq!(described(&sources), "blocked: not needed: `prepare` completed []");
    assert_eq!(join(&sources).experiment.state, State::Completed);
}

/// `train` waits for `prepare` and `clean`; both had failed, and Slurm took `train` out. That is certain.
fn after_two_that_failed() -> Stored {
    let mut stored = stored();
    let tasks = &mut stored.experiment.tasks;
    tasks.insert(1, sample_task("clean", 1, 0, &[]));
    tasks[2].after.push(Dependency { task: "clean".to_owned(), on: On::Ok });
    let arrays = [("clean", 1)].map(|(task, trials)| Event::Intended {
        token: format!("sample-00000100.{task}.0"),
        task: task.to_owned(),
        array: 0,
        offset: 0,
        trials: IndexSet::below(trials),
        time: 0.0,
    });
    stored.journal.splice(2..2, arrays);
    let token = "sample-00000100.clean.0".to_owned();
    stored.journal.insert(3, Event::Submitted { token, slurm_job: JobId(9), time: 0.0 });
    stored
}

/// The first trial of `train`, when `prepare` and `clean` are in these states for good: its state and why.
fn train_after(stored: &Stored, prepare: State, clean: State) -> String {
    let mut sources = sources(stored);
    let reason = Some("`prepare` trial 0 is failed".to_owned());
    let blocked = RememberedState { reason, ..earlier(State::Blocked, Certainty::Final) };
    sources.earlier.add("train", 0..=0, blocked);
    let mut queue = String::new();
    let both = [("prepare", "7_0|RUNNING|None ", prepare), ("clean", "9_0|RUNNING|None ", clean)];
    for (task, running, state) in both {
        match state {
            State::Running => queue.push_str(running),
            state => sources.earlier.add(task, 0..=0, earlier(state, Certainty::Final)),
        }
    }
    sources.queue = queue_rows(&queue);
    let status = join(&sources);
    let trial = &status.tasks[2].trials[0];
    format!("{}: {}", trial.state.as_str(), trial.reason.as_deref().unwrap_or_default())
}

#[test]
fn what_is_blocked_by_two_names_the_one_that_is_still_lost() {
    let stored = after_two_that_failed();
    let check = |prepare, clean, expected: &str| {
        assert_eq!(train_after(&stored, prepare, clean), expected);
    };
    check(State::Failed, State::Failed, "blocked: `prepare` trial 0 is failed");
    check(State::Running, State::Failed, "blocked: `clean` trial 0 is failed");
    check(State::Completed, State::Failed, "blocked: `clean` trial 0 is failed");
    let again = "blocked: what blocked it was retried: `nemo-slurm retry sample-00000100/train` runs it once that is completed";
    check(State::Running, State::Completed, again);
    check(State::Completed, State::Completed, again);
}

/// `prepare` had failed, so `train` began, for that case; then `prepare` was retried, and Slurm lost the job of `train`.
#[test]
fn what_was_begun_for_a_failure_is_needed_no_more_once_that_is_repaired() {
    let mut stored = stored();
    stored.experiment.tasks[1].after =
        vec![Dependency { task: "prepare".to_owned(), on: On::Failed }];
    let check = |prepare: State, expected: &str| {
        let mut sources = sources(&stored);
        sources.earlier.add("prepare", 0..=0, earlier(prepare, Certainty::Final));
        let attempts = vec![start(0, 100.0), end(0, 150.0, Cause::Preempted, Next::Requeue)];
        let files = TrialFiles { attempts, ..TrialFiles::default() };
        sources.files.insert("train".to_owned(), [(0, files)].into());
        sources.accounts = account_rows("8_0|PREEMPTED|100|150");
        let described = described(&sources);
        assert!(described.starts_with(expected), "{described}");
    };
    check(State::Failed, "preempted: could not be requeued, and Slurm no longer knows its job");
    check(State::Completed, "blocked: not needed: `prepare` completed");
}
