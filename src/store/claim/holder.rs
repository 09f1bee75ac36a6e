//! Who holds a claim, and whether that process is still at work.

use std::fmt;
use std::io;

use nemo_core::claim::nonce;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::process::{Liveness, ProcessId};

/// A sign that is older than these seconds was the last one, without watching. Clocks of one cluster differ by less:
/// munge refuses a difference of five minutes.
pub(super) const LONG_SILENCE: f64 = 600.0;

/// Who holds a claim: the content of its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimHolder {
    /// The process: `node`, `boot_id`, `pid` and `start_ticks`.
    #[serde(flatten)]
    pub process: ProcessId,
    /// When it gave its last sign of life, in unix seconds of its host.
    pub seen: f64,
    /// Whether it has nothing left to do.
    pub released: bool,
    /// Tells two claims apart, whatever else is equal.
    pub nonce: String,
}

impl ClaimHolder {
    /// This process as a holder.
    pub fn current() -> io::Result<Self> {
        let (process, seen) = (ProcessId::current(), clock::now());
        Ok(Self { process, seen, released: false, nonce: nonce()? })
    }

    /// Whether it runs on this host.
    #[must_use]
    pub fn runs_here(&self) -> bool {
        self.process.liveness() == Liveness::Alive
    }

    /// Whether it is at work, as far as can be told from here.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        match judge(self, self.process.liveness(), clock::now()) {
            ClaimStatus::Held | ClaimStatus::Uncertain => true,
            ClaimStatus::Free => false,
        }
    }
}

impl fmt::Display for ClaimHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.process)
    }
}

/// What a claim is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimStatus {
    /// Its holder is over, or is done with it.
    Free,
    /// Its holder runs.
    Held,
    /// Its holder is on another host: whether it gives signs must be watched.
    Uncertain,
}

/// Judges a claim by its holder's process, and on another host by its last heartbeat.
pub(super) fn judge(holder: &ClaimHolder, liveness: Liveness, now: f64) -> ClaimStatus {
    match liveness {
        _ if holder.released => ClaimStatus::Free,
        Liveness::Dead => ClaimStatus::Free,
        Liveness::Alive => ClaimStatus::Held,
        Liveness::Elsewhere if now - holder.seen > LONG_SILENCE => ClaimStatus::Free,
        Liveness::Elsewhere => ClaimStatus::Uncertain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sign_is_worth() {
        let check = |liveness, seen: f64, expected| {
            let holder = ClaimHolder { seen, ..ClaimHolder::current().unwrap() };
            assert_eq!(judge(&holder, liveness, 1000.0), expected, "{liveness:?} {seen}");
            let released = ClaimHolder { released: true, ..holder };
            assert_eq!(judge(&released, liveness, 1000.0), ClaimStatus::Free);
        };
        check(Liveness::Alive, 0.0, ClaimStatus::Held);
        check(Liveness::Dead, 1000.0, ClaimStatus::Free);
        check(Liveness::Elsewhere, 990.0, ClaimStatus::Uncertain);
        check(Liveness::Elsewhere, 399.0, ClaimStatus::Free);
    }
}
