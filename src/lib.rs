//! Experiments on Slurm: the library behind the `nemo-slurm` program.

pub mod experiment;
pub mod plan;
pub mod slurm;
