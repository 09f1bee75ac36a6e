//! `nemo-harness`: stands between Slurm and one training program.

fn main() {}
