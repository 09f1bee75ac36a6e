//! Carries out the supervisor's actions: signals, messages, and the work after the program's end.

use std::thread::sleep;
use std::time::Duration;

use nemo_core::log_line;
use nix::sys::signal::Signal;

use super::EventLoop;
use super::checkpointer::Checkpointer;
use crate::attempt::verdict::Exit;
use crate::job::trial::Trial;
use crate::os::clock::{Time, unix_now};
use crate::os::proc_fs;
use crate::program::ask::SaveSignal;
use crate::program::processes;
use crate::protocol::SaveReason;
use crate::supervise::{Action, AttemptEvent, StopCause};

/// For so many rounds of 10 ms processes that outlive the program may end by themselves: a shell or a pool of workers that
/// is just ending is not left behind.
const ENDING_ROUNDS: u32 = 10;

impl EventLoop<'_> {
    pub(super) fn act(&mut self, action: Action) -> Option<AttemptEvent> {
        let (root, helpers) = (self.harness.context.pid, self.helpers());
        let is_running = self.exit.is_none();
        match action {
            Action::RequestSave => {
                let is_caught = self.ask_to_save(root, &helpers);
                return is_caught.map(|is_caught| AttemptEvent::SaveRequested { is_caught });
            }
            Action::Terminate => {
                self.log.note(log_line::TERM_SENT);
                self.program.end(root, &helpers, is_running, Signal::SIGTERM);
            }
            Action::Kill => {
                self.log.note(log_line::KILL_SENT);
                self.program.end(root, &helpers, is_running, Signal::SIGKILL);
            }
            Action::QuerySlurm => return self.query_slurm(),
            Action::Settle => self.settle_in_time(),
            Action::Decide => {}
        }
        None
    }

    /// A checkpoint that is being taken of a program that was stopped may still become one, though the program has ended.
    fn settle_in_time(&mut self) {
        let is_busy = self.checkpointer.as_ref().is_some_and(Checkpointer::is_busy);
        if is_busy && self.supervisor.stop().is_some() {
            self.settles_later = true;
            return;
        }
        self.checkpointer.iter_mut().for_each(Checkpointer::stop);
        self.settle();
    }

    /// Kills what is left of the program, and reads its last output.
    pub(super) fn settle(&mut self) {
        let (root, helpers) = (self.harness.context.pid, self.helpers());
        for round in 0..200 {
            if proc_fs::descendants(root, &helpers).is_empty() {
                break;
            }
            if round == ENDING_ROUNDS {
                self.log.note(log_line::LEFTOVERS_KILLED);
            }
            if round >= ENDING_ROUNDS {
                processes::end(root, &helpers, None, Signal::SIGKILL);
            }
            sleep(Duration::from_millis(10));
            self.reap();
        }
        self.read_program();
        let happened = self.monitor.finish(self.harness.clock.now(), &mut self.log);
        for happening in happened {
            self.handle(happening);
        }
        self.note_ready();
        let in_order = matches!(self.exit, Some(Exit::Code(0 | 75 | 85 | 93)));
        self.saver.finish(in_order);
        self.is_settling = true;
    }

    /// Asks for a save by message and by signal. Returns whether the program caught it, if that is known at once.
    fn ask_to_save(&mut self, root: u32, helpers: &[u32]) -> Option<bool> {
        if self.checkpointer.is_some() {
            let (reason, now) = (self.reason(), self.harness.clock.now());
            self.monitor.session.request_save(reason, now);
            self.begin_checkpoint();
            return Some(true);
        }
        let Trial { signal, ref spec, .. } = self.harness.trial;
        let Some(signal) = signal else { return Some(false) }; // it saves by itself
        let asking = SaveSignal { root, except: helpers, signal, profile: spec.profile };
        let is_running = self.exit.is_none();
        let asked = self.program.ask(&asking, is_running, self.harness.clock.now());
        let by_signal = asked == Some(true);
        let (reason, now) = (self.reason(), self.harness.clock.now());
        self.monitor.session.request_save(reason, now);
        let by_message = self.monitor.publish() > 0;
        match (by_signal, by_message) {
            (true, true) => self.note_save_request(&format!("{signal}, and by message")),
            (true, false) => self.note_save_request(signal.as_str()),
            (false, true) => self.note_save_request("by message"),
            (false, false) => {}
        }
        if by_message { Some(true) } else { asked }
    }

    pub(super) fn note_save_request(&mut self, how: &str) {
        self.log.note(&format!("{} ({how})", log_line::SAVE_REQUESTED));
    }

    fn reason(&self) -> SaveReason {
        match self.supervisor.stop() {
            Some(StopCause::Preempted | StopCause::Requeued) => SaveReason::Preempted,
            Some(StopCause::TimeLimit) => SaveReason::TimeLimit,
            Some(StopCause::Deadline) => SaveReason::Deadline,
            Some(StopCause::Cancelled) => SaveReason::Cancelled,
            Some(StopCause::Paused) => SaveReason::Paused,
            Some(
                StopCause::Unknown
                | StopCause::Superseded
                | StopCause::FolderRemoved
                | StopCause::Hung
                | StopCause::ProgramRequestedRequeue,
            )
            | None => SaveReason::Unknown,
        }
    }

    /// Notifies the program whether and why it is being stopped, and of its deadline.
    pub(super) fn notify_stop(&mut self) {
        let (stop, deadline) = (self.supervisor.stop(), self.supervisor.deadline());
        if self.notified_stop == (stop, deadline) {
            return;
        }
        self.notified_stop = (stop, deadline);
        self.hurry_checkpointer();
        if stop.is_some() {
            self.saver.hurry();
        }
        self.notes.stopped = stop.and(self.notes.stopped.or_else(|| Some(unix_now())));
        let left = |at: Time| at.saturating_sub(self.harness.clock.now()).as_secs_f64();
        let deadline = deadline.map(|at| unix_now() + left(at));
        self.monitor.session.set_stop(stop.map(|_| (self.reason(), deadline)));
        self.monitor.publish();
    }
}
