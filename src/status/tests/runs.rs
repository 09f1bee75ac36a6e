//! Which of Slurm's runs of a job an attempt belongs to.

use super::*;

/// What the harness requeues starts again a few seconds after the end of the run before.
#[test]
fn a_run_that_ended_is_of_the_attempt_that_ended() {
    let requeued = "8_0|REQUEUED|1795255990|1795256030";
    let ended = [
        start(0, 1_795_255_991.1),
        end(0, 1_795_256_029.8, Cause::TimeLimit, Next::Requeue),
        start(1, 1_795_256_033.27),
    ];
    let running = "8_0|RUNNING|None";
    let both = format!("{requeued} 8_0|RUNNING|1795256032|Unknown");
    check(running, &both, &ended, "running [TimeLimit -]");
    // Accounting may not have heard of the new run yet.
    check(running, requeued, &ended, "running [TimeLimit -]");
    let killed = [ended[0].clone(), ended[2].clone()];
    check(running, &both, &killed, "running [Preempted -]");
    // The node's clock runs ahead, and the first run took no time.
    let early = [start(0, 1_795_256_032.5), start(1, 1_795_256_034.0)];
    check(running, &both, &early, "running [Preempted -]");
    // The next one has guessed why it left no end. That Slurm was asked to run it again is no better word.
    let guess = end(0, 1_795_256_033.0, Cause::NodeFailure, Next::Restart);
    let guessed = [ended[0].clone(), guess, ended[2].clone()];
    check(running, &both, &guessed, "running [NodeFailure -]");
    check(running, &both.replace("REQUEUED", "PREEMPTED"), &guessed, "running [Preempted -]");
    // The harness of the first run never began, or saw that it should not.
    check(running, &both, &[ended[2].clone()], "running [-]");
    let both = both.replace("REQUEUED", "PREEMPTED");
    check(running, &both, &[ended[2].clone()], "running [Preempted -]");
    // Slurm has lost the first run.
    let lost = "8_0|NODE_FAIL|1795256032|1795256090";
    check(
        "8_0|PENDING|BeginTime",
        lost,
        &ended,
        "preempted: waits a while before it starts again [TimeLimit NodeFailure]",
    );
}

/// Up to 25.11.2 Slurm calls a job that failed REQUEUED once it is requeued; later it leaves its row as it was.
#[test]
fn a_run_that_failed_and_was_requeued_keeps_its_cause() {
    let running = "8_0|RUNNING|None";
    for state in ["REQUEUED", "FAILED"] {
        let rows = |exit| format!("8_0|{state}|100|150|{exit} 8_0|RUNNING|300|Unknown");
        let killed = [start(0, 100.0), start(1, 300.0)];
        check(running, &rows("0:9"), &killed, "running [NodeFailure -]");
        check(running, &rows("9:0"), &killed, "running [NodeFailure -]");
        // The first harness never wrote a word.
        let none = [start(1, 300.0)];
        check(running, &rows("0:53"), &none, "running [StartFailed -]");
        check(running, &rows("127:0"), &none, "running [StartFailed -]");
    }
}

/// The next attempt, which may begin long after, can only guess when the one before it was lost.
#[test]
fn a_lost_run_ends_when_slurm_says_so_or_with_its_last_sign() {
    let mut guess = end(0, 400.0, Cause::NodeFailure, Next::Requeue);
    if let AttemptRecord::End(end) = &mut guess {
        (end.exit_code, end.signal) = (None, None);
    }
    let mut files = TrialFiles {
        attempts: vec![start(0, 100.0), guess, start(1, 400.0)],
        ..TrialFiles::default()
    };
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_0|RUNNING|None");
    let ended = |sources: &StatusInputs<'_>| join(sources).tasks[1].trials[0].attempts[0].end;
    sources.files.insert("train".to_owned(), [(0, files.clone())].into());
    assert_eq!(ended(&sources), Some(400.0), "nothing else is known");
    files.signs = [(0, 113.5)].into();
    sources.files.insert("train".to_owned(), [(0, files)].into());
    assert_eq!(ended(&sources), Some(113.5));
    for state in ["REQUEUED", "FAILED"] {
        let rows = format!("8_0|{state}|100|114|0:9 8_0|RUNNING|400|Unknown");
        sources.accounts = account_rows(&rows);
        assert_eq!(ended(&sources), Some(114.0), "{state}");
    }
}

#[test]
fn a_start_that_failed_says_why() {
    let expected =
        "failed?: the harness was killed by signal 9 (SIGKILL) on n1 before it wrote a record";
    check("", "8_0|FAILED|100|150|0:9", &[], &format!("{expected} [StartFailed]"));
    let known = format!("{expected}; `nemo-slurm poll` requeues it [StartFailed]");
    check("8_0|FAILED|None", "8_0|FAILED|100|150|0:9", &[], &known);
    let killed = "failed?: the harness was killed by signal 9 (SIGKILL) without recording its end [NodeFailure]";
    check("", "8_0|FAILED|100|150|0:9", &[start(0, 100.0)], killed);
}

#[test]
fn restarts_in_place_share_a_run() {
    let mut again = start(1, 130.0);
    if let AttemptRecord::Start(again) = &mut again {
        again.restarts = 0;
    }
    let records = [start(0, 100.0), end(0, 129.0, Cause::Failed, Next::Restart), again];
    check(
        "",
        "8_0|OUT_OF_MEMORY|100|150",
        &records,
        "failed?: ran out of memory [Failed OutOfMemory]",
    );
}

/// Since 24.05 a job that leaves within the grace of a preemption is PREEMPTED, whatever its exit code.
#[test]
fn the_record_counts_where_slurm_has_another_word() {
    let ended = |cause, next| [start(0, 100.0), end(0, 150.0, cause, next)];
    let done = ended(Cause::Completed, Next::Done);
    for state in ["PREEMPTED", "OUT_OF_MEMORY", "NODE_FAIL"] {
        check("", &format!("8_0|{state}|100|150|0:125"), &done, "completed [Completed]");
    }
    // In CANCEL mode it is for good: only a requeue of ours brings it back.
    let saved = ended(Cause::Preempted, Next::Requeue);
    let expected = "failed?: was preempted, and Slurm did not requeue it; `nemo-slurm poll` requeues it [Preempted]";
    check("8_0|PREEMPTED|None", "8_0|PREEMPTED|100|150|0:0", &saved, expected);
    // From 24.11 a node that fails leaves exit code 1.
    let lost = "failed?: its node failed, and Slurm did not requeue it [NodeFailure]";
    check("", "8_0|NODE_FAIL|100|150|1:0", &[start(0, 100.0)], lost);
    // Newer accounting has one row for all that were cancelled together.
    check("", "8_[0-1,7]|CANCELLED+0|Unknown|150", &[], "cancelled? []");
}

#[test]
fn a_trial_whose_record_is_damaged_is_not_run_again() {
    let stored = stored();
    let mut sources = sources(&stored);
    sources.queue = queue_rows("8_0|FAILED|None");
    sources.accounts = account_rows("8_0|FAILED|100|150|93:0");
    let damage = Damage { path: "/x/attempts.jsonl".into(), lines: vec![2] };
    let mut files = TrialFiles { attempts: vec![start(0, 100.0)], ..TrialFiles::default() };
    for (damage, remedy) in [(Some(damage), None), (None, Some(Remedy::Requeue))] {
        files.damage = damage;
        sources.files.insert("train".to_owned(), [(0, files.clone())].into());
        assert_eq!(join(&sources).tasks[1].trials[0].remedy, remedy);
    }
}

/// A retry is a new job, whose count of restarts begins anew.
#[test]
fn a_run_of_a_retry_that_began_within_the_same_second_is_its_own() {
    let mut stored = stored();
    let token = "sample-00000100.train.1".to_owned();
    let (task, trials) = ("train".to_owned(), IndexSet::below(1));
    stored.journal.extend([
        Event::Intended { token: token.clone(), task, array: 1, offset: 0, trials, time: 0.0 },
        Event::Submitted { token, slurm_job: JobId(9), time: 0.0 },
    ]);
    let mut retried = start(1, 101.4);
    if let AttemptRecord::Start(start) = &mut retried {
        start.slurm_job = Some("9_0".to_owned());
        start.restarts = 0;
    }
    let failed = [start(0, 100.4), end(0, 100.9, Cause::Failed, Next::Failed)];
    let done = [retried, end(1, 101.6, Cause::Completed, Next::Done)];
    let mut sources = sources(&stored);
    sources.accounts = account_rows("8_0|FAILED|100|101 9_0|COMPLETED|101|101");
    let files = TrialFiles { attempts: [failed, done].concat(), ..TrialFiles::default() };
    sources.files.insert("train".to_owned(), [(0, files)].into());
    assert_eq!(described(&sources), "completed [Failed Completed]");
}
