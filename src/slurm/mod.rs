//! The only module that knows Slurm's programs: what they are called, what they are asked, what they print.

pub mod id;
pub mod parse;
pub mod state;
