//! Why a trial could never start: what it waits for can't come.

use super::TrialEvidence;
use crate::experiment::On;
use crate::status::finality::StateSource;
use crate::status::{State, TaskStatus, TrialStatus};

/// Why a dependency can never be met.
pub(super) struct UnmetDependency {
    pub(super) why: String,
    /// What that is known from: it is as sure as the parent's state.
    pub(super) basis: StateSource,
}

/// The parent because of which this trial could never start, in words.
pub(super) fn never_satisfied(evidence: &TrialEvidence<'_>) -> Option<UnmetDependency> {
    evidence.task.after.iter().find_map(|dependency| {
        let parent = evidence.parents.iter().find(|parent| parent.name == dependency.task)?;
        unmet(parent, dependency.on, evidence.index)
    })
}

/// As [`never_satisfied`], where the parent's own record says so: no later answer of Slurm's changes it.
pub(super) fn certainly_unmet(evidence: &TrialEvidence<'_>) -> Option<String> {
    let unmet = never_satisfied(evidence)?;
    (unmet.basis == StateSource::Record).then_some(unmet.why)
}

/// Why a dependency can never be met; none if it is met or may yet be.
fn unmet(parent: &TaskStatus, on: On, index: u32) -> Option<UnmetDependency> {
    let trials = &parent.trials;
    let lost = match on {
        On::Ok => trials.iter().find(|trial| is_lost(trial)),
        On::Each => trials.get(index as usize).filter(|trial| is_lost(trial)),
        On::Failed if trials.iter().all(|trial| trial.state == State::Completed) => {
            let why = format!("not needed: `{}` completed", parent.name);
            let all_final = trials.iter().all(TrialStatus::is_final);
            return Some(UnmetDependency { why, basis: basis(all_final) });
        }
        On::Failed | On::Any => None,
    }?;
    let why = format!("`{}` trial {} is {}", parent.name, lost.index, lost.state.as_str());
    Some(UnmetDependency { why, basis: basis(lost.is_final()) })
}

/// Whether a trial will not complete. One that `poll` brings back is not lost yet.
fn is_lost(trial: &TrialStatus) -> bool {
    trial.state.is_final() && trial.state != State::Completed && trial.remedy.is_none()
}

fn basis(is_final: bool) -> StateSource {
    if is_final { StateSource::Record } else { StateSource::Agreed }
}
