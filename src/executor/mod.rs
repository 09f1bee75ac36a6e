//! Carries a plan out. Every choice was made before; each executor is safe to run again.

pub mod local;
pub mod slurm;
pub mod spec;
