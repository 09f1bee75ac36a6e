//! Sets of moments on a line of whole microseconds: what makes a ledger's parts add up exactly.

/// A moment, in microseconds since 1970.
pub(super) type MicroTime = i128;

/// The latest moment that is believed: far beyond any clock, and far from overflowing.
const LAST: f64 = 1e11;

/// A time in unix seconds as a moment. One that is no time of this world becomes the nearest that is.
pub(super) fn moment(seconds: f64) -> MicroTime {
    #[expect(clippy::cast_possible_truncation, reason = "between 0 and 1e17")]
    let moment = (seconds.clamp(0.0, LAST) * 1e6).round() as MicroTime; // NaN becomes 0
    moment
}

/// A moment, or a length of time, in seconds.
pub(super) fn seconds(moment: MicroTime) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of our days are exact")]
    let seconds = moment as f64 / 1e6;
    seconds
}

/// Disjoint half-open stretches of time in their order, none of them empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(MicroTime, MicroTime)>);

impl Spans {
    /// One stretch; nothing where it would end before it begins.
    pub(super) fn one(from: MicroTime, until: MicroTime) -> Self {
        Self(if from < until { vec![(from, until)] } else { Vec::new() })
    }

    /// What any of the stretches covers, whatever their order.
    pub(super) fn union(stretches: impl IntoIterator<Item = (MicroTime, MicroTime)>) -> Self {
        let mut all: Vec<_> = stretches.into_iter().filter(|(from, until)| from < until).collect();
        all.sort_unstable();
        let mut spans: Vec<(MicroTime, MicroTime)> = Vec::new();
        for (from, until) in all {
            match spans.last_mut().filter(|last| from <= last.1) {
                Some(last) => last.1 = last.1.max(until),
                None => spans.push((from, until)),
            }
        }
        Self(spans)
    }

    /// How long they are together.
    pub(super) fn length(&self) -> i128 {
        self.0.iter().map(|(from, until)| until - from).sum()
    }

    /// Where the first stretch ends.
    pub(super) fn first_end(&self) -> Option<MicroTime> {
        self.0.first().map(|(_, until)| *until)
    }

    /// Takes out as much of the beginning, and returns how much there was.
    pub(super) fn take_first(&mut self, length: i128) -> i128 {
        let mut missing = length.max(0);
        for span in &mut self.0 {
            let part = missing.min(span.1 - span.0);
            span.0 += part;
            missing -= part;
        }
        self.0.retain(|(from, until)| from < until);
        length.max(0) - missing
    }

    /// Takes out what `other` covers, and returns that part.
    pub(super) fn take(&mut self, other: &Self) -> Self {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        let mut others = other.0.iter().copied().peekable();
        for &(mut from, until) in &self.0 {
            while let Some(&(begin, end)) = others.peek().filter(|(begin, _)| *begin < until) {
                if from < begin {
                    left.push((from, begin));
                }
                if from.max(begin) < until.min(end) {
                    taken.push((from.max(begin), until.min(end)));
                }
                from = from.max(end);
                if end > until {
                    break; // it may cover a part of the next one too
                }
                others.next();
            }
            if from < until {
                left.push((from, until));
            }
        }
        self.0 = left;
        Self(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_of_no_world_become_moments() {
        let times = [f64::NAN, f64::NEG_INFINITY, -3.0, 1.5, f64::INFINITY];
        assert_eq!(times.map(moment), [0, 0, 0, 1_500_000, 100_000_000_000_000_000]);
    }

    #[test]
    fn what_is_taken_is_no_longer_there() {
        let mut spans = Spans::union([(5, 9), (0, 3), (2, 4)]);
        assert_eq!(spans, Spans(vec![(0, 4), (5, 9)]));
        let taken = spans.take(&Spans::union([(-1, 1), (3, 7), (8, 20)]));
        assert_eq!(taken, Spans(vec![(0, 1), (3, 4), (5, 7), (8, 9)]));
        assert_eq!(spans, Spans(vec![(1, 3), (7, 8)]));
        assert_eq!((spans.take_first(-1), spans.take_first(2)), (0, 2));
        assert_eq!(spans, Spans(vec![(7, 8)]));
        assert_eq!((spans.take_first(9), spans.length()), (1, 0));
    }

    fn stretches() -> impl Strategy<Value = Vec<(MicroTime, MicroTime)>> {
        proptest::collection::vec((0..40_i128, 0..40_i128), 0..6)
    }

    fn holds(stretches: &[(MicroTime, MicroTime)], at: MicroTime) -> bool {
        stretches.iter().any(|(from, until)| (*from..*until).contains(&at))
    }

    proptest! {
        #[test]
        fn each_moment_is_either_taken_or_left(a in stretches(), b in stretches()) {
            let mut left = Spans::union(a.clone());
            let taken = left.take(&Spans::union(b.clone()));
            for at in 0..40 {
                prop_assert_eq!(holds(&taken.0, at), holds(&a, at) && holds(&b, at));
                prop_assert_eq!(holds(&left.0, at), holds(&a, at) && !holds(&b, at));
            }
            prop_assert_eq!(left.length() + taken.length(), Spans::union(a).length());
        }
    }
}
