//! Whether the experiment's folder was removed, or is only out of sight: a shared disk may hide it for a moment. Pure.

use std::time::{Duration, Instant};

/// So many looks in a row must miss it.
const LOOKS: u32 = 5;
/// The time between two of them: together they take half a minute.
const BETWEEN: Duration = Duration::from_millis(7500);

/// The looks in a row that missed the folder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GoneFolder {
    looks: u32,
    last: Option<Instant>,
}

impl GoneFolder {
    /// After one more look. True once the folder is taken for removed.
    pub(super) fn look(&mut self, now: Instant, is_there: bool) -> bool {
        if is_there {
            *self = Self::default();
        } else if self.last.is_none_or(|last| now >= last + BETWEEN) {
            *self = Self { looks: self.looks + 1, last: Some(now) };
        }
        self.looks >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an `Instant` has no other beginning")]
    fn it_is_gone_once_it_was_missed_for_half_a_minute() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let mut folder = GoneFolder::default();
        let gone: Vec<u64> = (0..40).filter(|second| folder.look(at(*second), false)).collect();
        assert_eq!(gone.first(), Some(&32), "however often it is looked for");
        let mut folder = GoneFolder::default();
        let is_hidden = |second: u64| second % 30 != 29;
        assert!(!(0..300).any(|second| folder.look(at(second), !is_hidden(second))));
    }
}
