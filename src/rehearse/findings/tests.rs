//! Findings from values, where no program is needed to show them.

use nemo_core::rundir::{AttemptEnd, Cause, MetricsLine, Next};

use super::*;
use crate::rehearse::evidence::StateEvidence;
use crate::rehearse::run_record::{HarnessNotes, Injected, RehearsedAttempt};
use crate::rehearse::scenarios::Fault;
use crate::rehearse::series::{PointDifference, SeriesDifference};

fn line(step: u64) -> MetricsLine {
    let values = serde_json::json!({ "loss": 1.0 }).as_object().unwrap().clone();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let time = 100.0 + step as f64;
    MetricsLine { step: Some(step), attempt: 0, time, values, validation: false }
}

/// An attempt from the step after `resume` to `last`, a second a step, that exits with 75, or 0 at step 60.
pub(super) fn attempt(resume: Option<u64>, last: u64) -> RehearsedAttempt {
    let lines: Vec<MetricsLine> = (resume.unwrap_or(0) + 1..=last).map(line).collect();
    let is_done = last == 60;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let end = AttemptEnd {
        attempt: 0,
        time: 100.0 + last as f64 + 0.5,
        cause: if is_done { Cause::Completed } else { Cause::Preempted },
        exit_code: Some(if is_done { 0 } else { 75 }),
        signal: None,
        step: Some(last),
        checkpoint_step: None,
        next: if is_done { Next::Done } else { Next::Requeue },
        reason: None,
        stopped: None,
        saving: None,
    };
    RehearsedAttempt {
        start: 100.0,
        resume_step: resume,
        lines,
        end: Some(end),
        ..RehearsedAttempt::default()
    }
}

fn run(kind: ScenarioKind, attempts: Vec<RehearsedAttempt>) -> RehearsedRun {
    let lines = (1..=60).map(line).collect();
    RehearsedRun {
        kind,
        seconds: 60.0,
        end: RunEnd::Completed,
        attempts,
        lines,
        checkpoints: vec![30, 60],
        planned: 1,
    }
}

/// Preempted after step 40, saved, and gone on.
fn preempted() -> Vec<RehearsedAttempt> {
    let injected = Injected { fault: Fault::Preempt { lead: 60 }, time: 140.2, step: Some(40) };
    let first = RehearsedAttempt {
        checkpoints: vec![(30, 130.0), (40, 140.4)],
        injected: Some(injected),
        ..attempt(None, 40)
    };
    vec![first, attempt(Some(40), 60)]
}

pub(super) fn rehearsal(attempts: Vec<RehearsedAttempt>, comparison: RunComparison) -> Rehearsal {
    let calm =
        RehearsedAttempt { checkpoints: vec![(30, 130.0), (60, 160.2)], ..attempt(None, 60) };
    let whole = || RunComparison {
        series: SeriesDifference { compared: 60, ..SeriesDifference::default() },
        has_steps: true,
        ..RunComparison::default()
    };
    let baseline = run(ScenarioKind::Undisturbed, vec![calm]);
    let again = Some((baseline.clone(), whole()));
    let series = SeriesDifference { compared: 60, ..comparison.series };
    let evidence = StateEvidence { metrics: 20, weights: [60].into(), ..comparison.evidence };
    let runs = vec![(
        run(ScenarioKind::Preempted, attempts),
        RunComparison { series, has_steps: true, evidence, ..comparison },
    )];
    let (task, signal) = ("train".to_owned(), "USR1".to_owned());
    let noise = NamePatterns::default();
    Rehearsal { task, lead: 60, signal, crashes: 2, noise, baseline, again, runs }
}

#[track_caller]
fn check(all: &Rehearsal, expected: &[&str]) {
    let findings = judge(all);
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, expected, "{findings:#?}");
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    check(&rehearsal(preempted(), RunComparison::default()), &[]);
}

#[test]
fn what_is_not_understood_is_not_safe() {
    let series = SeriesDifference { missing: vec![50], ..SeriesDifference::default() };
    let alone = vec![attempt(None, 60)];
    let mut all = rehearsal(alone, RunComparison { series, ..RunComparison::default() });
    all.runs[0].0.kind = ScenarioKind::NodeLost;
    all.runs[0].0.attempts[0].injected =
        Some(Injected { fault: Fault::KillHarness, time: 150.0, step: Some(50) });
    check(&all, &["differs"]);
}

#[test]
fn a_save_right_before_the_request_is_one() {
    let mut attempts = preempted();
    // The step was saved a moment before it was asked for: the same content is not committed twice.
    attempts[0].checkpoints = vec![(30, 130.0), (40, 140.1)];
    check(&rehearsal(attempts.clone(), RunComparison::default()), &[]);
    attempts[0].checkpoints = vec![(30, 130.0)];
    check(&rehearsal(attempts, RunComparison::default()), &["ends-without-saving"]);
}

#[test]
fn a_usual_save_is_no_answer() {
    let mut attempts = preempted();
    attempts[0] = RehearsedAttempt {
        checkpoints: vec![(30, 130.0)],
        injected: Some(Injected { time: 120.0, ..attempts[0].injected.unwrap() }),
        ..attempt(None, 60)
    };
    attempts.truncate(1);
    check(&rehearsal(attempts, RunComparison::default()), &["ignores-signal"]);
}

#[test]
fn once_unheard_is_no_fault_of_a_program_that_listens() {
    let mut attempts = preempted();
    let injected = Injected { fault: Fault::Preempt { lead: 60 }, time: 141.0, step: Some(41) };
    attempts[1].injected = Some(injected);
    check(&rehearsal(attempts.clone(), RunComparison::default()), &[]);
    // One that heard it and did nothing is another thing.
    attempts[1].notes.asked = true;
    check(&rehearsal(attempts.clone(), RunComparison::default()), &["ignores-signal"]);
    // When all is done there is nothing left to save.
    attempts[1].injected = Some(Injected { step: Some(60), ..injected });
    check(&rehearsal(attempts, RunComparison::default()), &[]);
}

#[test]
fn runs_that_do_not_end_are_told() {
    for (end, code) in
        [(RunEnd::Stuck, "never-ends"), (RunEnd::Failed("why".to_owned()), "fails-disturbed")]
    {
        let mut all = rehearsal(preempted(), RunComparison::default());
        all.runs[0].0.end = end;
        check(&all, &[code]);
    }
}

#[test]
fn with_nothing_in_common_nothing_can_be_told() {
    let mut all = rehearsal(preempted(), RunComparison::default());
    all.runs[0].1.evidence = StateEvidence::default();
    check(&all, &["nothing-to-compare"]);
    all.runs[0].1.series.compared = 0;
    let finding = &judge(&all)[0];
    assert!(finding.evidence.iter().any(|own| own == "no metric was read"), "{finding:?}");
}

#[test]
fn a_run_that_was_not_disturbed_does_not_speak_for_one_whose_resume_can_not_be_judged() {
    let mut all = rehearsal(preempted(), RunComparison::default());
    all.runs[0].1.evidence = StateEvidence::default();
    let mut calm = rehearsal(vec![attempt(None, 60)], RunComparison::default()).runs.remove(0);
    calm.0.kind = ScenarioKind::NodeLost;
    all.runs.push(calm);
    let findings = judge(&all);
    assert!(findings.iter().any(|own| own.code == "nothing-to-compare"), "{findings:#?}");
}

#[test]
fn weights_written_at_a_time_that_can_not_be_compared_excuse_no_difference() {
    use crate::rehearse::align::ResumePosition;
    let values = |loss: f64| serde_json::json!(loss);
    let (expected, found) = (values(1.0), values(2.0));
    let first = PointDifference { step: 61, metric: "loss".to_owned(), expected, found };
    let series = SeriesDifference { first: Some(first), ..SeriesDifference::default() };
    let resumes = vec![ResumePosition { step: 40, after: 40 }];
    let comparison = RunComparison { series, resumes, ..RunComparison::default() };
    let mut all = rehearsal(preempted(), comparison);
    let evidence = &mut all.runs[0].1.evidence;
    (evidence.weights, evidence.weights_written) = ([].into(), Some(999.0));
    let codes: Vec<&str> = judge(&all).iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"resume-not-exact"), "{codes:?}");
}

#[test]
fn where_nothing_was_disturbed_nothing_is_safe() {
    let mut all = rehearsal(preempted(), RunComparison::default());
    all.runs.clear();
    check(&all, &["not-disturbed"]);
    assert!(!is_safe(&judge(&all)));
}

#[test]
fn metrics_alone_are_said_to_be_alone() {
    let mut all = rehearsal(preempted(), RunComparison::default());
    all.runs[0].1.evidence.weights.clear();
    check(&all, &["only-metrics"]);
    assert!(is_safe(&judge(&all)));
}

#[test]
fn each_run_that_differs_by_chance_is_named() {
    let point = PointDifference {
        step: 5,
        metric: "loss".to_owned(),
        expected: 1.0.into(),
        found: 2.0.into(),
    };
    let series = SeriesDifference { first: Some(point), ..SeriesDifference::default() };
    let mut all = rehearsal(preempted(), RunComparison { series, ..RunComparison::default() });
    let (mut run, own) = all.runs[0].clone();
    run.kind = ScenarioKind::Killed;
    all.runs.push((run, own));
    check(&all, &["not-deterministic"]);
    assert_eq!(judge(&all)[0].scenarios, [ScenarioKind::Preempted, ScenarioKind::Killed]);
}

/// One that a TERM ends a moment after Slurm was told to requeue it.
fn ended_by_term(exit_code: Option<i32>, notes: HarnessNotes) -> Rehearsal {
    let mut attempts = preempted();
    let injected = Injected { fault: Fault::Requeue, time: 140.2, step: Some(40) };
    let end = AttemptEnd {
        exit_code,
        signal: exit_code.is_none().then_some(15),
        ..attempts[0].end.clone().unwrap()
    };
    attempts[0].checkpoints = vec![(30, 130.0)];
    attempts[0] =
        RehearsedAttempt { injected: Some(injected), end: Some(end), notes, ..attempts[0].clone() };
    let mut all = rehearsal(attempts, RunComparison::default());
    all.runs[0].0.kind = ScenarioKind::Requeued;
    all
}

#[test]
fn slurms_own_term_is_told_from_a_signal_that_is_ignored() {
    for (code, asked) in [(None, false), (None, true), (Some(143), true)] {
        let all = ended_by_term(code, HarnessNotes { asked, ..HarnessNotes::default() });
        check(&all, &["dies-of-term"]);
        let finding = &judge(&all)[0];
        assert_eq!(finding.what, "Slurm's own SIGTERM ended the program before it had saved");
        assert!(finding.hint.contains("catch SIGTERM with the same handler as USR1"));
        // One that has never saved may just have had no time to.
        let mut all = all;
        all.baseline.attempts[0].checkpoints.clear();
        all.runs[0].0.attempts[0].checkpoints.clear();
        check(&all, &["dies-of-term"]);
        // What it saves anyway was committed a moment after the request: it did not answer.
        let mut all = ended_by_term(code, HarnessNotes { asked, ..HarnessNotes::default() });
        all.runs[0].0.attempts[0].checkpoints = vec![(30, 140.3)];
        check(&all, &["dies-of-term"]);
    }
    let terminated = HarnessNotes { asked: true, terminated: true, ..HarnessNotes::default() };
    check(&ended_by_term(None, terminated), &["ignores-signal"]);
}

#[test]
fn the_time_of_a_save_is_that_of_the_answer() {
    let mut all = rehearsal(preempted(), RunComparison::default());
    all.runs[0].0.attempts[0].checkpoints = vec![(30, 140.3), (40, 142.2)];
    assert!((saving::longest_save(&all).unwrap() - 2.0).abs() < 1e-9);
}

#[test]
fn one_that_saved_before_the_term_came_is_safe() {
    let mut all = ended_by_term(None, HarnessNotes { asked: true, ..HarnessNotes::default() });
    all.runs[0].0.attempts[0].checkpoints.push((40, 140.4));
    check(&all, &[]);
}

/// One that is preempted a second time, at step 59, and finishes with exit code 0.
fn finished(next: Next, checkpoints: Vec<(u64, f64)>) -> Rehearsal {
    let mut attempts = preempted();
    let injected = Injected { fault: Fault::Preempt { lead: 60 }, time: 159.1, step: Some(59) };
    let end = AttemptEnd { next, cause: Cause::Preempted, ..attempts[1].end.clone().unwrap() };
    attempts[1].injected = Some(injected);
    attempts[1].end = Some(end);
    attempts[1].checkpoints = checkpoints;
    attempts[1].notes.asked = true;
    rehearsal(attempts, RunComparison::default())
}

#[test]
fn one_that_finishes_instead_of_saving_did_end() {
    let all = finished(Next::Requeue, vec![]);
    check(&all, &["finishes-without-saving"]);
    let findings = judge(&all);
    assert_eq!(findings[0].level, Severity::Warning, "it saved when it was asked before");
    assert!(findings[0].evidence[0].contains("exit code 0, 1.4 s after it was asked"));
    assert!(findings[0].hint.contains("FINISHED=1"));
    // Nothing is lost where the end is saved, or said.
    check(&finished(Next::Requeue, vec![(60, 160.2)]), &[]);
    check(&finished(Next::Done, vec![]), &[]);
    // Where it was never seen to save, it can't be told from one that ignores the request.
    let mut all = all;
    all.runs[0].0.attempts.remove(0);
    check(&all, &["finishes-without-saving"]);
    assert!(!is_safe(&judge(&all)));
}

#[test]
fn one_that_is_asked_right_after_its_resume_has_nothing_new_to_save() {
    let mut attempts = preempted();
    let injected = Injected { fault: Fault::Preempt { lead: 60 }, time: 140.9, step: None };
    let mut idle =
        RehearsedAttempt { injected: Some(injected), lines: vec![], ..attempt(Some(40), 40) };
    idle.notes.asked = true;
    attempts.insert(1, idle);
    check(&rehearsal(attempts.clone(), RunComparison::default()), &[]);
    attempts[1].resume_step = None;
    check(&rehearsal(attempts, RunComparison::default()), &["ends-without-saving"]);
}
