//! Why a trial waits, in words: Slurm's reasons, and what somebody wished. Pure.

use super::trial::Case;
use super::{Action, AttemptStatus, Request};
use crate::slurm::QueueRow;
use crate::store::ExperimentId;

/// The wish by which a trial is paused, if the last one about it was that.
pub(super) fn pause<'a>(task: &str, trial: u32, requests: &'a [Request]) -> Option<&'a Request> {
    let is_meant = |request: &&Request| {
        matches!(request.action, Action::Pause | Action::Resume) && request.covers(task, trial)
    };
    let last = requests.iter().rev().find(is_meant)?;
    (last.action == Action::Pause).then_some(last)
}

/// What lets go on what was paused by this wish: all of it, as it was paused.
pub(super) fn paused(id: &ExperimentId, wish: &Request) -> String {
    let mut target = id.to_string();
    for part in wish.task.iter().cloned().chain(wish.trial.map(|trial| trial.to_string())) {
        target.push('/');
        target.push_str(&part);
    }
    format!("paused; `nemo-slurm resume {target}` lets it go on")
}

/// Why a job is held. Slurm calls whoever is root an administrator, also where it was us.
pub(super) fn held(case: &Case<'_>, row: &QueueRow) -> String {
    let id = &case.sources.stored.id;
    let task = &case.task.name;
    if let Some(wish) = pause(task, case.index, &case.sources.requests) {
        return paused(id, wish);
    }
    let go_on = format!("`nemo-slurm resume {id}/{task}` lets it go on");
    match &*row.reason {
        "JobHeldAdmin" => "is held by an administrator, who must release it".to_owned(),
        "JobHoldMaxRequeue" => format!("is held by Slurm: it was requeued too often; {go_on}"),
        reason if reason.contains("launch failed") => {
            format!("is held by Slurm: its job could not be started; {go_on}")
        }
        _ => format!("is held; {go_on}"),
    }
}

/// Slurm's reason in words, where it needs any.
pub(super) fn reason(row: &QueueRow, attempts: &[AttemptStatus]) -> Option<String> {
    let text = match &*row.reason {
        "None" | "" => return None,
        "Dependency" => "waits for another task",
        "DependencyNeverSatisfied" => "what it waits for can never be",
        "BeginTime" if attempts.is_empty() => "waits for the time at which it may start",
        "BeginTime" => "waits a while before it starts again",
        "JobArrayTaskLimit" => "waits for others of its task (`concurrent`)",
        "Priority" => "waits for its turn: other jobs come first",
        "Resources" => "waits for free resources",
        "Licenses" => "waits for a free licence",
        reason => return Some(other(reason)),
    };
    Some(text.to_owned())
}

/// Reasons of which there are many; Slurm's word is what an administrator asks for.
fn other(reason: &str) -> String {
    let is_about = |start: &str| reason.starts_with(start);
    let text = if is_about("Assoc") {
        "waits, since its account has reached a limit"
    } else if is_about("QOS") {
        "waits, since its QOS has reached a limit"
    } else if is_about("ReqNodeNotAvail") || is_about("Nodes_required") {
        "waits for nodes that are not available now"
    } else {
        "waits"
    };
    format!("{text} ({reason})")
}
