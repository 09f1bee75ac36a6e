//! Whether a folder was removed, or is only out of sight: a shared disk may hide it for a moment. Pure.

use std::ops::Add;
use std::time::Duration;

/// How many looks in a row must miss the folder.
const LOOKS: u32 = 5;
/// The time between two of them: together they take half a minute.
const BETWEEN: Duration = Duration::from_millis(7500);

/// The looks in a row that missed the folder.
#[derive(Clone, Copy, Debug)]
pub struct GoneFolder<T> {
    looks: u32,
    last: Option<T>,
}

impl<T> Default for GoneFolder<T> {
    fn default() -> Self {
        Self { looks: 0, last: None }
    }
}

impl<T: Copy + PartialOrd + Add<Duration, Output = T>> GoneFolder<T> {
    /// After one more look. True once the folder is taken for removed.
    #[must_use]
    pub fn look(&mut self, now: T, is_there: bool) -> bool {
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
    fn it_is_gone_once_it_was_missed_for_half_a_minute() {
        let at = Duration::from_secs;
        let mut folder = GoneFolder::default();
        let gone: Vec<u64> = (0..40).filter(|second| folder.look(at(*second), false)).collect();
        assert_eq!(gone.first(), Some(&32), "however often it is looked for");
        let mut folder = GoneFolder::default();
        let is_hidden = |second: u64| second % 30 != 29;
        assert!(!(0..300).any(|second| folder.look(at(second), !is_hidden(second))));
    }
}
