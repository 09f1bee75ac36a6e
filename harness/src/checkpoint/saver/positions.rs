//! Where the program was when it wrote a save: the last step that it had reported by then. What the program resumes from is
//! the save itself; by a step that is too low the record of its metrics loses rows, and by one that is too high it has rows
//! twice.
//!
//! A report and a save that come within milliseconds of each other tell nothing of their order. Then the program's habit does:
//! of one that was seen to save right after a report, and then to compute, the report came first. Of any other, such as one
//! that saves and prints the next step at once, the earlier step counts.

use std::time::Duration;

use crate::checkpoint::candidate::ProgramPosition;
use crate::os::clock::Time;

/// How many positions are remembered. Of more, every other one is forgotten, in the older half.
const MOST: usize = 512;
/// Within which time the order of a report and a save is not certain: a busy machine lets either thread wait that long.
const CLOSE: Duration = Duration::from_millis(20);

/// The steps that were reported, each with the time when it was read.
#[derive(Debug, Default)]
pub(super) struct PositionHistory {
    reports: Vec<(Time, ProgramPosition)>,
    /// A save that came right after the last report.
    right_after: Option<Time>,
    /// The program was seen to save right after a report, and then to compute.
    saves_after_reports: bool,
}

impl PositionHistory {
    /// Where the program is now.
    pub(super) fn note(&mut self, now: Time, position: &ProgramPosition) {
        if self.reports.last().is_some_and(|(_, last)| last.step == position.step) {
            return;
        }
        let save = self.right_after.take();
        self.saves_after_reports |= save.is_some_and(|save| now > save + CLOSE);
        self.reports.push((now, position.clone()));
        if self.reports.len() > MOST {
            let mut index = 0;
            self.reports.retain(|_| {
                index += 1;
                index > MOST / 2 || index % 2 == 1
            });
        }
    }

    /// Where the program was at a save. Until `not_before` all was read that it had printed; `seen`: when the kernel told of
    /// the save.
    pub(super) fn of_save(&mut self, not_before: Time, seen: Option<Time>) -> ProgramPosition {
        let end = self.reports.partition_point(|(read_at, _)| *read_at <= not_before);
        let (last, next) = (self.reports[..end].last(), self.reports.get(end));
        if let Some(seen) = seen {
            let is_right_after = last.is_some_and(|(read_at, _)| seen < *read_at + CLOSE);
            match next {
                Some((read_at, _)) if *read_at > seen + CLOSE => {
                    self.saves_after_reports |= is_right_after;
                }
                Some((_, next)) if self.saves_after_reports => return next.clone(),
                None if is_right_after => self.right_after = Some(seen),
                Some(_) | None => {}
            }
        }
        last.map(|(_, position)| position.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(time: u64) -> Time {
        Duration::from_millis(time)
    }

    /// Reports a step each 20 ms, from 1 at 20 ms on.
    fn history(steps: u64) -> PositionHistory {
        let mut history = PositionHistory::default();
        for step in 0..=steps {
            let step_then = (step > 0).then_some(step);
            let position = ProgramPosition { step: step_then, metrics: None };
            history.note(ms(step * 20), &position);
        }
        history
    }

    #[test]
    fn a_save_belongs_to_the_report_that_was_read_before_it() {
        let mut history = history(50);
        let mut step = |time| history.of_save(ms(time), None).step;
        assert_eq!((step(1000), step(1001), step(999)), (Some(50), Some(50), Some(49)));
        assert_eq!((step(500), step(0)), (Some(25), None));
    }

    /// Reports of a program that takes 100 ms for a step, and saves so long after each report, read together or one by one.
    fn steps_of(history: &mut PositionHistory, after: u64, is_together: bool) -> Vec<Option<u64>> {
        let mut steps = Vec::new();
        let first = history.reports.len() as u64;
        for step in first..first + 4 {
            let (report, save) = (step * 100, step * 100 + after);
            history.note(ms(report), &ProgramPosition { step: Some(step), metrics: None });
            let not_before = if is_together { report - 1 } else { save };
            steps.push(history.of_save(ms(not_before), Some(ms(save))).step);
        }
        steps
    }

    #[test]
    fn what_is_read_together_is_ordered_by_what_the_program_was_seen_to_do() {
        let mut history = PositionHistory::default();
        history.note(ms(0), &ProgramPosition::default());
        let earlier = [None, Some(1), Some(2), Some(3)];
        assert_eq!(
            steps_of(&mut history, 1, true),
            earlier,
            "it may print the next step after a save"
        );
        assert_eq!(steps_of(&mut history, 1, false), [5, 6, 7, 8].map(Some));
        assert_eq!(
            steps_of(&mut history, 1, true),
            [9, 10, 11, 12].map(Some),
            "it saves after a report"
        );
    }

    #[test]
    fn what_is_told_late_or_by_a_look_shows_the_same() {
        let at = |step| ProgramPosition { step: Some(step), metrics: None };
        let mut history = PositionHistory::default();
        history.note(ms(100), &at(1));
        assert_eq!(history.of_save(ms(101), Some(ms(101))).step, Some(1));
        assert_eq!(history.of_save(ms(101), None).step, Some(1), "a look sees it too");
        history.note(ms(200), &at(2));
        assert!(history.saves_after_reports);
        let mut history = PositionHistory::default();
        history.note(ms(100), &at(1));
        history.note(ms(200), &at(2));
        assert_eq!(history.of_save(ms(101), Some(ms(101))).step, Some(1));
        assert!(history.saves_after_reports, "it was told after the next report");
    }

    #[test]
    fn a_save_long_after_a_report_says_nothing_of_an_order() {
        let mut history = PositionHistory::default();
        history.note(ms(0), &ProgramPosition::default());
        assert_eq!(steps_of(&mut history, 60, false), [1, 2, 3, 4].map(Some));
        assert!(!history.saves_after_reports);
        assert_eq!(steps_of(&mut history, 1, true), [4, 5, 6, 7].map(Some));
    }

    #[test]
    fn of_very_many_reports_an_earlier_one_counts() {
        let mut history = history(100_000);
        assert!(history.reports.len() <= MOST);
        for time in (0..2_000_000).step_by(7777) {
            let step = history.of_save(ms(time), None).step;
            assert!(step.unwrap_or(0) <= time / 20);
        }
        assert_eq!(history.of_save(ms(1_999_999), None).step, Some(99_999));
    }
}
