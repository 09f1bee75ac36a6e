//! The local executor: the same harness without Slurm, as processes of this machine.
//!
//! A runner of its own carries the experiment out, so that `submit` returns and its terminal may close.

mod children;
mod gpu_slots;
mod log;
mod runner;
mod schedule;
mod silent_deaths;
mod spawn;

pub use children::Children;
pub use runner::{OtherTasks, RunnerError, run};
pub use spawn::{
    HarnessOptions, SpawnError, harness as start_harness, has_finished, is_running,
    knows_generation, start_runner, wait,
};
