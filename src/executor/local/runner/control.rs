//! Carries out what `cancel`, `pause`, `resume`, `preempt` and `retry` request of the local runner.
//!
//! Each request is read once. A cancellation or a pause also applies to trials that come later.

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
    /// Carries out the requests that came since the last call.
    pub(super) fn apply_requests(&mut self) -> Result<(), FileError> {
        let n_pauses = self.pauses.len();
        let folder = self.stored.dir.requests();
        let all = requests::read(&self.stored.dir).at("read", &folder)?;
        for (path, request) in &all {
            if self.seen_requests.insert(path.clone()) {
                self.apply_request(request.clone(), &all);
            }
        }
        if self.pauses.len() > n_pauses || std::mem::take(&mut self.is_pause_open) {
            for place in self.places() {
                self.apply_pause_or_later(place);
            }
        }
        Ok(())
    }

    /// `all` are all requests: a retry takes back an earlier cancellation.
    fn apply_request(&mut self, request: Request, all: &[(PathBuf, Request)]) {
        let is_cancel = request.action == RequestedAction::Cancel;
        for place in self.places() {
            let (task, trial) = (self.task_name(place), index(place));
            let is_cancelled = || requests::is_cancelled(all.iter().map(|(_, it)| it), task, trial);
            if self.covers(&request, place) && (!is_cancel || is_cancelled()) {
                self.apply_action(place, request.action);
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

    /// Trials that were retried since the last call wait to be started again.
    pub(super) fn apply_retries(&mut self) -> Result<(), FileError> {
        let path = self.stored.dir.journal();
        let size = std::fs::metadata(&path).at("read", &path)?.len();
        if self.journal_size == size {
            return Ok(());
        }
        let journal: Vec<Event> = lines::read(&path).at("read", &path)?.rows;
        // Only now: a journal that can't be read now is read at the next call.
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

    fn apply_action(&mut self, place: TrialRef, action: RequestedAction) {
        use LocalPhase::{BlockedOutside, Completed, Dropped, Lost, Paused, Running, Waiting};
        use RequestedAction::{Cancel, Pause, Preempt, Resume, Retry, Timeout};
        match (*self.phase(place), action) {
            (Running, Cancel) => self.signal(place, Signal::SIGTERM),
            (Running, Preempt) => self.signal(place, Signal::SIGUSR1),
            (Waiting | Paused | BlockedOutside, Cancel) => self.drop_trial(place, true),
            // The newest pause or resume decides: `apply_pause`. Retries are in the journal: `apply_retries`.
            (_, Pause | Resume | Retry | Timeout)
            | (Waiting | Paused | BlockedOutside, Preempt)
            | (Completed | Lost | Dropped, Cancel | Preempt) => {}
        }
    }

    /// Pauses or resumes a trial. If the disk has no room for the mark, the next call tries again.
    pub(super) fn apply_pause_or_later(&mut self, place: TrialRef) {
        if let Err(error) = self.apply_pause(place) {
            self.is_pause_open = true;
            self.warn_once(&error.with_cause());
        }
    }

    /// Pauses or resumes a trial, as the newest request says.
    fn apply_pause(&mut self, place: TrialRef) -> Result<(), FileError> {
        use LocalPhase::{BlockedOutside, Completed, Dropped, Lost, Paused, Running, Waiting};
        let last = self.pauses.iter().rev().find(|request| self.covers(request, place));
        let Some(request) = last else { return Ok(()) };
        let paused = request.action == RequestedAction::Pause;
        let dir = self.trial_dir(place);
        match (*self.phase(place), paused) {
            // The runner that wrote the mark may have been killed before it sent the signal. A second signal changes
            // nothing.
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
