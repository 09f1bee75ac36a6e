//! Why an attempt could not begin: for good, or on this node only.

use std::io;
use std::path::Path;

use crate::job::trial::with_path;

/// Why an attempt could not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartError {
    /// Another attempt would meet the same.
    Permanent(String),
    /// This node can't read or write what is needed now: elsewhere, or later, it may go well.
    Node(String),
}

impl StartError {
    /// A file or folder that can't be read or written here.
    pub(crate) fn node(path: &Path, error: &io::Error) -> Self {
        Self::Node(with_path(path, error))
    }
}

impl From<String> for StartError {
    fn from(why: String) -> Self {
        Self::Permanent(why)
    }
}
