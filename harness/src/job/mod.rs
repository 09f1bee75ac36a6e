//! One Slurm job, or one local start, of the harness: who and where it is, and the attempts that it runs.

pub(crate) mod context;
pub(crate) mod harness;
pub(crate) mod parents;
pub(crate) mod run;
pub(crate) mod trial;
