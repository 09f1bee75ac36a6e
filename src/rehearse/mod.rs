//! Rehearses a trial before anything is submitted: undisturbed twice, then interrupted in every way, and compares.
//!
//! `plan` says what is done and when, `local` and `slurm` do it, `align` and `compare` look at what came out, and `findings` says
//! what follows. Only `local`, `slurm`, `folder`, `watch` and the reading half of `tree` touch the world.

pub mod advice;
pub mod align;
pub mod compare;
pub mod findings;
pub(crate) mod folder;
pub mod inventory;
mod leaves;
pub mod local;
pub mod observed;
mod pickle;
pub mod plan;
pub mod run;
pub mod series;
mod slurm;
pub mod tree;
mod watch;
mod zip;
