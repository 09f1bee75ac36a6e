//! Whether `sacct` must be asked at all: only about runs that are over and left no record in the trial's folder.

use std::collections::BTreeSet;

use nemo_core::rundir::AttemptRecord;

use super::slurm_view::{self, SlurmRows};
use super::{Certainty, QueryResult, StatusInputs, TrialFiles, attempts, final_state};
use crate::experiment::{Executor, Task};
use crate::slurm::{JobPhase, QueueRow};

/// Whether `squeue` and the folders leave something open that `sacct` may know.
#[must_use]
pub fn needs_accounts(sources: &StatusInputs<'_>) -> bool {
    match sources.queue {
        QueryResult::NotAsked => return false,
        QueryResult::Rows(_) => {}
        QueryResult::Partly(..) | QueryResult::Off | QueryResult::Failed(_) => return true,
    }
    let stored = sources.stored;
    let is_slurms = |task: &&Task| {
        matches!(stored.experiment.executors.get(&task.executor), Some(Executor::Slurm(_)))
    };
    stored.experiment.tasks.iter().filter(is_slurms).any(|task| leaves_questions(task, sources))
}

fn leaves_questions(task: &Task, sources: &StatusInputs<'_>) -> bool {
    let files = sources.files.get(&task.name);
    slurm_view::of_task(task, sources).iter().any(|(trial, seen)| {
        let files = files.and_then(|files| files.get(trial));
        let was_final = sources
            .earlier
            .get(&task.name, *trial)
            .is_some_and(|known| known.certainty == Certainty::Final);
        leaves_question(seen, files, was_final)
    })
}

fn leaves_question(seen: &SlurmRows<'_>, files: Option<&TrialFiles>, was_final: bool) -> bool {
    let Some(job) = seen.shown() else { return false }; // it was not submitted yet
    let is_over = match files {
        Some(files) => tells_all(files),
        // It never ran. How it was cancelled or blocked is known once that is certain.
        None => was_final,
    };
    let runs_over = match seen.queue {
        _ if is_over => files.map_or(0, |files| runs_of(files, &job)),
        Some(row) if is_live(row) => row.restarts,
        _ => return true,
    };
    seen.has_earlier_jobs || !tells_runs(files, &job, runs_over)
}

fn is_live(row: &QueueRow) -> bool {
    matches!(row.state.phase_in_queue(), JobPhase::Waiting | JobPhase::Active)
}

/// Whether the folder of a trial tells that it is over, and how each attempt ended: then Slurm need not be asked.
#[must_use]
pub fn tells_all(files: &TrialFiles) -> bool {
    let count = |is: fn(&AttemptRecord) -> bool| files.attempts.iter().filter(|it| is(it)).count();
    let starts = count(|record| record.as_start().is_some());
    let ends = count(|record| record.as_end().is_some());
    starts == ends && final_state(files).is_some()
}

/// How many runs of a job there were, by the records of those that left one.
fn runs_of(files: &TrialFiles, job: &str) -> u32 {
    let starts = files.attempts.iter().filter_map(AttemptRecord::as_start);
    let own = starts.filter(|start| start.slurm_job.as_deref() == Some(job));
    own.map(|start| start.restarts + 1).max().unwrap_or(0)
}

/// Whether each of the first `runs` runs of a job left its attempts and their ends, as the harness saw them.
fn tells_runs(files: Option<&TrialFiles>, job: &str, runs: u32) -> bool {
    let records = files.map_or(&[][..], |files| &files.attempts);
    let ends = records.iter().filter_map(AttemptRecord::as_end);
    let seen: BTreeSet<u32> =
        ends.filter(|end| !attempts::is_guess(end)).map(|end| end.attempt).collect();
    let starts = records.iter().filter_map(AttemptRecord::as_start);
    let over =
        starts.filter(|start| start.slurm_job.as_deref() == Some(job) && start.restarts < runs);
    let mut told = BTreeSet::new();
    for start in over {
        if !seen.contains(&start.attempt) {
            return false;
        }
        told.insert(start.restarts);
    }
    told.len() == runs as usize
}
