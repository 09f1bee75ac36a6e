//! Experiments on Slurm: the library behind the `nemo-slurm` program.

pub mod answers;
mod beside;
pub mod cli;
pub mod commands;
pub mod error;
pub mod executor;
pub mod experiment;
pub mod file_error;
pub mod goodput;
pub mod host;
pub mod journal;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod rehearse;
pub mod report;
pub mod script;
pub mod slurm;
pub mod status;
pub mod store;
pub mod summary;
pub mod trace;
pub mod words;
