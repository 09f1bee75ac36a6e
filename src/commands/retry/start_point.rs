//! `--from-step` and `--from-start`: which trials can begin there.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::StartPoint;
use super::choice::LeftAlone;
use crate::commands::control::TrialKey;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::journal::{self, Event, RetriedTrials};
use crate::status::{State, Status};
use crate::store::Stored;

/// The trials that can't begin at a step, since they have no checkpoint of it, and why.
pub(super) fn refused(
    stored: &Stored,
    status: &Status,
    start: Option<StartPoint>,
) -> Result<BTreeMap<TrialKey, String>, CommandError> {
    let Some(StartPoint::Step(step)) = start else { return Ok(BTreeMap::new()) };
    let mut refused = BTreeMap::new();
    for task in &status.tasks {
        let over = [State::Failed, State::Timeout, State::Cancelled];
        for trial in task.trials.iter().filter(|trial| over.contains(&trial.state)) {
            let steps = checkpoints(stored, &task.name, trial.index)?;
            if !steps.contains(&step) {
                refused.insert((task.name.clone(), trial.index), lacks(step, &steps));
            }
        }
    }
    Ok(refused)
}

/// The steps of the checkpoints that a trial could resume from, in their order.
fn checkpoints(stored: &Stored, task: &str, trial: u32) -> Result<Vec<u64>, CommandError> {
    let path = stored.dir.task(task).trial(trial).checkpoints();
    let entries = match std::fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", &path)?,
    };
    let mut steps = Vec::new();
    for entry in entries {
        let name = entry.at("read", &path)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("step-"));
        steps.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    steps.sort_unstable();
    Ok(steps)
}

fn lacks(step: u64, steps: &[u64]) -> String {
    let has = match steps {
        [] => "none".to_owned(),
        steps => steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    format!("it has no checkpoint of step {step}; it has {has}")
}

/// Fails where nothing can begin there, unless an earlier run of the same command has seen to it.
pub(super) fn require_any(
    left: &[LeftAlone],
    stored: &Stored,
    start: StartPoint,
) -> Result<(), CommandError> {
    let left: Vec<&LeftAlone> = left.iter().filter(|left| !is_done(left, stored, start)).collect();
    if left.is_empty() {
        return Ok(());
    }
    let why: Vec<String> =
        left.iter().map(|left| format!("{}/{}: {}", left.task, left.trials, left.why)).collect();
    let text = format!("nothing was retried: {}", why.join("; "));
    let hint = format!(
        "`nemo-slurm status {}` shows the trials. One that runs must be cancelled first; one that is completed runs again \
         only in a new submission",
        stored.id
    );
    Err(CommandError::new(ExitCode::Usage, text).hinted(hint))
}

/// Whether the last retry of these trials, or of those that had blocked them, began there.
fn is_done(left: &LeftAlone, stored: &Stored, start: StartPoint) -> bool {
    let begins_there = |group: &RetriedTrials| {
        let from = group.changed.as_ref().and_then(|changed| changed.restart_from);
        from.is_some_and(|from| from.step == start.step())
    };
    let generations: BTreeSet<u32> = stored
        .journal
        .iter()
        .filter_map(|event| match event {
            Event::Planned { plan, retry: Some(retry) } => {
                retry.trials.values().flatten().any(begins_there).then_some(plan.generation)
            }
            _ => None,
        })
        .collect();
    let retries = journal::last_retries(&stored.journal, &left.task);
    let is_of_them =
        |trial| retries.get(&trial).is_some_and(|retry| generations.contains(&retry.generation));
    left.trials.iter().all(is_of_them)
}
