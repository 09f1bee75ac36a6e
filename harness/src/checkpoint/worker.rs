//! The thread that commits and removes checkpoints, so that no slow disk stops the supervision.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nemo_core::claim;
use nemo_core::profile::{LAST_STEP, TooLarge};
use nemo_core::room::until_room;
use nemo_core::rundir::Profile;
use nix::sys::eventfd::EventFd;

use super::candidate::CompleteSave;
use super::collect::is_collected;
use super::commit::{self, CommitOutcome, CommitRequest};
use super::inspect;
use super::numbers::{StepNumbers, UnnumberedSave};
use super::prune::{self, RetentionRules, StillNeeded};
use super::store::{DiskStore, Store, join};
use super::tree;
use crate::attempt::lease::Lease;
use crate::monitor::metrics::MetricsPosition;
use crate::os::log;

/// A job for the worker. Jobs run one after the other, but a commit never waits for a removal.
#[derive(Debug)]
pub(crate) enum WorkerJob {
    /// Commit the entry of this name in the staging folder.
    Save(Vec<u8>, Box<CompleteSave>),
    /// Try a commit again.
    Commit(Box<CommitRequest>),
    /// Choose the checkpoints that may be removed.
    ChooseRemovable(StillNeeded),
    /// Remove them.
    Remove(Vec<u64>),
}

/// The worker's reply.
#[derive(Debug)]
pub(crate) enum WorkerReply {
    /// A commit was tried. `is_still_staged`: the save is still in the staging folder.
    Commit {
        request: Box<CommitRequest>,
        outcome: io::Result<CommitOutcome>,
        is_still_staged: bool,
    },
    /// The save is secured. If the attempt ends now, the next one commits it.
    Secured(Vec<u8>),
    /// No commit was tried.
    NotTried(Vec<u8>, NotTriedReason),
    /// These steps may be removed once that is recorded.
    Removable(io::Result<Vec<u64>>),
    /// The removal is over. Steps that could not be removed are chosen again after the next commit.
    Removed,
}

/// Why no commit was tried.
#[derive(Debug)]
pub(crate) enum NotTriedReason {
    /// The program removed it.
    Gone,
    /// It can't be a checkpoint.
    Unfit(String),
    /// It can't be inspected now.
    Unseen(io::Error),
}

/// The handle of the worker's thread.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: Sender<WorkerJob>,
    replies: Receiver<WorkerReply>,
    wake: Arc<EventFd>,
    gentle: Arc<AtomicBool>,
}

/// What the worker's threads share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) rules: RetentionRules,
    pub(crate) profile: Option<Profile>,
    pub(crate) staging: PathBuf,
    pub(crate) checkpoints: PathBuf,
    pub(crate) lease: Lease,
    pub(crate) boot_id: String,
    /// The steps that saves get.
    pub(crate) numbers: Mutex<StepNumbers>,
    /// A program is training, so the threads give way to it.
    pub(crate) gentle: Arc<AtomicBool>,
}

impl Worker {
    /// Starts the thread. It ends when the handle is dropped.
    pub(crate) fn start(context: WorkerContext, wake: &Arc<EventFd>) -> io::Result<Self> {
        let (jobs, to_do) = channel();
        let (done, replies) = channel();
        let gentle = Arc::clone(&context.gentle);
        let (context, to_do) = (Arc::new(context), Arc::new(Mutex::new(to_do)));
        until_room(|| {
            let (context, done, to_do) = (Arc::clone(&context), done.clone(), Arc::clone(&to_do));
            let wake = Arc::clone(wake);
            spawn("commit", move || {
                // Only one thread starts, so nobody else holds the lock.
                let Ok(to_do) = to_do.lock() else { return };
                to_do.iter().for_each(|job| take(job, &context, &done, &wake));
            })
        })?;
        Ok(Self { jobs, replies, wake: Arc::clone(wake), gentle })
    }

    /// A worker without a thread: the test does its work.
    #[cfg(test)]
    pub(super) fn by_hand(wake: &Arc<EventFd>) -> (Self, Receiver<WorkerJob>, Sender<WorkerReply>) {
        let (jobs, to_do) = channel();
        let (done, replies) = channel();
        let gentle = Arc::new(AtomicBool::new(true));
        (Self { jobs, replies, wake: Arc::clone(wake), gentle }, to_do, done)
    }

    /// Commits as fast as possible from the next commit on: no program trains any more, or it is being stopped.
    pub(crate) fn hurry(&self) {
        self.gentle.store(false, Ordering::Relaxed);
    }

    pub(crate) fn send(&self, job: WorkerJob) {
        self.jobs.send(job).ok(); // the thread lives as long as the sender
    }

    /// A sender for another thread.
    pub(crate) fn sender(&self) -> Sender<WorkerJob> {
        self.jobs.clone()
    }

    /// All replies so far.
    pub(crate) fn replies(&self) -> Vec<WorkerReply> {
        self.wake.read().ok();
        self.replies.try_iter().collect()
    }
}

/// Does one job. A removal runs in a thread of its own, so that no commit waits for it.
fn take(
    job: WorkerJob,
    context: &Arc<WorkerContext>,
    done: &Sender<WorkerReply>,
    wake: &Arc<EventFd>,
) {
    if !matches!(job, WorkerJob::Remove(_)) {
        reply(done, wake, context.work(job, &|early| reply(done, wake, early)));
        return;
    }
    let (own_context, own_done, own_wake) = (Arc::clone(context), done.clone(), Arc::clone(wake));
    let remove = move || reply(&own_done, &own_wake, own_context.work(job, &|_| ()));
    if spawn("remove", remove).is_err() {
        reply(done, wake, WorkerReply::Removed); // the checkpoints are chosen again after the next commit
    }
}

fn reply(replies: &Sender<WorkerReply>, wake: &EventFd, reply: WorkerReply) {
    replies.send(reply).ok(); // nobody receives it after the attempt's end
    wake.write(1).ok();
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024);
    thread.spawn(work).map(drop)
}

impl WorkerContext {
    fn work(&self, job: WorkerJob, tell: &dyn Fn(WorkerReply)) -> WorkerReply {
        match job {
            WorkerJob::Save(name, save) => match self.request(&name, &save) {
                Ok(request) => self.commit(request, tell),
                Err(why) => WorkerReply::NotTried(name, why),
            },
            WorkerJob::Commit(request) => self.commit(*request, tell),
            WorkerJob::ChooseRemovable(need) => {
                WorkerReply::Removable(self.rules.removable(&DiskStore::default(), &need))
            }
            WorkerJob::Remove(steps) => {
                self.remove(&steps).ok();
                WorkerReply::Removed
            }
        }
    }

    /// The request for a save. Two saves without a number must not get the same step, so this runs one at a time.
    fn request(&self, name: &[u8], save: &CompleteSave) -> Result<CommitRequest, NotTriedReason> {
        let from = join(&self.staging, name);
        let stat = DiskStore::default().stat(&from).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NotTriedReason::Gone,
            _ => NotTriedReason::Unseen(error),
        })?;
        let own = match save.step {
            Some(step) => Ok(Some(step)),
            // Its own path told none.
            None if is_collected(name) => Ok(None),
            None => inspect::step(self.profile, &from, stat.kind),
        };
        let too_large = || NotTriedReason::Unfit(TooLarge.to_string());
        let unnumbered = UnnumberedSave {
            entry: entry(name),
            own: own.map_err(|_| too_large())?,
            reported: save.position.step,
            is_confirmed: save.is_confirmed,
        };
        let mut numbers = self.numbers();
        let chosen = numbers.choose(unnumbered);
        if chosen.step > LAST_STEP {
            return Err(too_large());
        }
        let tree = save.tree.clone().or_else(|| tree::walk(&DiskStore::default(), &from).ok());
        let request = CommitRequest {
            tree,
            from,
            entry: entry(name).to_owned(),
            step: chosen.step,
            reported: chosen.reported,
            counted_from: chosen.counted_from,
            checkpoints: self.checkpoints.clone(),
            attempt: self.lease.attempt,
            lease: self.lease.nonce.clone(),
            nonce: claim::nonce().map_err(NotTriedReason::Unseen)?,
            metrics: save.position.metrics.as_ref().map(MetricsPosition::reached),
            boot_id: self.boot_id.clone(),
            is_hurried: false,
        };
        numbers.give(chosen, unnumbered);
        Ok(request)
    }

    fn numbers(&self) -> MutexGuard<'_, StepNumbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, mut request: CommitRequest, tell: &dyn Fn(WorkerReply)) -> WorkerReply {
        let gentle = self.gentle.load(Ordering::Relaxed);
        request.is_hurried = !gentle;
        let mut disk = DiskStore { gentle, ..DiskStore::default() };
        let name = request.from.strip_prefix(&self.staging).unwrap_or(&request.from);
        let taken = || tell(WorkerReply::Secured(name.as_os_str().as_bytes().to_vec()));
        let is_newest = || self.lease.is_newest_exactly();
        log::debug(|| format!("commit: {request:?}"));
        let outcome = commit::commit_notifying(&mut disk, &request, &is_newest, &taken);
        log::debug(|| format!("committed: {outcome:?}"));
        match &outcome {
            Ok(CommitOutcome::StillChanging) => {
                request.tree = tree::walk(&disk, &request.from).ok();
            }
            Ok(CommitOutcome::SameContent(step)) if *step != request.step => {
                self.numbers().take_back(request.step);
            }
            Ok(CommitOutcome::Rejected(_)) => self.numbers().refuse(request.step, &request.entry),
            Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted) => {
                self.numbers().commit(request.step);
            }
            Ok(CommitOutcome::SameContent(_) | CommitOutcome::Superseded) | Err(_) => {}
        }
        let is_left =
            matches!(outcome, Ok(CommitOutcome::Rejected(_))) && disk.stat(&request.from).is_ok();
        WorkerReply::Commit { request: Box::new(request), outcome, is_still_staged: is_left }
    }

    /// Removes checkpoints, unless a later attempt has taken over.
    fn remove(&self, steps: &[u64]) -> io::Result<()> {
        for &step in steps {
            if !self.lease.is_newest_exactly()? {
                return Ok(());
            }
            prune::remove(&mut DiskStore::default(), &self.checkpoints, step, &self.lease.nonce)?;
        }
        Ok(())
    }
}

/// The name that the program gave.
fn entry(name: &[u8]) -> &[u8] {
    name.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
