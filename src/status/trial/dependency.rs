//! Why a trial could never start: what it waits for can't come.

use super::TrialEvidence;
use crate::experiment::{On, Task};
use crate::status::finality::StateSource;
use crate::status::{RememberedState, State, TaskStatus, TrialStatus};

/// Why a dependency can never be met.
pub(super) struct UnmetDependency {
    pub(super) why: String,
    /// What that is known from: it is as sure as the parent's state.
    pub(super) basis: StateSource,
}

/// The parent because of which this trial could never start, in words.
pub(super) fn never_satisfied(evidence: &TrialEvidence<'_>) -> Option<UnmetDependency> {
    unmet_of(evidence.task, evidence.parents, evidence.index)
}

/// The same of a trial on this machine.
pub(super) fn unmet_of(task: &Task, parents: &[TaskStatus], index: u32) -> Option<UnmetDependency> {
    task.after.iter().find_map(|dependency| {
        let parent = parents.iter().find(|parent| parent.name == dependency.task)?;
        unmet(parent, dependency.on, index)
    })
}

/// Why a trial is what was certain before. What blocked it may have been retried alone since.
pub(super) fn reason_now(
    evidence: &TrialEvidence<'_>,
    certain: &RememberedState,
) -> Option<String> {
    if certain.state != State::Blocked || evidence.task.after.is_empty() {
        return certain.reason.clone();
    }
    let is_lost_no_more = || {
        let (id, task) = (&evidence.sources.stored.id, &evidence.task.name);
        format!(
            "what blocked it was retried: `nemo-slurm retry {id}/{task}` runs it once that is completed"
        )
    };
    Some(never_satisfied(evidence).map_or_else(is_lost_no_more, |unmet| unmet.why))
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
        On::Failed => return no_failure(parent),
        On::Any => None,
    }?;
    let why = format!("`{}` trial {} is {}", parent.name, lost.index, lost.state.as_str());
    Some(UnmetDependency { why, basis: basis(lost.is_final()) })
}

/// Why a task for a failure has nothing to do.
fn no_failure(parent: &TaskStatus) -> Option<UnmetDependency> {
    let trials = &parent.trials;
    let all_final = trials.iter().all(TrialStatus::is_final);
    let why = format!("not needed: `{}` completed", parent.name);
    let has_completed = trials.iter().all(|trial| trial.state == State::Completed);
    has_completed.then(|| UnmetDependency { why, basis: basis(all_final) })
}

/// The same for a trial that had begun, since there was a failure then.
pub(super) fn needed_no_more(evidence: &TrialEvidence<'_>) -> Option<UnmetDependency> {
    let after = evidence.task.after.iter().filter(|dependency| dependency.on == On::Failed);
    let parent = |name: &str| evidence.parents.iter().find(|parent| parent.name == name);
    after.filter_map(|dependency| parent(&dependency.task)).find_map(no_failure)
}

/// Whether a trial will not complete. One that `poll` brings back is not lost yet.
fn is_lost(trial: &TrialStatus) -> bool {
    trial.state.is_final() && trial.state != State::Completed && trial.remedy.is_none()
}

fn basis(is_final: bool) -> StateSource {
    if is_final { StateSource::Record } else { StateSource::Agreed }
}
