//! Compares a run with the undisturbed one: its record, its checkpoints and its results.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use nemo_core::rundir::TrialDir;

use super::align::{self, ResumePosition};
use super::compare_files::{self, PassedOver, TreeDifference};
use super::evidence::{self, StateEvidence};
use super::file_names::NamePatterns;
use super::inventory;
use super::run_record::RehearsedRun;
use super::series::{self, RunSeries, SeriesDifference};
use super::tolerance::{self, TreeTolerance};

/// How a run differs from the undisturbed one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunComparison {
    /// The record.
    pub series: SeriesDifference,
    /// Steps that are twice in the record, and once in the undisturbed one.
    pub doubled: Vec<u64>,
    /// Whether reports have steps.
    pub has_steps: bool,
    /// Where the run resumed, in order.
    pub resumes: Vec<ResumePosition>,
    /// The checkpoints of the steps that both runs have.
    pub checkpoints: Vec<(u64, TreeDifference)>,
    /// The other files of the trial's folder.
    pub results: TreeDifference,
    /// Whether something may differ, since it does so undisturbed.
    pub has_slack: bool,
    /// The names in the checkpoint that the run resumed from first.
    pub held: BTreeSet<String>,
    /// What of all this depends on the program's state.
    pub evidence: StateEvidence,
}

impl RunComparison {
    /// By what its reports are told apart.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.has_steps { "step" } else { "report" }
    }

    /// The resume that comes right before a step.
    #[must_use]
    pub fn resume_before(&self, step: u64) -> Option<ResumePosition> {
        let before = self.resumes.iter().copied().filter(|resume| resume.after < step);
        before.max_by_key(|resume| resume.after)
    }

    /// Whether its first difference is after a resume. No difference at all is none before.
    #[must_use]
    pub fn differs_after_resume(&self) -> Option<bool> {
        let first = self.series.first.as_ref()?;
        Some(self.resume_before(first.step).is_some())
    }

    /// Whether nothing differs but what may.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        let trees = self.checkpoints.iter().map(|(_, tree)| tree).chain([&self.results]);
        self.series.first.is_none()
            && self.series.missing.is_empty()
            && self.series.added.is_empty()
            && self.doubled.is_empty()
            && trees.into_iter().all(|tree| tree.differences.is_empty())
    }
}

/// What may differ, since it does so undisturbed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// By metric.
    pub metrics: series::SeriesTolerance,
    /// By file and array.
    pub checkpoints: TreeTolerance,
    /// By file and array.
    pub results: TreeTolerance,
}

impl Tolerance {
    /// What two undisturbed runs differ in.
    #[must_use]
    pub fn new(undisturbed: &RunComparison, expected: &RehearsedRun, found: &RehearsedRun) -> Self {
        let (expected, found) = (RunSeries::new(&expected.lines), RunSeries::new(&found.lines));
        let mut metrics = series::SeriesTolerance::new();
        for (step, point) in &expected.points {
            let Some(other) = found.points.get(step) else { continue };
            for (name, value) in point {
                let Some(other) = other.get(name).filter(|other| *other != value) else { continue };
                let size = match (value.as_f64(), other.as_f64()) {
                    (Some(a), Some(b)) => (a - b).abs() * 10.0,
                    _ => f64::INFINITY,
                };
                let room = metrics.entry(name.clone()).or_insert(0.0);
                *room = room.max(size);
            }
        }
        let mut checkpoints = TreeTolerance::new();
        for (key, room) in
            undisturbed.checkpoints.iter().flat_map(|(_, tree)| tolerance::slack(tree))
        {
            checkpoints
                .entry(key)
                .and_modify(|before| *before = before.wider(room))
                .or_insert(room);
        }
        Self { metrics, checkpoints, results: tolerance::slack(&undisturbed.results) }
    }
}

/// Compares what two runs left behind.
pub fn compare(
    (expected, ours): (&RehearsedRun, &TrialDir),
    (found, theirs): (&RehearsedRun, &TrialDir),
    slack: &Tolerance,
    ignored: &NamePatterns,
) -> io::Result<RunComparison> {
    let a = RunSeries::new(&expected.lines);
    let (b, resumes) = align::align(&a, found, &slack.metrics);
    let passed = |is_left_out| PassedOver { is_left_out, ignored };
    let (checkpoint, result) = (passed(&is_manifest), passed(&is_harness_own));
    let metrics = evidence::metrics(&a, (found, &b), &resumes);
    let mut evidence = StateEvidence { metrics, ..StateEvidence::default() };
    let mut checkpoints = Vec::new();
    for &step in expected.checkpoints.iter().filter(|step| found.checkpoints.contains(step)) {
        let (own, other) = (ours.checkpoint(step), theirs.checkpoint(step));
        let difference = compare_files::compare(&own, &other, &slack.checkpoints, &checkpoint)?;
        checkpoints.push((step, difference));
        if let Some(before) = evidence::before(found, &resumes, step) {
            let earlier = theirs.checkpoint(before);
            evidence::add_checkpoint(
                &mut evidence,
                (before, &earlier),
                (step, &other),
                &checkpoint,
            )?;
        }
    }
    let (results, _) = compare_files::listed(theirs.path(), &result)?;
    let (results, since) = (results.into_iter().collect::<Vec<_>>(), evidence::last_work(found));
    if found.attempts.len() > 1 {
        evidence::add_results(&mut evidence, theirs.path(), &results, since)?;
    }
    let held = resumes.first().map(|first| inventory::names(&theirs.checkpoint(first.step)));
    Ok(RunComparison {
        series: series::compare(&a, &b, &slack.metrics),
        // What is told twice undisturbed, such as the last value once more, is the program's way.
        doubled: b.doubled.difference(&a.doubled).copied().collect(),
        has_steps: a.has_steps,
        resumes,
        checkpoints,
        results: compare_files::compare(ours.path(), theirs.path(), &slack.results, &result)?,
        has_slack: *slack != Tolerance::default(),
        held: held.transpose()?.unwrap_or_default(),
        evidence,
    })
}

fn is_manifest(path: &Path) -> bool {
    path == Path::new("MANIFEST")
}

/// What the harness keeps in a trial's folder, which is not the program's. In its working folder a program leaves caches and
/// settings of all kinds: its results are in `artifacts`.
fn is_harness_own(path: &Path) -> bool {
    let Some(name) = path.to_str() else { return false };
    let names = [
        "params.json",
        "attempts.jsonl",
        "metrics.jsonl",
        "staging",
        "checkpoints",
        "progress.json",
        "collected.json",
        "left",
        "work",
        "work-is-whole",
        "pause-wanted",
        "requeue-wanted",
    ];
    names.contains(&name)
        || name.starts_with("lease.")
        || name.starts_with(".nemo-aside-")
        || name.starts_with(".tmp-")
        || (!name.contains('/') && is_log(name))
}

/// Whether it is a file of one attempt, such as `3.out`.
fn is_log(name: &str) -> bool {
    let number = name.split_once('.').map(|(number, _)| number);
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}
