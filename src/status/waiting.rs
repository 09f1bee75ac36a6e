//! Why a trial is held, in words: a pause, a spent budget, or Slurm. Pure.

use nemo_core::rundir::requests::{self, SpentBudget};

use super::Request;
use super::trial::TrialEvidence;
use crate::humanize::gpu_hours;
use crate::slurm::{JobState, QueueRow};
use crate::store::ExperimentId;

/// What resumes the trials that this request paused, all of them together.
pub(super) fn paused(id: &ExperimentId, pause: &Request) -> String {
    let Some(budget) = &pause.budget else {
        return format!("paused; `nemo-slurm resume {id}{}` resumes it", pause.scope);
    };
    format!(
        "paused: {}; `nemo-slurm resume {id}{}` lets it spend as much again",
        spent(budget),
        pause.scope
    )
}

/// `the budget of executor `gpu` is spent (500.2 of 500 GPU-hours)`.
pub fn spent(SpentBudget { executor, spent, limit, .. }: &SpentBudget) -> String {
    let (spent, limit) = (gpu_hours(*spent), gpu_hours(*limit));
    format!("the budget of executor `{executor}` is spent ({spent} of {limit} GPU-hours)")
}

/// Whether Slurm holds a job because it could not start it: no user paused it.
pub(super) fn is_start_failure(evidence: &TrialEvidence<'_>, row: &QueueRow) -> bool {
    let pause = requests::pause(&evidence.sources.requests, &evidence.task.name, evidence.index);
    pause.is_none() && row.reason.contains("launch failed")
}

/// Why a job is held. Slurm calls whoever is root an administrator, also where it was us.
pub(super) fn held(evidence: &TrialEvidence<'_>, row: &QueueRow) -> String {
    let id = &evidence.sources.stored.id;
    let task = &evidence.task.name;
    if let Some(pause) = requests::pause(&evidence.sources.requests, task, evidence.index) {
        return paused(id, pause);
    }
    let go_on = format!("`nemo-slurm resume {id}/{task}` resumes it");
    match &*row.reason {
        "JobHeldAdmin" => {
            "is held by root or an administrator (`scontrol release` by them)".to_owned()
        }
        "JobHoldMaxRequeue" => format!("is held by Slurm: it was requeued too often; {go_on}"),
        reason if reason.contains("launch failed") => {
            "is held by Slurm: its job could not be started; `nemo-slurm poll` releases it"
                .to_owned()
        }
        _ if matches!(row.state, JobState::RequeueHold | JobState::SpecialExit) => {
            format!("is held by Slurm after its job ended; {go_on}")
        }
        _ => format!("is held; {go_on}"),
    }
}
