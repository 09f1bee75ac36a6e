//! Whether an attempt goes on from the checkpoint that it was given, and at the right step. Pure.

use super::super::compare::RunComparison;
use super::super::run_record::{RehearsedAttempt, RehearsedRun};
use super::super::scenarios::ScenarioKind;
use super::origin::{self, Origin};
use super::{Finding, Rehearsal, Severity, by_itself};

/// Where an attempt began, in reports before (-) or after (+) the right one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResumedRun<'a> {
    pub(super) kind: ScenarioKind,
    pub(super) attempt: &'a RehearsedAttempt,
    /// The first step that it reported.
    pub(super) first: u64,
    /// The one that it should have.
    pub(super) expected: u64,
    offset: i64,
}

/// What is found, and the kinds of runs whose differences it accounts for.
pub(super) fn judge(all: &Rehearsal) -> (Vec<Finding>, Vec<ScenarioKind>) {
    let mut findings: Vec<Finding> = fails_to_resume(all).into_iter().collect();
    findings.extend(finds_other_runs(all));
    let begins = begins(all);
    let at_start = |begin: &&ResumedRun<'_>| is_at_start(begin, all);
    let anew: Vec<ResumedRun<'_>> = begins.iter().filter(at_start).copied().collect();
    let (over, counts): (Vec<_>, Vec<_>) =
        anew.iter().copied().partition(|begin| origin::of(begin, all) == Origin::Start);
    findings.extend(starts_over(&over));
    findings.extend(counts_anew(&counts, all));
    let off: Vec<ResumedRun<'_>> =
        begins.iter().filter(|begin| begin.offset != 0 && !at_start(begin)).copied().collect();
    let resumes: Vec<&ResumedRun<'_>> =
        begins.iter().filter(|own| own.attempt.resume_step.is_some()).collect();
    // Counting wrongly shows at each resume alike; another file than the one that was given, where that one is older.
    let first = off.first().map(|begin| begin.offset);
    let is_alike = resumes.iter().all(|begin| Some(begin.offset) == first);
    match first {
        Some(-1 | 1) if is_alike => findings.push(wrong_name(&off)),
        Some(_) => findings.push(own_file(&off)),
        None if anew.is_empty() => findings.extend(wrong_count(all)),
        None => {}
    }
    let explained = explained(all, &findings, &over, &counts);
    (findings, explained)
}

/// A run with the wrong steps may be an exact one all the same, or not: its values say so.
fn explained(
    all: &Rehearsal,
    findings: &[Finding],
    over: &[ResumedRun<'_>],
    counts: &[ResumedRun<'_>],
) -> Vec<ScenarioKind> {
    let is_told = |kind| findings.iter().any(|own| own.scenarios.contains(&kind));
    let is_another = |kind| {
        over.iter().any(|own| own.kind == kind)
            || counts
                .iter()
                .any(|own| own.kind == kind && origin::of(own, all) == Origin::Checkpoint)
    };
    let is_exact = |own: &RunComparison| own.series.first.is_none() || own.series.shift.is_some();
    let runs = all.runs.iter().filter(|(run, _)| is_told(run.kind));
    let runs = runs.filter(|(run, own)| is_another(run.kind) || is_exact(own));
    runs.map(|(run, _)| run.kind).collect()
}

fn index(steps: &[u64], step: u64) -> i64 {
    i64::try_from(steps.partition_point(|own| *own < step)).unwrap_or(i64::MAX)
}

/// Where each attempt but the first of each run began.
fn begins(all: &Rehearsal) -> Vec<ResumedRun<'_>> {
    let steps = all.baseline.steps();
    let mut begins = Vec::new();
    for (run, _) in &all.runs {
        // It is meant to go on from a file of its own, of which nobody but itself knows.
        if by_itself::is_meant(all) && run.saves().next().is_none() {
            continue;
        }
        let later = run.attempts.iter().skip(1);
        begins.extend(later.filter_map(|attempt| begin(run.kind, attempt, &steps)));
    }
    begins
}

fn begin<'a>(
    kind: ScenarioKind,
    attempt: &'a RehearsedAttempt,
    steps: &[u64],
) -> Option<ResumedRun<'a>> {
    let first = attempt.steps().next()?;
    let next = attempt.resume_step.map_or(0, |step| step + 1);
    let at = steps.partition_point(|own| *own < next);
    let expected = *steps.get(at)?;
    let offset = index(steps, first) - index(steps, expected);
    Some(ResumedRun { kind, attempt, first, expected, offset })
}

/// Whether it counts from the beginning, although it was given a checkpoint.
fn is_at_start(begin: &ResumedRun<'_>, all: &Rehearsal) -> bool {
    let is_first = all.baseline.steps().first() == Some(&begin.first);
    is_first && begin.offset < 0
}

fn kinds<'a>(begins: &'a [ResumedRun<'_>]) -> impl Iterator<Item = ScenarioKind> + 'a {
    begins.iter().map(|begin| begin.kind)
}

fn fails_to_resume(all: &Rehearsal) -> Option<Finding> {
    let runs = all.runs.iter().map(|(run, _)| run);
    let runs: Vec<&RehearsedRun> = runs.filter(|run| run.attempts.iter().any(fails)).collect();
    let attempt = runs.iter().flat_map(|run| &run.attempts).find(|own| fails(own))?;
    let reason = attempt.end.as_ref().and_then(|end| end.reason.clone()).unwrap_or_default();
    let step = attempt.resume_step.unwrap_or_default();
    Some(
        Finding::new("fails-to-resume", Severity::Error, "the program fails when it is given its own checkpoint")
            .because(format!("started with NEMO_RESUME_FROM (step {step}): {reason}"))
            .quoting(Some(attempt))
            .hinted("load what was saved, as it was saved: NEMO_RESUME_FROM is the file or folder that the program made")
            .seen_in(runs.iter().map(|run| run.kind)),
    )
}

fn fails(own: &RehearsedAttempt) -> bool {
    own.resume_step.is_some() && own.crashed_alone() && own.lines.is_empty()
}

/// A second run that does not begin at the beginning.
fn finds_other_runs(all: &Rehearsal) -> Option<Finding> {
    let (again, _) = all.again.as_ref()?;
    let (first, second) = (all.baseline.steps(), again.steps());
    let is_later = second.first() > first.first() || (second.is_empty() && !first.is_empty());
    is_later.then(|| {
        let began =
            second.first().map_or("no step at all".to_owned(), |step| format!("step {step}"));
        Finding::new("finds-other-runs", Severity::Error, "a run sees files of another run")
            .because(format!(
                "a second undisturbed run, in a folder of its own, began with {began}"
            ))
            .hinted("write only below $NEMO_DIR and $NEMO_CHECKPOINT_DIR: each trial has its own")
            .seen_in([ScenarioKind::Undisturbed])
    })
}

fn starts_over(over: &[ResumedRun<'_>]) -> Option<Finding> {
    let begin = over.first()?;
    let given = begin.attempt.resume_step.unwrap_or_default();
    Some(
        Finding::new(
            "starts-over",
            Severity::Error,
            "the program starts from the beginning and ignores its checkpoint",
        )
        .because(format!(
            "given step {given} in NEMO_RESUME_FROM, it began with step {}",
            begin.first
        ))
        .hinted("at the start: if $NEMO_RESUME_FROM is not empty, load that")
        .seen_in(kinds(over)),
    )
}

/// The values go on, or nobody can tell, and the counter begins again.
fn counts_anew(counts: &[ResumedRun<'_>], all: &Rehearsal) -> Option<Finding> {
    let begin = counts.first()?;
    let given = begin.attempt.resume_step.unwrap_or_default();
    let how = match origin::of(begin, all) {
        Origin::Checkpoint => "its values are those of the steps after the checkpoint",
        Origin::Elsewhere => {
            "its values are neither those of the first steps nor those after the checkpoint"
        }
        Origin::Start | Origin::Unknown => {
            "neither a metric nor a checkpoint tells whether its state is that of the checkpoint"
        }
    };
    Some(
        Finding::new("wrong-step", Severity::Error, "after a resume the step counter is wrong")
            .because(format!(
                "given step {given} in NEMO_RESUME_FROM, it counts from step {} again; {how}",
                begin.first
            ))
            .hinted("save the number of completed steps, and begin with the one after it")
            .seen_in(kinds(counts)),
    )
}

fn own_file(off: &[ResumedRun<'_>]) -> Finding {
    let begin = &off[0];
    let given = match begin.attempt.resume_step {
        Some(step) => format!("given step {step} in NEMO_RESUME_FROM"),
        None => "given no checkpoint".to_owned(),
    };
    Finding::new("resumes-from-its-own-file", Severity::Error, "the program resumes from another file than it is given")
        .because(format!(
            "{given}, it began with step {} instead of {}: it read a file of its own",
            begin.first, begin.expected
        ))
        .because("such a file may be incomplete, or from an attempt that lost its lease; the record then has other steps than the program did")
        .hinted("load $NEMO_RESUME_FROM and nothing else; where it is empty, begin at the beginning")
        .seen_in(kinds(off))
}

fn wrong_name(off: &[ResumedRun<'_>]) -> Finding {
    let begin = &off[0];
    let given = begin.attempt.resume_step.unwrap_or_default();
    let held = begin.first.saturating_sub(1);
    let effect = if begin.offset < 0 {
        format!("step {} is done again after a crash", begin.first)
    } else {
        format!("step {} is taken out of the record and never reported again", begin.expected)
    };
    Finding::new("wrong-step", Severity::Error, "a checkpoint's name does not say how many steps were done")
        .because(format!(
            "`step-{given}` holds the state after step {held}: the program went on with step {} instead of {}; {effect}",
            begin.first, begin.expected
        ))
        .hinted("name it by the steps that are completed, counted as in what it prints")
        .seen_in(kinds(off))
}

/// The step counter jumps at a resume: name and content agree with each other, but not with what was done.
fn wrong_count(all: &Rehearsal) -> Option<Finding> {
    let off: Vec<_> = all
        .runs
        .iter()
        .filter(|(_, own)| {
            let record = !own.series.missing.is_empty() || !own.doubled.is_empty();
            own.has_steps && (record || own.series.shift.is_some())
        })
        .filter(|(run, _)| run.attempts.iter().any(|own| own.resume_step.is_some()))
        .filter(|(run, _)| run.end == super::RunEnd::Completed)
        .collect();
    // One interruption alone shows by how much.
    let clear = off.iter().find(|(_, own)| own.series.shift.is_some());
    let (run, own) = clear.or(off.first())?;
    let step = run.attempts.iter().find_map(|own| own.resume_step).unwrap_or_default();
    let mut finding =
        Finding::new("wrong-step", Severity::Error, "after a resume the step counter is wrong");
    if let Some(missing) = own.series.missing.first() {
        finding =
            finding.because(format!("step {missing} was never reported by the disturbed run"));
    }
    if let Some(doubled) = own.doubled.first() {
        finding = finding.because(format!("step {doubled} was reported twice"));
    }
    if let (Some(shift), Some(first)) = (own.series.shift, &own.series.first) {
        finding = finding.because(format!(
            "from step {} on each value is that of {} {} the undisturbed run: `step-{step}` holds the state after step {}",
            first.step,
            if shift < 0 { "an earlier step" } else { "a later step" },
            if shift.abs() == 1 { "(by 1) of".to_owned() } else { format!("(by {}) of", shift.abs()) },
            step.saturating_add_signed(shift),
        ));
    }
    let kinds: Vec<ScenarioKind> = off.iter().map(|(run, _)| run.kind).collect();
    Some(
        finding
            .hinted("save the number of completed steps, and begin with the one after it")
            .seen_in(kinds),
    )
}
