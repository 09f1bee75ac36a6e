//! The budget of attempts in a row without a new checkpoint, `restart.no_progress`. Pure.

/// How many starts in a row without a record end a trial that has no smaller budget: the node or the home is at fault.
const STARTS: u32 = 5;

/// Where such attempts are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// At the end of an attempt, which counts too.
    AtEnd,
    /// Before an attempt begins. Those before may all have been killed before they could count, by no fault of theirs.
    BeforeStart,
    /// Starts that left no record at all.
    Unrecorded,
}

/// Whether so many attempts in a row without a new checkpoint are enough to give a trial up. A budget of 0 has no end.
#[must_use]
pub fn is_used_up(budget: u32, attempts: u32, counted: Counted) -> bool {
    let limit = match counted {
        Counted::AtEnd => budget,
        Counted::BeforeStart => budget.saturating_mul(2),
        Counted::Unrecorded if budget == 0 => STARTS,
        Counted::Unrecorded => budget.min(STARTS),
    };
    limit > 0 && attempts >= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_attempt_costs_half() {
        let first = |budget, counted| (0..100).find(|&n| is_used_up(budget, n, counted));
        assert_eq!(first(3, Counted::AtEnd), Some(3));
        assert_eq!(first(3, Counted::BeforeStart), Some(6));
        assert_eq!(first(3, Counted::Unrecorded), Some(3));
        assert_eq!(first(9, Counted::Unrecorded), Some(5));
        assert_eq!(first(0, Counted::AtEnd), None);
        assert_eq!(first(0, Counted::BeforeStart), None);
        assert_eq!(first(0, Counted::Unrecorded), Some(5));
        assert!(!is_used_up(u32::MAX, u32::MAX - 1, Counted::BeforeStart));
    }
}
