//! What `cancel`, `pause`, `resume` and `preempt` ask of the runner. Each request is read once; a cancellation or a pause
//! holds on.

use std::path::PathBuf;

use nemo_core::rundir::requests;
use nemo_core::{durable, lines};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Runner, index, this_runner};
use crate::executor::local::schedule::{LocalPhase, TrialRef};
use crate::file_error::{FileError, IoResultExt};
use crate::journal::{self, Event};
use crate::process::Liveness;
use crate::report::say;
use crate::status::{Request, RequestedAction};

impl Runner<'_> {
    /// Carries out what was asked for since the last look.
    pub(super) fn heed_requests(&mut self) -> Result<(), FileError> {
        let heeded = self.pauses.len();
        let folder = self.stored.dir.requests();
        let all = requests::read(&self.stored.dir).at("read", &folder)?;
        for (path, request) in &all {
            if self.seen_requests.insert(path.clone()) {
                self.heed(request.clone(), &all);
            }
        }
        if self.pauses.len() > heeded || std::mem::take(&mut self.is_pause_open) {
            for place in self.places() {
                self.heed_pause_or_later(place);
            }
        }
        Ok(())
    }

    /// `all`: a cancellation that somebody took back by a retry is none any more.
    fn heed(&mut self, request: Request, all: &[(PathBuf, Request)]) {
        let is_cancel = request.action == RequestedAction::Cancel;
        for place in self.places() {
            let (task, trial) = (self.task_name(place), index(place));
            let holds = || requests::is_cancelled(all.iter().map(|(_, it)| it), task, trial);
            if self.covers(&request, place) && (!is_cancel || holds()) {
                self.heed_for(place, request.action);
            }
        }
        match request.action {
            RequestedAction::Cancel => self.cancelled.push(request),
            RequestedAction::Pause | RequestedAction::Resume => self.pauses.push(request),
            RequestedAction::Retry => {
                self.cancelled.push(request.clone());
                self.pauses.push(request);
            }
            // A harness knows by itself when the time is over.
            RequestedAction::Preempt | RequestedAction::Timeout => {}
        }
    }

    /// Takes up what was retried since the last look: those trials wait to be started again.
    pub(super) fn heed_retries(&mut self) -> Result<(), FileError> {
        let path = self.stored.dir.journal();
        let size = std::fs::metadata(&path).at("read", &path)?.len();
        if self.journal_size == size {
            return Ok(());
        }
        let journal: Vec<Event> = lines::read(&path).at("read", &path)?.rows;
        // Not before: what can't be read now is read at the next look.
        self.journal_size = size;
        let known = journal::last_generation(&self.journal);
        if journal::last_generation(&journal) == known {
            return Ok(());
        }
        self.journal = journal;
        for place in self.places() {
            let retries = journal::last_retries(&self.journal, self.task_name(place));
            let is_new = retries.get(&index(place)).is_some_and(|it| it.generation > known);
            if is_new && matches!(*self.phase(place), LocalPhase::Lost | LocalPhase::Dropped) {
                *self.phase(place) = LocalPhase::Waiting;
                self.silent_deaths.remove(&place);
            }
        }
        self.forget_elsewhere();
        self.log.add(this_runner(&self.journal));
        Ok(())
    }

    fn heed_for(&mut self, place: TrialRef, action: RequestedAction) {
        use LocalPhase::{BlockedOutside, Completed, Dropped, Lost, Paused, Running, Waiting};
        use RequestedAction::{Cancel, Pause, Preempt, Resume, Retry, Timeout};
        match (*self.phase(place), action) {
            (Running, Cancel) => self.signal(place, Signal::SIGTERM),
            (Running, Preempt) => self.signal(place, Signal::SIGUSR1),
            (Waiting | Paused | BlockedOutside, Cancel) => self.drop_trial(place, true),
            // The last of all wishes decides: `heed_pause`. What is retried is in the journal: `heed_retries`.
            (_, Pause | Resume | Retry | Timeout)
            | (Waiting | Paused | BlockedOutside, Preempt)
            | (Completed | Lost | Dropped, Cancel | Preempt) => {}
        }
    }

    /// Makes a trial paused or not; where the disk has no room for that, at the next look.
    pub(super) fn heed_pause_or_later(&mut self, place: TrialRef) {
        if let Err(error) = self.heed_pause(place) {
            self.is_pause_open = true;
            self.complain(&error.with_cause());
        }
    }

    /// Makes a trial paused or not, as it was wished last.
    fn heed_pause(&mut self, place: TrialRef) -> Result<(), FileError> {
        use LocalPhase::{BlockedOutside, Completed, Dropped, Lost, Paused, Running, Waiting};
        let last = self.pauses.iter().rev().find(|wish| self.covers(wish, place));
        let Some(wish) = last else { return Ok(()) };
        let paused = wish.action == RequestedAction::Pause;
        let dir = self.trial_dir(place);
        match (*self.phase(place), paused) {
            // A mark says what was wished, not that it was heard: who wrote it may have been killed before the signal. A
            // second signal changes nothing.
            (Running, true) => {
                durable::create_dir_all(dir.path()).at("make", dir.path())?;
                durable::replace_file_durably(&dir.pause(), b"{}\n").at("write", &dir.pause())?;
                self.signal(place, Signal::SIGUSR1);
            }
            (Waiting, true) => *self.phase(place) = Paused,
            (Paused, false) => *self.phase(place) = Waiting,
            (Waiting | Running | Paused | Completed | Lost | Dropped | BlockedOutside, _) => {}
        }
        Ok(())
    }

    pub(super) fn signal(&self, place: TrialRef, signal: Signal) {
        let process = self.live.get(&place).filter(|process| process.liveness() == Liveness::Alive);
        let pid = process.and_then(|process| i32::try_from(process.pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            say(&format!("can't signal process {pid}: {error}"));
        }
    }
}
