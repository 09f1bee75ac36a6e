//! The files of an experiment's folder that both programs read: their places, formats and durable writes.
//!
//! Nothing here knows Slurm, signals or the command line. A reader accepts what an older writer left;
//! a field that it does not know is ignored, a torn last line too.

pub mod attempts;
pub mod metrics;
pub mod notes;
pub mod output_times;
pub mod paths;
pub mod progress;
pub mod requests;
pub mod runner;
pub mod task;
pub mod trials;
pub mod usage;

pub use attempts::{AttemptEnd, AttemptRecord, AttemptStart, Cause, Next, starts};
pub use metrics::{MetricsLine, metric_value};
pub use notes::{Note, Notes};
pub use paths::{ExperimentDir, TaskDir, TrialDir};
pub use progress::Progress;
pub use requests::{Request, RequestedAction};
pub use task::{
    CheckpointSpec, CommandSpec, Condition, Every, InputSpec, Keep, LaunchSpec, LogAction,
    LogPolicy, MetricSpec, NO_SIGNAL, ParentSpec, PollFrequency, PollSpec, Profile, RestartFrom,
    RestartSpec, SAVE_SIGNALS, TaskSpec, Tracker, save_signal,
};
pub use trials::{Params, TrialLine};
pub use usage::{GpuUsage, Usage};
