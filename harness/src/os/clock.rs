//! The clocks: only the edges read them, and hand the time on.
#![expect(clippy::disallowed_methods, reason = "this is the edge that owns the clock")]

use std::time::{Duration, Instant, SystemTime};

/// The time since the harness began, from a clock that never jumps. Deadlines are held in it.
pub(crate) type Time = Duration;

/// When the harness began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        self.began.elapsed()
    }

    /// The moment of a time of the wall clock; one that is over is now.
    pub(crate) fn at_unix(&self, unix: f64) -> Time {
        self.now() + Duration::try_from_secs_f64((unix - unix_now()).max(0.0)).unwrap_or_default()
    }

    /// When something was by the wall clock: none if that is yet to come, as by the clock of another machine.
    pub(crate) fn past_unix(&self, unix: f64) -> Option<Time> {
        let ago = Duration::try_from_secs_f64(unix_now() - unix).ok()?;
        Some(self.now().saturating_sub(ago))
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
