//! Stories over several looks: what one odd answer leaves behind.

use super::*;

/// One look: seconds, `squeue`'s rows, `sacct`'s rows. A source that is `-` does not answer.
type Look<'a> = (f64, &'a str, &'a str);

/// What the last of several looks tells of the first trial of `train`, each remembering the one before.
#[track_caller]
fn check_looks(change: impl Fn(&mut StatusInputs<'_>), looks: &[Look<'_>], expected: &str) {
    let stored = stored();
    let mut remembered = RememberedStates::default();
    let mut last = String::new();
    for &(now, queue, accounts) in looks {
        let mut sources = sources(&stored);
        let silent = || "could not be reached".to_owned();
        sources.now = now;
        sources.queue =
            if queue == "-" { QueryResult::Failed(silent()) } else { queue_rows(queue) };
        sources.accounts =
            if accounts == "-" { QueryResult::Failed(silent()) } else { account_rows(accounts) };
        sources.earlier = remembered;
        change(&mut sources);
        last = described(&sources);
        remembered = crate::remembered::known(crate::remembered::runs(&join(&sources)), |_| {
            std::collections::BTreeSet::new()
        });
    }
    assert_eq!(last, expected, "{looks:?}");
}

#[track_caller]
fn check_plain(looks: &[Look<'_>], expected: &str) {
    check_looks(|_| (), looks, expected);
}

const WAITS: &str = "8_[0-2]|PENDING|Priority";
const PENDING: &str = "pending: waits for its turn: other jobs come first []";

#[test]
fn one_odd_answer_is_forgotten_by_the_next() {
    let odd = [
        ("", ""),
        ("", "8_0|PENDING|Unknown|Unknown"),
        ("", "8_0|RUNNING|100|Unknown"),
        ("", "8_0|CANCELLED+0|Unknown|150"),
        ("", "8_0|FAILED|100|150"),
        ("8_0|CANCELLED|None", "8_0|CANCELLED+0|Unknown|150"),
        ("8_[1-2]|PENDING|Priority", ""),
        ("-", "8_0|CANCELLED+0|Unknown|150"),
        ("8_0|FAILED|None", "-"),
    ];
    for (queue, accounts) in odd {
        check_plain(&[(0.0, queue, accounts), (1.0, WAITS, "")], PENDING);
        check_plain(&[(0.0, WAITS, ""), (1e6, queue, accounts), (2e6, WAITS, "")], PENDING);
    }
}

#[test]
fn an_end_that_slurm_alone_tells_is_final_when_it_is_told_twice() {
    let cancelled = "8_0|CANCELLED+1000|Unknown|150";
    check_plain(&[(0.0, "", cancelled)], "cancelled? []");
    check_plain(&[(0.0, "", cancelled), (299.0, "", cancelled)], "cancelled? []");
    check_plain(&[(0.0, "", cancelled), (300.0, "", cancelled)], "cancelled []");
    // What is final is known by itself, even when Slurm has forgotten all of it.
    let final_before = [(0.0, "", cancelled), (300.0, "", cancelled)];
    let then = |queue, accounts| [final_before[0], final_before[1], (9e5, queue, accounts)];
    check_plain(&then("", ""), "cancelled []");
    check_plain(&then("-", "-"), "cancelled []");
    // But a job that is in the queue again is no more over.
    check_plain(&then(WAITS, cancelled), PENDING);
    // Accounting is silent, or says otherwise: the queue alone decides nothing.
    check_plain(
        &[(0.0, "8_0|FAILED|None", "-"), (400.0, "8_0|FAILED|None", "-")],
        "failed?: Slurm says `FAILED`; `nemo-slurm poll` requeues it []",
    );
    let lags = (400.0, "8_0|FAILED|None", "8_0|RUNNING|100|Unknown");
    check_plain(
        &[lags, (800.0, lags.1, lags.2)],
        "failed?: Slurm says `FAILED`; `nemo-slurm poll` requeues it []",
    );
}

/// `sacct` is asked only where something is over: what was not asked confirms nothing.
#[test]
fn where_there_are_no_accounts_the_queue_decides_alone() {
    let without = |answer: fn() -> QueryResult<AccountRow>| {
        move |sources: &mut StatusInputs<'_>| sources.accounts = answer()
    };
    let failed = |now| (now, "8_0|FAILED|None", "");
    let looks = [failed(0.0), failed(400.0)];
    let expected = "failed: Slurm says `FAILED`; `nemo-slurm poll` requeues it []";
    check_looks(without(|| QueryResult::Off), &looks, expected);
    check_looks(
        without(|| QueryResult::NotAsked),
        &looks,
        &expected.replace("failed:", "failed?:"),
    );
    let request = || Request {
        action: RequestedAction::Cancel,
        scope: Scope::default(),
        time: 0,
        budget: None,
    };
    let cancelled = "cancelled: was cancelled before it started []";
    for (answer, expected) in [
        (QueryResult::Off, cancelled.to_owned()),
        (QueryResult::NotAsked, cancelled.replace("cancelled:", "cancelled?:")),
    ] {
        let asked = |sources: &mut StatusInputs<'_>| {
            sources.accounts = answer.clone();
            sources.requests.push(request());
        };
        check_looks(asked, &[(0.0, "", ""), (400.0, "", "")], &expected);
    }
}

#[test]
fn a_missing_row_is_an_end_only_in_the_long_run() {
    let missing = "8_[1-2]|PENDING|Priority";
    let unknown = "unknown: Slurm no longer knows the job, and it left no record; the next `status` asks Slurm again []";
    let taken_out = "cancelled: was cancelled before it started []";
    check_plain(&[(0.0, missing, "")], unknown);
    check_plain(&[(0.0, missing, ""), (299.0, missing, "")], unknown);
    check_plain(&[(0.0, missing, ""), (300.0, missing, "")], taken_out);
    check_plain(&[(0.0, missing, ""), (300.0, missing, ""), (301.0, missing, "")], taken_out);
    check_plain(&[(0.0, missing, "-"), (300.0, missing, "-")], unknown);
    // Accounting shows it alive for ever: that is no end either.
    let lost = |now| (now, "", "8_0|RUNNING|100|Unknown");
    let expected = "unknown: `squeue` does not show its job, and `sacct` says RUNNING; the next `status` asks Slurm again []";
    check_plain(&[lost(0.0), lost(400.0), lost(9e5)], expected);
}

#[test]
fn what_we_asked_for_and_slurm_says_is_final_at_once() {
    let request = || Request {
        action: RequestedAction::Cancel,
        scope: Scope::default(),
        time: 0,
        budget: None,
    };
    let asked = |sources: &mut StatusInputs<'_>| sources.requests.push(request());
    check_looks(asked, &[(0.0, "", "8_0|CANCELLED+0|Unknown|150")], "cancelled []");
    check_looks(asked, &[(0.0, "8|CANCELLED|None", "")], "cancelled []");
    // The wish alone, and a queue that says nothing, are not enough.
    let expected = "cancelled?: was cancelled before it started []";
    check_looks(asked, &[(0.0, "", "")], expected);
    check_looks(asked, &[(0.0, "", ""), (1.0, WAITS, "")], PENDING);
    check_looks(asked, &[(0.0, "", ""), (300.0, "", "")], &expected.replace('?', ""));
}

#[test]
fn a_child_is_blocked_for_good_once_its_parent_is_lost_for_good() {
    let failed = vec![start(0, 100.0), end(0, 150.0, Cause::Failed, Next::Failed)];
    let recorded = |sources: &mut StatusInputs<'_>| {
        let files = TrialFiles { attempts: failed.clone(), ..TrialFiles::default() };
        sources.files.insert("prepare".to_owned(), [(0, files)].into());
    };
    let cancelled = "7_0|FAILED|100|150 8_[0-2]|CANCELLED+0|Unknown|150";
    let blocked = "blocked: `prepare` trial 0 is failed []";
    check_looks(recorded, &[(0.0, "", cancelled)], blocked);
    // Of the parent only Slurm speaks: then of the child too.
    check_plain(&[(0.0, "", cancelled)], "blocked?: `prepare` trial 0 is failed []");
    check_plain(&[(0.0, "", cancelled), (300.0, "", cancelled)], blocked);
}
