//! Divides the time of a stop, from the save request to the deadline. Pure.

use std::time::Duration;

/// The default of Slurm's `KillWait`, in seconds: from TERM to KILL.
pub const DEFAULT_KILL_WAIT: u32 = 30;

/// How long before the deadline TERM comes: a third of the time, from 3 to 15 s.
#[must_use]
pub fn term_before_deadline(whole: Duration) -> Duration {
    (whole / 3).clamp(Duration::from_secs(3), Duration::from_secs(15))
}

/// How long before the deadline KILL comes: a tenth of the time, from 1 to 5 s, which is left for the last commit.
#[must_use]
pub fn kill_before_deadline(whole: Duration) -> Duration {
    (whole / 10).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

/// The time from the save request to TERM.
#[must_use]
pub fn until_term(whole: Duration) -> Duration {
    whole.saturating_sub(term_before_deadline(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_time_is_for_the_save() {
        let check = |whole, term, kill| {
            let whole = Duration::from_secs(whole);
            let left = whole.saturating_sub(kill_before_deadline(whole));
            assert_eq!((until_term(whole).as_secs(), left.as_secs()), (term, kill), "{whole:?}");
        };
        check(2, 0, 1);
        check(9, 6, 8);
        check(30, 20, 27);
        check(600, 585, 595);
    }
}
