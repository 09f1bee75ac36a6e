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
    /// Whether it was submitted more than once.
    pub(super) has_earlier_jobs: bool,
    /// Its job is no array.
    pub(super) is_single: bool,
    /// What `squeue` shows now.
    pub(super) queue: Option<&'a QueueRow>,
    /// Whether Slurm knows of its array at all.
    pub(super) array_is_known: bool,
    /// What `sacct` shows, one row an attempt, oldest first.
    pub(super) accounts: Vec<&'a AccountRow>,
}

impl SlurmRows<'_> {
    /// The last row of its newest job. The rows before it may be of jobs that Slurm had forgotten.
    pub(super) fn last_account(&self) -> Option<&AccountRow> {
        let (job, _) = self.job?;
        self.accounts.iter().copied().rfind(|row| row.array_job == job)
    }

    fn is_of(&self, array: JobId) -> bool {
        self.job.is_some_and(|(job, _)| job == array)
    }

    /// The id of the job that an accounting row is of, which may be an earlier one of the trial.
    pub(super) fn shown_of(&self, row: &AccountRow) -> Option<String> {
        match row.tasks.indices().next() {
            _ if self.is_of(row.array_job) => self.shown(),
            Some(index) => Some(format!("{}_{index}", row.array_job)),
            None if self.is_single => Some(row.array_job.to_string()),
            None => self.shown(),
        }
    }

    /// The id as Slurm shows it.
    pub(super) fn shown(&self) -> Option<String> {
        let (job, index) = self.job?;
        Some(if self.is_single { job.to_string() } else { format!("{job}_{index}") })
    }
}

/// What Slurm says of every trial, with its index.
pub(super) fn of_task<'a>(task: &Task, sources: &'a StatusInputs<'_>) -> Vec<(u32, SlurmRows<'a>)> {
    let mut seen = vec![SlurmRows::default(); task.n_trials as usize];
    let journal = &sources.stored.journal;
    let arrays = arrays(task, journal);
    let retries = journal::last_retries(journal, &task.name);
    for array in &arrays {
        let generation = journal::generation_of(journal, array.token);
        let is_before_retry =
            |trial| retries.get(&trial).is_some_and(|retry| generation < retry.generation);
        for trial in array.trials.iter() {
            let Some(seen) = seen.get_mut(trial as usize) else { continue };
            if is_before_retry(trial) {
                seen.has_earlier_jobs = true;
            } else {
                seen.has_earlier_jobs |= seen.job.is_some();
                seen.job = Some((array.job, trial.saturating_sub(array.offset)));
                seen.is_single = array.is_single;
            }
        }
    }
    let of = |job: JobId| arrays.iter().find(|array| array.job == job);
    for row in sources.queue.rows() {
        for_each_trial(of(row.array_job), &row.tasks, &mut seen, |seen| {
            if seen.is_of(row.array_job) {
                seen.queue = Some(row);
            }
        });
    }
    for row in sources.accounts.rows() {
        for_each_trial(of(row.array_job), &row.tasks, &mut seen, |seen| seen.accounts.push(row));
    }
    for array in &arrays {
        fill(array, sources, &mut seen);
    }
    for seen in &mut seen {
        seen.accounts.sort_by_key(|row| row.submit);
    }
    let there = journal::trials(journal, task);
    let mut all = Vec::with_capacity(seen.len());
    all.extend((0..).zip(seen).filter(|(trial, _)| there.contains(*trial)));
    all
}

/// Tasks that were cancelled together before any of them started have no rows of their own: the bare id of their array
/// speaks for them, once for each time that they were put back.
fn fill<'a>(array: &Submitted<'_>, sources: &'a StatusInputs<'_>, seen: &mut [SlurmRows<'a>]) {
    let mut queue = sources.queue.rows().iter().filter(|row| row.array_job == array.job);
    let accounts = sources.accounts.rows().iter().filter(|row| row.array_job == array.job);
    let is_known = queue.clone().next().is_some() || accounts.clone().next().is_some();
    let queue = queue.find(|row| row.tasks == Tasks::NotAnArray);
    // Looked for once: there may be as many rows as trials.
    let accounts: Vec<&AccountRow> =
        accounts.filter(|row| row.tasks == Tasks::NotAnArray).collect();
    for trial in array.trials.iter() {
        let newest = seen.get_mut(trial as usize).filter(|seen| seen.is_of(array.job));
        let Some(seen) = newest else { continue };
        seen.array_is_known = is_known;
        if seen.queue.is_none() && seen.last_account().is_none() {
            seen.queue = queue;
            seen.accounts.extend(&accounts);
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
    let of_task = tasks.indices().filter_map(|index| array.trial_of(index));
    // A plain job has no index: each of its rows is of its one trial, as many as it was requeued.
    let of_single = array.trials.iter().filter(|_| array.is_single && *tasks == Tasks::NotAnArray);
    for trial in of_task.chain(of_single) {
        if let Some(seen) = seen.get_mut(trial as usize) {
            act(seen);
        }
    }
}

/// The arrays of a task that Slurm took.
fn arrays<'a>(task: &Task, journal: &'a [Event]) -> Vec<Submitted<'a>> {
    let refused = journal::refused_generations(journal);
    let all = journal::submitted_arrays(journal).into_iter();
    let holds = |token: &str| {
        refused.is_empty() || !refused.contains(&journal::generation_of(journal, token))
    };
    all.filter(|array| array.task == task.name && holds(array.token)).collect()
}
