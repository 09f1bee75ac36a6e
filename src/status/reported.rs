//! What the harness tells of a trial that goes wrong though nothing has failed. Pure.

use std::collections::BTreeMap;

use nemo_core::rundir::{AttemptRecord, AttemptStart, Cause};

use super::{StatusInputs, TrialFiles, TrialWarning};

/// A pattern that no line of one trial matched.
const NEVER_MATCHED: &str = "pattern-never-matched";

/// A warning for each kind, with the trials whose newest attempt has it. `unreported` are the tasks of which it is said
/// already that no trial reported a metric.
pub(super) fn warnings(sources: &StatusInputs<'_>, unreported: &[&str]) -> Vec<TrialWarning> {
    let mut said = Vec::new();
    for (task, trials) in &sources.files {
        // By code: the first trial's words stand for all.
        let mut kinds: BTreeMap<&str, (&str, &str, Vec<u32>)> = BTreeMap::new();
        for (index, files) in trials {
            let is_said = |code: &str| code == NEVER_MATCHED && unreported.contains(&task.as_str());
            for (code, message, hint) in of_trial(files).filter(|(code, ..)| !is_said(code)) {
                kinds.entry(code).or_insert((message, hint, Vec::new())).2.push(*index);
            }
        }
        said.extend(kinds.into_values().map(|(message, hint, trials)| {
            TrialWarning::of_trials(task, trials, format!("{message}. {hint}"))
        }));
    }
    said
}

fn of_trial(files: &TrialFiles) -> impl Iterator<Item = (&str, &str, &str)> {
    let newest = files.attempts.iter().filter_map(AttemptRecord::as_start).next_back();
    let is_excused = newest.is_some_and(|start| failed_at_once(files, start));
    let newest = newest.map(|start| start.attempt);
    files.attempts.iter().filter_map(move |record| match record {
        AttemptRecord::Warning { code, .. } if is_excused && code == NEVER_MATCHED => None,
        AttemptRecord::Warning { attempt, code, message, hint, .. } if Some(*attempt) == newest => {
            Some((code.as_str(), message.as_str(), hint.as_str()))
        }
        _ => None,
    })
}

/// Whether an attempt failed before its program told a step or a metric: then its error is why no pattern matched. One
/// that ran well, or until somebody stopped it, has no such excuse.
fn failed_at_once(files: &TrialFiles, start: &AttemptStart) -> bool {
    let mut ends = files.attempts.iter().filter_map(AttemptRecord::as_end);
    let Some(end) = ends.rfind(|end| end.attempt == start.attempt) else {
        return false;
    };
    let has_failed = matches!(end.cause, Cause::Failed | Cause::OutOfMemory);
    let has_advanced = end.step > start.resume_step;
    let has_reported = files.metrics.iter().any(|line| line.attempt == start.attempt);
    has_failed && !has_advanced && !has_reported
}
