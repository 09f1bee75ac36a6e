//! Carries a plan out on Slurm: each array exactly once, whatever crash came between.
//!
//! An intent is durable before `sbatch` runs; an array whose answer was lost is found again by its name. The heads of
//! chains are held until all is in, so that nothing can end and be forgotten meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nemo_core::rundir::{ExperimentDir, Request, requests};

use crate::file_error::FileError;
use crate::journal::{self, ArrayRecord, Event, Record};
use crate::plan::{JobArray, Plan};
use crate::script;
use crate::slurm::SlurmError;
use crate::slurm::id::JobId;
use crate::store::ClaimError;

/// What the executor asks of Slurm.
pub trait Scheduler {
    /// Submits a script.
    fn submit(&mut self, script: &Path, arguments: &[String]) -> Result<JobId, SlurmError>;
    /// Looks for an array whose answer was lost, once no `sbatch` of this script is under way any more. `since` is when
    /// it was about to be submitted, in unix seconds. Nothing means that Slurm never had it, or that it never ran.
    fn find(&mut self, token: &str, script: &Path, since: f64)
    -> Result<Option<JobId>, SlurmError>;
    /// Lets held arrays go. One that runs or is over already is left as it is.
    fn release(&mut self, jobs: &[JobId]) -> Result<(), SlurmError>;
    /// Takes arrays back.
    fn cancel(&mut self, jobs: &[JobId]) -> Result<(), SlurmError>;
}

/// Why an experiment is not wholly submitted. What is in stays known: `submit --continue` goes on.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Slurm does not want an array; those before it are cancelled.
    #[error("Slurm refused job array `{token}`: {reason}")]
    Refused {
        /// The array.
        token: String,
        /// Slurm's own words.
        reason: String,
        /// How many arrays were cancelled.
        cancelled: usize,
    },
    /// Slurm does not want an array, and those before it are still in Slurm.
    #[error(
        "Slurm refused job array `{token}` ({reason}), and the job arrays before it could not be cancelled"
    )]
    NotTakenBack {
        /// The array.
        token: String,
        /// Slurm's own words.
        reason: String,
        /// Why they could not be cancelled.
        source: SlurmError,
    },
    /// Slurm was never asked for an array.
    #[error("job array `{token}` was not submitted")]
    NotAsked {
        /// The array.
        token: String,
        /// Why not.
        source: SlurmError,
    },
    /// Slurm gave no answer.
    #[error("could not tell whether Slurm accepted job array `{token}`")]
    Slurm {
        /// The array.
        token: String,
        /// What went wrong.
        source: SlurmError,
    },
    /// The heads of the chains could not be released.
    #[error("all job arrays are submitted, but the first jobs are still held")]
    Held(#[source] SlurmError),
    /// Another process goes on with it.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The journal can't be written: nothing further is asked of Slurm.
    #[error(transparent)]
    Journal(#[from] FileError),
}

/// The experiment whose plan is carried out.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its folder.
    pub dir: &'a ExperimentDir,
    /// What to submit.
    pub plan: &'a Plan,
    /// Since when an intent may have been lost, in unix seconds, where lines of the journal are damaged: then every array
    /// that is not recorded is looked for in Slurm.
    pub damaged_since: Option<f64>,
    /// Whether this process made the folder, with the intent of the first array in its journal: Slurm was not asked for
    /// that one yet.
    pub is_new: bool,
    /// What was asked for before, oldest first: nothing that is cancelled is submitted.
    pub requests: &'a [Request],
}

impl Submission<'_> {
    /// The places in the plan of arrays that lack a trial, since it was cancelled, and of all that wait for one of these.
    ///
    /// A dependency on a cancelled job would have Slurm refuse the experiment. What of them is not cancelled is submitted
    /// later, by what its parents' records say.
    fn incomplete(&self) -> BTreeSet<usize> {
        let mut incomplete = BTreeSet::new();
        for (place, array) in self.plan.arrays.iter().enumerate() {
            let is_cancelled = |trial| requests::is_cancelled(self.requests, &array.task, trial);
            let lacks_parent = array.after.iter().any(|it| incomplete.contains(&it.array));
            if lacks_parent || array.trials.iter().any(is_cancelled) {
                incomplete.insert(place);
            }
        }
        incomplete
    }
}

/// That an array is about to be submitted.
#[must_use]
pub fn intent(id: &str, array: &JobArray, time: f64) -> Event {
    Event::Intended {
        token: script::token(id, &array.task, array.index),
        task: array.task.clone(),
        array: array.index,
        offset: array.offset,
        trials: array.trials.clone(),
        time,
    }
}

/// Carries the plan out, or goes on with it. Returns the ids of the plan's arrays in order.
///
/// `now` tells unix seconds, for the record only.
pub fn submit(
    submission: Submission<'_>,
    scheduler: &mut impl Scheduler,
    journal: &mut impl Record,
    now: &dyn Fn() -> f64,
) -> Result<Vec<JobId>, SubmitError> {
    // By index in the plan. An array that is postponed has no job.
    let mut jobs: BTreeMap<usize, JobId> = BTreeMap::new();
    let incomplete = submission.incomplete();
    for (index, array) in submission.plan.arrays.iter().enumerate() {
        let token = script::token(submission.id, &array.task, array.index);
        let script = submission.dir.task(&array.task).script(array.index);
        let known = known(&submission, index, &token, &script, scheduler, journal)?;
        let lacks_parent = || array.after.iter().any(|it| !jobs.contains_key(&it.array));
        let job = match known {
            KnownArray::Recorded(job) => Some(job),
            KnownArray::Found(job) => {
                journal.check_claim()?;
                journal.record(Event::Submitted { token, slurm_job: job, time: now() })?;
                Some(job)
            }
            KnownArray::Postponed => None,
            KnownArray::No if incomplete.contains(&index) || lacks_parent() => {
                journal.check_claim()?;
                journal.record(postpone(array, token, None, now()))?;
                None
            }
            KnownArray::No => {
                intend(submission.id, array, journal, now)?;
                submit_one(submission.dir, array, &token, &jobs, scheduler, journal, now)?
            }
            KnownArray::Intended => {
                submit_one(submission.dir, array, &token, &jobs, scheduler, journal, now)?
            }
        };
        jobs.extend(job.map(|job| (index, job)));
    }
    if !journal::is_generation_complete(journal.events(), submission.plan.generation) {
        complete(submission.plan, &jobs, scheduler, journal, now)?;
    }
    Ok(jobs.into_values().collect())
}

/// Releases the heads of chains, and writes down that all of the plan is submitted.
fn complete(
    plan: &Plan,
    jobs: &BTreeMap<usize, JobId>,
    scheduler: &mut impl Scheduler,
    journal: &mut impl Record,
    now: &dyn Fn() -> f64,
) -> Result<(), SubmitError> {
    let held = jobs.iter().filter(|(index, _)| plan.arrays[**index].held);
    let held: Vec<JobId> = held.map(|(_, job)| *job).collect();
    journal.check_claim()?;
    if !held.is_empty() {
        // Released, a job may end and be forgotten: from now on the record alone knows the ids.
        journal.sync()?;
        scheduler.release(&held).map_err(SubmitError::Held)?;
    }
    journal.record(Event::Complete { generation: plan.generation, time: now() })?;
    journal.sync()?;
    Ok(())
}

/// That an array is left for later.
fn postpone(array: &JobArray, token: String, reason: Option<String>, time: f64) -> Event {
    let (task, trials) = (array.task.clone(), array.trials.count());
    Event::Postponed { token, task, array: array.index, trials, reason, time }
}

/// Whether `sbatch` would take the same array once fewer jobs are there.
fn is_for_lack_of_room(reason: &str) -> bool {
    // `AssocMaxSubmitJobLimit`, `QOSMaxSubmitJobPerUserLimit`, `AssocGrpSubmitJobsLimit` …
    reason.contains("SubmitJob")
}

enum KnownArray {
    Recorded(JobId),
    Found(JobId),
    Postponed,
    /// By this process, which did not ask Slurm yet.
    Intended,
    No,
}

/// What is known of an array from the journal, and from Slurm where the journal only knows of the intent.
fn known(
    submission: &Submission<'_>,
    index: usize,
    token: &str,
    script: &Path,
    scheduler: &mut impl Scheduler,
    journal: &impl Record,
) -> Result<KnownArray, SubmitError> {
    let since = match journal::entry(journal.events(), token) {
        ArrayRecord::Submitted(id) => return Ok(KnownArray::Recorded(id)),
        ArrayRecord::Postponed => return Ok(KnownArray::Postponed),
        ArrayRecord::Intended(_) if submission.is_new && index == 0 => {
            return Ok(KnownArray::Intended);
        }
        ArrayRecord::Intended(time) => time,
        ArrayRecord::Absent => match submission.damaged_since {
            Some(time) => time,
            None => return Ok(KnownArray::No),
        },
    };
    Ok(scheduler
        .find(token, script, since)
        .map_err(|source| SubmitError::Slurm { token: token.to_owned(), source })?
        .map_or(KnownArray::No, KnownArray::Found))
}

/// Records an intent. It is durable before `sbatch` runs: without it a lost answer would be a job that nobody looks for.
fn intend(
    id: &str,
    array: &JobArray,
    journal: &mut impl Record,
    now: &dyn Fn() -> f64,
) -> Result<(), SubmitError> {
    journal.check_claim()?;
    journal.record(intent(id, array, now()))?;
    journal.sync()?;
    Ok(())
}

/// Submits an array whose intent is durable. None if Slurm has no room for it now.
fn submit_one(
    dir: &ExperimentDir,
    array: &JobArray,
    token: &str,
    earlier: &BTreeMap<usize, JobId>,
    scheduler: &mut impl Scheduler,
    journal: &mut impl Record,
    now: &dyn Fn() -> f64,
) -> Result<Option<JobId>, SubmitError> {
    // Another process may have found the intent alone meanwhile, and be about to submit the array.
    journal.check_claim()?;
    let script = dir.task(&array.task).script(array.index);
    match scheduler.submit(&script, &script::arguments(array, earlier)) {
        Ok(id) => {
            journal.check_claim()?;
            let token = token.to_owned();
            journal.record(Event::Submitted { token, slurm_job: id, time: now() })?;
            Ok(Some(id))
        }
        // An `sbatch` that a signal ended says nothing: Slurm may have the array.
        Err(source) if source.is_no_answer() => {
            Err(SubmitError::Slurm { token: token.to_owned(), source })
        }
        Err(SlurmError::Refused { reason, .. }) if is_for_lack_of_room(&reason) => {
            journal.check_claim()?;
            journal.record(postpone(array, token.to_owned(), Some(reason), now()))?;
            Ok(None)
        }
        Err(SlurmError::Refused { reason, .. }) => {
            let submitted: Vec<JobId> = earlier.values().copied().collect();
            Err(take_back(token, reason, &submitted, scheduler, journal, now)?)
        }
        Err(source @ SlurmError::MissingProgram { .. }) => {
            Err(SubmitError::NotAsked { token: token.to_owned(), source })
        }
        Err(source) => Err(SubmitError::Slurm { token: token.to_owned(), source }),
    }
}

/// Cancels what was submitted before the refusal: nothing of a half experiment may run.
fn take_back(
    token: &str,
    reason: String,
    submitted: &[JobId],
    scheduler: &mut impl Scheduler,
    journal: &mut impl Record,
    now: &dyn Fn() -> f64,
) -> Result<SubmitError, SubmitError> {
    journal.check_claim()?;
    let cancelled = if submitted.is_empty() { Ok(()) } else { scheduler.cancel(submitted) };
    // Slurm refused it, whatever became of the others.
    let token = token.to_owned();
    journal.record(Event::Refused { token: token.clone(), reason: reason.clone(), time: now() })?;
    Ok(match cancelled {
        Ok(()) => SubmitError::Refused { token, reason, cancelled: submitted.len() },
        Err(source) => SubmitError::NotTakenBack { token, reason, source },
    })
}

#[cfg(test)]
mod tests;
