//! The local executor: the same harness without Slurm, as processes of this machine.
//!
//! A runner of its own carries the experiment out, so that `submit` returns and its terminal may close.

mod children;
mod log;
mod runner;
mod schedule;
mod silent_deaths;
mod spawn;

pub use children::Children;
pub use runner::run;
pub use spawn::{SpawnError, harness as start_harness, is_running, start_runner, wait};
