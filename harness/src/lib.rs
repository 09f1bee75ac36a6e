//! What `nemo-harness` is made of, and the files of an experiment's folder that both programs read.

pub mod placeholder;
pub mod rundir;
