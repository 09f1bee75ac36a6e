//! One Slurm job, or one local start, of the harness: who and where it is, and the attempts that it runs.

pub(crate) mod context;
pub(crate) mod debug;
pub(crate) mod environment;
pub(crate) mod harness;
pub(crate) mod inputs;
pub(crate) mod parents;
pub(crate) mod poll;
pub(crate) mod run;
pub(crate) mod trial;
pub(crate) mod work_folder;
pub(crate) mod wrap;
