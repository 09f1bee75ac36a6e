//! What the disk is asked while the program runs, by a thread: whether a later attempt has taken over, what a person wants
//! of this one, and whether the trial's folder was removed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nemo_core::rundir::TrialDir;
use nix::libc;

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
    is_there: bool,
}

/// The trial's folder, held open: one that was moved, or whose disk is away, is not taken for a removed one.
#[derive(Clone, Debug)]
pub(super) struct HeldFolder(Option<Arc<File>>);

impl HeldFolder {
    pub(super) fn open(path: &Path) -> Self {
        let counts = |folder: &File| folder.metadata().is_ok_and(|own| own.nlink() > 0);
        Self(File::open(path).ok().filter(counts).map(Arc::new))
    }

    /// Whether it is there, as far as is known. Some file systems count no links of folders: of those it is not known.
    fn is_there(&self, path: &Path) -> bool {
        let Some(folder) = &self.0 else { return true };
        match folder.metadata() {
            Ok(own) => own.nlink() > 0,
            // A server that was restarted may not know it by this handle, but still has it.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                !matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
            }
            Err(_) => true,
        }
    }
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
            if self.gone_folder.look(now, look.is_there) {
                return Some(AttemptEvent::FolderRemoved);
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
        let (folder, is_stopping) = (self.folder.clone(), self.supervisor.stop().is_some());
        let cancel = self.harness.context.slurm.is_some();
        let cancel = cancel.then(|| cancel::newly_requested(self.harness, self.n_requests));
        self.disk_queue.ask(move || {
            let (is_newest, is_there) = (lease.is_newest(), folder.is_there(dir.path()));
            if is_stopping || matches!(is_newest, Ok(false)) {
                let request = FileRequest::Nothing;
                return DiskLook { is_newest, request, n_requests: None, is_there };
            }
            // Slurm may be away: then nobody else tells that the trial is cancelled.
            let (is_cancelled, n_requests) = cancel.map_or((false, None), |ask| ask());
            let request = if is_cancelled { FileRequest::Cancel } else { FileRequest::take(&dir) };
            DiskLook { is_newest, request, n_requests, is_there }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "somebody else moves it")]
    fn a_folder_that_was_moved_is_there_and_one_that_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("0"), folder.path().join("1"));
        assert!(HeldFolder::open(&path).is_there(&path), "never seen: nothing is known of it");
        fs::create_dir(&path).unwrap();
        let held = HeldFolder::open(&path);
        fs::rename(&path, &moved).unwrap();
        assert!(held.is_there(&path));
        fs::remove_dir(&moved).unwrap();
        assert!(!held.is_there(&path));
        // A program may make it anew where it saves.
        fs::create_dir(&path).unwrap();
        assert!(!held.is_there(&path));
    }
}
