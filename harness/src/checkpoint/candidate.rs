//! How a thing in the staging folder stands, from its first sight to its commit.

use super::commit::CommitRequest;
use super::tree::FileEntry;
use crate::monitor::metrics::MetricsPosition;
use crate::os::clock::Time;

/// Where the program is, for what it saves without a number.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgramPosition {
    pub(crate) step: Option<u64>,
    pub(crate) metrics: Option<MetricsPosition>,
}

/// A save that is whole.
#[derive(Clone, Debug)]
pub(crate) struct CompleteSave {
    /// Where the program was when it was written. By now it may have gone on.
    pub(super) position: ProgramPosition,
    /// The step that the program told.
    pub(super) step: Option<u64>,
    /// When it was written, as far as was seen.
    pub(super) written_at: Time,
    /// It is whole because it was renamed, or the program said so: a change that is seen later does not make it less.
    pub(super) is_confirmed: bool,
    /// What was seen when it was found to be whole by itself.
    pub(super) tree: Option<Vec<FileEntry>>,
}

/// How a thing stands.
#[derive(Debug)]
pub(super) enum SaveState {
    Complete(CompleteSave),
    InPlace {
        tree: Vec<FileEntry>,
        since: Time,
        position: ProgramPosition,
    },
    Committing(CompleteSave),
    /// It is a copy of what was committed before, and lies there until something in it changes.
    Duplicate {
        tree: Vec<FileEntry>,
    },
    /// It could not be looked at.
    RetryInspection {
        save: CompleteSave,
        at: Time,
    },
    RetryCommit {
        request: Box<CommitRequest>,
        save: CompleteSave,
        at: Time,
    },
    Rejected,
}

impl SaveState {
    /// A commit is under way, or will be tried.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Complete(_)
                | Self::Committing(_)
                | Self::RetryInspection { .. }
                | Self::RetryCommit { .. }
        )
    }
}
