//! What was seen of a run: values, from which everything else follows.

use nemo_core::log_line;
use nemo_core::rundir::{AttemptEnd, Cause, MetricsLine};
use serde::Serialize;

use super::scenarios::{Fault, ScenarioKind};

/// One run of the trial, from its first attempt to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct RehearsedRun {
    /// What it was to show.
    pub kind: ScenarioKind,
    /// From its first attempt's begin to its end.
    pub seconds: f64,
    /// How it ended.
    pub end: RunEnd,
    /// In order.
    pub attempts: Vec<RehearsedAttempt>,
    /// The record as it is in the end.
    pub lines: Vec<MetricsLine>,
    /// The committed checkpoints that are there in the end.
    pub checkpoints: Vec<u64>,
    /// How many disturbances were meant.
    pub planned: usize,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "end", content = "reason")]
pub enum RunEnd {
    /// The program did its work.
    Completed,
    /// It failed for good.
    Failed(String),
    /// It took many times as long as undisturbed, and was ended.
    Stuck,
}

/// One attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RehearsedAttempt {
    /// Its number, as in the record.
    pub number: u32,
    /// When its record begins, in unix seconds.
    pub start: f64,
    /// The checkpoint that it was given.
    pub resume_step: Option<u64>,
    /// All that it reported, also what a later resume took out of the record.
    pub lines: Vec<MetricsLine>,
    /// Step and time of each checkpoint that was committed.
    pub checkpoints: Vec<(u64, f64)>,
    /// What was done to it.
    pub injected: Option<Injected>,
    /// Whether one of its processes caught or ignored SIGTERM when it was disturbed, where that could be seen.
    pub withstands_term: Option<bool>,
    /// How it ended, where that could be written.
    pub end: Option<AttemptEnd>,
    /// What the harness had to say.
    pub notes: HarnessNotes,
    /// What was made under its final name.
    pub in_place: Vec<String>,
    /// What the program itself wrote to its standard error last.
    pub last_words: Vec<String>,
}

/// A disturbance that took place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Injected {
    /// What was done.
    pub fault: Fault,
    /// When, in unix seconds.
    pub time: f64,
    /// The last step that was reported then.
    pub step: Option<u64>,
}

/// What the harness noted in an attempt's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a line that is there or not")]
pub struct HarnessNotes {
    /// A process caught the signal that asks to save.
    pub asked: bool,
    /// It was told to end.
    pub terminated: bool,
    /// It was killed.
    pub killed: bool,
    /// It left processes behind.
    pub left_behind: bool,
    /// Something was not committed, since it was being written in place.
    pub torn: bool,
}

impl HarnessNotes {
    /// Reads an attempt's log.
    #[must_use]
    pub fn new(log: &str) -> Self {
        let has =
            |text: &str| log.lines().filter_map(log_line::text).any(|line| line.contains(text));
        Self {
            asked: has(log_line::SAVE_REQUESTED),
            terminated: has(log_line::TERM_SENT),
            killed: has(log_line::KILL_SENT),
            left_behind: has(log_line::LEFTOVERS_KILLED),
            torn: has(log_line::MAY_BE_TORN),
        }
    }
}

/// The last lines of a log that the program wrote, not the harness.
#[must_use]
pub fn last_words(log: &str) -> Vec<String> {
    const MOST: usize = 3;
    let own = log.lines().filter(|line| !line.starts_with(log_line::PREFIX));
    let mut lines: Vec<String> =
        own.filter(|line| !line.trim().is_empty()).map(|line| line.trim_end().to_owned()).collect();
    lines.drain(..lines.len().saturating_sub(MOST));
    lines
}

impl RehearsedAttempt {
    /// The steps that it reported.
    pub fn steps(&self) -> impl Iterator<Item = u64> {
        self.lines.iter().filter_map(|line| line.step)
    }

    /// When it was asked to stop, if it was told so beforehand.
    #[must_use]
    pub fn asked_at(&self) -> Option<f64> {
        let injected = self.injected?;
        match injected.fault {
            Fault::Preempt { .. }
            | Fault::Terminate { .. }
            | Fault::TimeLimit { .. }
            | Fault::Requeue => Some(injected.time),
            Fault::KillProgram | Fault::KillHarness => None,
        }
    }

    /// The first checkpoint after it was asked, and how many seconds after.
    #[must_use]
    pub fn saved_after_request(&self) -> Option<(u64, f64)> {
        let asked = self.asked_at()?;
        let after = self.checkpoints.iter().find(|(_, time)| *time >= asked);
        after.map(|(step, time)| (*step, time - asked))
    }

    /// How many seconds after the request this step was committed, if that save was an answer.
    #[must_use]
    pub fn save_seconds(&self, step: u64) -> Option<f64> {
        let asked = self.asked_at()?;
        let saved = self.checkpoints.iter().find(|(own, time)| *own == step && *time >= asked);
        saved.map(|(_, time)| time - asked)
    }

    /// The last step of all had been reported when it was disturbed, or the program had ended before it could be killed.
    #[must_use]
    pub fn was_done_before(&self, last: Option<u64>) -> bool {
        let Some(injected) = self.injected else { return false };
        let exit = self.end.as_ref().and_then(|end| end.exit_code);
        let is_too_late = injected.fault == Fault::KillProgram && exit == Some(0);
        is_too_late || (last.is_some() && injected.step == last)
    }

    /// It ended by itself, whatever its exit code.
    #[must_use]
    pub fn left_by_itself(&self) -> bool {
        let exit = self.end.as_ref().and_then(|end| end.exit_code);
        exit.is_some() && !self.notes.terminated && !self.notes.killed
    }

    /// It heard that it should save, and ended by itself with exit code 0.
    #[must_use]
    pub fn finished(&self) -> bool {
        let code = self.end.as_ref().and_then(|end| end.exit_code);
        self.left_by_itself() && self.notes.asked && code == Some(0)
    }

    /// SIGTERM ended it, or made its shell end, and the harness had sent none.
    #[must_use]
    pub fn died_of_term(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.signal == Some(15) || end.exit_code == Some(143))
            && !self.notes.terminated
            && !self.notes.killed
    }

    /// It crashed, and nothing had been done to it.
    #[must_use]
    pub fn crashed_alone(&self) -> bool {
        self.injected.is_none() && self.end.as_ref().is_some_and(|end| end.cause == Cause::Failed)
    }
}

impl RehearsedRun {
    /// The steps of its record, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = self.lines.iter().filter_map(|line| line.step).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Whether anything was done to it while there was something left to do. `last` is the last step of all.
    #[must_use]
    pub fn was_disturbed(&self, last: Option<u64>) -> bool {
        self.attempts.iter().any(|own| own.injected.is_some() && !own.was_done_before(last))
    }

    /// How many disturbances took place.
    #[must_use]
    pub fn disturbed(&self) -> usize {
        self.attempts.iter().filter(|own| own.injected.is_some()).count()
    }

    /// Every checkpoint of every attempt.
    pub fn saves(&self) -> impl Iterator<Item = (u64, f64)> {
        self.attempts.iter().flat_map(|attempt| attempt.checkpoints.iter().copied())
    }

    /// The first step that was committed while a program ran on, and when, in seconds from the begin.
    #[must_use]
    pub fn first_save(&self) -> Option<(u64, f64)> {
        let first = self.attempts.first()?;
        let (step, time) = *first.checkpoints.first()?;
        // What is committed after the last report was left to the end.
        let reported = first.lines.last().map(|line| line.time);
        let ended = first.end.as_ref().map_or(f64::INFINITY, |end| end.time);
        let worked = reported.unwrap_or(ended - 0.05 * (ended - first.start));
        (time < worked).then_some((step, time - first.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemo_core::rundir::Next;

    #[test]
    fn only_the_harness_is_believed() {
        let log = "SIGKILL is sent to the program
nemo-harness: the program is asked to save (SIGUSR1)
";
        assert_eq!(HarnessNotes::new(log), HarnessNotes { asked: true, ..HarnessNotes::default() });
    }

    #[test]
    fn a_program_that_exits_with_0_was_not_killed() {
        let end = AttemptEnd {
            attempt: 0,
            time: 2.0,
            cause: Cause::Completed,
            exit_code: Some(0),
            signal: None,
            step: None,
            checkpoint_step: None,
            next: Next::Done,
            reason: None,
            stopped: None,
            saving: None,
        };
        let check = |fault, exit_code, expected| {
            let injected = Some(Injected { fault, time: 1.9, step: None });
            let end = Some(AttemptEnd { exit_code, ..end.clone() });
            let own = RehearsedAttempt { injected, end, ..RehearsedAttempt::default() };
            assert_eq!(own.was_done_before(None), expected, "{fault:?} {exit_code:?}");
        };
        check(Fault::KillProgram, Some(0), true);
        check(Fault::KillProgram, None, false);
        check(Fault::Preempt { lead: 4 }, Some(0), false);
    }

    #[test]
    fn the_last_words_are_the_programs() {
        let log =
            "a\nTraceback:\n  line 1\nKeyError: 'w'\n\nnemo-harness: 2026-11-30T01:02:03Z warn x\n";
        assert_eq!(last_words(log), ["Traceback:", "  line 1", "KeyError: 'w'"]);
        assert!(last_words("nemo-harness: 2026-11-30T01:02:03Z info x\n").is_empty());
    }
}
