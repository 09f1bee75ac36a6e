//! `observed.json`: what was known at the last look, for the time when Slurm can't be asked or has forgotten.
//!
//! Only a hint: whoever looks may replace it, whole. Trials of one state are kept as ranges, so that it stays small.

use std::collections::BTreeSet;

use nemo_core::checksum::{self, Checksum};
use nemo_core::durable;
use nemo_core::open;
use nemo_core::rundir::ExperimentDir;
use serde::{Deserialize, Serialize};

use crate::journal;
use crate::status::{Certainty, RememberedState, RememberedStates, State, Status, TrialStatus};
use crate::store::Stored;

/// The file. What an older version wrote is of another shape: it was never certain, and is asked again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Observed {
    runs: Vec<TrialRange>,
    /// The generation up to which the journal was known: of what was retried since, nothing is known.
    #[serde(default)]
    generation: u32,
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
pub fn read(stored: &Stored) -> RememberedStates {
    let text = open::read(&path(&stored.dir)).unwrap_or_default();
    let Observed { runs, generation } = parse(&text);
    let retried_since = |task: &str| -> BTreeSet<u32> {
        let retries = journal::last_retries(&stored.journal, task).into_iter();
        retries.filter(|(_, it)| it.generation > generation).map(|(trial, _)| trial).collect()
    };
    known(runs, retried_since)
}

/// A wrong `final` would be believed for ever: without a right checksum nothing is.
fn parse(text: &[u8]) -> Observed {
    match checksum::check(text) {
        Checksum::Right => checksum::from_slice(text).unwrap_or_default(),
        Checksum::Absent | Checksum::Wrong => Observed::default(),
    }
}

/// Keeps what is known now. A failure loses a hint, no more.
pub fn keep(stored: &Stored, status: &Status) {
    let dir = &stored.dir;
    let generation = journal::last_generation(&stored.journal);
    if let Ok(text) = checksum::to_vec(&Observed { runs: runs(status), generation })
        && open::read(&path(dir)).ok().as_ref() != Some(&text)
    {
        drop(durable::replace_file_durably(&path(dir), &text));
    }
}

fn path(dir: &ExperimentDir) -> std::path::PathBuf {
    dir.0.join("observed.json")
}

/// What such runs tell of all trials but those that were retried since, by task.
pub(crate) fn known(
    runs: Vec<TrialRange>,
    retried_since: impl Fn(&str) -> BTreeSet<u32>,
) -> RememberedStates {
    let mut known = RememberedStates::default();
    let (mut task, mut retried) = (String::new(), BTreeSet::new());
    for run in runs {
        if run.task != task {
            retried = retried_since(&run.task);
            task.clone_from(&run.task);
        }
        let TrialRange { first, last, state, reason, certainty, .. } = run;
        let state = RememberedState { state, reason, certainty };
        known.add_all_but(&retried, &task, first..=last, &state);
    }
    known
}

impl TrialRange {
    fn goes_on_with(&self, task: &str, trial: &TrialStatus) -> bool {
        self.task == task
            && self.last.checked_add(1) == Some(trial.index)
            && (self.state, self.certainty) == (trial.state, trial.certainty)
            && self.reason == trial.reason
    }
}

pub(crate) fn runs(status: &Status) -> Vec<TrialRange> {
    let mut runs: Vec<TrialRange> = Vec::new();
    for task in &status.tasks {
        for trial in &task.trials {
            match runs.last_mut().filter(|run| run.goes_on_with(&task.name, trial)) {
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
        let text = checksum::to_vec(&Observed { runs, generation: 0 }).unwrap();
        let known = known(parse(&text).runs, |_| BTreeSet::from([8]));
        let trials: Vec<u32> = (0..12).filter(|it| known.get("train", *it).is_some()).collect();
        assert_eq!(trials, [0, 1, 2, 3, 4, 5, 6, 7, 9]);
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
