//! Where a disturbed run's reports belong. Those without a step lie where the record was when the trial went on. Pure.

use nemo_core::rundir::MetricsLine;

use super::run_record::{RehearsedAttempt, RehearsedRun};
use super::series::{RunSeries, SeriesTolerance};

/// A resume, as it lies in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePosition {
    /// The checkpoint's step.
    pub step: u64,
    /// The last step before it; where the program tells none, the number of reports before it.
    pub after: u64,
}

/// A run's record beside the undisturbed one, and its resumes in it.
#[must_use]
pub fn align(
    expected: &RunSeries,
    run: &RehearsedRun,
    slack: &SeriesTolerance,
) -> (RunSeries, Vec<ResumePosition>) {
    let own = RunSeries::new(&run.lines);
    if !own.has_steps && !expected.has_steps {
        return by_order(expected, run, slack);
    }
    let steps = run.attempts.iter().filter_map(|attempt| attempt.resume_step);
    (own, steps.map(|step| ResumePosition { step, after: step }).collect())
}

/// A resume cuts the record to what it held when the checkpoint was complete: the reports after it follow on that.
fn by_order(
    expected: &RunSeries,
    run: &RehearsedRun,
    slack: &SeriesTolerance,
) -> (RunSeries, Vec<ResumePosition>) {
    let (mut series, mut resumes) = (RunSeries::default(), Vec::new());
    let mut next = 1;
    let mut before = None;
    for attempt in &run.attempts {
        let lines: Vec<&MetricsLine> =
            run.lines.iter().filter(|line| line.attempt == attempt.number).collect();
        let mut begin = next;
        if let Some(step) = attempt.resume_step {
            let left = before.and_then(|before| left_off(before, step));
            begin = best(expected, &lines, &begins(next, left), slack);
            resumes.push(ResumePosition { step, after: begin - 1 });
        }
        for (place, line) in (begin..).zip(&lines) {
            series.points.entry(place).or_insert_with(|| line.values.clone());
            next = next.max(place + 1);
        }
        before = Some((attempt, begin));
    }
    (series, resumes)
}

/// The place after an attempt's last report, where it saved this checkpoint last and ended: even what it printed too
/// late for the record was before the save.
fn left_off((attempt, begin): (&RehearsedAttempt, u64), resumed: u64) -> Option<u64> {
    let is_last = attempt.checkpoints.last().is_some_and(|(step, _)| *step == resumed);
    let printed = u64::try_from(attempt.lines.len()).ok()?;
    (is_last && attempt.left_by_itself()).then_some(begin + printed)
}

/// A report and a rename at the same moment may be heard in either order, so that one or two are there twice or not
/// at all. The likeliest place is the first.
fn begins(next: u64, left: Option<u64>) -> Vec<u64> {
    left.into_iter()
        .chain([next])
        .flat_map(|at| [0, -1, 1, -2, 2].into_iter().map(move |by| at.saturating_add_signed(by)))
        .filter(|at| *at > 0)
        .collect()
}

/// The place from which most reports are those of the undisturbed run.
fn best(
    expected: &RunSeries,
    lines: &[&MetricsLine],
    begins: &[u64],
    slack: &SeriesTolerance,
) -> u64 {
    // Of equals the last counts, by definition of `max_by_key`.
    begins
        .iter()
        .copied()
        .rev()
        .max_by_key(|begin| agreeing(expected, lines, *begin, slack))
        .unwrap_or(1)
}

/// How many reports, from the first on, are those of the undisturbed run when they begin there.
fn agreeing(
    expected: &RunSeries,
    lines: &[&MetricsLine],
    begin: u64,
    slack: &SeriesTolerance,
) -> usize {
    let agrees = |(place, line): &(u64, &&MetricsLine)| {
        expected.points.get(place).is_some_and(|point| {
            let mut exact = line.values.iter().filter(|(name, _)| !slack.contains_key(*name));
            exact.all(|(name, value)| point.get(name) == Some(value))
        })
    };
    (begin..).zip(lines).take_while(agrees).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::run_record::RunEnd;
    use crate::rehearse::scenarios::ScenarioKind;
    use nemo_core::rundir::{AttemptEnd, Cause, Next};
    use serde_json::json;

    fn line(attempt: u32, value: f64) -> MetricsLine {
        let values = json!({ "loss": value }).as_object().unwrap().clone();
        MetricsLine { step: None, attempt, time: 0.0, values, validation: false }
    }

    fn lines(attempt: u32, values: &[u32]) -> Vec<MetricsLine> {
        values.iter().map(|value| line(attempt, f64::from(*value))).collect()
    }

    fn undisturbed() -> RunSeries {
        RunSeries::new(&lines(0, &[1, 2, 3, 4, 5, 6, 7, 8]))
    }

    /// A run that went on from `step-4`: what it printed first, what of it is in the record, and what came then.
    fn run(printed: &[u32], kept: &[u32], then: &[u32]) -> RehearsedRun {
        let end = AttemptEnd {
            attempt: 0,
            time: 9.0,
            cause: Cause::Preempted,
            exit_code: Some(75),
            signal: None,
            step: None,
            checkpoint_step: Some(4),
            next: Next::Requeue,
            reason: None,
            stopped: None,
            saving: None,
        };
        let first = RehearsedAttempt {
            lines: lines(0, printed),
            checkpoints: vec![(4, 8.0)],
            end: Some(end),
            ..RehearsedAttempt::default()
        };
        let second =
            RehearsedAttempt { number: 1, resume_step: Some(4), ..RehearsedAttempt::default() };
        RehearsedRun {
            kind: ScenarioKind::Preempted,
            seconds: 1.0,
            end: RunEnd::Completed,
            attempts: vec![first, second],
            lines: lines(0, kept).into_iter().chain(lines(1, then)).collect(),
            checkpoints: vec![4],
            planned: 1,
        }
    }

    #[track_caller]
    fn check(run: &RehearsedRun, after: u64, first: Option<u64>) {
        let expected = undisturbed();
        let (series, resumes) = align(&expected, run, &SeriesTolerance::new());
        assert_eq!(resumes, [ResumePosition { step: 4, after }]);
        let difference = super::super::series::compare(&expected, &series, &SeriesTolerance::new());
        assert_eq!(difference.first.map(|first| first.step), first, "{series:?}");
        assert_eq!((difference.missing, difference.added), (vec![], vec![]));
    }

    #[test]
    fn what_differs_after_a_resume_is_never_before_it() {
        check(&run(&[1, 2, 3, 4], &[1, 2, 3, 4], &[5, 6, 7, 8]), 4, None);
        check(&run(&[1, 2, 3, 4], &[1, 2, 3, 4], &[9, 9, 9, 9]), 4, Some(5));
        check(&run(&[1, 2, 3, 4], &[1, 2, 3, 4], &[5, 9, 9, 9]), 4, Some(6));
    }

    #[test]
    fn a_report_that_came_too_late_for_the_record_was_before_the_save() {
        check(&run(&[1, 2, 3, 4], &[1], &[5, 6, 7, 8]), 4, None);
        check(&run(&[1, 2, 3, 4], &[1], &[9, 9, 9, 9]), 4, Some(5));
    }

    #[test]
    fn a_report_that_is_there_twice_is_no_difference() {
        let mut killed = run(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5], &[5, 6, 7, 8]);
        killed.attempts[0].end = None;
        check(&killed, 4, None);
    }

    #[test]
    fn one_that_goes_on_from_elsewhere_differs() {
        let mut killed = run(&[1, 2, 3, 4], &[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6, 7, 8]);
        killed.attempts[0].end = None;
        let expected = undisturbed();
        let (series, _) = align(&expected, &killed, &SeriesTolerance::new());
        let difference = super::super::series::compare(&expected, &series, &SeriesTolerance::new());
        assert_eq!(difference.first.map(|first| first.step), Some(5));
        assert_eq!(difference.added, [9, 10, 11, 12]);
    }
}
