//! The state of one entry of the staging folder, from the first scan to its commit.

use super::commit::CommitRequest;
use super::tree::FileEntry;
use crate::checkpoint::inspect::ClosedLooks;
use crate::monitor::metrics::MetricsPosition;
use crate::os::clock::Time;

/// Where the program is: the step and metrics that belong to a save without a number.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProgramPosition {
    pub(crate) step: Option<u64>,
    pub(crate) metrics: Option<MetricsPosition>,
}

impl ProgramPosition {
    /// The same place, where it is not known at which step the program was.
    pub(crate) fn without_step(&self) -> Self {
        Self { step: None, metrics: self.metrics.clone() }
    }
}

/// A save that is complete.
#[derive(Clone, Debug)]
pub(crate) struct CompleteSave {
    /// Where the program was when it was written. By now it may have gone on.
    pub(super) position: ProgramPosition,
    /// The step that the program reported with it.
    pub(super) step: Option<u64>,
    /// When the saver saw that it was written.
    pub(super) written_at: Time,
    /// A rename or the program says that it is complete. A later change does not alter that.
    pub(super) is_confirmed: bool,
    /// It came by a rename, and a message with its step may follow until then.
    pub(super) held_until: Option<Time>,
    /// The files at the scan that found it complete, if neither a rename nor the program said so.
    pub(super) tree: Option<Vec<FileEntry>>,
}

/// The state of a save.
#[derive(Debug)]
pub(super) enum SaveState {
    Complete(CompleteSave),
    InPlace {
        tree: Vec<FileEntry>,
        since: Time,
        /// The scans since its last change, if all have found it closed. A kill closes what was being written.
        closed: Option<ClosedLooks>,
        position: ProgramPosition,
    },
    Committing(CompleteSave),
    /// It is a copy of a committed checkpoint. It stays where it is until something in it changes.
    Duplicate {
        tree: Vec<FileEntry>,
    },
    /// It could not be inspected. The saver tries again.
    RetryInspection {
        save: CompleteSave,
        at: Time,
    },
    RetryCommit {
        request: Box<CommitRequest>,
        save: CompleteSave,
        at: Time,
    },
}

impl SaveState {
    /// Whether a commit is under way or will be tried.
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
