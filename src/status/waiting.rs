//! Why a trial waits, in words: Slurm's reasons, and what somebody wished. Pure.

use super::trial::TrialEvidence;
use super::{AttemptStatus, Request, RequestedAction};
use crate::slurm::{JobState, QueueRow};
use crate::store::ExperimentId;

/// The wish by which a trial is paused, if the last one about it was that.
pub(super) fn pause<'a>(task: &str, trial: u32, requests: &'a [Request]) -> Option<&'a Request> {
    let last = requests.iter().rev().find(|request| {
        matches!(request.action, RequestedAction::Pause | RequestedAction::Resume)
            && request.covers(task, trial)
    })?;
    (last.action == RequestedAction::Pause).then_some(last)
}

/// What lets go on what was paused by this wish: all of it, as it was paused.
pub(super) fn paused(id: &ExperimentId, wish: &Request) -> String {
    format!("paused; `nemo-slurm resume {id}{}` resumes it", wish.scope)
}

/// Whether Slurm holds a job because it could not start it: nobody wishes that it waits.
pub(super) fn is_start_failure(evidence: &TrialEvidence<'_>, row: &QueueRow) -> bool {
    let wish = pause(&evidence.task.name, evidence.index, &evidence.sources.requests);
    wish.is_none() && row.reason.contains("launch failed")
}

/// Why a job is held. Slurm calls whoever is root an administrator, also where it was us.
pub(super) fn held(evidence: &TrialEvidence<'_>, row: &QueueRow) -> String {
    let id = &evidence.sources.stored.id;
    let task = &evidence.task.name;
    if let Some(wish) = pause(task, evidence.index, &evidence.sources.requests) {
        return paused(id, wish);
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

/// Slurm's reason in words, where it needs any.
pub(super) fn reason(row: &QueueRow, attempts: &[AttemptStatus]) -> Option<String> {
    let text = match &*row.reason {
        "None" | "" => return None,
        "Dependency" => "waits for another task",
        "DependencyNeverSatisfied" => "its dependency can never be satisfied",
        "BeginTime" if attempts.is_empty() => "waits for the time at which it may start",
        "BeginTime" => "waits a while before it starts again",
        "JobArrayTaskLimit" => "waits for others of its task (`concurrent`)",
        "Priority" => "waits for its turn: other jobs come first",
        "Resources" => "waits for free resources",
        "Licenses" => "waits for a free licence",
        "Cleaning" => "waits until its earlier run is cleaned up",
        "Prolog" => "waits until its nodes are prepared",
        "Reservation" => "waits for its reservation to begin",
        "WaitingForScheduling" => "waits until Slurm schedules it",
        reason => return Some(other(reason)),
    };
    Some(text.to_owned())
}

/// Reasons that are rarer, or of which there are many; Slurm's word is what an administrator asks for.
fn other(reason: &str) -> String {
    let text = never(reason).or_else(|| limit(reason)).or_else(|| place(reason)).unwrap_or("waits");
    format!("{text} ({reason})")
}

/// Requests that Slurm takes and never starts.
fn never(reason: &str) -> Option<&'static str> {
    let text = match reason {
        "BadConstraints" => {
            "can never start: no node of its partition has the memory, GPUs, CPUs or features \
             that it asks for: cancel it and ask for less"
        }
        "PartitionNodeLimit" => {
            "can't start: its partition has a lower node limit, or nodes are down: if \
             it stays so, cancel it and ask for fewer"
        }
        "PartitionTimeLimit" => {
            "can't start: its `time` is longer than its partition allows: cancel it and ask for less"
        }
        "InvalidAccount" => "can't start: its account is not valid: cancel it and name another",
        "InvalidQOS" => "can't start: its QOS is not valid: cancel it and name another",
        reason if is_of_one_job(reason) => {
            "can't start: it asks for more than its account or QOS allows one job: cancel it and \
             ask for less"
        }
        _ => return None,
    };
    Some(text)
}

/// Whether a limit on each single job is meant, such as `QOSMaxWallDurationPerJobLimit`: no other job's end helps.
fn is_of_one_job(reason: &str) -> bool {
    let is_limit = reason.starts_with("AssocMax") || reason.starts_with("QOSMax");
    is_limit && (reason.contains("PerJob") || reason.contains("PerNode"))
}

/// Limits that other jobs use up.
fn limit(reason: &str) -> Option<&'static str> {
    let is_about = |start: &str| reason.starts_with(start);
    let jobs = ["AssocMaxJobsLimit", "AssocGrpJobsLimit", "AssociationJobLimit"];
    if jobs.contains(&reason) {
        Some("waits until other jobs of its account end: the account's limit is reached")
    } else if is_about("QOSMaxJobs") || is_about("QOSGrpJobs") || reason == "QOSJobLimit" {
        Some("waits until other jobs of its QOS end: the QOS's limit is reached")
    } else if is_about("Assoc") {
        Some("waits, since its account has reached a limit")
    } else if is_about("QOS") {
        Some("waits, since its QOS has reached a limit")
    } else {
        None
    }
}

/// Places that are not to be had now.
fn place(reason: &str) -> Option<&'static str> {
    let is_about = |start: &str| reason.starts_with(start);
    if is_about("ReqNodeNotAvail") || is_about("Nodes_required") || reason == "NodeDown" {
        Some("waits for nodes that are not available now: in use, reserved or down")
    } else if reason == "PartitionDown" || reason == "PartitionInactive" {
        Some("waits, since its partition starts no jobs now")
    } else {
        None
    }
}
