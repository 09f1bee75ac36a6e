//! The thread that commits and removes checkpoints, so that no slow disk stops the supervision.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use nix::sys::eventfd::EventFd;

use super::commit::{self, Done, Request};
use super::prune::{self, Need, Rules};
use super::store::Disk;
use crate::attempt::lease::Lease;
use crate::os::log;
use crate::os::retry::until_room;

/// What it is asked to do; one after the other, but that a commit never waits for a removal.
#[derive(Debug)]
pub(crate) enum Job {
    Commit(Box<Request>),
    /// Tell which checkpoints may go.
    Choose(Need),
    /// Remove them.
    Remove(Vec<u64>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Commit(Box<Request>, io::Result<Done>),
    /// These may go, once that is recorded.
    Chosen(io::Result<Vec<u64>>),
    /// What could not be removed is chosen again after the next commit.
    Removed,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Worker {
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
    wake: Arc<EventFd>,
    gentle: Arc<AtomicBool>,
}

/// What the threads work with.
#[derive(Debug)]
struct WorkerContext {
    /// A program trains meanwhile.
    gentle: Arc<AtomicBool>,
    rules: Rules,
    checkpoints: PathBuf,
    lease: Lease,
}

impl Worker {
    /// Starts the thread; it ends with this.
    pub(crate) fn start(
        rules: &Rules,
        checkpoints: PathBuf,
        lease: &Lease,
        wake: &Arc<EventFd>,
    ) -> io::Result<Self> {
        let (jobs, to_do) = channel();
        let (done, answers) = channel();
        let gentle = Arc::new(AtomicBool::new(true));
        let (rules, lease) = (rules.clone(), lease.clone());
        let hands = WorkerContext { gentle: Arc::clone(&gentle), rules, checkpoints, lease };
        let (hands, to_do) = (Arc::new(hands), Arc::new(Mutex::new(to_do)));
        until_room(|| {
            let (hands, done, to_do) = (Arc::clone(&hands), done.clone(), Arc::clone(&to_do));
            let wake = Arc::clone(wake);
            spawn("commit", move || {
                // Nobody else takes from it: a thread that did not start has left it.
                let Ok(to_do) = to_do.lock() else { return };
                to_do.iter().for_each(|job| take(job, &hands, &done, &wake));
            })
        })?;
        Ok(Self { jobs, answers, wake: Arc::clone(wake), gentle })
    }

    /// No program trains any more, or it is being stopped: from the next commit on, speed is all.
    pub(crate) fn hurry(&self) {
        self.gentle.store(false, Ordering::Relaxed);
    }

    pub(crate) fn send(&self, job: Job) {
        self.jobs.send(job).ok(); // the thread lives as long as the sender
    }

    /// All that has come.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.wake.read().ok();
        self.answers.try_iter().collect()
    }
}

/// Does one job; a removal in a thread of its own, so that no commit waits for it.
fn take(job: Job, hands: &Arc<WorkerContext>, done: &Sender<Answer>, wake: &Arc<EventFd>) {
    let is_removal = matches!(job, Job::Remove(_));
    let (own_hands, own_done, own_wake) = (Arc::clone(hands), done.clone(), Arc::clone(wake));
    let work = move || {
        own_done.send(own_hands.work(job)).ok(); // nobody waits for it after the attempt's end
        own_wake.write(1).ok();
    };
    if !is_removal {
        work();
    } else if spawn("remove", work).is_err() {
        done.send(Answer::Removed).ok(); // what stays is chosen again after the next commit
        wake.write(1).ok();
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024);
    thread.spawn(work).map(drop)
}

impl WorkerContext {
    fn work(&self, job: Job) -> Answer {
        match job {
            Job::Commit(request) => {
                let gentle = self.gentle.load(Ordering::Relaxed);
                let mut disk = Disk { gentle, ..Disk::default() };
                log::debug(|| format!("commit: {request:?}"));
                let done = commit::commit(&mut disk, &request, &|| self.lease.is_newest());
                log::debug(|| format!("committed: {done:?}"));
                Answer::Commit(request, done)
            }
            Job::Choose(need) => Answer::Chosen(self.rules.removable(&Disk::default(), &need)),
            Job::Remove(steps) => {
                self.remove(&steps).ok();
                Answer::Removed
            }
        }
    }

    /// A later attempt's checkpoints are its own.
    fn remove(&self, steps: &[u64]) -> io::Result<()> {
        for &step in steps {
            if !self.lease.is_newest()? {
                return Ok(());
            }
            prune::remove(&mut Disk::default(), &self.checkpoints, step, &self.lease.nonce)?;
        }
        Ok(())
    }
}
