//! The files of an experiment's folder that both programs read: their places, formats and durable writes.
//!
//! Nothing here knows Slurm, signals or the command line. A reader accepts what an older writer left;
//! a field that it does not know is ignored, a torn last line too.

pub mod attempts;
pub mod metrics;
pub mod paths;
pub mod progress;
pub mod requests;
pub mod runner;
pub mod task;
pub mod trials;

pub use attempts::{AttemptEnd, AttemptRecord, AttemptStart, Cause, Next};
pub use metrics::MetricsLine;
pub use paths::{ExperimentDir, TaskDir, TrialDir};
pub use progress::Progress;
pub use requests::{Request, RequestedAction};
pub use task::{
    CheckpointSpec, CommandSpec, Condition, Every, InputSpec, Keep, LaunchSpec, LogAction,
    LogPolicy, MetricSpec, ParentSpec, Profile, RestartSpec, SAVE_SIGNALS, TaskSpec, save_signal,
};
pub use trials::{Params, TrialLine};
