//! Whether a resumed run does exactly what the undisturbed one does, and what is likely to be missing if not. Pure.

use super::super::align::ResumePosition;
use std::path::Path;

use super::super::compare::RunComparison;
use super::super::compare_files::{FileDifference, How, TreeDifference};
use super::super::file_names;
use super::super::run_record::{RehearsedRun, RunEnd};
use super::super::scenarios::ScenarioKind;
use super::super::series::PointDifference;
use super::{Finding, Rehearsal, Severity, determinism, suspects};
use crate::humanize::count;

pub(super) fn judge(all: &Rehearsal, explained: &[ScenarioKind]) -> Vec<Finding> {
    let noise = determinism::not_deterministic(all);
    let open: Vec<&(RehearsedRun, RunComparison)> = all
        .runs
        .iter()
        .filter(|(run, _)| run.end == RunEnd::Completed && !explained.contains(&run.kind))
        .collect();
    let mut inexact = inexact(&open, noise.is_some());
    if let (Some(finding), None) = (&mut inexact, &all.again) {
        let text = "two undisturbed runs were not compared: there was no time";
        finding.evidence.push(text.to_owned());
    }
    let mut findings = Vec::new();
    if noise.is_none() {
        findings.extend(determinism::late_noise(&open));
        findings.extend(determinism::noisy(all));
    }
    findings.extend(averages(&open));
    findings.extend(determinism::not_compared(all));
    // What differs and is not blamed on a resume is blamed on chance.
    let is_blamed = |kind| inexact.iter().any(|own| own.scenarios.contains(&kind));
    let is_chance = |own: &RunComparison| own.series.first.is_some() || trees_differ(own);
    let by_chance = open.iter().filter(|(run, own)| is_chance(own) && !is_blamed(run.kind));
    let by_chance: Vec<ScenarioKind> = by_chance.map(|(run, _)| run.kind).collect();
    findings.extend(noise.map(|own| own.seen_in(by_chance)));
    findings.extend(inexact);
    findings.extend(nothing_to_compare(all, &open));
    findings
}

/// `loss` 0.5 instead of 0.4.
pub(super) fn describe_point(point: &PointDifference, unit: &str) -> String {
    format!(
        "{} at {unit} {} is {} instead of {}",
        point.metric, point.step, point.found, point.expected
    )
}

fn differing(difference: &FileDifference) -> String {
    let place = difference.place();
    match &difference.how {
        How::Missing => format!("{place} is missing"),
        How::Added => format!("{place} is there only in the disturbed run"),
        How::Numbers { differing, of, largest } => {
            format!(
                "{place} differs in {differing} of {}, by at most {largest:.3e}",
                count(*of, "number")
            )
        }
        How::Bytes { at, until: Some(until) } => {
            format!("{place}: bytes differ in its header, from byte {at} to {until}")
        }
        How::Bytes { at, until: None } => format!("{place}: bytes differ from byte {at} on"),
    }
}

/// The first few differences.
fn files(what: &str, difference: &TreeDifference) -> Option<String> {
    let all = &difference.differences;
    let shown: Vec<String> = all.iter().take(3).map(differing).collect();
    let more = all.len().saturating_sub(3);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!shown.is_empty()).then(|| format!("{what}: {}{more}", shown.join("; ")))
}

pub(super) fn tree_evidence(own: &RunComparison) -> Vec<String> {
    let first = own.checkpoints.iter().find(|(_, tree)| !tree.differences.is_empty());
    let checkpoint = first.and_then(|(step, tree)| files(&format!("checkpoint step-{step}"), tree));
    checkpoint.into_iter().chain(files("results", &own.results)).collect()
}

/// What differs, for people.
pub(super) fn evidence(own: &RunComparison) -> Vec<String> {
    let mut evidence = series_evidence(own);
    evidence.extend(tree_evidence(own));
    evidence
}

fn trees_differ(own: &RunComparison) -> bool {
    own.checkpoints.iter().any(|(_, tree)| !tree.differences.is_empty())
        || !own.results.differences.is_empty()
}

/// When a resumed run begins to differ: which part of a step is wrong shows at its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onset {
    /// At the first step after the resume: its batch or its random numbers are others.
    First,
    /// At the second: the first had the same loss, and led elsewhere.
    Second,
    /// Later.
    Late,
    /// Not every step is reported, or only files differ.
    Unknown,
}

/// When the first difference is, after the resume before it.
fn onset(own: &RunComparison, run: &RehearsedRun) -> (Onset, Option<ResumePosition>) {
    let Some(first) = &own.series.first else { return (Onset::Unknown, None) };
    let Some(resume) = own.resume_before(first.step) else { return (Onset::Unknown, None) };
    let onset = match first.step - resume.after {
        _ if !tells_each_step(own, run, resume) => Onset::Unknown,
        1 => Onset::First,
        2 => Onset::Second,
        _ => Onset::Late,
    };
    (onset, Some(resume))
}

/// Whether each step has a report of its own. Where reports are counted there are then at least as many as steps; one
/// or two may have come too late.
fn tells_each_step(own: &RunComparison, run: &RehearsedRun, resume: ResumePosition) -> bool {
    if own.has_steps {
        run.steps().into_iter().find(|step| *step > resume.after) == Some(resume.after + 1)
    } else {
        resume.after + 2 >= resume.step
    }
}

/// A difference after a resume, in the run that tells most.
fn inexact(open: &[&(RehearsedRun, RunComparison)], is_noisy: bool) -> Option<Finding> {
    let meant: Vec<_> = open.iter().filter(|own| is_inexact(own)).collect();
    let onsets: Vec<Onset> = meant.iter().map(|(run, own)| self::onset(own, run).0).collect();
    let known = onsets.iter().copied().filter(|onset| *onset != Onset::Unknown);
    // What shows now at once and now later depends on where the run is in the data, not in the step.
    let same = known.clone().all(|onset| Some(onset) == known.clone().next());
    let onset = if same { known.clone().next().unwrap_or(Onset::Unknown) } else { Onset::Late };
    let clear = onsets.iter().position(|own| *own == onset).unwrap_or(0);
    let (run, own) = &***meant.get(clear)?;
    let (_, resume) = self::onset(own, run);
    let place = own.series.first.as_ref().map_or(0, |first| first.step);
    let place = format!("{} {place}", own.unit());
    let how = match (onset, resume.map(|resume| resume.step)) {
        (Onset::First, Some(step)) => {
            format!("it differs from {place}, the first after the resume from step {step}")
        }
        (_, Some(step)) => format!("resumed from step {step} it differs from {place} on"),
        (_, None) => "its metrics agree, and its files differ".to_owned(),
    };
    let what = format!("a resumed run does not continue exactly: {how}");
    let mut finding = Finding::new("resume-not-exact", Severity::Error, what);
    finding.evidence.extend(series_evidence(own));
    finding.evidence.extend(tree_evidence(own));
    if is_noisy {
        finding =
            finding.because("that is more than ten times what two undisturbed runs differ by");
    }
    let (evidence, hint) = suspects::find(own, onset);
    finding.evidence.extend(evidence);
    Some(finding.hinted(hint).seen_in(meant.iter().map(|own| own.0.kind)))
}

fn is_inexact((run, comparison): &(RehearsedRun, RunComparison)) -> bool {
    let resumed = run.attempts.iter().any(|attempt| attempt.resume_step.is_some());
    let is_later = comparison.differs_after_resume() != Some(false);
    resumed && is_later && trees_or_series(run, comparison)
}

fn trees_or_series(run: &RehearsedRun, own: &RunComparison) -> bool {
    // Where a step's metrics differ and no weights do, something else is wrong: see `averages`.
    trees_differ(own) || (own.series.first.is_some() && !has_equal_weights(run, own))
}

/// Whether weights that depend on all that was done until the first difference, and longer, are the same.
fn has_equal_weights(run: &RehearsedRun, own: &RunComparison) -> bool {
    let first = own.series.first.as_ref().map_or(0, |first| first.step);
    let last = as_step(own, first);
    let is_later = own.evidence.weights.iter().any(|step| *step >= last);
    let written = own.evidence.weights_written;
    let reported = report_time(run, own, first);
    let is_after = written.zip(reported).is_some_and(|(written, at)| at <= written);
    (is_later || is_after) && !trees_differ(own)
}

/// When a run reported at a place of its record.
fn report_time(run: &RehearsedRun, own: &RunComparison, place: u64) -> Option<f64> {
    let line = if own.has_steps {
        run.lines.iter().rfind(|line| line.step == Some(place))
    } else {
        run.lines.get(usize::try_from(place).ok()?.checked_sub(1)?)
    };
    line.map(|line| line.time)
}

/// The step at a place of the record: where reports are counted, by the resume before.
fn as_step(own: &RunComparison, place: u64) -> u64 {
    own.resume_before(place).map_or(place, |resume| resume.step + (place - resume.after))
}

fn series_evidence(own: &RunComparison) -> Vec<String> {
    let Some(first) = &own.series.first else { return Vec::new() };
    let (unit, largest) = (own.unit(), own.series.largest.as_ref());
    let largest = largest.filter(|largest| largest.step != first.step);
    let largest = largest.map_or_else(String::new, |largest| {
        format!("; the largest difference: {:.3e}, at {unit} {}", largest.size(), largest.step)
    });
    vec![format!("{}{largest}", describe_point(first, unit))]
}

/// The weights are the same, and what is printed is not.
fn averages(open: &[&(RehearsedRun, RunComparison)]) -> Option<Finding> {
    let meant: Vec<_> = open
        .iter()
        .filter(|(run, own)| {
            own.differs_after_resume() == Some(true) && has_equal_weights(run, own)
        })
        .collect();
    let (_, own) = &***meant.first()?;
    Some(
        Finding::new(
            "metrics-not-restored",
            Severity::Warning,
            "after a resume metrics differ, and checkpoints and results do not",
        )
        .because(series_evidence(own).join(""))
        .hinted("an average or a sum since the start is not saved: save it, or print what belongs to the step alone")
        .seen_in(meant.iter().map(|own| own.0.kind)),
    )
}

/// What was compared can't tell whether the state is right.
fn nothing_to_compare(all: &Rehearsal, open: &[&(RehearsedRun, RunComparison)]) -> Option<Finding> {
    let open: Vec<_> = open.iter().filter(|(run, _)| run.attempts.len() > 1).collect();
    let blind = open.iter().all(|(_, own)| own.evidence.is_empty());
    let (_, own) = open.first().filter(|_| blind)?;
    let text = "could not tell whether a resume is exact: nothing that was compared depends on the program's state";
    let mut finding = Finding::new("nothing-to-compare", Severity::Error, text);
    finding.evidence = without_evidence(own);
    Some(
        finding
            .hinted(format!(
                "read a value of each step, such as the loss, in [task.{}.metrics], or let it write its last weights to $NEMO_DIR/artifacts",
                all.task
            ))
            .pasting("step = 'step (\\d+)'\nloss = 'loss: (\\S+)'")
            .seen_in(open.iter().map(|(run, _)| run.kind)),
    )
}

/// Why each kind of thing tells nothing.
fn without_evidence(own: &RunComparison) -> Vec<String> {
    let metrics = match own.series.compared {
        0 => "no metric was read",
        _ => {
            "its metrics were not reported after a resume, never change, or follow from the step alone, as a learning rate does"
        }
    };
    let is_database = |(_, tree): &(u64, TreeDifference)| {
        tree.not_compared.iter().any(|path| file_names::is_database(Path::new(path)))
    };
    let checkpoints = if own.checkpoints.is_empty() {
        "no two runs have a checkpoint of the same step"
    } else if own.checkpoints.iter().any(is_database) {
        "the arrays of its checkpoints are in OCDBT databases, which are not read (`use_ocdbt=False` makes Orbax write what is)"
    } else {
        "no checkpoint after a resume holds weights, or anything else that changes"
    };
    let results = match own.results.compared {
        0 => "no file is below $NEMO_DIR",
        _ => "no file below $NEMO_DIR has numbers that were written after the resume",
    };
    [metrics, checkpoints, results].map(str::to_owned).to_vec()
}

/// Whether metrics alone say that a resume is exact.
pub(super) fn only_metrics(all: &Rehearsal) -> Option<Finding> {
    let runs = || all.runs.iter().filter(|(run, _)| run.attempts.len() > 1);
    let is_alone = |(_, own): &(RehearsedRun, RunComparison)| !own.evidence.has_files();
    (runs().next().is_some() && runs().all(is_alone)).then(|| {
        let text = "only metrics tell that a resume is exact: no weights could be compared";
        Finding::new(ONLY_METRICS, Severity::Note, text)
            .hinted("print them with all their digits, or save at a step that both runs have, such as the last one")
            .seen_in(runs().map(|(run, _)| run.kind))
    })
}

/// The code of a verdict that rests on metrics alone.
pub const ONLY_METRICS: &str = "only-metrics";
