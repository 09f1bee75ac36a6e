//! Carries out what [`crate::supervise`] decides: one loop over signals, output, answers and time.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use nemo_harness::rundir::AttemptRecord;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::attempt::Report;
use crate::checkpoint::commit::Done;
use crate::checkpoint::saver::{Outcome as Saved, Place, Saver};
use crate::clock::{Time, unix_now};
use crate::end::Exit;
use crate::helper::{Outcome, Question};
use crate::job::Harness;
use crate::journal::Journal;
use crate::lease::Lease;
use crate::metrics::{Patterns, Recorder};
use crate::output::Stream;
use crate::proc_fs;
use crate::process::{self, Reaped};
use crate::say::Voice;
use crate::signals;
use crate::slurm;
use crate::supervise::{Action, Answer, Event, Supervisor};

/// How often an attempt looks whether a later one has taken over.
const LEASE_EVERY: Duration = Duration::from_secs(5);
/// How long Slurm has to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A running attempt.
#[derive(Debug)]
pub(crate) struct World<'a> {
    harness: &'a mut Harness,
    supervisor: Supervisor,
    program: u32,
    exit: Option<Exit>,
    lease: Lease,
    lease_at: Time,
    voice: Voice,
    journal: &'a mut Journal,
    streams: Vec<Stream>,
    metrics: Option<(Patterns, Recorder)>,
    question: Option<Question>,
    /// Slurm must be asked once more: something happened since the question.
    ask_again: bool,
    settling: bool,
    saver: Saver,
    refused: Vec<String>,
    /// The steps that were committed, now or before.
    known: BTreeSet<u64>,
    /// The newest new one.
    committed: Option<u64>,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        harness: &'a mut Harness,
        supervisor: Supervisor,
        program: u32,
        saver: Saver,
        lease: Lease,
        voice: Voice,
        journal: &'a mut Journal,
    ) -> Self {
        let lease_at = harness.clock.now() + LEASE_EVERY;
        Self {
            harness,
            supervisor,
            program,
            exit: None,
            lease,
            lease_at,
            voice,
            journal,
            streams: Vec::new(),
            metrics: None,
            question: None,
            ask_again: false,
            settling: false,
            saver,
            refused: Vec::new(),
            known: BTreeSet::new(),
            committed: None,
        }
    }

    /// The steps that earlier attempts committed.
    pub(crate) fn with_known(mut self, steps: BTreeSet<u64>) -> Self {
        self.known = steps;
        self
    }

    pub(crate) fn with_metrics(
        mut self,
        streams: Vec<Stream>,
        patterns: Patterns,
        recorder: Recorder,
    ) -> Self {
        self.streams = streams;
        self.metrics = Some((patterns, recorder));
        self
    }

    /// Runs until the supervisor says that everything is over.
    pub(crate) fn run(mut self) -> Report {
        let mut events = VecDeque::new();
        loop {
            let now = self.harness.clock.now();
            let event = events.pop_front().unwrap_or(Event::Tick);
            for action in self.supervisor.step(event, now) {
                if action == Action::Decide {
                    return self.report();
                }
                events.extend(self.act(action));
            }
            if events.is_empty() {
                if !self.is_settled() {
                    self.wait();
                }
                self.gather(&mut events);
            }
        }
    }

    /// Everything is committed, or could not be.
    fn is_settled(&self) -> bool {
        self.settling && self.saver.is_idle()
    }

    fn report(self) -> Report {
        if let Some(question) = &self.question {
            process::signal(question.pid, Signal::SIGKILL);
        }
        Report {
            exit: self.exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32)),
            stop: self.supervisor.stop(),
            told: self.supervisor.was_told(),
            deadline: self.supervisor.deadline(),
            step: self.metrics.as_ref().and_then(|(patterns, _)| patterns.current),
            committed: self.committed,
            refused: self.refused,
            voice: self.voice,
        }
    }

    /// Our own helpers, which get none of the program's signals.
    fn helpers(&self) -> Vec<u32> {
        self.harness
            .sentinel
            .into_iter()
            .chain(self.question.as_ref().map(|asked| asked.pid))
            .collect()
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        let (root, helpers) = (self.harness.context.pid, self.helpers());
        let group = self.exit.is_none().then_some(self.program);
        match action {
            Action::AskToSave => {
                let heard = process::ask(root, &helpers, self.harness.trial.signal);
                if heard {
                    let signal = self.harness.trial.signal;
                    self.voice.note(&format!("the program is asked to save ({signal})"));
                }
                return Some(Event::Asked { heard });
            }
            Action::Terminate => {
                self.voice.note("the program is told to end (SIGTERM)");
                process::end(root, &helpers, group, Signal::SIGTERM);
            }
            Action::Kill => {
                self.voice.note("the program is killed");
                process::end(root, &helpers, group, Signal::SIGKILL);
            }
            Action::AskCause => self.ask_cause(),
            Action::Settle => self.settle(),
            Action::Decide => {}
        }
        None
    }

    fn ask_cause(&mut self) {
        if self.question.is_some() {
            self.ask_again = true;
            return;
        }
        let Some(job) = &self.harness.context.slurm else { return };
        let until = self.harness.clock.now() + ANSWER;
        match Question::start(&slurm::show_job(&job.id()), until) {
            Ok(question) => self.question = Some(question),
            Err(error) => self.voice.warn(&format!("`scontrol` could not be started: {error}")),
        }
    }

    /// Waits for anything to happen, or the next time that is due.
    fn wait(&mut self) {
        let now = self.harness.clock.now();
        let lease = (!self.settling).then_some(self.lease_at);
        let due = [
            self.supervisor.next_tick(),
            self.question.as_ref().map(Question::until),
            lease,
            self.saver.next_look(now),
        ];
        let due = due.into_iter().flatten().min().map(|at| at.saturating_sub(now));
        // A millisecond more, so that a time that is due is over when it is looked at.
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            PollTimeout::try_from(due + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut set = vec![PollFd::new(self.harness.signals.as_fd(), PollFlags::POLLIN)];
        let pipes = self.streams.iter().filter_map(Stream::pipe);
        let pipes = pipes.chain(self.question.as_ref().and_then(Question::pipe));
        set.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        set.extend(self.saver.descriptors().map(|open| PollFd::new(open, PollFlags::POLLIN)));
        poll(&mut set, timeout).ok(); // all sources are read without blocking: which one it was doesn't matter
    }

    fn gather(&mut self, events: &mut VecDeque<Event>) {
        let heard = signals::read(&self.harness.signals);
        self.read_output();
        for signal in heard {
            match signal {
                Signal::SIGUSR1 => events.push_back(Event::Usr1),
                Signal::SIGTERM | Signal::SIGINT => events.push_back(Event::Term),
                Signal::SIGCHLD => events.extend(self.reap()),
                _ => {} // USR2 and HUP are nobody's way to talk to the harness
            }
        }
        events.extend(self.answer());
        let saved = self.saver.look(self.harness.clock.now(), &self.place());
        events.extend(saved.into_iter().filter_map(|outcome| self.saved(outcome)));
        let now = self.harness.clock.now();
        if !self.settling && self.lease_at <= now {
            self.lease_at = now + LEASE_EVERY;
            if matches!(self.lease.is_newest(), Ok(false)) {
                events.push_back(Event::Superseded);
            }
        }
        if self.is_settled() {
            events.push_back(Event::Settled);
        }
        events.push_back(Event::Tick);
    }

    fn reap(&mut self) -> Option<Event> {
        let mut event = None;
        for reaped in process::reap() {
            let Reaped { pid, code, signal } = reaped;
            if pid == self.program && self.exit.is_none() {
                let killed = signal.is_some() || code.is_some_and(|code| code > 128);
                self.exit = code.map(Exit::Code).or(signal.map(Exit::Signal));
                event = Some(Event::Exited { killed });
            } else if let Some(question) = self.question.as_mut().filter(|asked| asked.pid == pid) {
                question.reaped(reaped);
            } else if self.harness.sentinel == Some(pid) {
                self.harness.sentinel = None;
                if code != Some(0) {
                    self.voice
                        .warn("the sentinel failed: a preemption may come without notice now");
                }
            }
        }
        event
    }

    fn answer(&mut self) -> Option<Event> {
        let question = self.question.as_mut()?;
        question.read();
        let outcome = question.outcome(self.harness.clock.now())?;
        self.question = None;
        if std::mem::take(&mut self.ask_again) {
            self.ask_cause();
            return None;
        }
        let silence = |voice: &mut Voice, why: &str| {
            voice.note(&format!("Slurm did not say what happens to the job: {why}"));
            Some(Event::Learned(Answer::Silence))
        };
        let text = match outcome {
            Outcome::Ended { text, .. } => text,
            Outcome::NoAnswer(why) => return silence(&mut self.voice, &why),
        };
        let Some(job) = slurm::parse(&text) else { return silence(&mut self.voice, &text) };
        let restarts = self.harness.context.slurm.as_ref().map_or(0, |own| own.restarts);
        let end = job.end.map(|end| self.harness.clock.at_unix(end));
        let lead = Duration::from_secs(self.harness.trial.spec.checkpoint.lead).as_secs_f64();
        let stop = slurm::stop_cause(&job, restarts, unix_now(), lead);
        Some(Event::Learned(Answer::Job { stop, end }))
    }

    fn read_output(&mut self) {
        let Self { streams, metrics, voice, .. } = self;
        let Some((patterns, recorder)) = metrics else { return };
        for stream in streams {
            stream.read(|line| {
                if let Some(values) = patterns.line(line) {
                    let step = patterns.current.filter(|_| patterns.has_step());
                    if let Err(error) = recorder.report(step, unix_now(), values) {
                        voice.note(&format!("a metric could not be written: {error}"));
                    }
                }
            });
        }
    }

    /// The program is gone: nothing of it may stay, and what it wrote last is read.
    fn settle(&mut self) {
        let (root, helpers) = (self.harness.context.pid, self.helpers());
        for round in 0..200 {
            if proc_fs::descendants(root, &helpers).is_empty() {
                break;
            }
            if round == 0 {
                self.voice.note("processes that the program left behind are killed");
            }
            process::end(root, &helpers, None, Signal::SIGKILL);
            sleep(Duration::from_millis(10));
            self.reap();
        }
        for _ in 0..64 {
            self.read_output();
        }
        self.streams.retain(|stream| stream.lost > 0);
        let lost: u64 = self.streams.drain(..).map(|stream| stream.lost).sum();
        if lost > 0 {
            self.voice.warn(&format!("{lost} bytes of the program's output could not be written"));
        }
        let in_order = matches!(self.exit, Some(Exit::Code(0 | 75 | 85 | 93)));
        let torn = self.saver.finish(self.harness.clock.now(), &self.place(), in_order);
        for torn in torn {
            self.voice.warn(&torn);
            self.refused.push(torn);
        }
        self.settling = true;
    }

    /// How far the program is.
    fn place(&self) -> Place {
        let Some((patterns, recorder)) = &self.metrics else {
            return Place { step: None, metrics: None };
        };
        let metrics = (self.harness.trial.dir.metrics(), recorder.length);
        Place { step: patterns.current, metrics: Some(metrics) }
    }

    /// Records what came of a save.
    fn saved(&mut self, outcome: Saved) -> Option<Event> {
        let Saved { entry, step, done, is_last } = outcome;
        match done {
            Ok(Done::Adopted) if self.known.contains(&step) => {}
            Ok(Done::Committed | Done::Adopted) => self.committed(step, &entry),
            Ok(Done::Superseded) => return Some(Event::Superseded),
            Ok(Done::Changed) => {
                self.voice
                    .note(&format!("`{entry}` is still being written; it is looked at again"));
            }
            Ok(Done::Refused(why)) => {
                let text = format!("`{entry}` was not committed: {why}");
                self.voice.warn(&text);
                self.refused.push(text);
            }
            Err(error) => {
                let text = format!("`{entry}` could not be committed: {error}");
                self.voice.warn(&text);
                if is_last {
                    self.refused.push(text);
                }
            }
        }
        None
    }

    fn committed(&mut self, step: u64, entry: &str) {
        let is_new = self.known.insert(step);
        let attempt = self.lease.attempt;
        let (time, saving, bytes) = (unix_now(), None, None);
        let record = AttemptRecord::Checkpoint { attempt, step, time, saving, bytes };
        if let Err(error) = self.journal.write(&record) {
            self.voice
                .warn(&format!("the checkpoint of step {step} could not be recorded: {error}"));
        }
        self.voice.note(&format!("`{entry}` is committed as checkpoint step-{step}"));
        if is_new {
            self.committed = self.committed.max(Some(step));
        }
    }
}
