//! The clock of this machine.
#![expect(clippy::disallowed_methods, reason = "an edge: the clock is read here")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds.
#[must_use]
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
