//! How the time of a stop is divided, from the request to save to the deadline. Pure.

use std::time::Duration;

/// How long before the deadline TERM comes: a third of the time is left for the end, from 3 to 15 s.
#[must_use]
pub fn term_before_deadline(whole: Duration) -> Duration {
    (whole / 3).clamp(Duration::from_secs(3), Duration::from_secs(15))
}

/// How long before the deadline KILL comes: a tenth of the time is left for the last commit, from 1 to 5 s.
#[must_use]
pub fn kill_before_deadline(whole: Duration) -> Duration {
    (whole / 10).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

/// How long a program has after the request before it is told to end.
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
