//! Carries out the decisions of [`crate::supervise`] in one loop over signals, output, answers and time.

mod actions;
mod checkpointer;
mod disk;
mod incoming;

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::time::Duration;

use nemo_core::gone_folder::GoneFolder;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::attempt::history::AttemptJournal;
use crate::attempt::lease::Lease;
use crate::attempt::outcome::{AttemptNotes, AttemptReport};
use crate::attempt::verdict::{Exit, ProgramReport};
use crate::checkpoint::saver::Saver;
use crate::job::harness::Harness;
use crate::monitor::Monitor;
use crate::os::clock::Time;
use crate::os::disposition::hears;
use crate::os::log::{self, Log};
use crate::os::proc_fs;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};
use crate::os::signals;
use crate::os::subprocess::Subprocess;
use crate::program::RunningProgram;
use crate::program::processes::{self, Reaped};
use crate::program::usage;
use crate::rank::failed_rank::FailedRank;
use crate::supervise::{Action, AttemptEvent, StopCause, Supervisor};
pub(crate) use checkpointer::Checkpointer;
use disk::{DiskLook, FileRequest, HeldFolder, LOOK_EVERY};

/// How much later Slurm's TERM may reach this process than another process of the job.
const UNTIL_TERM: Duration = Duration::from_secs(3);

/// How often the output is polled while the disk can't take earlier output.
const FULL: Duration = Duration::from_millis(50);

/// The parts of an attempt whose program has started.
#[derive(Debug)]
pub(crate) struct StartedAttempt<'a> {
    pub(crate) supervisor: Supervisor,
    pub(crate) program: RunningProgram,
    pub(crate) saver: Saver,
    pub(crate) monitor: Monitor,
    pub(crate) lease: Lease,
    pub(crate) log: Log,
    pub(crate) journal: &'a AttemptJournal,
    /// What takes the checkpoints of the program in its stead.
    pub(crate) checkpointer: Option<Checkpointer>,
    /// The steps that earlier attempts committed.
    pub(crate) committed_steps: BTreeSet<u64>,
    /// The thread that reads the disk.
    pub(crate) disk_queue: SerialQueue,
}

/// A running attempt.
#[derive(Debug)]
pub(crate) struct EventLoop<'a> {
    harness: &'a mut Harness,
    supervisor: Supervisor,
    program: RunningProgram,
    exit: Option<Exit>,
    /// The rank that decided the end, if there are several.
    failed_rank: Option<FailedRank>,
    /// The exit of the first process by TERM while others of the program may still save. The time limits the wait if no
    /// stop follows.
    early_exit: Option<(Exit, Time)>,
    lease: Lease,
    disk_look_at: Time,
    /// The look at the disk, once it answers.
    disk_look: Option<PendingAnswer<DiskLook>>,
    /// How many requests the experiment's folder held at the last look: they are read again only if there are others.
    n_requests: usize,
    folder: HeldFolder,
    gone_folder: GoneFolder<Time>,
    /// The request by file at the last USR1, once the disk answers.
    file_request: Option<PendingAnswer<FileRequest>>,
    /// The save interval computed from the record.
    interval: Option<PendingAnswer<Duration>>,
    disk_queue: SerialQueue,
    log: Log,
    journal: &'a AttemptJournal,
    monitor: Monitor,
    slurm_query: Option<Subprocess>,
    /// Slurm must be asked again: something happened since the last question.
    must_query_again: bool,
    is_settling: bool,
    saver: Saver,
    checkpointer: Option<Checkpointer>,
    /// The program has ended, and the checkpointer has not.
    settles_later: bool,
    uncommitted: Vec<String>,
    /// The steps that this attempt and earlier ones committed.
    committed_steps: BTreeSet<u64>,
    /// The newest step that this attempt committed.
    newest_commit: Option<u64>,
    /// The stop and deadline that the program was notified of.
    notified_stop: (Option<StopCause>, Option<Time>),
    notes: AttemptNotes,
}

impl<'a> EventLoop<'a> {
    pub(crate) fn new(harness: &'a mut Harness, parts: StartedAttempt<'a>) -> Self {
        let StartedAttempt { supervisor, program, saver, monitor, lease, log, journal, .. } = parts;
        let StartedAttempt { committed_steps, disk_queue, checkpointer, .. } = parts;
        let disk_look_at = harness.clock.now() + LOOK_EVERY;
        let folder = HeldFolder::open(harness.trial.dir.path());
        Self {
            harness,
            supervisor,
            program,
            exit: None,
            failed_rank: None,
            early_exit: None,
            lease,
            disk_look_at,
            disk_look: None,
            n_requests: 0,
            folder,
            gone_folder: GoneFolder::default(),
            file_request: None,
            interval: None,
            disk_queue,
            log,
            journal,
            monitor,
            slurm_query: None,
            must_query_again: false,
            is_settling: false,
            saver,
            checkpointer,
            settles_later: false,
            uncommitted: Vec::new(),
            committed_steps,
            newest_commit: None,
            notified_stop: (None, None),
            notes: AttemptNotes::default(),
        }
    }

    /// Runs until the supervisor says that everything is over.
    pub(crate) fn run(mut self) -> AttemptReport {
        self.set_interval();
        let mut events = VecDeque::new();
        loop {
            let now = self.harness.clock.now();
            let event = events.pop_front().unwrap_or(AttemptEvent::Tick);
            if event != AttemptEvent::Tick {
                log::debug(|| format!("event: {event:?}"));
            }
            for action in self.supervisor.step(event, now) {
                log::debug(|| format!("action: {action:?}"));
                if action == Action::Decide {
                    return self.report();
                }
                events.extend(self.act(action));
            }
            self.notify_stop();
            if events.is_empty() {
                if !self.is_settled() || self.slurm_query.is_some() {
                    self.wait();
                }
                self.collect_events(&mut events);
            }
        }
    }

    /// Whether every save is committed, or could not be.
    fn is_settled(&self) -> bool {
        self.is_settling && self.saver.is_idle()
    }

    fn report(mut self) -> AttemptReport {
        if let Some(question) = &self.slurm_query {
            processes::signal(question.pid, Signal::SIGKILL);
        }
        self.checkpointer.iter_mut().for_each(Checkpointer::stop);
        let session = &mut self.monitor.session;
        let from_program = ProgramReport {
            finished: session.is_finished,
            requeue: self.notes.wants_requeue,
            invalid: session.invalid.take(),
        };
        self.notes.leave_node |= self.exit.is_none();
        let unfinished = self.saver.unfinished();
        let is_taken = unfinished.iter().any(|(_, is_taken)| *is_taken);
        for (name, is_taken) in unfinished {
            let then = if is_taken { "; it is kept, and the next attempt commits it" } else { "" };
            let text = format!("`{name}` was not committed: there was no time left for it{then}");
            self.uncommitted.push(text);
        }
        AttemptReport {
            exit: self.exit.unwrap_or(Exit::Signal(Signal::SIGKILL as i32)),
            failed_rank: self.failed_rank,
            stop: self.supervisor.stop(),
            was_notified: self.supervisor.was_notified(),
            is_confirmed: self.supervisor.has_confirmed_cause(),
            deadline: self.supervisor.deadline(),
            is_by_hand: self.supervisor.is_stopped_by_hand(),
            step: session.step,
            committed: self.newest_commit,
            is_taken,
            uncommitted: self.uncommitted,
            from_program,
            killed: self.supervisor.has_killed(),
            notes: self.notes,
            saving: session.saved_for,
            log: self.log,
        }
    }

    /// The harness's own child processes, which must not get the program's signals.
    fn helpers(&self) -> Vec<u32> {
        self.harness
            .sentinel
            .iter()
            .map(|sentinel| sentinel.pid)
            .chain(self.slurm_query.as_ref().map(|asked| asked.pid))
            .chain(self.checkpoint_process().map(|own| own.pid))
            .chain(usage::helper())
            .collect()
    }

    fn checkpoint_process(&self) -> Option<&Subprocess> {
        self.checkpointer.as_ref()?.process()
    }

    /// Waits for an event or the next time that is due.
    fn wait(&mut self) {
        let now = self.harness.clock.now();
        let disk_look = (!self.is_settling).then_some(self.disk_look_at);
        let outlived = self.early_exit.as_ref().filter(|_| self.supervisor.stop().is_none());
        let monitor = self.monitor.next_read(now, self.notes.stopped.is_some());
        let due = [
            self.supervisor.next_tick(),
            self.slurm_query.as_ref().map(Subprocess::until),
            self.checkpoint_process().map(Subprocess::until),
            disk_look,
            self.saver.next_poll(now),
            monitor.filter(|_| !self.is_settling),
            outlived.map(|(_, until)| *until),
            self.program.next_look(),
            self.harness.records.is_full().then_some(now + FULL),
        ];
        let due = due.into_iter().flatten().min().map(|at| at.saturating_sub(now));
        // One more millisecond makes sure that the time has passed when the loop checks it.
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            PollTimeout::try_from(due + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut set = vec![PollFd::new(self.harness.signals.as_fd(), PollFlags::POLLIN)];
        let question = self.slurm_query.as_ref().and_then(Subprocess::pipe);
        set.extend(question.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let own = self.checkpoint_process().and_then(Subprocess::pipe);
        set.extend(own.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        set.extend(self.program.descriptors().map(|open| PollFd::new(open, PollFlags::POLLIN)));
        set.extend(self.monitor.descriptors().map(|open| PollFd::new(open, PollFlags::POLLIN)));
        set.extend(self.saver.descriptors().map(|open| PollFd::new(open, PollFlags::POLLIN)));
        poll(&mut set, timeout).ok(); // all sources are read without blocking: which one it was doesn't matter
    }

    fn collect_events(&mut self, events: &mut VecDeque<AttemptEvent>) {
        let heard = signals::read(&self.harness.signals);
        if !heard.is_empty() {
            log::debug(|| format!("signals: {heard:?}"));
        }
        events.extend(self.read_program());
        // Before anything that may take a while: a save is placed among the reports by this time.
        self.saver.note_position(self.harness.clock.now(), &self.monitor.position());
        for signal in heard {
            match signal {
                Signal::SIGUSR1 => events.push_back(self.usr1()),
                Signal::SIGTERM | Signal::SIGINT => events.push_back(AttemptEvent::Term),
                Signal::SIGCHLD => events.extend(self.reap()),
                // A script may have chosen one of these (`--signal=B:USR2@60`). Elsewhere a terminal that closes sends HUP.
                Signal::SIGUSR2 | Signal::SIGHUP if self.harness.context.slurm.is_some() => {
                    events.push_back(self.usr1());
                }
                _ => {}
            }
        }
        events.extend(self.late_exit());
        self.advance_checkpoint_command();
        events.extend(self.read_slurm_answer());
        events.extend(self.late_request());
        if let Some(interval) = self.interval.as_ref().and_then(PendingAnswer::take) {
            self.interval = None;
            self.monitor.session.set_interval(interval);
        }
        let saved = self.saver.poll(self.harness.clock.now(), &self.monitor.position());
        events.extend(saved.into_iter().filter_map(|outcome| self.handle_save(outcome)));
        self.remove_surplus();
        events.extend(self.look_at_disk());
        if self.is_settled() {
            events.push_back(AttemptEvent::Settled);
        }
        events.push_back(AttemptEvent::Tick);
    }

    fn reap(&mut self) -> Option<AttemptEvent> {
        let mut event = None;
        for reaped in processes::reap() {
            let Reaped { pid, code, .. } = reaped;
            if pid == self.program.pid() && self.exit.is_none() && self.early_exit.is_none() {
                let (exit, who) = self.program.ended(reaped, self.harness, &mut self.log);
                if self.has_survivors(&exit) {
                    self.log.note("the first process has ended by SIGTERM; others still save");
                    self.early_exit = Some((exit, self.harness.clock.now() + UNTIL_TERM));
                } else {
                    event = Some(self.program_ended(exit, who));
                }
            } else if let Some(question) =
                self.slurm_query.as_mut().filter(|asked| asked.pid == pid)
            {
                question.reaped(reaped);
            } else if let Some(own) = self.taker_of_checkpoints(pid) {
                own.reaped(reaped);
            } else if let Some(sentinel) = self.harness.sentinel.take_if(|own| own.pid == pid) {
                if code != Some(0) {
                    let said = sentinel.last_words();
                    self.log.warn(&format!(
                        "the sentinel failed: a preemption may now come without notice: {said}"
                    ));
                }
            } else if let Some((exit, _)) = self.early_exit.as_mut().filter(|_| code.is_some()) {
                *exit = Exit::of(reaped); // one of those that were waited for
            }
        }
        event
    }

    fn taker_of_checkpoints(&mut self, pid: u32) -> Option<&mut Subprocess> {
        self.checkpointer.as_mut()?.process_mut().filter(|own| own.pid == pid)
    }

    fn program_ended(&mut self, exit: Exit, who: Option<FailedRank>) -> AttemptEvent {
        let lost = who.as_ref().is_some_and(|who| who.lost);
        let signal = match exit {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(code) if code > 128 => Some(code - 128),
            // A rank whose end nobody reported counts as killed.
            Exit::Code(_) => lost.then_some(Signal::SIGKILL as i32),
            Exit::StartFailed(_) | Exit::NotStarted(_) => None,
        };
        (self.exit, self.failed_rank) = (Some(exit), who);
        AttemptEvent::Exited { signal }
    }

    /// Whether Slurm's TERM, which reaches every process of a job, ended a script while the program that it waits for
    /// caught the signal and saves.
    fn has_survivors(&self, exit: &Exit) -> bool {
        let own = self.harness.trial.signal;
        let saves =
            |pid: u32| own.is_some_and(|own| hears(pid, own)) || hears(pid, Signal::SIGTERM);
        let others = || proc_fs::descendants(self.harness.context.pid, &self.helpers());
        matches!(exit, Exit::Signal(15) | Exit::Code(143))
            && matches!(self.program, RunningProgram::Local { .. })
            && others().into_iter().any(saves)
    }

    /// The program's end, once the last process has ended that outlived the first. If the TERM was not Slurm's, the end
    /// comes after a short wait.
    fn late_exit(&mut self) -> Option<AttemptEvent> {
        let (_, until) = self.early_exit.as_ref()?;
        let is_late = self.supervisor.stop().is_none() && *until <= self.harness.clock.now();
        let root = self.harness.context.pid;
        if !is_late && !proc_fs::descendants(root, &self.helpers()).is_empty() {
            return None;
        }
        self.reap(); // the last process may not have been reaped yet
        let (exit, _) = self.early_exit.take()?;
        Some(self.program_ended(exit, None))
    }
}
