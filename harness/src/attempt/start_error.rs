//! Errors that keep an attempt from starting: permanent ones, and those of this node.

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;

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

/// Errors of a machine or its disks that may pass.
const PASSING: [Errno; 11] = [
    Errno::ETXTBSY,
    Errno::EAGAIN,
    Errno::ENOMEM,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EIO,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
    Errno::ENOSPC,
    Errno::EDQUOT,
    Errno::ENOTCONN,
];

/// Whether an error depends on the place and time, not on the request.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| PASSING.contains(&errno))
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
