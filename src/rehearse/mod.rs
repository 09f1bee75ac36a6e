//! Rehearses a trial before anything is submitted: undisturbed twice, then interrupted in every way, and compares.
//!
//! `scenarios` says what is done and when, `local` and `slurm` do it, `align` and `compare` compare the results, `evidence`
//! says what of that depends on the state, and `findings` says what follows. Only `local`, `slurm`, `folder`, `watch`,
//! `evidence` and `compare_files` with `file_content` do I/O.

pub mod advice;
pub mod align;
pub mod compare;
pub mod compare_files;
pub mod evidence;
mod file_content;
pub mod file_names;
pub mod findings;
pub(crate) mod folder;
pub mod formats;
pub mod inventory;
pub mod local;
mod printed_steps;
pub mod rehearser;
pub mod run_record;
mod saves_in_place;
pub mod scenarios;
pub mod series;
mod slurm;
mod tail;
pub mod tolerance;
mod watch;
