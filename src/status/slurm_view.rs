//! What Slurm says of each trial of a task: its queue row and its accounting rows.

use crate::experiment::Task;
use crate::journal::{self, Event, Submitted};
use crate::slurm::id::{JobId, Tasks};
use crate::slurm::{AccountRow, QueueRow};

use super::StatusInputs;

/// What Slurm says of one trial.
#[derive(Clone, Debug, Default)]
pub(super) struct SlurmRows<'a> {
    /// Its array and its index there, once submitted.
    pub(super) job: Option<(JobId, u32)>,
    /// What `squeue` shows now.
    pub(super) queue: Option<&'a QueueRow>,
    /// Whether Slurm knows of its array at all.
    pub(super) array_is_known: bool,
    /// What `sacct` shows, one row an attempt, oldest first.
    pub(super) accounts: Vec<&'a AccountRow>,
}

impl SlurmRows<'_> {
    /// The id as Slurm shows it.
    pub(super) fn shown(&self) -> Option<String> {
        self.job.map(|(job, index)| format!("{job}_{index}"))
    }
}

/// What Slurm says of every trial, by index.
pub(super) fn of_task<'a>(task: &Task, sources: &'a StatusInputs<'_>) -> Vec<SlurmRows<'a>> {
    let mut seen = vec![SlurmRows::default(); task.n_trials as usize];
    let arrays = arrays(task, &sources.stored.journal);
    for array in &arrays {
        for trial in array.trials.iter() {
            if let Some(seen) = seen.get_mut(trial as usize) {
                seen.job = Some((array.job, trial.saturating_sub(array.offset)));
            }
        }
    }
    let of = |job: JobId| arrays.iter().find(|array| array.job == job);
    for row in sources.queue.rows() {
        for_each_trial(of(row.array_job), &row.tasks, &mut seen, |seen| seen.queue = Some(row));
    }
    for row in sources.accounts.rows() {
        let push = |seen: &mut SlurmRows<'a>| seen.accounts.push(row);
        for_each_trial(of(row.array_job), &row.tasks, &mut seen, push);
    }
    for array in &arrays {
        fill(array, sources, &mut seen);
    }
    for seen in &mut seen {
        seen.accounts.sort_by_key(|row| row.submit);
    }
    seen
}

/// Tasks that were cancelled together before any of them started have one row, with the bare id of their array.
fn fill<'a>(array: &Submitted<'_>, sources: &'a StatusInputs<'_>, seen: &mut [SlurmRows<'a>]) {
    let whole = |job: JobId, tasks: &Tasks| job == array.job && *tasks == Tasks::NotAnArray;
    let queue = sources.queue.rows().iter().find(|row| whole(row.array_job, &row.tasks));
    let accounts = sources.accounts.rows().iter().find(|row| whole(row.array_job, &row.tasks));
    let is_known = sources.queue.rows().iter().any(|row| row.array_job == array.job)
        || sources.accounts.rows().iter().any(|row| row.array_job == array.job);
    for trial in array.trials.iter() {
        let Some(seen) = seen.get_mut(trial as usize) else { continue };
        seen.array_is_known = is_known;
        if seen.queue.is_none() && seen.accounts.is_empty() {
            seen.queue = queue;
            seen.accounts.extend(accounts);
        }
    }
}

fn for_each_trial<'a>(
    array: Option<&Submitted<'_>>,
    tasks: &Tasks,
    seen: &mut [SlurmRows<'a>],
    mut act: impl FnMut(&mut SlurmRows<'a>),
) {
    let Some(array) = array else { return };
    for trial in tasks.indices().filter_map(|index| array.trial_of(index)) {
        if let Some(seen) = seen.get_mut(trial as usize) {
            act(seen);
        }
    }
}

/// The arrays of a task that Slurm took.
fn arrays<'a>(task: &Task, journal: &'a [Event]) -> Vec<Submitted<'a>> {
    let all = journal::submitted_arrays(journal).into_iter();
    all.filter(|array| array.task == task.name).collect()
}
