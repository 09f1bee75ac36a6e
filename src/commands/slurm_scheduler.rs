//! Slurm as the executor sees it: its programs, and the traces that an interrupted submission left.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits on the real clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock;
use crate::executor::slurm::{Scheduler, Submission};
use crate::observe;
use crate::process;
use crate::report::say;
use crate::script;
use crate::slurm::{Accepted, Client, JobControl, JobId, SlurmError, accounting_since};

/// How long an `sbatch` that an interrupted submission left behind may go on, here or on another machine.
const IN_FLIGHT: Duration = Duration::from_mins(1);
/// Between two looks whether it still does.
const PAUSE: Duration = Duration::from_millis(50);

/// Slurm, for one submission.
pub(super) struct SlurmScheduler<'a> {
    pub(super) client: &'a Client,
    pub(super) submission: Submission<'a>,
    /// Whether the submission was taken over from another host: what still runs there can't be seen from here.
    pub(super) is_elsewhere: bool,
    /// What `sbatch` said beside its answers, each once.
    pub(super) said: Vec<String>,
    /// The arrays that this process submitted.
    pub(super) submitted: Vec<JobId>,
}

impl Scheduler for SlurmScheduler<'_> {
    fn submit(&mut self, script: &Path, arguments: &[String]) -> Result<JobId, SlurmError> {
        let Accepted { job, cluster: _, notices } = self.client.submit(script, arguments)?;
        for notice in notices {
            if !self.said.contains(&notice) {
                say(&format!("sbatch: {notice}"));
                self.said.push(notice);
            }
        }
        self.submitted.push(job);
        Ok(job)
    }

    fn find(
        &mut self,
        token: &str,
        script: &Path,
        since: f64,
    ) -> Result<Option<JobId>, SlurmError> {
        wait_for_sbatch(script)?;
        if self.is_elsewhere {
            wait_since(since);
        }
        let found = self.client.find(token, accounting_since(since))?;
        Ok(match found.jobs.last() {
            Some(job) => Some(*job),
            None if found.surely_none() => None,
            // Accounting can't tell, but a job that ran left a folder; one of a chain was held, and is in the queue.
            None => self.job_that_ran(token),
        })
    }

    fn release(&mut self, jobs: &[JobId]) -> Result<(), SlurmError> {
        self.control().release(&ids(jobs))
    }

    fn cancel(&mut self, jobs: &[JobId]) -> Result<(), SlurmError> {
        self.control().cancel(&ids(jobs))
    }
}

impl SlurmScheduler<'_> {
    /// Commands to the arrays of the plan.
    fn control(&self) -> JobControl {
        let Submission { id, plan, .. } = self.submission;
        let arrays = plan.arrays.iter();
        let names = arrays.map(|array| script::token(id, &array.task, array.index)).collect();
        self.client.control(names).with_known(&self.submitted)
    }

    /// The array of this name as the folder of a trial knows it.
    fn job_that_ran(&self, token: &str) -> Option<JobId> {
        let Submission { id, dir, plan, .. } = self.submission;
        let is_meant = |task: &str, index| script::token(id, task, index) == token;
        let array = plan.arrays.iter().find(|array| is_meant(&array.task, array.index))?;
        let task = dir.task(&array.task);
        array.trials.iter().find_map(|trial| {
            let files = observe::trial_files(&task.trial(trial)).ok()?;
            files.attempts.iter().find_map(|record| {
                let job = record.as_start()?.slurm_job.as_ref()?;
                job.split('_').next()?.parse().ok().map(JobId)
            })
        })
    }
}

/// A submission that was killed may have left its `sbatch` under way: only when it is over, Slurm's answer counts.
fn wait_for_sbatch(script: &Path) -> Result<(), SlurmError> {
    let began = Instant::now();
    while process::runs_with_argument(script) {
        if began.elapsed() > IN_FLIGHT {
            return Err(SlurmError::NoAnswer { program: "sbatch", waited: IN_FLIGHT });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Waits until an `sbatch` that began then, on another host, can't be under way any more.
fn wait_since(began: f64) {
    let age = Duration::from_secs_f64((clock::now() - began).clamp(0.0, 1e9));
    let rest = IN_FLIGHT.saturating_sub(age);
    if !rest.is_zero() {
        let seconds = rest.as_secs();
        say(&format!("Waiting {seconds} s: an `sbatch` may still be running on that host."));
        std::thread::sleep(rest);
    }
}

fn ids(jobs: &[JobId]) -> Vec<String> {
    jobs.iter().map(JobId::to_string).collect()
}
