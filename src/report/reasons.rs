//! Why trials are not well: each reason once, with the trials that it is about.

use crate::humanize::{count, ranges};
use crate::status::{Status, TaskStatus};

/// How many reasons are shown; more are counted only.
const SHOWN: usize = 10;

/// A line for each reason, in the order of the trials that it came first for.
pub(super) fn reasons(status: &Status) -> Vec<String> {
    let mut lines: Vec<String> = status.tasks.iter().flat_map(of_task).collect();
    let hidden = lines.len().saturating_sub(SHOWN);
    if hidden > 0 {
        lines.truncate(SHOWN);
        lines.push(format!("… and {}; `--json` shows all", count(hidden, "more reason")));
    }
    lines
}

fn of_task(task: &TaskStatus) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<u32>)> = Vec::new();
    for trial in &task.trials {
        let Some(reason) = &trial.reason else { continue };
        match groups.iter_mut().find(|(known, _)| known == reason) {
            Some((_, trials)) => trials.push(trial.index),
            None => groups.push((reason, vec![trial.index])),
        }
    }
    groups.iter().map(|(reason, trials)| line(&task.name, trials, reason)).collect()
}

/// `train/3: why`, as a target is written, or `train, trials 0-3, 7: why`.
fn line(task: &str, trials: &[u32], reason: &str) -> String {
    match trials {
        [trial] => format!("{task}/{trial}: {reason}"),
        trials => format!("{task}, trials {}: {reason}", ranges(trials)),
    }
}
