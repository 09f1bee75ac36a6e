//! Where an attempt goes on from.

use std::path::PathBuf;

/// A checkpoint that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resumed {
    pub(crate) step: u64,
    /// What the program is told to load: the folder, or the file in it.
    pub(crate) from: PathBuf,
    /// How long `metrics.jsonl` was then.
    pub(crate) metrics: u64,
}
