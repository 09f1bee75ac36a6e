//! A trial that is submitted later than the rest: once what it waits for on this machine is done, or there is room for it.

use nemo_core::rundir::requests;

use super::{TrialEvidence, TrialVerdict, dependency, refused};
use crate::experiment::{On, OutsideDependency, Task};
use crate::journal;
use crate::status::{State, TaskStatus, TrialStatus, waiting};
use crate::store::Stored;

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
    if let Some(why) = sources.lost_outside.clone().filter(|_| evidence.task.after.is_empty()) {
        // As final as what blocks it: a retry over there takes both back.
        return TrialVerdict::recorded(State::Blocked, Some(why));
    }
    if let Some(pause) = requests::pause(&sources.requests, task, index) {
        let why = waiting::paused(&sources.stored.id, pause);
        return TrialVerdict::open(State::Paused, Some(why));
    }
    let waits_for = evidence.parents.iter().find(|parent| is_open(evidence, parent));
    let why = match waits_for {
        Some(parent) => {
            format!("waits for `{}`; it is submitted {}", parent.name, when(evidence, parent))
        }
        None => not_before(evidence),
    };
    TrialVerdict::open(State::Pending, Some(why))
}

/// What else keeps a trial from being submitted.
fn not_before(evidence: &TrialEvidence<'_>) -> String {
    let Stored { id, experiment, .. } = evidence.sources.stored;
    let all: Vec<String> = experiment.after.iter().map(OutsideDependency::what).collect();
    if all.is_empty() || !evidence.task.after.is_empty() {
        return format!(
            "is submitted once your job limit in Slurm allows it (`nemo-slurm poll {id}`)"
        );
    }
    let all = all.join(", ");
    format!(
        "waits for {all}, and for room in your job limit; `nemo-slurm poll {id}` submits it as soon as both allow it"
    )
}

/// Slurm is asked for a trial together with a parent on Slurm that has no job yet either.
fn when(evidence: &TrialEvidence<'_>, parent: &TaskStatus) -> &'static str {
    let experiment = &evidence.sources.stored.experiment;
    let mut tasks = experiment.tasks.iter().filter(|task| task.name == parent.name);
    let is_later = |trial: &TrialStatus| trial.slurm_job.is_none() && !trial.state.is_final();
    let has_later = |task: &Task| !experiment.is_local(task) && parent.trials.iter().any(is_later);
    if tasks.any(has_later) { "together with that" } else { "once that is over" }
}

/// Whether a task is not over that this trial waits for.
fn is_open(evidence: &TrialEvidence<'_>, parent: &TaskStatus) -> bool {
    let waits = |trial: &&TrialStatus, on| on != On::Each || trial.index == evidence.index;
    evidence.task.after.iter().filter(|it| it.task == parent.name).any(|dependency| {
        let mut trials = parent.trials.iter().filter(|trial| waits(trial, dependency.on));
        trials.any(|trial| !trial.state.is_final())
    })
}
