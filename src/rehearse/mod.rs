//! Rehearses a trial before anything is submitted: undisturbed twice, then interrupted in every way, and compares.
//!
//! `scenarios` says what is done and when, `local` and `slurm` do it, `align` and `compare` compare the results, and
//! `findings` says what follows. Only `local`, `slurm`, `folder`, `watch` and the reading half of `compare_files` do I/O.

pub mod advice;
pub mod align;
pub mod compare;
pub mod compare_files;
pub mod findings;
pub(crate) mod folder;
pub mod inventory;
mod leaves;
pub mod local;
mod pickle;
pub mod rehearser;
pub mod run_record;
pub mod scenarios;
pub mod series;
mod slurm;
mod watch;
mod zip;
