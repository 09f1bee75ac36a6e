//! What a person should know of an attempt that goes wrong though nothing has failed: each is told once. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::os::clock::Time;

/// After so many intervals without a checkpoint somebody is told.
const INTERVALS: u32 = 10;
/// After so many saves in a row that were not committed.
const REFUSED: u32 = 3;
/// After so long without a line, a message or a save.
const SILENCE: Duration = Duration::from_mins(30);

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// Stable.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: &'static str,
}

/// The shell of the batch script waits for the harness, and would die of the signals of Slurm.
pub(crate) fn lacks_exec() -> Alarm {
    Alarm {
        code: "wrap-without-exec",
        message: "the shell of the batch script waits for `nemo-harness wrap`: Slurm's signals end that shell, and the job with it".to_owned(),
        hint: "let `exec nemo-harness wrap -- …` be the last line of the script",
    }
}

/// Nothing is left of the attempts before this one.
pub(crate) fn starts_over(attempts: u32) -> Alarm {
    let before = match attempts {
        1 => "the attempt before this one left no checkpoint".to_owned(),
        more => format!("the {more} attempts before this one left no checkpoint"),
    };
    Alarm {
        code: "starts-over",
        message: format!("{before}: the program begins at its start again"),
        hint: "let it save into $NEMO_CHECKPOINT_DIR when it is asked, or say where it saves by itself (`checkpoint.from`); `nemo-slurm rehearse` shows what it does",
    }
}

/// What is watched.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    /// The step of the checkpoint that the program was given.
    resumed: Option<u64>,
    /// The interval between saves, where one is fixed.
    every: Option<Duration>,
    /// The metrics that earlier attempts have reported.
    reported_before: BTreeSet<String>,
    /// What was known before the start, the first one last.
    at_start: Vec<Alarm>,
    told: BTreeSet<&'static str>,
    last_save: Time,
    last_sign: Time,
    refused: u32,
}

impl Alarms {
    pub(crate) fn new(resumed: Option<u64>, every: Option<Duration>, now: Time) -> Self {
        Self { resumed, every, last_save: now, last_sign: now, ..Self::default() }
    }

    /// With what was known before the start.
    pub(crate) fn with_alarms_at_start(self, mut at_start: Vec<Alarm>) -> Self {
        at_start.reverse();
        Self { at_start, ..self }
    }

    /// A pattern has matched if it did in an earlier attempt: one that ends soon may print nothing to match.
    pub(crate) fn knowing(self, reported_before: BTreeSet<String>) -> Self {
        Self { reported_before, ..self }
    }

    fn once(&mut self, alarm: Alarm) -> Option<Alarm> {
        self.told.insert(alarm.code).then_some(alarm)
    }

    /// The first step that the program reports.
    pub(crate) fn first_step(&mut self, step: u64) -> Option<Alarm> {
        let resumed = self.resumed.filter(|resumed| step < *resumed)?;
        self.once(Alarm {
            code: "starts-below-checkpoint",
            message: format!(
                "the first step after the resume is {step}, below the checkpoint's {resumed}: the program may have started over"
            ),
            hint: "load $NEMO_RESUME_FROM, or say where the program looks for its checkpoint (`checkpoint.restore_to`); if only its count begins at 0 again, add the step of the checkpoint to it",
        })
    }

    /// A save was committed.
    pub(crate) fn saved(&mut self, now: Time) {
        (self.last_save, self.last_sign, self.refused) = (now, now, 0);
    }

    /// The program has shown that it lives.
    pub(crate) fn sign(&mut self, now: Time) {
        self.last_sign = now;
    }

    /// A save was not committed.
    pub(crate) fn refused(&mut self, why: &str) -> Option<Alarm> {
        self.refused += 1;
        let message =
            format!("{} saves in a row were not committed; the last one: {why}", self.refused);
        let is_often = self.refused >= REFUSED;
        let hint = "write under a temporary name and rename, give each save its own step, and let the program print its step as often as it saves";
        is_often.then(|| self.once(Alarm { code: "saves-dropped", message, hint }))?
    }

    /// Something was reported that is no number.
    pub(crate) fn no_metrics(&mut self, names: &[String]) -> Option<Alarm> {
        let are = if names.len() == 1 { "is no number and is" } else { "are no numbers and are" };
        self.once(Alarm {
            code: "no-number",
            message: format!("{} {are} not kept as a metric", quoted(names)),
            hint: "report numbers or booleans; a text is kept by `trial.note` (NOTE=) or `trial.result` (RESULT=)",
        })
    }

    /// What the time that has passed tells.
    pub(crate) fn tick(&mut self, now: Time) -> Option<Alarm> {
        if let Some(alarm) = self.at_start.pop() {
            return self.once(alarm);
        }
        let unsaved = now.saturating_sub(self.last_save);
        if let Some(every) = self.every.filter(|every| unsaved >= *every * INTERVALS) {
            return self.once(Alarm {
                code: "nothing-saved",
                message: format!(
                    "no checkpoint for {} s, though one is wanted every {} s",
                    unsaved.as_secs(),
                    every.as_secs()
                ),
                hint: "`checkpoint.every` asks by message: let the program ask `should_save`, or save by itself; `nemo-slurm rehearse` shows what it does",
            });
        }
        let silent = now.saturating_sub(self.last_sign);
        let is_silent = silent >= SILENCE;
        is_silent.then(|| {
            self.once(Alarm {
                code: "silent",
                message: format!("no line, message or checkpoint for {} minutes", silent.as_secs() / 60),
                hint: "look at it with `nemo-slurm logs`; `restart.hang` ends and restarts a program that hangs",
            })
        })?
    }

    /// The program has ended. `lines`: how many lines it printed; `unmatched`: the patterns that none of them matched.
    pub(crate) fn ended(&mut self, lines: u64, unmatched: &[String]) -> Option<Alarm> {
        let unmatched = unmatched.iter().filter(|name| !self.reported_before.contains(*name));
        let unmatched: Vec<String> = unmatched.cloned().collect();
        if lines == 0 || unmatched.is_empty() {
            return None;
        }
        self.once(Alarm {
            code: "pattern-never-matched",
            message: format!(
                "no line of the output matched the pattern of {} (of {lines} lines)",
                quoted(&unmatched)
            ),
            hint: "compare the pattern with `nemo-slurm logs`; `nemo-slurm metrics --pattern` tries another one on what was printed",
        })
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn code(alarm: Option<Alarm>) -> &'static str {
        alarm.map_or("", |alarm| alarm.code)
    }

    #[test]
    fn a_step_below_the_checkpoint_is_told_once() {
        let mut alarms = Alarms::new(Some(50), None, Time::ZERO);
        assert_eq!(code(alarms.first_step(51)), "");
        assert_eq!(code(alarms.first_step(1)), "starts-below-checkpoint");
        assert_eq!(code(alarms.first_step(1)), "");
        assert_eq!(code(Alarms::default().first_step(1)), "");
    }

    #[test]
    fn saves_that_are_dropped_or_missing_are_told() {
        let mut alarms = Alarms::new(None, Some(SECOND * 60), Time::ZERO);
        assert_eq!((code(alarms.refused("x")), code(alarms.refused("x"))), ("", ""));
        alarms.saved(SECOND);
        assert_eq!((code(alarms.refused("x")), code(alarms.refused("x"))), ("", ""));
        assert_eq!(code(alarms.refused("x")), "saves-dropped");
        assert_eq!(code(alarms.tick(SECOND * 600)), "");
        assert_eq!(code(alarms.tick(SECOND * 601)), "nothing-saved");
        assert_eq!(code(alarms.tick(SECOND * 602)), "");
    }

    #[test]
    fn what_is_no_number_is_told_once() {
        let mut alarms = Alarms::default();
        let alarm = alarms.no_metrics(&["phase".to_owned()]).unwrap();
        assert_eq!(alarm.message, "`phase` is no number and is not kept as a metric");
        assert_eq!(code(alarms.no_metrics(&["other".to_owned()])), "");
    }

    #[test]
    fn how_often_it_started_over_is_told() {
        assert!(starts_over(1).message.starts_with("the attempt before this one left"));
        assert!(starts_over(2).message.starts_with("the 2 attempts before this one left"));
    }

    #[test]
    fn what_was_known_before_is_told_at_the_start() {
        let other = Alarm { code: "other", ..lacks_exec() };
        let mut alarms = Alarms::default().with_alarms_at_start(vec![lacks_exec(), other]);
        assert_eq!(code(alarms.tick(Time::ZERO)), "wrap-without-exec");
        assert_eq!(code(alarms.tick(Time::ZERO)), "other");
        assert_eq!(code(alarms.tick(Time::ZERO)), "");
    }

    #[test]
    fn silence_and_patterns_that_match_nothing_are_told() {
        let mut alarms = Alarms::default();
        alarms.sign(SECOND * 10);
        assert_eq!(code(alarms.tick(SECOND * 1809)), "");
        assert_eq!(code(alarms.tick(SECOND * 1810)), "silent");
        assert_eq!(code(alarms.ended(0, &["loss".to_owned()])), "");
        assert_eq!(code(alarms.ended(9, &[])), "");
        let mut known = Alarms::default().knowing(BTreeSet::from(["loss".to_owned()]));
        assert_eq!(code(known.ended(9, &["loss".to_owned()])), "");
        assert_eq!(code(alarms.ended(9, &["loss".to_owned()])), "pattern-never-matched");
    }
}
