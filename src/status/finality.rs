//! Whether a state can still change: one odd answer of Slurm's must not decide for good. Pure.
//!
//! Final is what the harness itself wrote, or what follows from that. Where only Slurm speaks, an end is final when
//! `squeue` and `sacct` have agreed on it twice, at least [`APART`] seconds apart. Until then they are asked again.

use serde::{Deserialize, Serialize};

use super::{RememberedState, State};

/// Seconds between the two agreeing answers: a controller that was restarted knows its jobs again by then, and
/// accounting has caught up.
const APART: f64 = 300.0;

/// What a state is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateSource {
    /// Our own record, or what follows from it: no later answer of Slurm's changes it.
    Record,
    /// `squeue` and `sacct` both answered, and agree on it.
    Agreed,
    /// Slurm can't be asked now: what was known stays.
    Silence,
    /// One source alone says so, the other one says otherwise, or the job may still run.
    Open,
}

/// How sure a state is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// It may change.
    #[default]
    Open,
    /// `squeue` and `sacct` agree on this end since then, in unix seconds: they are asked again.
    Agreed(f64),
    /// It stays.
    Final,
}

impl Certainty {
    /// `status --json` shows whether it stays, no more.
    pub(super) fn is_final<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self == Self::Final)
    }
}

/// How sure a state is now, by what was known of the trial at the last look.
pub(super) fn certainty(
    state: State,
    basis: StateSource,
    earlier: Option<&RememberedState>,
    now: f64,
) -> Certainty {
    let earlier = earlier.filter(|earlier| earlier.state == state);
    let before = earlier.map_or(Certainty::Open, |earlier| earlier.certainty);
    match (basis, before) {
        (StateSource::Record, _) | (StateSource::Agreed, Certainty::Final) => Certainty::Final,
        (StateSource::Open, _) => Certainty::Open,
        (StateSource::Silence, before) => before,
        (StateSource::Agreed, Certainty::Agreed(since)) if now - since >= APART => Certainty::Final,
        // A clock that was set back must not lengthen the wait.
        (StateSource::Agreed, Certainty::Agreed(since)) => Certainty::Agreed(since.min(now)),
        (StateSource::Agreed, Certainty::Open) => Certainty::Agreed(now),
    }
}

const NOT_YET: &str = "not yet certain: the next `status` asks Slurm again";

/// A reason, and that it is not the last word.
pub(super) fn with_doubt(
    reason: Option<String>,
    state: State,
    certainty: Certainty,
) -> Option<String> {
    match reason {
        reason if certainty == Certainty::Final || !state.is_final() => reason,
        None => Some(NOT_YET.to_owned()),
        // What was remembered says so already.
        Some(reason) if reason.ends_with(NOT_YET) => Some(reason),
        Some(reason) => Some(format!("{reason}; {NOT_YET}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from looks, given as `seconds basis state`.
    #[track_caller]
    fn check(looks: &[(f64, StateSource, State)], expected: Certainty) {
        let mut earlier: Option<RememberedState> = None;
        for &(now, basis, state) in looks {
            let certainty = certainty(state, basis, earlier.as_ref(), now);
            earlier = Some(RememberedState { state, reason: None, certainty });
        }
        assert_eq!(earlier.unwrap().certainty, expected, "{looks:?}");
    }

    #[test]
    fn an_end_that_slurm_alone_tells_needs_two_answers() {
        use State::{Cancelled, Failed, Running};
        use StateSource::{Agreed, Open, Record, Silence};
        check(&[(0.0, Record, Failed)], Certainty::Final);
        check(&[(0.0, Agreed, Cancelled)], Certainty::Agreed(0.0));
        check(&[(0.0, Agreed, Cancelled), (299.0, Agreed, Cancelled)], Certainty::Agreed(0.0));
        check(&[(0.0, Agreed, Cancelled), (300.0, Agreed, Cancelled)], Certainty::Final);
        let third = (900.0, Agreed, Cancelled);
        check(&[(0.0, Agreed, Cancelled), (300.0, Agreed, Cancelled), third], Certainty::Final);
        // One that agrees by chance proves nothing, once another look has shown the job alive.
        check(
            &[(0.0, Agreed, Failed), (200.0, Open, Running), (400.0, Agreed, Failed)],
            Certainty::Agreed(400.0),
        );
        check(&[(0.0, Agreed, Failed), (400.0, Agreed, Cancelled)], Certainty::Agreed(400.0));
        check(&[(0.0, Agreed, Failed), (400.0, Open, Failed)], Certainty::Open);
        // A silence neither confirms nor takes back.
        check(&[(0.0, Agreed, Failed), (400.0, Silence, Failed)], Certainty::Agreed(0.0));
        check(
            &[(0.0, Agreed, Failed), (200.0, Silence, Failed), (400.0, Agreed, Failed)],
            Certainty::Final,
        );
        check(&[(0.0, Silence, Failed)], Certainty::Open);
        // The clock was set back.
        check(
            &[(1e9, Agreed, Failed), (100.0, Agreed, Failed), (400.0, Agreed, Failed)],
            Certainty::Final,
        );
    }
}
