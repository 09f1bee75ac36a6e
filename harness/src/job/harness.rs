//! What one process of the harness holds while it runs the attempts of one job.

use nix::sys::signalfd::SignalFd;

use crate::job::context::Context;
use crate::job::trial::Trial;
use crate::os::clock::Clock;
use crate::slurm::OwnRun;

/// What stays the same from attempt to attempt of one job.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) context: Context,
    pub(crate) trial: Trial,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalFd,
    /// The `srun` that runs the sentinel.
    pub(crate) sentinel: Option<u32>,
    /// When the grace of a preemption ends, in unix seconds, once Slurm has said so.
    pub(crate) grace_end: Option<f64>,
    /// When this process began, in unix seconds.
    pub(crate) began: f64,
    /// When this segment ends, in unix seconds.
    pub(crate) segment_end: Option<f64>,
}

impl Harness {
    /// What Slurm's word on the job is compared with.
    pub(crate) fn own_run(&self) -> OwnRun {
        #[expect(clippy::cast_precision_loss, reason = "seconds fit")]
        let lead = self.trial.spec.checkpoint.lead as f64;
        let restarts = self.context.slurm.as_ref().map_or(0, |own| own.restarts);
        OwnRun { restarts, lead, grace_end: self.grace_end }
    }
}
