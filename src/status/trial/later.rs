//! A trial that is submitted later than the rest: once what it waits for on this machine is done, or there is room for it.

use nemo_core::rundir::requests;

use super::{TrialEvidence, TrialVerdict, dependency, refused};
use crate::experiment::On;
use crate::journal;
use crate::status::{State, TaskStatus, TrialStatus, waiting};

pub(super) fn verdict(evidence: &TrialEvidence<'_>) -> TrialVerdict {
    let (sources, task, index) = (evidence.sources, &evidence.task.name, evidence.index);
    if requests::is_cancelled(&sources.requests, task, index) {
        return TrialVerdict::recorded(State::Cancelled, None);
    }
    if let Some(reason) = journal::later_refusal(&sources.stored.journal, task, index) {
        return TrialVerdict::recorded(State::Failed, Some(refused(reason)));
    }
    if let Some(unmet) = dependency::never_satisfied(evidence) {
        return TrialVerdict::of(State::Blocked, Some(unmet.why), unmet.basis);
    }
    if let Some(wish) = requests::pause(&sources.requests, task, index) {
        let why = waiting::paused(&sources.stored.id, wish);
        return TrialVerdict::open(State::Paused, Some(why));
    }
    let waits_for = evidence.parents.iter().find(|parent| is_open(evidence, parent));
    let why = match waits_for {
        Some(parent) => format!("waits for `{}`; it is submitted once that is over", parent.name),
        None => format!(
            "is submitted once your job limit in Slurm allows it (`nemo-slurm poll {}`)",
            sources.stored.id
        ),
    };
    TrialVerdict::open(State::Pending, Some(why))
}

/// Whether a task is not over that this trial waits for.
fn is_open(evidence: &TrialEvidence<'_>, parent: &TaskStatus) -> bool {
    let waits = |trial: &&TrialStatus, on| on != On::Each || trial.index == evidence.index;
    evidence.task.after.iter().filter(|it| it.task == parent.name).any(|dependency| {
        let mut trials = parent.trials.iter().filter(|trial| waits(trial, dependency.on));
        trials.any(|trial| !trial.state.is_final())
    })
}
