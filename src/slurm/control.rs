//! Commands to jobs, and to no job of another name.
//!
//! An id alone is not to be trusted: a controller that lost its state, or that counted round, gives it to another job.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::client::{Client, LONGEST_ARGUMENT};
use super::error::SlurmError;
use super::id::JobId;

/// The least wait of a job that was requeued, in seconds.
pub const SOON: u32 = 3;

/// Who in a job is sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The batch script's process only.
    Batch,
    /// The tasks that `srun` started, not the batch script.
    Steps,
    /// The batch script with its children, and the steps.
    BatchAndSteps,
}

/// Commands to jobs that have one of some names. Ids are as shown: `12`, `12_3`, `12_[1-3]`.
#[derive(Debug)]
pub struct JobControl {
    client: Client,
    names: Vec<String>,
    /// Whether a job, or an array, has one of the names. Each is asked about once.
    known: RefCell<BTreeMap<JobId, bool>>,
}

impl Client {
    /// Commands to the jobs of these names.
    #[must_use]
    pub fn control(&self, names: Vec<String>) -> JobControl {
        JobControl { client: self.for_names(Vec::new()), names, known: RefCell::default() }
    }
}

impl JobControl {
    /// The same, with jobs that certainly have one of the names: Slurm has just given us their ids.
    #[must_use]
    pub fn with_known(self, jobs: &[JobId]) -> Self {
        self.known.borrow_mut().extend(jobs.iter().map(|job| (*job, true)));
        self
    }

    /// Those of the ids whose job has one of the names. One `squeue` for what was not asked about yet.
    ///
    /// A job that Slurm has forgotten is none of them.
    pub fn own(&self, ids: &[String]) -> Result<Vec<String>, SlurmError> {
        let new: Vec<JobId> = {
            let known = self.known.borrow();
            let mut new: Vec<JobId> = ids.iter().filter_map(|id| array(id)).collect();
            new.retain(|job| !known.contains_key(job));
            new.sort_unstable();
            new.dedup();
            new
        };
        self.ask(&new)?;
        let known = self.known.borrow();
        let own =
            ids.iter().filter(|id| array(id).is_some_and(|job| known.get(&job) == Some(&true)));
        Ok(own.cloned().collect())
    }

    fn ask(&self, jobs: &[JobId]) -> Result<(), SlurmError> {
        let longest = self.names.iter().map(|name| name.len() + 1).max().unwrap_or(1);
        let mut own: Vec<JobId> = Vec::new();
        for names in self.names.chunks((LONGEST_ARGUMENT / longest).max(1)) {
            let rows = self.client.for_names(names.to_vec()).queue(jobs)?;
            // The absence of a row proves nothing then.
            if let Some(line) = rows.unread.first() {
                let output = line.text.clone();
                return Err(SlurmError::Unreadable { program: "squeue", output });
            }
            own.extend(rows.rows.iter().map(|row| row.array_job));
        }
        let answers = jobs.iter().map(|job| (*job, own.contains(job)));
        self.known.borrow_mut().extend(answers);
        Ok(())
    }

    /// Lets held jobs run. One that is over has nothing to be released from.
    pub fn release(&self, ids: &[String]) -> Result<(), SlurmError> {
        let released = self.client.on_jobs("scontrol", &["release"], &self.own(ids)?);
        but_for(released, "Job has already finished")
    }

    /// Keeps waiting jobs from starting.
    pub fn hold(&self, ids: &[String]) -> Result<(), SlurmError> {
        self.client.on_jobs("scontrol", &["hold"], &self.own(ids)?)
    }

    /// Puts jobs back into the queue. One that is there already is fine.
    pub fn requeue(&self, ids: &[String]) -> Result<(), SlurmError> {
        let requeued = self.client.on_jobs("scontrol", &["requeue"], &self.own(ids)?);
        but_for(requeued, "Job is pending execution")
    }

    /// Puts running jobs back into the queue. Slurm passes over those that have ended, or were cancelled, in silence.
    pub fn requeue_running(&self, ids: &[String]) -> Result<(), SlurmError> {
        let own = self.own(ids)?;
        let requeued = self.client.on_jobs("scontrol", &["requeue", "Incomplete"], &own);
        but_for(requeued, "Job is pending execution")
    }

    /// Puts jobs back into the queue, to stay there until they are released.
    pub fn requeue_held(&self, ids: &[String]) -> Result<(), SlurmError> {
        let requeued = self.client.on_jobs("scontrol", &["requeuehold"], &self.own(ids)?);
        but_for(requeued, "Job is pending execution")
    }

    /// Shortens the wait of jobs that were requeued. A few seconds stay: started within the second of its requeue, a job was
    /// seen to fail with `Job credential revoked`.
    pub fn start_soon(&self, ids: &[String]) -> Result<(), SlurmError> {
        self.start_after(SOON, ids)
    }

    /// Lets jobs that were requeued wait for so many seconds.
    pub fn start_after(&self, seconds: u32, ids: &[String]) -> Result<(), SlurmError> {
        let start = format!("StartTime=now+{seconds}");
        for some in self.own(ids)?.chunks(LONGEST_ARGUMENT / 100) {
            let jobs = format!("JobId={}", some.join(","));
            self.client.call("scontrol", &["update", &jobs, &start])?;
        }
        Ok(())
    }

    /// Changes what waiting jobs wait for: `afterany:7`, or nothing where it is empty.
    pub fn wait_for(&self, ids: &[String], dependency: &str) -> Result<(), SlurmError> {
        let dependency = format!("Dependency={dependency}");
        for id in self.own(ids)? {
            self.client.call("scontrol", &["update", &format!("JobId={id}"), &dependency])?;
        }
        Ok(())
    }

    /// Cancels jobs. Slurm doesn't mind ids that it has forgotten.
    pub fn cancel(&self, ids: &[String]) -> Result<(), SlurmError> {
        let (tasks, wholes): (Vec<String>, Vec<String>) =
            ids.iter().cloned().partition(|id| id.contains('_'));
        self.scancel(&[], &wholes)?;
        // `scancel` itself must not be given the name: it would take one waiting task and a name for all that wait in
        // the array (seen with 22.05).
        self.client.on_jobs("scancel", &[], &self.own(&tasks)?)
    }

    /// Sends running jobs a signal, by its name without `SIG`.
    pub fn signal(&self, ids: &[String], signal: &str, to: Recipient) -> Result<(), SlurmError> {
        let signal = format!("--signal={signal}");
        let who: &[&str] = match to {
            Recipient::Batch => &["--batch"],
            Recipient::Steps => &[],
            Recipient::BatchAndSteps => &["--full"],
        };
        self.scancel(&[&[signal.as_str()], who].concat(), ids)
    }

    /// `scancel` compares the name by itself, but only one: `a,b` is the name of no job to it.
    fn scancel(&self, words: &[&str], ids: &[String]) -> Result<(), SlurmError> {
        if let [name] = self.names.as_slice() {
            let name = format!("--name={name}");
            return self.client.on_jobs("scancel", &[words, &[&name]].concat(), ids);
        }
        self.client.on_jobs("scancel", words, &self.own(ids)?)
    }
}

/// The job, or the array, that an id is of.
fn array(id: &str) -> Option<JobId> {
    id.split('_').next()?.parse().ok().map(JobId)
}

/// The answer, where this refusal is none. Of an array, `scontrol` says each task's own answer on a line, and that others
/// had `No error`.
fn but_for(answer: Result<(), SlurmError>, harmless: &str) -> Result<(), SlurmError> {
    match answer {
        Err(SlurmError::Refused { reason, .. })
            if reason.contains(harmless)
                && reason
                    .split("; ")
                    .all(|line| line.contains(harmless) || line.ends_with(": No error")) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: &str, is_fine: bool) {
        let reason = reason.to_owned();
        let refused = Err(SlurmError::Refused { program: "scontrol", reason, code: Some(1) });
        assert_eq!(but_for(refused, "Job has already finished").is_ok(), is_fine);
    }

    #[test]
    fn a_release_of_what_is_over_is_fine_and_no_other_refusal_is() {
        check("62_0: No error; 62_1-2: Job has already finished", true);
        check("Job has already finished for job 62", true);
        check("62_0: No error; 62_1: Access/permission denied", false);
        check("62_0: Access/permission denied; 62_1-2: Job has already finished", false);
        check("Invalid job id specified for job 62", false);
    }
}
