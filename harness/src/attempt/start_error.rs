//! Errors that keep an attempt from starting: permanent ones, and those of this node.

use std::fmt;
use std::io;
use std::path::Path;

use crate::job::trial::with_path;

/// Why an attempt could not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartError {
    /// Another attempt would fail in the same way.
    Permanent(String),
    /// This node can't read or write something now. Another node, or a later attempt, may succeed.
    Node(String),
}

impl StartError {
    /// The error of a file or folder that this node can't read or write.
    pub(crate) fn node(path: &Path, error: &io::Error) -> Self {
        Self::Node(with_path(path, error))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent(why) | Self::Node(why) => f.write_str(why),
        }
    }
}

impl From<String> for StartError {
    fn from(why: String) -> Self {
        Self::Permanent(why)
    }
}
