//! What the disk is asked while the program runs, by a thread: whether a later attempt has taken over, and what a person
//! wants of this one.

use std::io;
use std::time::Duration;

use nemo_core::rundir::TrialDir;

use super::EventLoop;
use crate::job::trial;
use crate::os::serial_queue::PendingAnswer;
use crate::slurm::cancel;
use crate::supervise::{AttemptEvent, StopCause};

/// How often the disk is looked at. A signal that was to say that there is something may not have come.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the disk may take to say what USR1 means. After that USR1 is only a request to save.
const ANSWER: Duration = Duration::from_millis(20);

/// What a look shows.
#[derive(Debug)]
pub(super) struct DiskLook {
    is_newest: io::Result<bool>,
    request: FileRequest,
    /// How many requests the experiment's folder holds, if it was read.
    n_requests: Option<usize>,
}

/// A person's request, left as a file in the trial's folder or, to cancel, in the experiment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileRequest {
    Nothing,
    Pause,
    Preempt,
    Cancel,
}

impl FileRequest {
    /// Reads the request. A preemption is taken only once.
    fn take(dir: &TrialDir) -> Self {
        if trial::is_paused(dir) {
            return Self::Pause;
        }
        // `is_paused` has refreshed the folder.
        let is_preempted = std::fs::remove_file(dir.preempt()).is_ok();
        if is_preempted { Self::Preempt } else { Self::Nothing }
    }

    fn event(self) -> Option<AttemptEvent> {
        match self {
            Self::Nothing => None,
            Self::Pause => Some(AttemptEvent::Pause),
            Self::Preempt => Some(AttemptEvent::Preempt),
            Self::Cancel => Some(AttemptEvent::Cancel),
        }
    }
}

impl EventLoop<'_> {
    /// Finds out what USR1 means. The disk says so, but the loop does not wait for a slow one.
    pub(super) fn usr1(&mut self) -> AttemptEvent {
        if self.file_request.is_some() {
            // The answer that is awaited may be that of a preemption, whose file is gone by now. What was asked for since is
            // found by a look after it.
            self.disk_look_at = self.harness.clock.now();
            return AttemptEvent::Usr1;
        }
        let dir = self.harness.trial.dir.clone();
        let asked = self.disk_queue.ask(move || FileRequest::take(&dir));
        if let Some(wanted) = asked.wait(ANSWER) {
            return wanted.event().unwrap_or(AttemptEvent::Usr1);
        }
        self.file_request = Some(asked);
        AttemptEvent::Usr1
    }

    /// What USR1 meant, if the disk says so only now.
    pub(super) fn late_request(&mut self) -> Option<AttemptEvent> {
        let wanted = self.file_request.as_ref().and_then(PendingAnswer::take)?;
        self.file_request = None;
        wanted.event()
    }

    /// Looks at the disk from time to time.
    pub(super) fn look_at_disk(&mut self) -> Option<AttemptEvent> {
        let now = self.harness.clock.now();
        if let Some(look) = self.disk_look.as_ref().and_then(PendingAnswer::take) {
            self.disk_look = None;
            self.n_requests = look.n_requests.unwrap_or(self.n_requests);
            if matches!(look.is_newest, Ok(false)) {
                return Some(AttemptEvent::Superseded);
            }
            // A stop whose cause is known may be that the trial is cancelled.
            let stop = self.supervisor.stop();
            return look
                .request
                .event()
                .filter(|_| matches!(stop, None | Some(StopCause::Unknown)));
        }
        if !self.is_settling && self.disk_look_at <= now {
            self.disk_look_at = now + LOOK_EVERY;
            if self.disk_look.is_none() {
                self.disk_look = Some(self.ask_disk());
            }
        }
        None
    }

    fn ask_disk(&self) -> PendingAnswer<DiskLook> {
        let (lease, dir) = (self.lease.clone(), self.harness.trial.dir.clone());
        let is_stopping = self.supervisor.stop().is_some();
        let cancel = self.harness.context.slurm.is_some();
        let cancel = cancel.then(|| cancel::newly_requested(self.harness, self.n_requests));
        self.disk_queue.ask(move || {
            let is_newest = lease.is_newest();
            if is_stopping || matches!(is_newest, Ok(false)) {
                return DiskLook { is_newest, request: FileRequest::Nothing, n_requests: None };
            }
            // Slurm may be away: then nobody else tells that the trial is cancelled.
            let (is_cancelled, n_requests) = cancel.map_or((false, None), |ask| ask());
            let request = if is_cancelled { FileRequest::Cancel } else { FileRequest::take(&dir) };
            DiskLook { is_newest, request, n_requests }
        })
    }
}
