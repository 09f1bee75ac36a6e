//! Why a program is asked to save, and the word that it is told.

/// Why a program is asked to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaveReason {
    Interval,
    Preempted,
    TimeLimit,
    Deadline,
    Cancelled,
    Paused,
    Unknown,
}

impl SaveReason {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Preempted => "preempted",
            Self::TimeLimit => "time_limit",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
        }
    }
}
