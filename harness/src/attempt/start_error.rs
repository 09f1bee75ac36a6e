//! Why an attempt could not begin: for good, or on this node only.

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;

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

/// What a machine or its disks answer for a moment: another one, or the same one later, may do better.
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

/// Whether an error says nothing of what was asked for, only of where and when.
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
