//! From what was seen to what it means, with the evidence and what to change. Pure.

mod ending;
mod exactness;
mod resuming;
mod saving;

use serde::Serialize;

use super::compare::Comparison;
use super::run_record::{RehearsedRun, RunEnd};
use super::scenarios::ScenarioKind;

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
    /// The first undisturbed run.
    pub baseline: RehearsedRun,
    /// The second one, where there was one, and how it differs from the first.
    pub again: Option<(RehearsedRun, Comparison)>,
    /// The disturbed ones.
    pub runs: Vec<(RehearsedRun, Comparison)>,
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
        return vec![fails_undisturbed(reason)];
    }
    let mut findings = saving::judge(all);
    let resuming = resuming::judge(all);
    let explained: Vec<ScenarioKind> =
        resuming.iter().flat_map(|finding| finding.scenarios.iter().copied()).collect();
    findings.extend(resuming);
    findings.extend(exactness::judge(all, &explained));
    findings.extend(unexplained(all, &findings));
    findings.extend(differs(all, &findings));
    if is_safe(&findings) {
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

fn fails_undisturbed(reason: &str) -> Finding {
    Finding::new("fails-undisturbed", Severity::Error, "the program fails without any disturbance")
        .because(reason)
        .hinted("make it run first: `--keep FOLDER` keeps its logs")
        .seen_in([ScenarioKind::Undisturbed])
}

/// A run that is another one, where nothing else says why: what is not understood is not safe.
fn differs(all: &Rehearsal, findings: &[Finding]) -> Option<Finding> {
    if findings.iter().any(|finding| finding.code == "not-deterministic") {
        return None;
    }
    let is_explained = |kind: ScenarioKind| {
        findings
            .iter()
            .filter(|own| own.level != Severity::Note && own.code != "leaves-processes")
            .any(|own| own.scenarios.contains(&kind))
    };
    let open = |own: &&(RehearsedRun, Comparison)| {
        own.0.end == RunEnd::Completed && !own.1.is_equal() && !is_explained(own.0.kind)
    };
    let open: Vec<_> = all.runs.iter().filter(open).collect();
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
