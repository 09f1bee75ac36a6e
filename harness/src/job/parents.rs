//! Decides from the parents' records whether a trial may run. Slurm may show a finished job as preempted or out of
//! memory, and may count a dependency as met that is not.

use std::collections::BTreeMap;

use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, Condition, Next, ParentSpec, TaskDir};

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

/// Reads the records of the parents of a trial.
pub(crate) fn readiness(parents: &[ParentSpec], index: u32, known: &KnownEnds) -> ParentReadiness {
    judge(parents, index, |parent, trial| {
        let end = final_end(&records(parent, trial));
        end.or_else(|| known.get(&(parent.task.clone(), trial)).copied())
    })
}

pub(crate) fn records(parent: &ParentSpec, trial: u32) -> Vec<AttemptRecord> {
    let path = TaskDir(parent.dir.clone()).trial(trial).attempts();
    lines::read(&path).unwrap_or_default().rows
}

/// The end of the last attempt, if it is final.
fn final_end(rows: &[AttemptRecord]) -> Option<FinalEnd> {
    let last = rows.iter().rev().find(|row| row.as_start().is_some() || row.as_end().is_some());
    match last?.as_end()?.next {
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
    end_of: impl Fn(&ParentSpec, u32) -> Option<FinalEnd>,
) -> ParentReadiness {
    let mut open = Vec::new();
    let mut abandoned = None;
    for parent in parents {
        let trials = match parent.on {
            Condition::Each => index..index.saturating_add(1),
            Condition::Ok | Condition::Failed => 0..parent.trials,
            Condition::Any => continue, // that all is over, Slurm knows
        };
        let ends = trials.map(|trial| (trial, end_of(parent, trial)));
        match judge_one(parent, ends) {
            ParentReadiness::Ready => {}
            ParentReadiness::Open(more) => open.extend(more),
            ParentReadiness::Abandoned(why) => abandoned = Some(why),
            never @ ParentReadiness::Never { .. } => return never,
        }
    }
    match abandoned {
        _ if !open.is_empty() => ParentReadiness::Open(open),
        Some(why) => ParentReadiness::Abandoned(why),
        None => ParentReadiness::Ready,
    }
}

fn judge_one(
    parent: &ParentSpec,
    ends: impl Iterator<Item = (u32, Option<FinalEnd>)>,
) -> ParentReadiness {
    let name = &parent.task;
    let mut open = Vec::new();
    let mut abandoned = None;
    for (trial, end) in ends {
        match (end, parent.on) {
            (None, _) => open.push((name.clone(), trial)),
            (Some(FinalEnd::Done), _) => {}
            (Some(FinalEnd::Lost(_) | FinalEnd::Abandoned), Condition::Failed) => {
                return ParentReadiness::Ready;
            }
            (Some(FinalEnd::Abandoned), _) => abandoned = Some(trial),
            (Some(FinalEnd::Lost(what)), on) => {
                let why = format!("`{name}` trial {trial} {what}");
                return ParentReadiness::Never { why, of_all: on != Condition::Each };
            }
        }
    }
    if !open.is_empty() {
        return ParentReadiness::Open(open);
    }
    if let Some(trial) = abandoned {
        return ParentReadiness::Abandoned(format!(
            "`{name}` trial {trial} left no record of its end"
        ));
    }
    if parent.on == Condition::Failed {
        let why = format!("it is not needed: `{name}` completed");
        return ParentReadiness::Never { why, of_all: true };
    }
    ParentReadiness::Ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(on: Condition, ends: &[Option<FinalEnd>], expected: &str) {
        let trials = u32::try_from(ends.len()).unwrap();
        let parent = ParentSpec { task: "train".into(), dir: "/x/train".into(), trials, on };
        let readiness = judge(&[parent], 1, |_, trial| ends[trial as usize]);
        let text = match readiness {
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
