//! What `nemo-harness` is made of, and the files of an experiment's folder that both programs read.

pub mod placeholder;
pub mod rundir;

/// Exit codes of `nemo-harness run`, which the local executor's runner honours.
pub mod exit {
    /// The trial wants another attempt.
    pub const REQUEUE: i32 = 75;
}
