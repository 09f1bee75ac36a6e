//! The conversation with a program: its reports, and the state that it is notified of. No I/O and no clock. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use nemo_core::rundir::MetricSpec;
use serde_json::{Map, Value};

use super::message::{MessageLine, ProgramMessage};
use super::save_reason::SaveReason;
use crate::os::clock::Time;
use crate::protocol::workload::Workloads;

/// How many of a sender's latest message numbers are remembered.
const REMEMBERED: usize = 256;
/// How many senders are distinguished. Each process of a program is one.
const SOURCES: usize = 4096;

/// The initial state of an attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionConfig {
    /// The step of the checkpoint.
    pub(crate) resumed: Option<u64>,
    /// The step of the last validation up to there.
    pub(crate) validated: Option<u64>,
    /// The metric that ranks validations, and its best value so far.
    pub(crate) metric: Option<MetricSpec>,
    pub(crate) best: Option<f64>,
    pub(crate) every: SavePeriod,
}

/// How often a save is requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SavePeriod {
    #[default]
    Never,
    Time(Duration),
    Steps(u64),
}

/// The effect of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MessageEffect {
    Report {
        step: Option<u64>,
        values: Map<String, Value>,
        validation: bool,
    },
    /// These were reported with something else than a number.
    NoMetrics(Vec<String>),
    /// Values for the tasks that run after it.
    Result(Map<String, Value>),
    /// What stays with the experiment.
    Note(Option<String>, Map<String, Value>),
    /// A file to keep.
    Artifact(PathBuf),
    /// A save is complete.
    Complete {
        name: Vec<u8>,
        step: Option<u64>,
    },
    /// The program asks to be requeued.
    Requeue,
    /// The sender subscribes to the state.
    Subscribe,
    /// This text is the answer to the sender.
    Answer(String),
    /// The next sign of life may take this long.
    Extend(Duration),
}

/// One attempt's conversation with its program.
#[derive(Debug)]
pub(crate) struct Session {
    settings: SessionConfig,
    seen: BTreeMap<String, BTreeSet<u64>>,
    pub(crate) step: Option<u64>,
    /// The step that was reported in this attempt. It is the number of a checkpoint without one.
    pub(crate) reported_step: Option<u64>,
    pub(crate) total: Option<u64>,
    pub(crate) progress: Option<f64>,
    pub(crate) status: Option<String>,
    /// The program works.
    pub(crate) is_ready: bool,
    /// The program said that training is finished.
    pub(crate) is_finished: bool,
    /// Why the parameters are invalid.
    pub(crate) invalid: Option<String>,
    /// When the present save began.
    saving: Option<Time>,
    /// The total time of all saves.
    pub(crate) saved_for: Option<Duration>,
    costs: BTreeMap<u64, Duration>,
    workloads: Option<Workloads>,
    state: PublishedState,
    /// Counts the requests to save.
    requests: u64,
    /// When the open request was made.
    requested_at: Time,
    /// When the last save was complete, or the program began to work.
    last_save: Option<Time>,
    last_saved_step: u64,
}

/// The state that subscribers get.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct PublishedState {
    number: u64,
    save: u64,
    stop: bool,
    reason: Option<SaveReason>,
    deadline: Option<f64>,
    committed: Option<u64>,
}

impl Session {
    pub(crate) fn new(settings: SessionConfig) -> Self {
        let resumed = settings.resumed;
        Self {
            settings,
            seen: BTreeMap::new(),
            step: resumed,
            reported_step: None,
            total: None,
            progress: None,
            status: None,
            is_ready: false,
            is_finished: false,
            invalid: None,
            saving: None,
            saved_for: None,
            costs: BTreeMap::new(),
            workloads: None,
            state: PublishedState { number: 1, committed: resumed, ..PublishedState::default() },
            requests: 0,
            requested_at: Time::ZERO,
            last_save: None,
            last_saved_step: resumed.unwrap_or(0),
        }
    }

    /// Handles a message.
    pub(crate) fn handle(&mut self, message: ProgramMessage, now: Time) -> Vec<MessageEffect> {
        if let Some((source, number)) = &message.source
            && !self.is_new(source, *number)
        {
            return self.repeated(&message);
        }
        if message.step.is_some() {
            self.reported_step = self.reported_step.max(message.step);
            self.step = self.step.max(self.reported_step);
            self.note_work(now);
        }
        let number = message.source.as_ref().map(|(_, number)| *number);
        let mut heard = Vec::new();
        for line in message.lines {
            heard.extend(self.handle_line(line, message.step, number, now));
        }
        heard
    }

    /// Notes that the program works.
    pub(crate) fn note_work(&mut self, now: Time) {
        if !self.is_ready {
            self.is_ready = true;
            self.last_save = Some(now);
        }
    }

    /// Remembers the number of a message. Returns false for a repeat, and for a number older than all remembered ones.
    fn is_new(&mut self, source: &str, number: u64) -> bool {
        if self.seen.len() >= SOURCES && !self.seen.contains_key(source) {
            return true;
        }
        let seen = self.seen.entry(source.to_owned()).or_default();
        let is_old = seen.len() >= REMEMBERED && seen.first().is_some_and(|first| number < *first);
        if is_old || !seen.insert(number) {
            return false;
        }
        if seen.len() > REMEMBERED {
            seen.pop_first();
        }
        true
    }

    /// Answers the questions of a repeated message again: the answer may have been lost.
    fn repeated(&self, message: &ProgramMessage) -> Vec<MessageEffect> {
        let number = message.source.as_ref().map(|(_, number)| *number);
        let answer = |line: &MessageLine| match line {
            MessageLine::Ask => Some(MessageEffect::Subscribe),
            MessageLine::Next => self.next(number).map(MessageEffect::Answer),
            _ => None,
        };
        message.lines.iter().filter_map(answer).collect()
    }

    fn handle_line(
        &mut self,
        line: MessageLine,
        step: Option<u64>,
        number: Option<u64>,
        now: Time,
    ) -> Option<MessageEffect> {
        match line {
            MessageLine::Ready => self.note_work(now),
            MessageLine::Extend(extend) => return Some(MessageEffect::Extend(extend)),
            MessageLine::Status(text) => self.status = Some(text).filter(|text| !text.is_empty()),
            MessageLine::Progress(part) => self.progress = Some(part),
            MessageLine::Total(total) => self.total = Some(total),
            MessageLine::Report { values, validation } => {
                self.note_work(now);
                let step = step.or(self.step);
                if validation {
                    self.validated(step, &values);
                }
                return Some(MessageEffect::Report { step, values, validation });
            }
            MessageLine::NoMetrics(names) => return Some(MessageEffect::NoMetrics(names)),
            MessageLine::Result(values) => return Some(MessageEffect::Result(values)),
            MessageLine::Note(text) => return Some(MessageEffect::Note(Some(text), Map::new())),
            MessageLine::Metadata(values) => return Some(MessageEffect::Note(None, values)),
            MessageLine::Artifact(path) => return Some(MessageEffect::Artifact(path)),
            MessageLine::SaveBegin => self.saving = Some(now),
            MessageLine::SaveEnd => self.save_ended(step, now),
            MessageLine::CheckpointDone(name) => {
                self.note_work(now);
                self.save_ended(step, now);
                self.resolve(step, now);
                return Some(MessageEffect::Complete { name, step });
            }
            MessageLine::Finished => self.is_finished = true,
            MessageLine::InvalidParameters(reason) => self.invalid = Some(reason),
            MessageLine::Requeue => return Some(MessageEffect::Requeue),
            MessageLine::Ask => return Some(MessageEffect::Subscribe),
            MessageLine::Next => return self.next(number).map(MessageEffect::Answer),
            MessageLine::Workloads(plan) => {
                let SessionConfig { resumed, validated, .. } = self.settings;
                self.total = Some(plan.total);
                self.workloads
                    .get_or_insert_with(|| Workloads::begin(plan, resumed.unwrap_or(0), validated));
            }
            MessageLine::Did(work) => {
                self.note_work(now);
                if let Some(workloads) = &mut self.workloads {
                    workloads.did(work, step);
                }
            }
        }
        None
    }

    fn next(&self, number: Option<u64>) -> Option<String> {
        let work = self.workloads.as_ref()?.next(self.state.stop);
        let number = number.map_or(String::new(), |number| format!("SEQ={number}\n"));
        Some(work.lines() + &number)
    }

    fn validated(&mut self, step: Option<u64>, values: &Map<String, Value>) {
        let SessionConfig { metric: Some(metric), best, .. } = &mut self.settings else { return };
        let Some(value) = values.get(&metric.name).and_then(Value::as_f64) else { return };
        if best.is_none_or(|best| if metric.larger_is_better { value > best } else { value < best })
        {
            *best = Some(value);
            if let Some(workloads) = &mut self.workloads {
                workloads.did(crate::protocol::workload::Workload::Validate, step);
                workloads.is_best();
            }
        }
    }

    fn save_ended(&mut self, step: Option<u64>, now: Time) {
        let Some(began) = self.saving.take() else { return };
        let took = now.saturating_sub(began);
        self.saved_for = Some(self.saved_for.unwrap_or_default() + took);
        if let Some(step) = step.or(self.step) {
            self.costs.insert(step, took);
        }
    }

    /// How long the save of a step took.
    pub(crate) fn cost(&self, step: u64) -> Option<Duration> {
        self.costs.get(&step).copied()
    }

    /// Closes the save request: a checkpoint is complete.
    fn resolve(&mut self, step: Option<u64>, now: Time) {
        self.last_save = Some(now);
        self.last_saved_step = self.last_saved_step.max(step.or(self.step).unwrap_or(0));
        if let Some(workloads) = &mut self.workloads {
            workloads.saved(step.or(self.step).unwrap_or(0));
        }
        self.change(|state| state.save = 0);
    }

    /// Notes a commit of a checkpoint written at `at`. A checkpoint from before the request does not close it.
    pub(crate) fn committed(&mut self, step: u64, at: Time, now: Time) {
        let save = self.state.save;
        self.resolve(Some(step), now);
        if at < self.requested_at {
            self.state.save = save;
        }
        self.change(|state| state.committed = state.committed.max(Some(step)));
    }

    /// Requests a save, unless a request is open.
    pub(crate) fn request_save(&mut self, reason: SaveReason, now: Time) {
        if self.state.save == 0 {
            self.requests += 1;
            self.requested_at = now;
            let save = self.requests;
            self.change(|state| state.save = save);
        }
        self.change(|state| state.reason = Some(reason));
    }

    /// The number of the request for a save that nobody has made.
    pub(crate) fn open_save(&self) -> Option<u64> {
        Some(self.state.save).filter(|number| *number != 0)
    }

    /// Counts the time to the first periodic save from now, if nothing else has begun it.
    pub(crate) fn begin_intervals(&mut self, now: Time) {
        self.last_save.get_or_insert(now);
    }

    /// Closes a request that nobody could follow. The next one comes in its time.
    pub(crate) fn give_up_save(&mut self, now: Time) {
        self.last_save = Some(now);
        self.last_saved_step = self.last_saved_step.max(self.step.unwrap_or(0));
        self.change(|state| state.save = 0);
    }

    /// Sets whether, why and until when the program is being stopped.
    pub(crate) fn set_stop(&mut self, stop: Option<(SaveReason, Option<f64>)>) {
        self.change(|state| {
            state.stop = stop.is_some();
            state.reason = stop.map(|(reason, _)| reason).or(state.reason);
            state.deadline = stop.and_then(|(_, deadline)| deadline.map(f64::round));
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut PublishedState)) {
        let before = self.state;
        change(&mut self.state);
        if self.state != before {
            self.state.number += 1;
        }
    }

    /// The version of the published state.
    pub(crate) fn version(&self) -> u64 {
        self.state.number
    }

    /// The state that subscribers get.
    pub(crate) fn text(&self) -> String {
        let PublishedState { number, save, stop, reason, deadline, committed } = self.state;
        let mut text = format!("STATE={number}\nSAVE={save}\nSTOP={}\n", u8::from(stop));
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                writeln!(text, "{key}={value}").unwrap_or_default(); // a string takes everything
            }
        };
        line("REASON", reason.map(|reason| reason.word().to_owned()));
        line("DEADLINE", deadline.map(|deadline| format!("{deadline:.0}")));
        line("COMMITTED", committed.map(|step| step.to_string()));
        let every =
            if let SavePeriod::Steps(every) = self.settings.every { Some(every) } else { None };
        line("SAVE_EVERY", every.map(|steps| steps.to_string()));
        text
    }

    /// Sets the time between two saves.
    pub(crate) fn set_interval(&mut self, interval: Duration) {
        self.settings.every = SavePeriod::Time(interval);
    }

    /// When the next save by time is due.
    pub(crate) fn save_due_at(&self) -> Option<Time> {
        let SavePeriod::Time(every) = self.settings.every else { return None };
        let is_free = self.state.save == 0 && self.saving.is_none();
        self.last_save.filter(|_| is_free).map(|last| last + every)
    }

    /// Requests the periodic save if it is due.
    pub(crate) fn tick(&mut self, now: Time) {
        let is_due = match self.settings.every {
            SavePeriod::Never => false,
            SavePeriod::Time(_) => self.save_due_at().is_some_and(|at| at <= now),
            SavePeriod::Steps(every) => {
                let step = self.step.unwrap_or(0);
                let is_free = self.state.save == 0 && self.saving.is_none();
                is_free && every > 0 && step / every > self.last_saved_step / every
            }
        };
        if is_due {
            self.request_save(SaveReason::Interval, now);
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
