//! What one process of the harness holds while it runs the attempts of one job.

use nix::sys::signalfd::SignalFd;

use crate::clock::Clock;
use crate::context::Context;
use crate::guard::Guard;
use crate::trial::Trial;

/// What stays the same from attempt to attempt of one job.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) context: Context,
    pub(crate) trial: Trial,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalFd,
    /// The `srun` that runs the sentinel.
    pub(crate) sentinel: Option<u32>,
    /// Ends what this process leaves behind, should it be killed.
    pub(crate) guard: Option<Guard>,
    /// When this process began, in unix seconds.
    pub(crate) began: f64,
    /// When this segment ends, in unix seconds.
    pub(crate) segment_end: Option<f64>,
}
