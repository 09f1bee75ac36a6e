//! Which tasks the array of a wrapped job has. Each task's environment tells the lowest, the highest and how many there are;
//! which of those between are there, only Slurm knows.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::cluster::ANSWER;
use super::variable;
use crate::os::clock::Clock;
use crate::os::subprocess::{self, SubprocessResult};

/// What the environment of a task tells of its array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ArrayBounds {
    first: u32,
    pub(super) last: u32,
    step: u32,
    /// How many tasks there are; none where Slurm did not say.
    count: Option<u32>,
}

impl ArrayBounds {
    /// Those of this job's array.
    pub(super) fn read() -> Self {
        let number = |name: &str| variable(name).and_then(|text| text.parse().ok());
        let (first, last) = (number("SLURM_ARRAY_TASK_MIN"), number("SLURM_ARRAY_TASK_MAX"));
        let Some((first, last)) = first.zip(last).filter(|(first, last)| first <= last) else {
            return Self::default();
        };
        let step = number("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
        Self { first, last, step, count: number("SLURM_ARRAY_TASK_COUNT") }
    }

    /// All tasks from the first to the last, as a journal tells them: more than there are if there are gaps.
    pub(super) fn span(&self) -> String {
        if self.first == self.last {
            return self.first.to_string();
        }
        format!("{}-{}", self.first, self.last)
    }

    /// The same tasks as a rule, where one rule has as many as there are.
    pub(super) fn by_rule(&self) -> Option<String> {
        let count = (self.last - self.first) / self.step.max(1) + 1;
        if self.count.is_some_and(|there| there != count) {
            return None;
        }
        Some(if self.step > 1 { format!("{}:{}", self.span(), self.step) } else { self.span() })
    }
}

/// The tasks of an array as Slurm shows them: those that wait, run, or ended a short time ago. None without an answer.
pub(super) fn ask(number: &str, clock: &Clock) -> Option<BTreeSet<u32>> {
    let argv = ["squeue", "-h", "-r", "-t", "all", "-j", number, "-o", "%K"];
    match subprocess::ask(&argv, clock, ANSWER) {
        SubprocessResult::Ended { code: Some(0), text } => {
            Some(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
        }
        _ => None,
    }
}

/// A set of tasks as a journal tells them, such as `1-3,7`.
pub(super) fn as_ranges(tasks: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut range: Option<(u32, u32)> = None;
    for task in tasks.iter().copied() {
        match &mut range {
            Some((_, last)) if task == *last + 1 => *last = task,
            _ => {
                push(&mut text, range);
                range = Some((task, task));
            }
        }
    }
    push(&mut text, range);
    text
}

fn push(text: &mut String, range: Option<(u32, u32)>) {
    let Some((first, last)) = range else { return };
    let comma = if text.is_empty() { "" } else { "," };
    let end = if first == last { String::new() } else { format!("-{last}") };
    write!(text, "{comma}{first}{end}").ok(); // writing to text can't fail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_where_it_has_as_many_tasks_as_there_are() {
        let rule = |first, last, step, count| {
            ArrayBounds { first, last, step, count: Some(count) }.by_rule()
        };
        assert_eq!(rule(1, 3, 1, 3).as_deref(), Some("1-3"));
        assert_eq!(rule(0, 20, 5, 5).as_deref(), Some("0-20:5"));
        assert_eq!(rule(5, 5, 1, 1).as_deref(), Some("5"));
        assert_eq!(rule(1, 9, 1, 3), None, "`1,5,9`: only Slurm knows");
        assert_eq!(ArrayBounds::default().by_rule().as_deref(), Some("0"), "a plain job");
    }

    #[test]
    fn tasks_are_told_as_ranges() {
        let text = |tasks: &[u32]| as_ranges(&tasks.iter().copied().collect());
        assert_eq!(text(&[1, 5, 9]), "1,5,9");
        assert_eq!(text(&[7, 1, 2, 3]), "1-3,7");
        assert_eq!(text(&[]), "");
    }
}
