//! How often a trial's harness was killed before it could write an end, and when it is not started again. Pure.

/// A harness that dies so often in a row without a line in the record is not started again. One that writes any goes by
/// the trial's own budgets.
const TOO_MANY: u32 = 5;

/// The deaths of one trial's harnesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SilentDeaths {
    /// In a row, without a new line in the record.
    pub(super) in_a_row: u32,
    /// The lines of the record at the last one.
    n_lines: usize,
}

impl SilentDeaths {
    /// After one more, with so many lines in the record.
    pub(super) fn one_more(self, n_lines: usize) -> Self {
        let before = if n_lines > self.n_lines { 0 } else { self.in_a_row };
        Self { in_a_row: before + 1, n_lines }
    }

    pub(super) fn are_too_many(self) -> bool {
        self.in_a_row >= TOO_MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_in_a_row_count_that_wrote_nothing() {
        let check = |n_lines: &[usize], in_a_row, are_too_many| {
            let deaths = n_lines.iter().fold(SilentDeaths::default(), |it, n| it.one_more(*n));
            assert_eq!((deaths.in_a_row, deaths.are_too_many()), (in_a_row, are_too_many));
        };
        check(&[0], 1, false);
        check(&[0, 0, 0, 0], 4, false);
        check(&[0, 0, 0, 0, 0], 5, true);
        check(&[3, 3, 3, 3, 3], 5, true);
        check(&[1, 4, 6, 9, 12, 15], 1, false);
        check(&[0, 0, 0, 0, 1], 1, false);
    }
}
