//! Monitors the running program's output and messages: steps, metrics, saves, signs of life.

pub(crate) mod alarms;
pub(crate) mod failure_class;
pub(crate) mod log_policy;
pub(crate) mod metrics;
mod program_notes;
mod progress;
mod reported_result;
mod signs_of_life;
pub(crate) mod watchdog;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nemo_core::patterns::Patterns;
use nemo_core::rundir::{LogPolicy, Progress, TrialDir};
use serde_json::{Map, Value};

use crate::checkpoint::candidate::ProgramPosition;
use crate::monitor::alarms::{Alarm, Alarms};
use crate::monitor::log_policy::Policies;
use crate::monitor::metrics::{CutAtFirstStep, Recorder};
use crate::monitor::program_notes::ProgramNotes;
use crate::monitor::watchdog::Watchdog;
use crate::os::clock::{Time, unix_now};
use crate::os::log::Log;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};
use crate::program::output::ProgramOutput;
use crate::protocol::{MessageEffect, ReceivedDatagram, Session, Socket, parse};

/// How soon a notification that failed is sent again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How many of the last reports are compared with a new one to find repeats.
const KEPT_REPORTS: usize = 64;
/// How often the loop checks whether the disk has answered.
const ANSWER_PAUSE: Duration = Duration::from_millis(50);
/// How many messages are read before other events are handled.
const MAX_MESSAGES: usize = 1024;

/// The sources of events and the state that follows from them.
#[derive(Debug)]
pub(crate) struct Monitor {
    dir: TrialDir,
    attempt: u32,
    pub(crate) streams: Vec<ProgramOutput>,
    patterns: Patterns,
    recorder: Recorder,
    policies: Policies,
    pub(crate) session: Session,
    socket: Option<Socket>,
    watchdog: Option<Watchdog>,
    /// The sizes of the logs and the staging folder at the last check.
    sizes: [u64; 3],
    /// The check that is under way.
    pending_sizes: Option<PendingAnswer<[u64; 3]>>,
    size_queue: SerialQueue,
    records: SerialQueue,
    notes: ProgramNotes,
    /// How many reports could not be written.
    unwritten: u64,
    /// The last reports.
    reported: VecDeque<(Option<u64>, bool, Map<String, Value>)>,
    /// The step of the last row of metrics.
    recorded_step: Option<u64>,
    /// The progress that was last written, and when.
    written_progress: (Option<Progress>, Time),
    published_version: u64,
    /// Whether the program has sent a message.
    uses_messages: bool,
    /// The program may go on by itself: its first step tells what of the record it will do again.
    cut: Option<CutAtFirstStep>,
    went_on: Option<PendingAnswer<Option<u64>>>,
    /// What a person should know.
    pub(crate) alarms: Alarms,
    /// How many lines the program has printed.
    lines: u64,
    has_step: bool,
}

/// The configuration of an attempt's monitor.
#[derive(Debug)]
pub(crate) struct MonitorConfig {
    pub(crate) streams: Vec<ProgramOutput>,
    pub(crate) patterns: Patterns,
    pub(crate) policies: Policies,
    pub(crate) session: Session,
    pub(crate) socket: Option<Socket>,
    pub(crate) watchdog: Option<Watchdog>,
    /// The record still holds what the program may do again.
    pub(crate) cut: Option<CutAtFirstStep>,
    pub(crate) alarms: Alarms,
}

/// An event that the event loop must act on.
#[derive(Debug, PartialEq)]
pub(crate) enum MonitorEvent {
    /// A checkpoint is complete.
    Complete { name: Vec<u8>, step: Option<u64> },
    /// The program asks to be requeued.
    Requeue,
    /// A line of the output matched a policy.
    Policy { policy: LogPolicy, line: String },
    /// The program has given no sign of life since then.
    Hung { since: Time },
    /// The program went on by itself after this step of an earlier attempt.
    WentOn { step: u64 },
    /// Something goes wrong though nothing has failed.
    Alarm(Alarm),
}

impl Monitor {
    pub(crate) fn new(
        dir: TrialDir,
        attempt: u32,
        sources: MonitorConfig,
        records: &SerialQueue,
    ) -> Self {
        let MonitorConfig { streams, patterns, policies, session, socket, watchdog, cut, alarms } =
            sources;
        let recorder = Recorder::new(dir.metrics(), attempt, records);
        Self {
            notes: ProgramNotes::new(dir.clone(), records),
            dir,
            attempt,
            streams,
            patterns,
            recorder,
            policies,
            session,
            socket,
            watchdog,
            sizes: [0; 3],
            pending_sizes: None,
            size_queue: SerialQueue::start("signs", None),
            records: records.clone(),
            unwritten: 0,
            reported: VecDeque::new(),
            recorded_step: None,
            written_progress: (None, Time::ZERO),
            published_version: 0,
            uses_messages: false,
            cut,
            went_on: None,
            alarms,
            lines: 0,
            has_step: false,
        }
    }

    /// The file descriptors to poll.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = self.streams.iter().filter_map(ProgramOutput::pipe).map(AsFd::as_fd);
        pipes.chain(self.socket.as_ref().map(Socket::descriptor))
    }

    /// When [`Monitor::read`] is due.
    pub(crate) fn next_read(&self, now: Time, stopping: bool) -> Option<Time> {
        let watchdog = self.watchdog.filter(|_| !stopping).map(|dog| dog.due());
        let watchdog = match self.pending_sizes {
            Some(_) => watchdog.map(|_| now + ANSWER_PAUSE),
            None => watchdog,
        };
        let again =
            self.socket.as_ref().is_some_and(|socket| socket.is_behind(self.published_version));
        let show = self.is_stale().then_some(self.written_progress.1 + progress::WRITE_PAUSE);
        let save = self.session.save_due_at();
        [watchdog, again.then_some(now + RETRY_PAUSE), show, save].into_iter().flatten().min()
    }

    /// Reads everything that has come.
    pub(crate) fn read(&mut self, now: Time, stopping: bool, log: &mut Log) -> Vec<MonitorEvent> {
        let mut happened = self.read_output(now, log);
        for _ in 0..MAX_MESSAGES {
            let Some(received) = self.socket.as_mut().and_then(Socket::receive) else { break };
            happened.extend(self.message(&received, now, log));
        }
        if let Some(found) = self.went_on.as_ref().and_then(PendingAnswer::take) {
            self.went_on = None;
            happened.extend(found.map(|step| MonitorEvent::WentOn { step }));
        }
        if let Some(step) = self.session.reported_step
            && !std::mem::replace(&mut self.has_step, true)
        {
            happened.extend(self.alarms.first_step(step).map(MonitorEvent::Alarm));
        }
        self.session.tick(now);
        self.publish();
        self.update_progress(now);
        if !stopping {
            happened.extend(self.alarms.tick(now).map(MonitorEvent::Alarm));
            happened.extend(self.check_watchdog(now));
        }
        happened
    }

    fn message(
        &mut self,
        received: &ReceivedDatagram,
        now: Time,
        log: &mut Log,
    ) -> Vec<MonitorEvent> {
        self.uses_messages = true;
        self.alive(now);
        let mut happened = Vec::new();
        for heard in self.session.handle(parse(&received.bytes), now) {
            match heard {
                MessageEffect::Report { step, values, validation } => {
                    self.report(step, values, validation, log);
                }
                MessageEffect::NoMetrics(names) => {
                    happened.extend(self.alarms.no_metrics(&names).map(MonitorEvent::Alarm));
                }
                MessageEffect::Result(values) => {
                    reported_result::add(&self.records, self.dir.reported_result(), values);
                }
                MessageEffect::Note(text, metadata) => self.notes.note(text, metadata),
                MessageEffect::Artifact(path) => self.notes.artifact(&path),
                MessageEffect::Complete { name, step } => {
                    happened.push(MonitorEvent::Complete { name, step });
                }
                MessageEffect::Requeue => happened.push(MonitorEvent::Requeue),
                MessageEffect::Subscribe => {
                    if let Some((socket, from)) = self.socket.as_mut().zip(received.from) {
                        socket.subscribe(from);
                    }
                }
                MessageEffect::Answer(text) => {
                    if let Some((socket, from)) = self.socket.as_mut().zip(received.from) {
                        socket.answer(from, &text);
                    }
                }
                MessageEffect::Extend(extend) => {
                    if let Some(dog) = &mut self.watchdog {
                        dog.extend(now, extend);
                    }
                }
            }
        }
        happened
    }

    fn read_output(&mut self, now: Time, log: &mut Log) -> Vec<MonitorEvent> {
        let mut lines = Vec::new();
        for stream in &mut self.streams {
            stream.read(|line| lines.push(line.to_owned()));
        }
        let mut happened = Vec::new();
        for line in lines {
            happened.extend(self.line(&line, now, log));
        }
        happened
    }

    /// Handles one line of the program's output.
    pub(crate) fn line(&mut self, line: &str, now: Time, log: &mut Log) -> Vec<MonitorEvent> {
        self.alive(now);
        self.lines += 1;
        let values = self.patterns.line(line);
        let step = self.patterns.current.filter(|_| self.patterns.has_step());
        if step.is_some() && step != self.session.reported_step {
            (self.session.step, self.session.reported_step) = (step, step);
            self.session.note_work(now);
        }
        if let Some(values) = values {
            self.session.note_work(now);
            self.record(step, values, false, log);
        }
        let policies = self.policies.line(line).into_iter();
        policies.map(|policy| MonitorEvent::Policy { policy, line: line.to_owned() }).collect()
    }

    /// Records a report from a message, unless it is a repeat.
    fn report(
        &mut self,
        step: Option<u64>,
        values: Map<String, Value>,
        validation: bool,
        log: &mut Log,
    ) {
        let report = (step, validation, values.clone());
        if step.is_some() && self.reported.contains(&report) {
            return;
        }
        if self.reported.len() >= KEPT_REPORTS {
            self.reported.pop_front();
        }
        self.reported.push_back(report);
        self.record(step, values, validation, log);
    }

    fn record(
        &mut self,
        step: Option<u64>,
        values: Map<String, Value>,
        validation: bool,
        log: &mut Log,
    ) {
        if let Some(step) = step
            && let Some(cut) = self.cut.take()
        {
            self.went_on = Some(self.recorder.cut_at_first_step(step, cut));
        }
        self.recorded_step = step;
        let mut own = log.clone();
        let failed = move |error| own.note(&format!("a metric could not be written: {error}"));
        let result = self.recorder.report(step, unix_now(), values, validation, failed);
        if let Err(error) = result {
            if self.unwritten == 0 {
                log.warn(&format!("metrics are not written: {error}"));
            }
            self.unwritten += 1;
        }
    }

    /// Notifies subscribers of a change. Returns how many have the newest state.
    pub(crate) fn publish(&mut self) -> usize {
        self.published_version = self.session.version();
        let text = self.session.text();
        self.socket.as_mut().map_or(0, |socket| socket.publish(self.published_version, &text))
    }

    /// The step of a checkpoint that is taken of the program now. One that has told none in this attempt may be one that
    /// never does: what it was resumed from says nothing of how far it is.
    pub(crate) fn step_to_take(&self) -> Option<u64> {
        let Session { step, reported_step, .. } = self.session;
        if self.patterns.has_step() { step } else { reported_step }
    }

    /// The program's present step, and the end of its metrics.
    pub(crate) fn position(&self) -> ProgramPosition {
        ProgramPosition { step: self.session.reported_step, metrics: Some(self.recorder.mark()) }
    }

    /// Reads the rest of the output after the program's end.
    pub(crate) fn finish(&mut self, now: Time, log: &mut Log) -> Vec<MonitorEvent> {
        let mut happened = Vec::new();
        for _ in 0..64 {
            happened.extend(self.read(now, true, log));
        }
        let unmatched = self.patterns.unmatched();
        happened.extend(self.alarms.ended(self.lines, &unmatched).map(MonitorEvent::Alarm));
        if self.is_stale() {
            self.write_progress(now);
        }
        if self.unwritten > 0 {
            log.warn(&format!("{} metrics could not be written", self.unwritten));
        }
        let lost: Vec<_> = self.streams.drain(..).map(|stream| stream.lost).collect();
        let mut log = log.clone();
        self.records.add(0, move || {
            let lost: u64 = lost.iter().map(|lost| lost.load(Ordering::Relaxed)).sum();
            if lost > 0 {
                log.warn(&format!("{lost} bytes of the program's output could not be written"));
            }
        });
        happened
    }
}
