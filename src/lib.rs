//! Experiments on Slurm: the library behind the `nemo-slurm` program.

pub mod cli;
pub mod clock;
pub mod commands;
pub mod duration;
pub mod error;
pub mod executor;
pub mod experiment;
pub mod file_error;
pub mod goodput;
pub mod humanize;
pub mod journal;
pub mod observe;
mod parallel;
pub mod plan;
pub mod process;
pub mod query;
pub mod rehearse;
pub mod remembered;
pub mod report;
pub mod script;
pub mod slurm;
pub mod status;
pub mod store;
pub mod summary;
pub mod trace;
