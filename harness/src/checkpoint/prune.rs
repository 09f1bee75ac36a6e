//! Removes the checkpoints that [`retention`] does not keep. A rename comes first, so that a kill can't tear one.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use nemo_core::lines;
use nemo_core::retention::{self, RetentionCandidate};
use nemo_core::rundir::{Keep, MetricSpec, MetricsLine, TaskDir};

use super::resume::step_of;
use super::store::Store;
use crate::job::trial::Trial;

/// The rules by which checkpoints of one trial stay.
#[derive(Clone, Debug)]
pub(crate) struct RetentionRules {
    pub(crate) task: TaskDir,
    pub(crate) trial: u32,
    pub(crate) keep: Keep,
    pub(crate) metric: Option<MetricSpec>,
}

/// What is needed in addition to what the rules keep.
#[derive(Clone, Debug)]
pub(crate) enum StillNeeded {
    /// The trial may have to be resumed. Two verified checkpoints stay.
    Resume { verified: BTreeSet<u64> },
    /// The trial is done.
    Nothing,
}

impl RetentionRules {
    pub(crate) fn of(trial: &Trial) -> Self {
        Self {
            task: trial.task.clone(),
            trial: trial.index,
            keep: trial.spec.checkpoint.keep,
            metric: trial.spec.metric.clone(),
        }
    }

    /// The steps of this trial that may be removed. If another trial can't be read, more of this one's stay.
    pub(crate) fn removable(&self, store: &impl Store, need: &StillNeeded) -> io::Result<Vec<u64>> {
        let own = steps(store, &self.task.trial(self.trial).checkpoints())?;
        let below = match need {
            StillNeeded::Nothing => own.last().copied(),
            StillNeeded::Resume { verified } => {
                own.iter().rev().filter(|step| verified.contains(step)).nth(1).copied()
            }
        };
        // Newer ones stay: they may have been committed after the verified ones were counted.
        let Some(below) = below.filter(|below| own.first() < Some(below)) else {
            return Ok(Vec::new());
        };
        let mut candidates = self.candidates(self.trial, &own)?;
        if self.keep.experiment_best > 0 && self.metric.is_some() {
            candidates.extend(self.others(store));
        }
        let kept = retention::kept(&candidates, self.keep);
        let goes = |step: &u64| *step < below && !kept.contains(&(self.trial, *step));
        Ok(own.into_iter().filter(goes).collect())
    }

    /// The checkpoints of all other trials. Only their files are read.
    fn others(&self, store: &impl Store) -> Vec<RetentionCandidate> {
        let names = store.list(&self.task.trials()).unwrap_or_default();
        let index = |name: &Vec<u8>| str::from_utf8(name).ok()?.parse::<u32>().ok();
        let others = names.iter().filter_map(index).filter(|&trial| trial != self.trial);
        let read = |trial| {
            let steps = steps(store, &self.task.trial(trial).checkpoints()).unwrap_or_default();
            self.candidates(trial, &steps).unwrap_or_default()
        };
        others.flat_map(read).collect()
    }

    fn candidates(&self, trial: u32, steps: &BTreeSet<u64>) -> io::Result<Vec<RetentionCandidate>> {
        let ranks = self.keep.trial_best > 0 || self.keep.experiment_best > 0;
        let rows = match &self.metric {
            Some(_) if ranks && !steps.is_empty() => {
                rows_at(&self.task.trial(trial).metrics(), steps)?
            }
            Some(_) | None => Vec::new(),
        };
        let loss = |step| {
            let metric = self.metric.as_ref()?;
            retention::loss_at(&rows, step, &metric.name, metric.larger_is_better)
        };
        Ok(steps.iter().map(|&step| RetentionCandidate { trial, step, loss: loss(step) }).collect())
    }
}

/// The committed steps.
fn steps(store: &impl Store, checkpoints: &Path) -> io::Result<BTreeSet<u64>> {
    Ok(store.list(checkpoints)?.iter().filter_map(|name| step_of(name)).collect())
}

/// The reports at these steps. The file may be long, so it is not kept in memory and most lines are not parsed.
fn rows_at(path: &Path, steps: &BTreeSet<u64>) -> io::Result<Vec<MetricsLine>> {
    let mut rows = Vec::new();
    lines::each(path, |line| {
        if first_number(line.text).is_none_or(|step| steps.contains(&step)) {
            let row: Option<MetricsLine> = serde_json::from_slice(line.text).ok();
            rows.extend(row.filter(|row| row.step.is_some_and(|step| steps.contains(&step))));
        }
        Ok(())
    })?;
    Ok(rows)
}

/// The step at the beginning of a line, where our own lines have it.
fn first_number(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"step\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// Removes one checkpoint. After a crash it is complete or gone: the remains don't have a checkpoint's name.
pub(crate) fn remove(
    store: &mut impl Store,
    checkpoints: &Path,
    step: u64,
    nonce: &str,
) -> io::Result<()> {
    let temporary = checkpoints.join(format!(".tmp-removed-step-{step}-{nonce}"));
    store.rename_new(&checkpoints.join(format!("step-{step}")), &temporary)?;
    store.sync_dir(checkpoints)?;
    store.remove_tree(&temporary)
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
