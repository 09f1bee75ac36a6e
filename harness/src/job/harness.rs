//! The state of the harness process while it runs the attempts of one job.

use std::time::Duration;

use nix::sys::signalfd::SignalFd;

use crate::attempt::start_error::StartError;
use crate::job::context::JobContext;
use crate::job::trial::Trial;
use crate::os::clock::Clock;
use crate::os::patience::Patience;
use crate::os::serial_queue::SerialQueue;
use crate::slurm::OwnRun;

/// The state that stays the same between the attempts of one job.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) context: JobContext,
    /// Whether this process already has the program's environment.
    pub(crate) environment: Result<(), StartError>,
    pub(crate) trial: Trial,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalFd,
    /// Writes the record, the metrics and the logs of all attempts.
    pub(crate) records: SerialQueue,
    /// The `srun` that runs the sentinel.
    pub(crate) sentinel: Option<u32>,
    /// When the grace of a preemption ends, in unix seconds, once Slurm has said so.
    pub(crate) grace_end: Option<f64>,
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

    /// The facts that Slurm's answer about the job is compared with.
    pub(crate) fn own_run(&self) -> OwnRun {
        #[expect(clippy::cast_precision_loss, reason = "seconds fit")]
        let lead = self.trial.spec.checkpoint.lead as f64;
        let restarts = self.context.slurm.as_ref().map_or(0, |own| own.restarts);
        OwnRun { restarts, lead, grace_end: self.grace_end }
    }
}
