//! Why an attempt could not begin: for good, or on this node only.

use std::io;
use std::path::Path;

use crate::trial::told;

/// Why an attempt could not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unbegun {
    /// Another attempt would meet the same.
    Everywhere(String),
    /// This node can't read or write what is needed now: elsewhere, or later, it may go well.
    Here(String),
}

impl Unbegun {
    /// A file or folder that can't be read or written here.
    pub(crate) fn here(path: &Path, error: &io::Error) -> Self {
        Self::Here(told(path, error))
    }
}

impl From<String> for Unbegun {
    fn from(why: String) -> Self {
        Self::Everywhere(why)
    }
}
