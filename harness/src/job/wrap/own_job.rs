//! The Slurm job that is wrapped, and whether what a folder tells is of it. A number alone proves nothing: it comes again
//! on another cluster, where a controller lost its state, and where it counted round.

use std::io;

use nemo_core::exit;
use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, ExperimentDir};
use serde_json::Value;

use super::folder::TASK;
use super::{cluster, variable};
use crate::job::context::SlurmJob;
use crate::job::poll;
use crate::slurm;

/// How many seconds the clocks of the controller and of a node may differ. A number does not come again that soon.
const CLOCKS: f64 = 300.0;

/// The job as Slurm and its environment tell it.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnJob {
    /// The number by which it is known: the array's own.
    pub(super) number: String,
    /// Its id as `squeue` shows it.
    id: String,
    pub(super) cluster: Option<String>,
    pub(super) name: String,
    /// Whether Slurm said that this is the job's name. The variable may be the step's, or a script may have changed it.
    is_name_certain: bool,
    pub(super) is_array: bool,
    restarts: u32,
    /// When it was submitted, in unix seconds, if Slurm told. A requeue counts as another submission.
    submitted: Option<f64>,
}

impl OwnJob {
    /// `shown` is what `scontrol` shows of it.
    pub(super) fn read(job: &SlurmJob, shown: &str) -> Self {
        let name = cluster::job_name(shown);
        let known = slurm::parse(shown);
        Self {
            number: job.array.as_ref().map_or(&job.raw, |(array, _)| array).clone(),
            id: job.id(),
            cluster: variable("SLURM_CLUSTER_NAME"),
            is_name_certain: name.is_some(),
            name: name.or_else(|| variable("SLURM_JOB_NAME")).unwrap_or_default(),
            is_array: job.array.is_some(),
            restarts: known.as_ref().map_or(0, |known| known.restarts).max(job.restarts),
            submitted: known.and_then(|known| known.submitted),
        }
    }

    /// Whether a folder has the state of this job: whether the last job of this number that its journal tells of is this
    /// one. None where it tells of no such job.
    ///
    /// A run that Slurm did not count as a restart is of the same job: a script may start `wrap` again, and a controller
    /// that was killed may forget that it had started the job. Only the time of the submission tells those from a job
    /// that got the number anew; without it, a trial that is over does.
    pub(super) fn owns(&self, dir: &ExperimentDir, trial: u32) -> io::Result<Option<bool>> {
        let rows = lines::read::<Value>(&dir.journal())?.rows;
        let Some(told) = rows.iter().rfind(|row| self.has_number_of(row)) else { return Ok(None) };
        let is_sure = self.restarts > 0 || self.submitted.is_some();
        Ok(Some(self.is_told_by(told) && (is_sure || !self.is_over(dir, trial)?)))
    }

    /// Whether a line of a journal says that Slurm has taken this job.
    pub(super) fn is_told_by(&self, row: &Value) -> bool {
        self.has_number_of(row)
            && (!self.is_name_certain || self.restarts > 0 || row["token"] == *self.name)
            && !self.is_later_than(row)
    }

    /// The trials that the newest lines of a journal about this job tell.
    pub(super) fn told_trials<'a>(&self, rows: &'a [Value]) -> Option<&'a str> {
        let told = rows.iter().rposition(|row| self.is_told_by(row))?;
        let intended = rows[..told].iter().rfind(|row| row["event"] == "intended");
        Some(intended.and_then(|row| row["trials"].as_str()).unwrap_or_default())
    }

    fn has_number_of(&self, row: &Value) -> bool {
        let is_own = |number| self.number.parse() == Ok(number);
        row["event"] == "submitted" && row["slurm_job"].as_u64().is_some_and(is_own)
    }

    /// Whether it was submitted after the line was written. Of a job that was restarted, Slurm tells when it was requeued.
    fn is_later_than(&self, row: &Value) -> bool {
        let times = self.submitted.zip(row["time"].as_f64()).filter(|_| self.restarts == 0);
        times.is_some_and(|(submitted, told)| told + CLOCKS < submitted)
    }

    /// Whether a trial was done in this run of the job, by its record.
    pub(super) fn has_done(&self, rows: &[AttemptRecord]) -> bool {
        let last = rows.iter().rev().find_map(AttemptRecord::as_start);
        last.is_some_and(|start| start.restarts >= self.restarts)
            && poll::recorded_exit(rows, &self.id) == Some(exit::DONE)
    }

    /// Whether a job of this number has ended the trial for good. Slurm would have counted a restart since.
    fn is_over(&self, dir: &ExperimentDir, trial: u32) -> io::Result<bool> {
        let attempts = dir.task(TASK).trial(trial).attempts();
        let rows = lines::read::<AttemptRecord>(&attempts)?.rows;
        Ok(poll::recorded_exit(&rows, &self.id).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(number: &str, restarts: u32, submitted: Option<f64>) -> OwnJob {
        let (number, id, name) = (number.to_owned(), number.to_owned(), "train".to_owned());
        OwnJob { number, id, name, is_name_certain: true, restarts, submitted, ..OwnJob::default() }
    }

    #[test]
    fn a_number_that_came_again_is_of_another_job() {
        let row = json!({ "event": "submitted", "token": "train", "slurm_job": 7, "time": 1000.0 });
        let told = |job: &OwnJob| job.is_told_by(&row);
        assert!(told(&job("7", 0, None)) && told(&job("7", 0, Some(900.0))));
        assert!(!told(&job("8", 0, None)), "another number");
        assert!(!told(&OwnJob { name: "other".into(), ..job("7", 0, None) }), "another name");
        assert!(told(&OwnJob { name: "other".into(), ..job("7", 1, None) }), "somebody renamed it");
        assert!(!told(&job("7", 0, Some(2000.0))), "submitted later than that");
        assert!(told(&job("7", 1, Some(2000.0))), "requeued later than that");
        assert!(told(&job("7", 0, Some(1200.0))), "clocks differ");
        let step = OwnJob { name: "step".into(), is_name_certain: false, ..job("7", 0, None) };
        assert!(told(&step), "the name of a step says nothing");
    }
}
