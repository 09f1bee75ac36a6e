//! The state of the harness process while it runs the attempts of one job.

use std::io;
use std::path::Path;
use std::time::Duration;

use nemo_core::rundir::AttemptRecord;
use nemo_core::{lines, open};
use nix::sys::signalfd::SignalFd;

use crate::attempt::start_error::StartError;
use crate::job::context::JobContext;
use crate::job::trial::Trial;
use crate::monitor::alarms::Alarm;
use crate::os::clock::Clock;
use crate::os::patience::Patience;
use crate::os::serial_queue::SerialQueue;
use crate::slurm::sentinel::Sentinel;
use crate::slurm::{Job, OwnRun};

/// The state that stays the same between the attempts of one job.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) context: JobContext,
    /// What is known to be wrong before anything runs.
    pub(crate) at_start: Vec<Alarm>,
    /// Whether this process already has the program's environment.
    pub(crate) environment: Result<(), StartError>,
    pub(crate) trial: Trial,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalFd,
    /// Writes the record, the metrics and the logs of all attempts.
    pub(crate) records: SerialQueue,
    /// The `srun` that runs the sentinel.
    pub(crate) sentinel: Option<Sentinel>,
    /// When the grace of a preemption ends, in unix seconds, once Slurm has said so.
    pub(crate) grace_end: Option<f64>,
    /// When this run of the job began, in unix seconds, once Slurm has said so.
    pub(crate) run_start: Option<f64>,
    /// When this process began, in unix seconds.
    pub(crate) began: f64,
    /// When this segment ends, in unix seconds.
    pub(crate) segment_end: Option<f64>,
}

/// How long to wait for a disk that is full or fails before an attempt gives up.
const PATIENCE: Duration = Duration::from_mins(5);

impl Harness {
    /// How long to wait for the disk before the program starts, at most until the end of the segment.
    pub(crate) fn patience(&self) -> Patience<'_> {
        let end = self.segment_end.map(|at| self.clock.at_unix(at));
        let until = end.into_iter().chain([self.clock.now() + PATIENCE]).min();
        Patience { signals: &self.signals, clock: self.clock, until: until.unwrap_or_default() }
    }

    /// Reads what decides whether the trial runs, as a shared disk has it now. What can't be read is not empty: the trial
    /// is not started then.
    pub(crate) fn read<T>(
        &self,
        path: &Path,
        read: impl Fn() -> io::Result<T>,
    ) -> Result<T, StartError> {
        let fresh = || {
            open::refresh(path);
            read()
        };
        self.patience().with(fresh).map_err(|error| StartError::node(path, &error))
    }

    /// The record of a trial, read in this way.
    pub(crate) fn record(&self, path: &Path) -> Result<Vec<AttemptRecord>, StartError> {
        Ok(self.read(path, || lines::read(path))?.rows)
    }

    /// The facts that Slurm's answer about the job is compared with.
    pub(crate) fn own_run(&self) -> OwnRun {
        #[expect(clippy::cast_precision_loss, reason = "seconds fit")]
        let lead = self.trial.spec.checkpoint.lead as f64;
        let restarts = self.context.slurm.as_ref().map_or(0, |own| own.restarts);
        OwnRun { restarts, lead, grace_end: self.grace_end, start: self.run_start }
    }

    /// Keeps what Slurm says of this run of the job.
    pub(crate) fn update_from_job(&mut self, job: &Job) {
        self.grace_end = job.grace_end().or(self.grace_end);
        if self.run_start.is_none() && job.is_run(self.own_run().restarts) {
            self.run_start = job.start;
        }
    }
}
