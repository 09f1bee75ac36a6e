//! Job states as Slurm spells them.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Makes the enum, its list, its spellings and its phases of one table.
macro_rules! job_states {
    ($($state:ident, $word:literal, $phase:ident;)*) => {
        /// A job state as Slurm spells it. `Other` keeps what a newer Slurm adds: no row is dropped. It is rare, and so in
        /// a box: there may be a million rows.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "Slurm's words, which its manual explains")]
        pub enum JobState {
            $($state,)*
            Other(Box<String>),
        }

        impl JobState {
            /// The state of this spelling.
            #[inline]
            fn known(word: &[u8]) -> Option<Self> {
                $(if word == $word.as_bytes() { return Some(Self::$state); })*
                None
            }

            #[cfg(test)]
            const KNOWN: &[Self] = &[$(Self::$state),*];

            /// Slurm's own word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$state => $word,)*
                    Self::Other(word) => word.as_str(),
                }
            }

            /// Where the job stands, as far as this word tells.
            #[must_use]
            pub fn phase(&self) -> JobPhase {
                match self {
                    $(Self::$state => JobPhase::$phase,)*
                    Self::Other(_) => JobPhase::Unknown,
                }
            }
        }
    };
}

// The most frequent first: that is how they are looked for. From `COMPLETING` on they are shown in place of another one.
job_states! {
    Completed, "COMPLETED", Ended;
    Pending, "PENDING", Waiting;
    Running, "RUNNING", Active;
    Failed, "FAILED", Ended;
    Cancelled, "CANCELLED", Ended;
    Timeout, "TIMEOUT", Ended;
    Suspended, "SUSPENDED", Active;
    NodeFail, "NODE_FAIL", Ended;
    Preempted, "PREEMPTED", Ended;
    BootFail, "BOOT_FAIL", Ended;
    Deadline, "DEADLINE", Ended;
    OutOfMemory, "OUT_OF_MEMORY", Ended;
    Completing, "COMPLETING", Active;
    StageOut, "STAGE_OUT", Active;
    Configuring, "CONFIGURING", Active;
    Resizing, "RESIZING", Active;
    Requeued, "REQUEUED", Ended;
    RequeueFed, "REQUEUE_FED", Waiting;
    RequeueHold, "REQUEUE_HOLD", Waiting;
    SpecialExit, "SPECIAL_EXIT", Waiting;
    Stopped, "STOPPED", Active;
    Revoked, "REVOKED", Ended;
    ResvDelHold, "RESV_DEL_HOLD", Waiting;
    Signaling, "SIGNALING", Active;
    LaunchFailed, "LAUNCH_FAILED", Ended;
    UpdateDb, "UPDATE_DB", Active;
    PowerUpNode, "POWER_UP_NODE", Active;
    ReconfigFail, "RECONFIG_FAIL", Ended;
    Expediting, "EXPEDITING", Waiting;
}

/// What a state means to someone who waits for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPhase {
    /// In the queue, with no node yet (or no longer).
    Waiting,
    /// Has its nodes: starting, running, suspended or being tidied up.
    Active,
    /// This attempt is over. See [`JobState::is_final`] for whether another may follow.
    Ended,
    /// A word that we don't know: assume nothing.
    Unknown,
}

impl JobState {
    /// Reads one word; a table's `CANCELLED+` is that word cut short, and read as the state.
    #[must_use]
    pub fn from_word(word: &[u8]) -> Self {
        let plain = word.strip_suffix(b"+").unwrap_or(word);
        Self::known(plain)
            .unwrap_or_else(|| Self::Other(Box::new(String::from_utf8_lossy(word).into_owned())))
    }

    /// Where the job stands, if `squeue` shows this word: one that was requeued waits there.
    #[must_use]
    pub fn phase_in_queue(&self) -> JobPhase {
        if *self == Self::Requeued { JobPhase::Waiting } else { self.phase() }
    }

    /// Whether no further attempt follows by itself. After `REQUEUED`, `PREEMPTED` and `NODE_FAIL` one may.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.phase() == JobPhase::Ended
            && !matches!(self, Self::Requeued | Self::Preempted | Self::NodeFail)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str()) // `pad`, not `write_str`: a table column may ask for a width
    }
}

impl FromStr for JobState {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(state_and_user(text.as_bytes()).0)
    }
}

/// Reads a state and, from `CANCELLED by 1000`, the user who did it.
#[must_use]
#[inline]
pub fn state_and_user(text: &[u8]) -> (JobState, Option<u32>) {
    if let Some(state) = JobState::known(text) {
        return (state, None);
    }
    let (word, by) = match text.iter().position(|byte| *byte == b' ') {
        Some(space) => text.split_at(space),
        None => (text, &b""[..]),
    };
    let uid = by.strip_prefix(b" by ").and_then(|uid| str::from_utf8(uid).ok()?.parse().ok());
    (JobState::from_word(word), uid)
}

impl serde::Serialize for JobState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for JobState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Ok(Self::from_word(word.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &JobState, by: Option<u32>, phase: JobPhase, is_final: bool) {
        assert_eq!(state_and_user(text.as_bytes()), (want.clone(), by), "parsing {text:?}");
        assert_eq!((want.phase(), want.is_final()), (phase, is_final), "{want:?}");
    }

    #[test]
    fn words_are_read_as_slurm_means_them() {
        use JobState::{
            Cancelled, Completing, Expediting, NodeFail, Other, OutOfMemory, Pending, Requeued,
        };
        check("PENDING", &Pending, None, JobPhase::Waiting, false);
        check("COMPLETING", &Completing, None, JobPhase::Active, false);
        check("OUT_OF_MEMORY", &OutOfMemory, None, JobPhase::Ended, true);
        check("CANCELLED", &Cancelled, None, JobPhase::Ended, true);
        check("CANCELLED by 1000", &Cancelled, Some(1000), JobPhase::Ended, true);
        check("CANCELLED+", &Cancelled, None, JobPhase::Ended, true);
        check("NODE_FAIL", &NodeFail, None, JobPhase::Ended, false);
        check("REQUEUED", &Requeued, None, JobPhase::Ended, false);
        check("EXPEDITING", &Expediting, None, JobPhase::Waiting, false); // 25.11: its requeue comes first
        check(
            "BRAND_NEW",
            &Other(Box::new("BRAND_NEW".to_owned())),
            None,
            JobPhase::Unknown,
            false,
        );
    }

    #[test]
    fn in_the_queue_one_that_was_requeued_waits() {
        for state in JobState::KNOWN {
            let is_requeued = *state == JobState::Requeued;
            let expected = if is_requeued { JobPhase::Waiting } else { state.phase() };
            assert_eq!(state.phase_in_queue(), expected, "{state}");
        }
    }

    #[test]
    fn every_state_is_read_as_it_is_printed() {
        for state in JobState::KNOWN {
            assert_eq!(state.to_string().parse().as_ref(), Ok(state));
        }
    }
}
