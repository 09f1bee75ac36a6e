//! Exit codes of `nemo-harness run`, which the local executor's runner honours.

/// The trial is done, or Slurm has the job in its queue again.
pub const DONE: u8 = 0;
/// It failed, on the local executor.
pub const FAILED: u8 = 1;
/// Its command line is wrong.
pub const USAGE: u8 = 2;
/// The disk kept a trial from writing a record of its attempt: it may begin elsewhere, or later.
pub const NOT_STARTED: u8 = 74;
/// It wants another attempt, on the local executor.
pub const REQUEUE: u8 = 75;
/// It failed, in a Slurm job: never requeue.
pub const NEVER: u8 = 93;
/// A later attempt of the trial has taken over. It is no success: Slurm may take this for the job's end.
pub const SUPERSEDED: u8 = 94;
/// The experiment's time is over.
pub const TIMEOUT: u8 = 124;
/// It was cancelled.
pub const CANCELLED: u8 = 143;
