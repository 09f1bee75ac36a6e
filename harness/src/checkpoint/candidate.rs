//! How a thing in the staging folder stands, from its first sight to its commit.

use super::commit::Request;
use super::tree::Entry;
use crate::monitor::metrics::Mark;
use crate::os::clock::Time;

/// Where the program is, for what it saves without a number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) step: Option<u64>,
    pub(crate) metrics: Option<Mark>,
}

/// A save that is whole.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    /// Where the program was when it was written. By now it may have gone on.
    pub(super) place: Place,
    /// The step that the program told.
    pub(super) step: Option<u64>,
    /// When it was written, as far as was seen.
    pub(super) at: Time,
    /// It is whole because it was renamed, or the program said so: a change that is seen later does not make it less.
    pub(super) is_told: bool,
    /// What was seen when it was found to be whole by itself.
    pub(super) seen: Option<Vec<Entry>>,
}

/// How a thing stands.
#[derive(Debug)]
pub(super) enum Waiting {
    Complete(Whole),
    InPlace {
        seen: Vec<Entry>,
        since: Time,
        place: Place,
    },
    Sent(Whole),
    /// It is a copy of what was committed before, and lies there until something in it changes.
    Copy {
        seen: Vec<Entry>,
    },
    /// It could not be looked at.
    Later {
        whole: Whole,
        at: Time,
    },
    Retry {
        request: Box<Request>,
        whole: Whole,
        at: Time,
    },
    Refused,
}

impl Waiting {
    /// A commit is under way, or will be tried.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Complete(_) | Self::Sent(_) | Self::Later { .. } | Self::Retry { .. })
    }
}
