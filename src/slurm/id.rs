//! Slurm ids.
