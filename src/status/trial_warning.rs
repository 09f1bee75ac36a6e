//! Warnings about a task or some of its trials: who shows a part of an experiment shows those of that part alone.

use nemo_core::scope::Scope;

use super::Status;

/// A warning about some trials of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialWarning {
    task: String,
    /// None of them: it is about the task as a whole.
    trials: Vec<u32>,
    words: String,
    /// The words do not say which trials are meant.
    needs_names: bool,
}

/// How many trials are named.
const NAMED: usize = 3;

impl TrialWarning {
    /// About these trials, which are named before the words.
    pub(super) fn of_trials(task: &str, trials: Vec<u32>, words: String) -> Self {
        Self { task: task.to_owned(), trials, words, needs_names: true }
    }

    /// About a trial that the words name themselves.
    pub(super) fn of_trial(task: &str, trial: u32, words: String) -> Self {
        Self { task: task.to_owned(), trials: vec![trial], words, needs_names: false }
    }

    /// About a task that the words name themselves.
    #[must_use]
    pub fn of_task(task: &str, words: String) -> Self {
        Self { task: task.to_owned(), trials: Vec::new(), words, needs_names: false }
    }

    fn text(&self) -> String {
        let Self { task, trials, words, needs_names } = self;
        if !needs_names {
            return words.clone();
        }
        let named: Vec<String> = trials.iter().take(NAMED).map(u32::to_string).collect();
        let more = match trials.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{task}/{}{more}: {words}", named.join(","))
    }

    /// Leaves out other trials than these. Returns whether anything stays.
    fn narrow(&mut self, scope: &Scope) -> bool {
        let is_of_task = self.trials.is_empty();
        self.trials.retain(|trial| scope.covers_trial(*trial));
        scope.covers_task(&self.task) && (is_of_task || !self.trials.is_empty())
    }
}

impl Status {
    /// Adds warnings about trials.
    pub fn warn_of_trials(&mut self, warnings: impl IntoIterator<Item = TrialWarning>) {
        for warning in warnings {
            self.warnings.push(warning.text());
            self.of_trials.push(warning);
        }
    }

    /// Leaves out the warnings about other trials than these.
    pub fn keep_warnings_of(&mut self, scope: &Scope) {
        for mut warning in std::mem::take(&mut self.of_trials) {
            let text = warning.text();
            let Some(at) = self.warnings.iter().position(|said| *said == text) else { continue };
            if warning.narrow(scope) {
                self.warnings[at] = warning.text();
                self.of_trials.push(warning);
            } else {
                self.warnings.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{State, sample_status};

    #[test]
    fn only_what_is_about_the_target_stays() {
        let of_trials =
            |task, trials: &[u32]| TrialWarning::of_trials(task, trials.to_vec(), "odd".to_owned());
        let check = |scope: Scope, expected: &[&str]| {
            let mut status = sample_status(State::Running, Vec::new());
            status.warnings.push("squeue: no answer".to_owned());
            status.warn_of_trials([of_trials("a", &[0, 1, 2, 3]), of_trials("b", &[0])]);
            status.warn_of_trials([TrialWarning::of_trial("a", 7, "a/7 is damaged".to_owned())]);
            status.warn_of_trials([TrialWarning::of_task("a", "no loss of a".to_owned())]);
            status.keep_warnings_of(&scope);
            assert_eq!(status.warnings[0], "squeue: no answer");
            assert_eq!(status.warnings[1..], *expected, "{scope:?}");
        };
        let scope = |task: &str, trials: Option<&str>| Scope {
            task: Some(task.to_owned()),
            trials: trials.map(|it| it.parse().unwrap()),
        };
        let all = ["a/0,1,2 and 1 more: odd", "b/0: odd", "a/7 is damaged", "no loss of a"];
        check(Scope::default(), &all);
        check(scope("b", None), &["b/0: odd"]);
        check(scope("a", Some("3,9")), &["a/3: odd", "no loss of a"]);
        check(scope("a", Some("7")), &["a/7 is damaged", "no loss of a"]);
    }
}
