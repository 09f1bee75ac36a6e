//! `nemo-slurm`: experiments on Slurm, from a TOML file to a table of results.

fn main() {}
