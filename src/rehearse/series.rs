//! Two records of metrics: where they differ first, and by how much at most. Pure.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::rundir::MetricsLine;
use serde::Serialize;
use serde_json::{Map, Value};

/// A run's record: the values of each step, in order. Reports without a step are counted instead, from 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSeries {
    /// Values by step; of a step that is there twice, the first.
    pub points: BTreeMap<u64, Map<String, Value>>,
    /// The steps that are there more than once for one of the metrics.
    pub doubled: BTreeSet<u64>,
    /// Whether the program tells its steps.
    pub has_steps: bool,
}

impl RunSeries {
    /// Reads a record. Where no report has a step, the reports are numbered.
    #[must_use]
    pub fn new(lines: &[MetricsLine]) -> Self {
        let has_steps = lines.iter().any(|line| line.step.is_some());
        let mut series = Self { has_steps, ..Self::default() };
        for (number, line) in (1..).zip(lines) {
            let step = if has_steps { line.step } else { Some(number) };
            let Some(step) = step else { continue };
            let point = series.points.entry(step).or_default();
            for (name, value) in &line.values {
                if point.contains_key(name) {
                    series.doubled.insert(step);
                } else {
                    point.insert(name.clone(), value.clone());
                }
            }
        }
        series
    }

    /// All names of metrics.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.points.values().flat_map(Map::keys).map(String::as_str).collect()
    }
}

/// One value that is not what it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PointDifference {
    /// The step, or the number of the report where the program tells none.
    pub step: u64,
    /// The metric.
    pub metric: String,
    /// What the undisturbed run has.
    pub expected: Value,
    /// What this one has.
    pub found: Value,
}

impl PointDifference {
    /// By how much; infinite where one of the two is no number.
    #[must_use]
    pub fn size(&self) -> f64 {
        match (self.expected.as_f64(), self.found.as_f64()) {
            (Some(expected), Some(found)) => (expected - found).abs(),
            _ => f64::INFINITY,
        }
    }
}

/// How a record differs from the undisturbed one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SeriesDifference {
    /// How many values were compared.
    pub compared: usize,
    /// How many differ.
    pub differing: usize,
    /// The first, in the order of steps.
    pub first: Option<PointDifference>,
    /// The largest.
    pub largest: Option<PointDifference>,
    /// Steps that only the undisturbed run reported.
    pub missing: Vec<u64>,
    /// Steps that only this run reported.
    pub added: Vec<u64>,
    /// The record fits when each step from the first difference on is taken for this many steps further.
    pub shift: Option<i64>,
}

/// By how much each metric may differ: what two undisturbed runs differ by. Those that are not named may not.
pub type SeriesTolerance = BTreeMap<String, f64>;

/// Compares a record with the undisturbed one.
#[must_use]
pub fn compare(
    expected: &RunSeries,
    found: &RunSeries,
    slack: &SeriesTolerance,
) -> SeriesDifference {
    let mut difference = SeriesDifference {
        missing: only_in(expected, found),
        added: only_in(found, expected),
        ..SeriesDifference::default()
    };
    for (&step, point) in &expected.points {
        let Some(other) = found.points.get(&step) else { continue };
        for (metric, value) in point {
            let Some(found) = other.get(metric) else { continue };
            difference.compared += 1;
            let (metric, expected, found) = (metric.clone(), value.clone(), found.clone());
            let point = PointDifference { step, metric, expected, found };
            if is_within(&point, slack) {
                continue;
            }
            difference.differing += 1;
            if difference.largest.as_ref().is_none_or(|largest| largest.size() < point.size()) {
                difference.largest = Some(point.clone());
            }
            difference.first.get_or_insert(point);
        }
    }
    let from = difference.first.as_ref().map(|first| first.step);
    difference.shift = from.and_then(|from| shift(expected, found, from, slack));
    difference
}

fn is_within(point: &PointDifference, slack: &SeriesTolerance) -> bool {
    point.expected == point.found
        || slack.get(&point.metric).is_some_and(|slack| point.size() <= *slack)
}

/// Where reports are counted, only their number may be another: see `align`.
fn only_in(own: &RunSeries, other: &RunSeries) -> Vec<u64> {
    let last = other.points.last_key_value().map(|(step, _)| *step);
    let steps = own.points.keys().copied().filter(|step| !other.points.contains_key(step));
    steps.filter(|step| own.has_steps || Some(*step) > last).collect()
}

/// So few equal values may be a coincidence.
const ENOUGH: usize = 3;
/// Counting from 0 instead of 1, twice.
const FURTHEST: i64 = 2;

/// Whether the rest of the record is that of other steps.
fn shift(
    expected: &RunSeries,
    found: &RunSeries,
    from: u64,
    slack: &SeriesTolerance,
) -> Option<i64> {
    let fits = |by: i64| {
        let mut equal = 0;
        for (step, point) in found.points.range(from..) {
            let Some(other) = step.checked_add_signed(by).and_then(|at| expected.points.get(&at))
            else {
                continue;
            };
            for (metric, value) in point {
                // A metric that is not compared tells nothing.
                let Some(expected) = other.get(metric).filter(|_| !slack.contains_key(metric))
                else {
                    continue;
                };
                if expected != value {
                    return false;
                }
                equal += 1;
            }
        }
        equal >= ENOUGH
    };
    (1..=FURTHEST).flat_map(|by| [-by, by]).find(|&by| fits(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn series(values: &[(u64, f64)]) -> RunSeries {
        let line = |&(step, loss): &(u64, f64)| MetricsLine {
            step: Some(step),
            attempt: 0,
            time: 0.0,
            values: json!({ "loss": loss }).as_object().unwrap().clone(),
            validation: false,
        };
        RunSeries::new(&values.iter().map(line).collect::<Vec<_>>())
    }

    fn of(f: impl Fn(u64) -> f64) -> Vec<(u64, f64)> {
        (1..=10).map(|step| (step, f(step))).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn loss(step: u64) -> f64 {
        1.0 / step as f64
    }

    #[test]
    fn equal_records_do_not_differ() {
        let own = series(&of(loss));
        let difference = compare(&own, &own, &SeriesTolerance::new());
        assert_eq!((difference.compared, difference.first), (10, None));
    }

    #[test]
    fn the_first_and_the_largest_difference_are_told() {
        let bent = |step| {
            if step > 4 { loss(step) + f64::from(u8::from(step == 7)) + 0.5 } else { loss(step) }
        };
        let difference = compare(&series(&of(loss)), &series(&of(bent)), &SeriesTolerance::new());
        assert_eq!(difference.first.unwrap().step, 5);
        assert_eq!(difference.largest.unwrap().step, 7);
        assert_eq!((difference.differing, difference.shift), (6, None));
        let slack = SeriesTolerance::from([("loss".to_owned(), 2.0)]);
        assert_eq!(compare(&series(&of(loss)), &series(&of(bent)), &slack).first, None);
    }

    #[test]
    fn a_record_that_is_a_step_off_is_known() {
        let off = |step| if step > 4 { loss(step - 1) } else { loss(step) };
        let difference = compare(&series(&of(loss)), &series(&of(off)), &SeriesTolerance::new());
        assert_eq!((difference.first.unwrap().step, difference.shift), (5, Some(-1)));
    }

    #[test]
    fn steps_that_are_missing_or_there_twice_are_told() {
        let mut values = of(loss);
        values.remove(4);
        values.insert(7, (7, 0.0));
        let found = series(&values);
        let difference = compare(&series(&of(loss)), &found, &SeriesTolerance::new());
        assert_eq!(difference.missing, [5]);
        assert_eq!(found.doubled, BTreeSet::from([7]));
    }

    #[test]
    fn what_is_no_number_differs_from_one() {
        let point = |value: Value| PointDifference {
            step: 1,
            metric: "loss".to_owned(),
            expected: json!(1.0),
            found: value,
        };
        assert!((point(json!(3.0)).size() - 2.0).abs() < 1e-12);
        assert!(point(Value::Null).size().is_infinite());
    }
}
