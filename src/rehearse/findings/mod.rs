//! From what was seen to what it means, with the evidence and what to change. Pure.

mod by_itself;
mod determinism;
mod ending;
mod exactness;
mod origin;
mod resuming;
mod saving;
mod suspects;

use serde::Serialize;

use super::compare::RunComparison;
use super::file_names::NamePatterns;
use super::run_record::{RehearsedAttempt, RehearsedRun, RunEnd};
use super::scenarios::ScenarioKind;

pub use exactness::ONLY_METRICS;
pub(super) use saving::longest_save;
pub use saving::{Reaction, needs_long_notice, reaction};

/// All that was seen.
#[derive(Debug)]
pub struct Rehearsal {
    /// The task.
    pub task: String,
    /// `checkpoint.lead`, in seconds.
    pub lead: u64,
    /// `checkpoint.signal`.
    pub signal: String,
    /// `restart.crashes`.
    pub crashes: u32,
    /// `rehearse.noise`: what may differ by chance although it is weights.
    pub noise: NamePatterns,
    /// The first undisturbed run.
    pub baseline: RehearsedRun,
    /// The second one, where there was one, and how it differs from the first.
    pub again: Option<(RehearsedRun, RunComparison)>,
    /// The disturbed ones.
    pub runs: Vec<(RehearsedRun, RunComparison)>,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The program is not safe to be interrupted.
    Error,
    /// It is safe, and could be better; or something could not be told.
    Warning,
    /// For information.
    Note,
}

/// One thing that follows from what was seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable.
    pub code: &'static str,
    /// How much it weighs.
    pub level: Severity,
    /// What is so.
    pub what: String,
    /// How that is known.
    pub evidence: Vec<String>,
    /// What to change.
    pub hint: String,
    /// A line for `exp.toml`, where one helps.
    pub paste: Option<String>,
    /// The runs that showed it.
    pub scenarios: Vec<ScenarioKind>,
}

impl Finding {
    fn new(code: &'static str, level: Severity, what: impl Into<String>) -> Self {
        let (what, hint) = (what.into(), String::new());
        let (evidence, scenarios) = (Vec::new(), Vec::new());
        Self { code, level, what, evidence, hint, paste: None, scenarios }
    }

    fn because(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// With what the program said last, where that is not told yet.
    fn quoting(self, attempt: Option<&RehearsedAttempt>) -> Self {
        let words = attempt.map(|own| own.last_words.as_slice()).unwrap_or_default();
        let is_told = words.len() < 2
            && words.iter().all(|word| self.evidence.iter().any(|own| own.contains(word.trim())));
        if is_told {
            self
        } else {
            self.because(format!("the end of its stderr: {}", words.join(" | ")))
        }
    }

    fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    fn pasting(mut self, line: impl Into<String>) -> Self {
        self.paste = Some(line.into());
        self
    }

    fn seen_in(mut self, kinds: impl IntoIterator<Item = ScenarioKind>) -> Self {
        for kind in kinds {
            if !self.scenarios.contains(&kind) {
                self.scenarios.push(kind);
            }
        }
        self
    }
}

/// Everything that follows, the weightiest first.
#[must_use]
pub fn judge(all: &Rehearsal) -> Vec<Finding> {
    if let RunEnd::Failed(reason) = &all.baseline.end {
        return vec![fails_undisturbed(reason, all)];
    }
    let mut findings = saving::judge(all);
    let (resuming, explained) = resuming::judge(all);
    findings.extend(resuming);
    findings.extend(exactness::judge(all, &explained));
    findings.extend(unexplained(all, &findings));
    findings.extend(differs(all, &findings));
    if is_safe(&findings) {
        findings.extend(exactness::only_metrics(all));
        findings.extend(saving::crash_ends_trial(all));
    }
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// Whether it is safe to interrupt the program.
#[must_use]
pub fn is_safe(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Severity::Error)
}

fn fails_undisturbed(reason: &str, all: &Rehearsal) -> Finding {
    Finding::new("fails-undisturbed", Severity::Error, "the program fails without any disturbance")
        .because(reason)
        .quoting(all.baseline.attempts.last())
        .hinted("make it run first: `--keep FOLDER` keeps its logs")
        .seen_in([ScenarioKind::Undisturbed])
}

/// A run that is another one, where nothing else says why: what is not understood is not safe.
fn differs(all: &Rehearsal, findings: &[Finding]) -> Option<Finding> {
    let differing =
        all.runs.iter().filter(|(run, own)| run.end == RunEnd::Completed && !own.is_equal());
    let open: Vec<_> =
        differing.filter(|(run, own)| !is_explained(run.kind, own, findings)).collect();
    let (_, own) = open.first()?;
    let mut finding = Finding::new(
        "differs",
        Severity::Error,
        "a disturbed run differs from the undisturbed ones",
    );
    if let Some(step) = own.series.missing.first() {
        finding = finding.because(format!("step {step} was never reported"));
    }
    if let Some(step) = own.series.added.first() {
        finding = finding.because(format!("step {step} was reported only there"));
    }
    finding.evidence.extend(exactness::evidence(own));
    Some(
        finding
            .hinted("`--keep FOLDER` keeps both runs for you to compare")
            .seen_in(open.iter().map(|(run, _)| run.kind)),
    )
}

/// Whether a finding of this run says why its record or its files are others. Most faults leave them as they are.
fn is_explained(kind: ScenarioKind, own: &RunComparison, findings: &[Finding]) -> bool {
    let has_other_steps = !own.series.missing.is_empty() || !own.series.added.is_empty();
    let explains = |finding: &Finding| match finding.code {
        "resume-not-exact"
        | "starts-over"
        | "resumes-from-its-own-file"
        | "wrong-step"
        | "fails-to-resume"
        | "finds-other-runs"
        | "exits-0-after-save" => true,
        "not-deterministic" | "metrics-not-restored" => !has_other_steps,
        // It went on from a file of its own, which the record does not know of.
        "saves-by-itself" | "goes-on-after-save" => own.series.first.is_none() && !has_other_steps,
        _ => false,
    };
    findings.iter().any(|finding| finding.scenarios.contains(&kind) && explains(finding))
}

/// Runs that did not come to their end, where nothing else says why.
fn unexplained(all: &Rehearsal, findings: &[Finding]) -> Vec<Finding> {
    let again = all.again.iter().map(|(run, _)| run);
    let open = again.chain(all.runs.iter().map(|(run, _)| run)).filter(|run| {
        !findings.iter().any(|finding| {
            finding.level == Severity::Error && finding.scenarios.contains(&run.kind)
        })
    });
    open.filter_map(|run| unfinished(run, all)).collect()
}

/// The finding for a run that failed or did not end.
fn unfinished(run: &RehearsedRun, all: &Rehearsal) -> Option<Finding> {
    match &run.end {
        RunEnd::Completed => None,
        RunEnd::Failed(reason) => Some(
            Finding::new("fails-disturbed", Severity::Error, "a disturbed run did not complete")
                .because(reason)
                .quoting(run.attempts.last())
                .hinted("`--keep FOLDER` keeps its logs")
                .seen_in([run.kind]),
        ),
        RunEnd::Stuck => Some(
            Finding::new("never-ends", Severity::Error, "a disturbed run did not come to its end")
                .because(format!(
                    "it was ended after {:.0} s; undisturbed it takes {:.0} s",
                    run.seconds, all.baseline.seconds
                ))
                .hinted(
                    "does each attempt begin where the one before saved? \
                     `--keep FOLDER` keeps its logs",
                )
                .seen_in([run.kind]),
        ),
    }
}

#[cfg(test)]
mod tests;
