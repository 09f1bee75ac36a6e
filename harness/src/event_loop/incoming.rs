//! Incoming events: Slurm's answers, the program's output and messages, and the outcomes of its saves.

use std::time::Duration;

use nemo_core::interval;
use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, Every, LogAction, LogPolicy};
use nix::sys::signal::Signal;

use super::EventLoop;
use crate::checkpoint::commit::CommitOutcome;
use crate::checkpoint::saver::SaveOutcome;
use crate::checkpoint::worker::WorkerJob;
use crate::monitor::MonitorEvent;
use crate::monitor::alarms::Alarm;
use crate::os::clock::{Time, unix_now};
use crate::os::subprocess::{Subprocess, SubprocessResult};
use crate::rank::multi_rank::RankNews;
use crate::slurm;
use crate::slurm::cancel;
use crate::supervise::{AttemptEvent, SlurmAnswer, StopCause};

/// How many uncommitted saves the record names.
const REFUSED: usize = 10;
/// How long the disk may take to say whether the trial was cancelled.
const DISK: Duration = Duration::from_millis(100);
/// How long Slurm may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

impl EventLoop<'_> {
    /// Asks Slurm for the cause of a stop. Returns an event only if nobody can be asked.
    pub(super) fn query_slurm(&mut self) -> Option<AttemptEvent> {
        if self.slurm_query.is_some() {
            self.must_query_again = true;
            return None;
        }
        let job = self.harness.context.slurm.as_ref()?;
        let until = self.harness.clock.now() + ANSWER;
        match Subprocess::start(&slurm::show_job(&job.id()), until) {
            Ok(question) => self.slurm_query = Some(question),
            Err(error) => {
                self.log.warn(&format!("`scontrol` could not be started: {error}"));
                return Some(AttemptEvent::SlurmAnswered(SlurmAnswer::NoAnswer));
            }
        }
        None
    }

    fn no_answer(&mut self, why: &str) -> AttemptEvent {
        self.log.note(&format!("Slurm did not say what happens to the job: {why}"));
        AttemptEvent::SlurmAnswered(SlurmAnswer::NoAnswer)
    }

    pub(super) fn read_slurm_answer(&mut self) -> Option<AttemptEvent> {
        let question = self.slurm_query.as_mut()?;
        question.read();
        let outcome = question.outcome(self.harness.clock.now())?;
        self.slurm_query = None;
        if std::mem::take(&mut self.must_query_again) {
            return self.query_slurm();
        }
        let text = match outcome {
            SubprocessResult::Ended { text, .. } => text,
            SubprocessResult::NoAnswer(why) => return Some(self.no_answer(&why)),
        };
        let Some(job) = slurm::parse(&text) else { return Some(self.no_answer(&text)) };
        let end = job.end.map(|end| self.harness.clock.at_unix(end));
        self.harness.update_from_job(&job);
        let stop = slurm::stop_cause(&job, &self.harness.own_run(), unix_now());
        let stop = stop.map(|cause| {
            let asked = self.disk_queue.ask(cancel::question(self.harness));
            // If the disk does not answer, Slurm's cause counts.
            if asked.wait(DISK) == Some(true) { StopCause::Cancelled } else { cause }
        });
        Some(AttemptEvent::SlurmAnswered(SlurmAnswer::Job { stop, end }))
    }

    /// Reads the program's output and messages.
    pub(super) fn read_program(&mut self) -> Vec<AttemptEvent> {
        let now = self.harness.clock.now();
        let stopping = self.is_settling || self.notes.stopped.is_some();
        let mut events = Vec::new();
        let mut happened = Vec::new();
        for heard in self.program.look(now, &mut self.log) {
            match heard {
                RankNews::Line(line) => {
                    happened.extend(self.monitor.line(&line, now, &mut self.log));
                }
                RankNews::SaveRequested(heard) => events.push(self.save_requested(heard)),
                // One at a time, since the kernel queues only a few messages.
                RankNews::Message(message) => {
                    self.program.deliver(&message);
                    happened.extend(self.monitor.read(now, stopping, &mut self.log));
                }
            }
        }
        happened.extend(self.monitor.read(now, stopping, &mut self.log));
        self.note_ready();
        events.extend(happened.into_iter().filter_map(|happening| self.handle(happening)));
        events
    }

    /// The ranks have answered a request to save.
    fn save_requested(&mut self, is_caught: bool) -> AttemptEvent {
        if is_caught {
            self.note_save_request(self.harness.trial.signal.map_or("", Signal::as_str));
        }
        AttemptEvent::SaveRequested { is_caught }
    }

    /// Records that the program works.
    pub(super) fn note_ready(&mut self) {
        if self.notes.worked || !self.monitor.session.is_ready {
            return;
        }
        self.notes.worked = true;
        let record = AttemptRecord::Ready { attempt: self.lease.attempt, time: unix_now() };
        self.record(record, "that the program works");
    }

    pub(super) fn handle(&mut self, happening: MonitorEvent) -> Option<AttemptEvent> {
        match happening {
            MonitorEvent::Complete { name, step } => {
                let now = self.harness.clock.now();
                self.saver.complete(name, step, self.monitor.position(), now);
            }
            MonitorEvent::Requeue => {
                self.log.note("the program asks for a requeue");
                self.notes.wants_requeue = true;
                return Some(AttemptEvent::ProgramRequestedRequeue);
            }
            MonitorEvent::Policy { policy, line } => self.apply(&policy, line),
            MonitorEvent::Hung { since } => return Some(self.hung(since)),
            MonitorEvent::Alarm(alarm) => self.raise_alarm(alarm),
            MonitorEvent::WentOn { step } => {
                self.log.note(&format!("the program goes on by itself after step {step}"));
                self.notes.went_on = Some(step);
                let attempt = self.lease.attempt;
                let record = AttemptRecord::WentOn { attempt, step, time: unix_now() };
                self.record(record, "where the program went on");
            }
        }
        None
    }

    /// Tells what a person should know, in the log and in the record.
    pub(super) fn raise_alarm(&mut self, alarm: Alarm) {
        let Alarm { code, message, hint } = alarm;
        self.log.warn(&format!("{message}. {hint}"));
        let (attempt, time) = (self.lease.attempt, unix_now());
        let (code, hint) = (code.to_owned(), hint.to_owned());
        self.record(AttemptRecord::Warning { attempt, code, message, hint, time }, "a warning");
    }

    /// Does what a log policy says.
    fn apply(&mut self, policy: &LogPolicy, line: String) {
        let LogPolicy { name, action, .. } = policy;
        self.log.warn(&format!("log policy `{name}` matched: {line}"));
        let (attempt, time) = (self.lease.attempt, unix_now());
        let label = AttemptRecord::Label { attempt, name: name.clone(), line, time };
        self.record(label, "a log policy's match");
        match action {
            LogAction::Label => {}
            LogAction::StopRestarting => self.notes.stop_restarting = Some(name.clone()),
            LogAction::ExcludeNode => {
                self.notes.leave_node = true;
                let node = self.harness.context.node.clone();
                let reason = format!("log policy `{name}`");
                let record =
                    AttemptRecord::ExcludeNode { attempt, node, reason, left: false, time };
                self.record(record, "that the node is excluded");
            }
        }
    }

    /// Saves the stacks of a program that hangs, before it is ended.
    fn hung(&mut self, since: Time) -> AttemptEvent {
        let now = self.harness.clock.now();
        let silence = now.saturating_sub(since).as_secs_f64();
        let path = self.harness.trial.dir.evidence(self.lease.attempt);
        let helpers = self.helpers();
        self.program.keep_evidence(&helpers, path.clone(), self.harness);
        let file = path.display();
        self.log.warn(&format!(
            "the program gave no sign of life for {silence:.0} s; ending it. Its stacks are in `{file}`"
        ));
        let time = unix_now();
        let evidence = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let attempt = self.lease.attempt;
        let record = AttemptRecord::Hang { attempt, since: time - silence, time, evidence };
        self.record(record, "the hang");
        AttemptEvent::Hung
    }

    /// Recomputes the save interval if it follows from measured costs.
    pub(super) fn set_interval(&mut self) {
        if self.harness.trial.spec.checkpoint.every == Some(Every::Auto) {
            let path = self.harness.trial.dir.attempts();
            // The queue has written every earlier record by then.
            self.interval = Some(self.harness.records.ask(move || {
                let rows = lines::read(&path).unwrap_or_default().rows;
                interval::auto(&rows, unix_now())
            }));
        }
    }

    /// Queues a line of the record. Nobody waits for it.
    fn record(&mut self, record: AttemptRecord, what: &str) {
        let (mut log, what) = (self.log.clone(), what.to_owned());
        self.journal.add(record, move |written| {
            if let Err(error) = written {
                log.warn(&format!("{what} could not be recorded: {error}"));
            }
        });
    }

    /// Handles the outcome of a save.
    pub(super) fn handle_save(&mut self, outcome: SaveOutcome) -> Option<AttemptEvent> {
        let SaveOutcome { entry, step, bytes, result, written_at, is_final } = outcome;
        let is_kept = match &result {
            Ok(CommitOutcome::Committed) => true,
            Ok(CommitOutcome::AlreadyCommitted) => !self.committed_steps.contains(&step),
            Ok(_) | Err(_) => !is_final, // it is tried again
        };
        if matches!(result, Ok(CommitOutcome::Rejected(_))) {
            self.remove_refused(&entry);
        }
        if !is_kept {
            self.checkpoint_refused(&entry);
        }
        match result {
            Ok(CommitOutcome::SameContent(before)) => {
                self.log.note(&format!(
                    "`{entry}` has the content of step-{before}: it is no new checkpoint"
                ));
            }
            Ok(CommitOutcome::AlreadyCommitted) if self.committed_steps.contains(&step) => {}
            Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted) => {
                self.committed(step, bytes, &entry, written_at);
                return Some(AttemptEvent::Committed { at: written_at });
            }
            Ok(CommitOutcome::Superseded) => return Some(AttemptEvent::Superseded),
            Ok(CommitOutcome::StillChanging) => {
                self.log
                    .note(&format!("`{entry}` is still being written; it will be looked at again"));
            }
            Ok(CommitOutcome::Rejected(why)) => {
                let text = format!("`{entry}` was not committed: {why}");
                self.add_uncommitted(text);
            }
            Err(error) => {
                let text = format!("`{entry}` could not be committed: {error}");
                if is_final {
                    self.add_uncommitted(text);
                } else {
                    self.log.warn(&text);
                }
            }
        }
        None
    }

    /// Notes a save that is not committed. The record names the first few.
    fn add_uncommitted(&mut self, text: String) {
        self.log.warn(&text);
        if let Some(alarm) = self.monitor.alarms.refused(&text) {
            self.raise_alarm(alarm);
        }
        match self.uncommitted.len() {
            ..REFUSED => self.uncommitted.push(text),
            REFUSED => self.uncommitted.push("and others".to_owned()),
            _ => {}
        }
    }

    /// Removes checkpoints that no rule keeps, once that is recorded.
    pub(super) fn remove_surplus(&mut self) {
        let steps = self.saver.take_removable();
        if steps.is_empty() {
            return;
        }
        let (attempt, time) = (self.lease.attempt, unix_now());
        let record = AttemptRecord::Removed { attempt, steps: steps.clone(), time };
        let worker = self.saver.remover();
        self.journal.add(record, move |written| {
            // If it can't be recorded, nothing is removed.
            let steps = written.map_or_else(|_| Vec::new(), |()| steps);
            worker.send(WorkerJob::Remove(steps)).ok(); // the worker is gone at the attempt's end
        });
    }

    fn committed(&mut self, step: u64, bytes: u64, entry: &str, at: Time) {
        let is_new = self.committed_steps.insert(step);
        let attempt = self.lease.attempt;
        let now = self.harness.clock.now();
        self.monitor.alive(now);
        self.monitor.alarms.saved(now);
        self.monitor.session.note_work(now);
        let saving = self.monitor.session.cost(step).map(|cost| cost.as_secs_f64());
        let (time, bytes) = (unix_now(), Some(bytes));
        let record = AttemptRecord::Checkpoint { attempt, step, time, saving, bytes };
        self.record(record, &format!("the checkpoint of step {step}"));
        // Behind it, where nothing else told that the program works: nobody knows since when.
        self.note_ready();
        self.monitor.session.committed(step, at, now);
        self.set_interval();
        self.monitor.publish();
        self.log.note(&format!("`{entry}` is committed as checkpoint step-{step}"));
        if is_new {
            self.newest_commit = self.newest_commit.max(Some(step));
        }
    }
}
