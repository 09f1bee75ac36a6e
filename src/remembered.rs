//! `observed.json`: what was known at the last look, for the time when Slurm can't be asked or has forgotten.
//!
//! Only a hint: whoever looks may replace it, whole. Trials of one state are kept as ranges, so that it stays small.

use std::collections::BTreeMap;

use nemo_core::checksum::{self, Checksum};
use nemo_core::durable;
use nemo_core::rundir::ExperimentDir;
use serde::{Deserialize, Serialize};

use crate::status::{Certainty, RememberedState, RememberedStates, State, Status};

/// The file. What an older version wrote is of another shape: it was never certain, and is asked again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Observed {
    runs: Vec<TrialRange>,
}

/// A run of trials of one task that stood alike.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialRange {
    task: String,
    first: u32,
    last: u32,
    state: State,
    reason: Option<String>,
    certainty: Certainty,
}

/// What was known; nothing where nobody looked before, or where the file is damaged: then all is asked again.
#[must_use]
pub fn read(dir: &ExperimentDir) -> RememberedStates {
    let text = std::fs::read(path(dir)).unwrap_or_default();
    expand(parse(&text).runs)
}

/// A wrong `final` would be believed for ever: without a right checksum nothing is.
fn parse(text: &[u8]) -> Observed {
    match checksum::check(text) {
        Checksum::Right => checksum::from_slice(text).unwrap_or_default(),
        Checksum::Absent | Checksum::Wrong => Observed::default(),
    }
}

/// Keeps what is known now. A failure loses a hint, no more.
pub fn keep(dir: &ExperimentDir, status: &Status) {
    if let Ok(text) = checksum::to_vec(&Observed { runs: runs(status) })
        && std::fs::read(path(dir)).ok().as_ref() != Some(&text)
    {
        drop(durable::replace_file_durably(&path(dir), &text));
    }
}

fn path(dir: &ExperimentDir) -> std::path::PathBuf {
    dir.0.join("observed.json")
}

pub(crate) fn expand(runs: Vec<TrialRange>) -> RememberedStates {
    let mut remembered = RememberedStates::new();
    for run in runs {
        let task: &mut BTreeMap<_, _> = remembered.entry(run.task).or_default();
        for trial in run.first..=run.last {
            let (state, certainty) = (run.state, run.certainty);
            task.insert(trial, RememberedState { state, reason: run.reason.clone(), certainty });
        }
    }
    remembered
}

pub(crate) fn runs(status: &Status) -> Vec<TrialRange> {
    let mut runs: Vec<TrialRange> = Vec::new();
    for task in &status.tasks {
        for trial in &task.trials {
            let alike = |run: &&mut TrialRange| {
                run.task == task.name
                    && run.last.checked_add(1) == Some(trial.index)
                    && (run.state, run.certainty) == (trial.state, trial.certainty)
                    && run.reason == trial.reason
            };
            match runs.last_mut().filter(alike) {
                Some(run) => run.last = trial.index,
                None => runs.push(TrialRange {
                    task: task.name.clone(),
                    first: trial.index,
                    last: trial.index,
                    state: trial.state,
                    reason: trial.reason.clone(),
                    certainty: trial.certainty,
                }),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_makes_anything_final() {
        let run = |first, last, state, certainty| TrialRange {
            task: "train".to_owned(),
            first,
            last,
            state,
            reason: None,
            certainty,
        };
        let runs = vec![
            run(0, 2, State::Cancelled, Certainty::Final),
            run(3, 4, State::Failed, Certainty::Agreed(100.0)),
            run(5, 9, State::Pending, Certainty::Open),
        ];
        let text = checksum::to_vec(&Observed { runs }).unwrap();
        assert_eq!(expand(parse(&text).runs).get("train").unwrap().len(), 10);
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let runs = parse(&flipped).runs;
            assert!(runs.is_empty(), "bit {bit}: {runs:?}");
        }
        let old = br#"[{"task":"train","first":0,"last":2,"state":"cancelled","reason":null}]"#;
        assert!(parse(old).runs.is_empty());
    }
}
