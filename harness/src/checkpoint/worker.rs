//! The thread that commits and removes checkpoints, so that no slow disk stops the supervision.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::EventFd;

use super::commit::{self, Done, Request};
use super::prune::{self, Need, Rules};
use super::store::Disk;
use crate::lease::Lease;

/// What it is asked to do; one after the other.
#[derive(Debug)]
pub(crate) enum Job {
    /// `gentle`: a program trains meanwhile.
    Commit { request: Request, gentle: bool },
    /// Tell which checkpoints may go.
    Choose(Need),
    /// Remove them.
    Remove(Vec<u64>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Commit(Request, io::Result<Done>),
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
}

/// What the thread works with.
struct Hands {
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
        let hands = Hands { rules: rules.clone(), checkpoints, lease: lease.clone() };
        let thread_wake = Arc::clone(wake);
        let thread = std::thread::Builder::new().name("commit".to_owned()).stack_size(256 * 1024);
        thread.spawn(move || {
            for job in to_do {
                if done.send(hands.work(job)).is_err() {
                    return;
                }
                thread_wake.write(1).ok();
            }
        })?;
        Ok(Self { jobs, answers, wake: Arc::clone(wake) })
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

impl Hands {
    fn work(&self, job: Job) -> Answer {
        match job {
            Job::Commit { request, gentle } => {
                let mut disk = Disk { gentle, ..Disk::default() };
                let done = commit::commit(&mut disk, &request, &|| self.lease.is_newest());
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
