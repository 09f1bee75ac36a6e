//! A source that does not answer, or not in full: nothing follows from what it does not say.

use super::*;

#[test]
fn a_silence_makes_nothing_failed() {
    let failed = || QueryResult::Failed("could not be reached".to_owned());
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = QueryResult::Failed("could not be reached".to_owned());
    assert_eq!(described(&sources), "unknown: Slurm can't be asked now []");
    sources.accounts = failed();
    assert_eq!(described(&sources), "unknown: Slurm can't be asked now []");
    sources.earlier.add("train", 0..=0, earlier(State::Pending, Certainty::Open));
    assert_eq!(described(&sources), "pending []");
    let status = join(&sources);
    assert!(status.experiment.stale && status.warnings.len() == 2);
    // A row that may have been overtaken is no end.
    sources.accounts = account_rows("8_0|PREEMPTED|100|150");
    assert_eq!(described(&sources), "pending [Preempted]");
    // One that can't is.
    sources.accounts = account_rows("8_0|OUT_OF_MEMORY|100|150");
    assert_eq!(described(&sources), "failed?: ran out of memory [OutOfMemory]");
    let running = TrialFiles { attempts: vec![start(0, 100.0)], ..TrialFiles::default() };
    sources.accounts = failed();
    sources.files.insert("train".to_owned(), [(0, running)].into());
    assert_eq!(
        described(&sources),
        "running: according to its folder; Slurm can't be asked now [-]"
    );
}

#[test]
fn what_was_cancelled_while_it_waited_stays_so_in_a_silence() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = QueryResult::Failed("could not be reached".to_owned());
    let attempts = vec![start(0, 100.0), end(0, 150.0, Cause::Paused, Next::Requeue)];
    let files = TrialFiles { attempts, ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    assert_eq!(described(&sources), "pending [Paused]");
    sources.earlier.add("train", 0..=0, earlier(State::Cancelled, Certainty::Open));
    assert_eq!(described(&sources), "cancelled? [Paused]");
}

#[test]
fn an_answer_that_is_older_than_the_start_makes_no_trial_wait() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_0|PENDING|Resources");
    let files = TrialFiles { attempts: vec![start(0, 990.0)], ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    let state = |sources: &StatusInputs<'_>| join(sources).tasks[1].trials[0].state;
    sources.asked = 989.0;
    assert_eq!(state(&sources), State::Running);
    // It was requeued since: its harness was killed.
    sources.asked = 991.0;
    assert_eq!(state(&sources), State::Preempted);
}

#[test]
fn a_row_that_could_not_be_read_may_have_been_ours() {
    let stored = stored();
    let mut sources = sources(&stored);
    let QueryResult::Rows(rows) = queue_rows("8_1|RUNNING|None") else { unreachable!() };
    sources.queue = QueryResult::Partly(rows, "1 row can't be read".to_owned());
    assert_eq!(described(&sources), "unknown: Slurm can't be asked now []");
    let status = join(&sources);
    assert_eq!(status.tasks[1].trials[1].state, State::Running);
    assert_eq!(status.warnings, ["squeue: 1 row can't be read (what is shown may be old)"]);
}

#[test]
fn a_job_that_nobody_knows_is_unknown() {
    check(
        "",
        "",
        &[],
        "unknown: Slurm no longer knows the job, and it left no record; the next `status` asks Slurm again, and `nemo-slurm poll` submits it again once two answers agree []",
    );
    check(
        "",
        "",
        &[start(0, 100.0)],
        "unknown: Slurm no longer knows the job, and its last attempt has no recorded end; the next `status` asks Slurm again [-]",
    );
    for state in ["RUNNING", "PENDING", "COMPLETING"] {
        let expected = format!(
            "unknown: `squeue` does not show its job, and `sacct` says {state}; the next `status` asks Slurm again []"
        );
        check("", &format!("8_0|{state}|100|Unknown"), &[], &expected);
    }
}
