//! Decides from the parents' records whether a trial may run. Slurm may show a finished job as preempted or out of
//! memory, and may count a dependency as met that is not.

use std::collections::BTreeMap;

use nemo_core::rundir::requests;
use nemo_core::rundir::{
    AttemptEnd, AttemptRecord, Condition, ExperimentDir, Next, ParentSpec, Request,
    RequestedAction, TaskDir,
};

use crate::attempt::start_error::StartError;
use crate::job::harness::Harness;

/// What follows from the parents' records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParentReadiness {
    Ready,
    /// The trial can never run, for this reason.
    Never {
        why: String,
        /// Whether that is true for all trials of the task.
        of_all: bool,
    },
    /// These trials, by task and index, have no final end yet.
    Open(Vec<(String, u32)>),
    /// One has left no such end though its job is over: it may yet run again.
    Abandoned(String),
}

/// The final end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinalEnd {
    Done,
    /// It is not done. The text says what happened.
    Lost(&'static str),
    /// Its job is over, and it left no end that is final: its harness was killed.
    Abandoned,
}

/// Ends that are known from other sources than the records.
pub(crate) type KnownEnds = BTreeMap<(String, u32), FinalEnd>;

/// Reads the records of the parents of the trial.
pub(crate) fn readiness(
    harness: &Harness,
    known: &KnownEnds,
) -> Result<ParentReadiness, StartError> {
    let parents = &harness.trial.spec.after;
    let requests = retries(harness, parents)?;
    judge(parents, harness.trial.index, |parent, trial| {
        let rows = records(harness, parent, trial)?;
        let end = final_end(&rows, last_retry(&requests, &parent.task, trial));
        Ok(end.or_else(|| known.get(&(parent.task.clone(), trial)).copied()))
    })
}

/// The requests of the experiment by which trials were to run again.
fn retries(harness: &Harness, parents: &[ParentSpec]) -> Result<Vec<Request>, StartError> {
    let task = parents.first().map(|parent| TaskDir(parent.dir.clone()));
    let Some(dir) = task.as_ref().and_then(ExperimentDir::of_task) else { return Ok(Vec::new()) };
    let mut requests = harness.read(&dir.requests(), || requests::read_for_good(&dir))?;
    requests.retain(|request| request.action == RequestedAction::Retry);
    Ok(requests)
}

/// When a trial was last to run again, in unix seconds.
fn last_retry(retries: &[Request], task: &str, trial: u32) -> Option<u64> {
    retries.iter().filter(|request| request.covers(task, trial)).map(|request| request.time).max()
}

pub(crate) fn records(
    harness: &Harness,
    parent: &ParentSpec,
    trial: u32,
) -> Result<Vec<AttemptRecord>, StartError> {
    harness.record(&TaskDir(parent.dir.clone()).trial(trial).attempts())
}

/// The end of the last attempt, if it is final: no end from before the trial was retried is.
fn final_end(rows: &[AttemptRecord], retried: Option<u64>) -> Option<FinalEnd> {
    let last = rows.iter().rev().find(|row| row.as_start().is_some() || row.as_end().is_some());
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let is_newer = |end: &&AttemptEnd| retried.is_none_or(|retried| end.time >= retried as f64);
    match last?.as_end().filter(is_newer)?.next {
        Next::Done => Some(FinalEnd::Done),
        Next::Failed => Some(FinalEnd::Lost("failed")),
        Next::Cancelled => Some(FinalEnd::Lost("was cancelled")),
        Next::Timeout => Some(FinalEnd::Lost("ran out of time")),
        Next::Requeue | Next::Restart => None,
    }
}

/// Decides from the ends of the parent trials. Pure.
fn judge(
    parents: &[ParentSpec],
    index: u32,
    end_of: impl Fn(&ParentSpec, u32) -> Result<Option<FinalEnd>, StartError>,
) -> Result<ParentReadiness, StartError> {
    let mut open = Vec::new();
    let mut abandoned = None;
    for parent in parents {
        let trials = match parent.on {
            Condition::Each => index..index.saturating_add(1),
            Condition::Ok | Condition::Failed => 0..parent.trials,
            Condition::Any => continue, // that all is over, Slurm knows
        };
        let ends = trials.map(|trial| Ok((trial, end_of(parent, trial)?)));
        match judge_one(parent, ends)? {
            ParentReadiness::Ready => {}
            ParentReadiness::Open(more) => open.extend(more),
            ParentReadiness::Abandoned(why) => abandoned = Some(why),
            never @ ParentReadiness::Never { .. } => return Ok(never),
        }
    }
    Ok(match abandoned {
        _ if !open.is_empty() => ParentReadiness::Open(open),
        Some(why) => ParentReadiness::Abandoned(why),
        None => ParentReadiness::Ready,
    })
}

fn judge_one(
    parent: &ParentSpec,
    ends: impl Iterator<Item = Result<(u32, Option<FinalEnd>), StartError>>,
) -> Result<ParentReadiness, StartError> {
    let name = &parent.task;
    let mut open = Vec::new();
    let mut abandoned = None;
    for end in ends {
        let (trial, end) = end?;
        match (end, parent.on) {
            (None, _) => open.push((name.clone(), trial)),
            (Some(FinalEnd::Done), _) => {}
            (Some(FinalEnd::Lost(_) | FinalEnd::Abandoned), Condition::Failed) => {
                return Ok(ParentReadiness::Ready);
            }
            (Some(FinalEnd::Abandoned), _) => abandoned = Some(trial),
            (Some(FinalEnd::Lost(what)), on) => {
                let why = format!("`{name}` trial {trial} {what}");
                return Ok(ParentReadiness::Never { why, of_all: on != Condition::Each });
            }
        }
    }
    if !open.is_empty() {
        return Ok(ParentReadiness::Open(open));
    }
    if let Some(trial) = abandoned {
        let why = format!("`{name}` trial {trial} left no record of its end");
        return Ok(ParentReadiness::Abandoned(why));
    }
    if parent.on == Condition::Failed {
        let why = format!("it is not needed: `{name}` completed");
        return Ok(ParentReadiness::Never { why, of_all: true });
    }
    Ok(ParentReadiness::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_from_before_a_retry_is_none() {
        let end: AttemptRecord = serde_json::from_value(serde_json::json!({
            "event": "end", "attempt": 0, "time": 1000.5, "cause": "failed", "exit_code": 1, "signal": null, "step": null,
            "checkpoint_step": null, "next": "failed", "reason": null,
        }))
        .unwrap();
        let check = |retried, expected| {
            assert_eq!(final_end(std::slice::from_ref(&end), retried), expected);
        };
        check(None, Some(FinalEnd::Lost("failed")));
        check(Some(1000), Some(FinalEnd::Lost("failed")));
        check(Some(1001), None);
    }

    #[track_caller]
    fn check(on: Condition, ends: &[Option<FinalEnd>], expected: &str) {
        let trials = u32::try_from(ends.len()).unwrap();
        let parent = ParentSpec { task: "train".into(), dir: "/x/train".into(), trials, on };
        let readiness = judge(&[parent], 1, |_, trial| Ok(ends[trial as usize]));
        let text = match readiness.unwrap() {
            ParentReadiness::Ready => "ready".to_owned(),
            ParentReadiness::Never { why, of_all } => {
                format!("never{}: {why}", if of_all { " all" } else { "" })
            }
            ParentReadiness::Open(open) => format!("open {open:?}"),
            ParentReadiness::Abandoned(why) => format!("abandoned: {why}"),
        };
        assert_eq!(text, expected, "{on:?} {ends:?}");
    }

    #[test]
    fn a_record_that_can_not_be_read_is_no_open_end() {
        let parent =
            ParentSpec { task: "train".into(), dir: "/x".into(), trials: 2, on: Condition::Ok };
        let error = || StartError::Node("`/x`: stale".to_owned());
        let judged =
            judge(&[parent], 0, |_, trial| if trial == 0 { Ok(None) } else { Err(error()) });
        assert_eq!(judged, Err(error()));
    }

    #[test]
    fn the_records_decide() {
        use Condition::{Any, Each, Failed, Ok};
        const DONE: Option<FinalEnd> = Some(FinalEnd::Done);
        const LOST: Option<FinalEnd> = Some(FinalEnd::Lost("failed"));
        const ABANDONED: Option<FinalEnd> = Some(FinalEnd::Abandoned);
        let why = "abandoned: `train` trial 0 left no record of its end";
        check(Ok, &[ABANDONED, DONE], why);
        check(Ok, &[ABANDONED, LOST], "never all: `train` trial 1 failed");
        check(Ok, &[ABANDONED, None], "open [(\"train\", 1)]");
        check(Each, &[ABANDONED, DONE], "ready");
        check(Failed, &[ABANDONED, DONE], "ready");
        check(Ok, &[DONE, DONE], "ready");
        check(Ok, &[DONE, LOST], "never all: `train` trial 1 failed");
        check(Ok, &[None, LOST], "never all: `train` trial 1 failed");
        check(Ok, &[DONE, None], "open [(\"train\", 1)]");
        check(Each, &[LOST, DONE], "ready");
        check(Each, &[DONE, LOST], "never: `train` trial 1 failed");
        check(Each, &[DONE, None], "open [(\"train\", 1)]");
        check(Failed, &[DONE, LOST], "ready");
        check(Failed, &[None, LOST], "ready");
        check(Failed, &[DONE, DONE], "never all: it is not needed: `train` completed");
        check(Failed, &[DONE, None], "open [(\"train\", 1)]");
        check(Any, &[None, None], "ready");
    }
}
