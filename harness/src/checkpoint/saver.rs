//! Finds what the program has saved, and has it committed by a thread, so that no slow disk stops the supervision.
//!
//! What came by a rename is complete. What was made in place is complete once nothing in it changed for a while as
//! the program lived, no process holds it open, or the program ended in order after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nemo_harness::rundir::Profile;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::commit::{Done, Request};
use super::look;
use super::prune::{Need, Rules};
use super::staging;
use super::store::{Disk, Store, join};
use super::tree::{self, Entry};
use super::watch::Watch;
use super::worker::{Answer, Job, Worker};
use crate::clock::Time;
use crate::lease::{self, Lease};
use crate::proc_fs;
use crate::trial::Trial;

/// How often what was made in place is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a commit that failed is tried again after the program's end.
const LAST_TRIES: u32 = 10;

/// What came of one thing that was saved.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) entry: String,
    pub(crate) step: u64,
    pub(crate) bytes: u64,
    pub(crate) done: io::Result<Done>,
    /// It will not be tried again.
    pub(crate) is_last: bool,
}

/// Where the program is, for what it saves without a number.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) step: Option<u64>,
    pub(crate) metrics: Option<(PathBuf, u64)>,
}

/// How a thing in the staging folder stands.
#[derive(Debug)]
enum Waiting {
    Complete,
    InPlace { seen: Vec<Entry>, since: Time },
    Sent,
    Retry { request: Box<Request>, at: Time },
    Refused,
}

/// Watches one attempt's staging folder.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct Saver {
    staging: PathBuf,
    checkpoints: PathBuf,
    lease: Lease,
    profile: Option<Profile>,
    watch: Option<Watch>,
    waiting: BTreeMap<Vec<u8>, Waiting>,
    /// Renamed into place once more while the one before was being committed.
    again: BTreeSet<Vec<u8>>,
    /// How often a commit failed since the program's end.
    tries: u32,
    outcomes: Vec<Outcome>,
    /// The steps that the program told, by name.
    told: BTreeMap<Vec<u8>, u64>,
    steps: BTreeSet<u64>,
    look_at: Option<Time>,
    /// Those that are known to be whole: the one resumed from, and those committed since.
    verified: BTreeSet<u64>,
    worker: Worker,
    /// Something was committed since it was last looked at what may go.
    untidy: bool,
    /// The worker chooses what may go, or removes it.
    tidying: bool,
    removable: Vec<u64>,
    /// Other nodes write here too: what they hold open is not seen, and a size may be an old one.
    is_far: bool,
    wake: Arc<EventFd>,
    finished: bool,
}

impl Saver {
    /// Makes the folders and begins to watch: before the program starts, so that nothing is missed. `steps` were
    /// committed before, `resumed` was verified.
    pub(crate) fn begin(
        trial: &Trial,
        lease: &Lease,
        steps: BTreeSet<u64>,
        resumed: Option<u64>,
    ) -> io::Result<Self> {
        let (staging, checkpoints) = (trial.dir.staging(lease.attempt), trial.dir.checkpoints());
        staging::prepare(&staging, &checkpoints)?;
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        Ok(Self {
            watch: Watch::new(&staging),
            worker: Worker::start(&Rules::of(trial), checkpoints.clone(), lease, &wake)?,
            staging,
            checkpoints,
            lease: lease.clone(),
            profile: trial.spec.profile,
            waiting: BTreeMap::new(),
            again: BTreeSet::new(),
            tries: 0,
            outcomes: Vec::new(),
            told: BTreeMap::new(),
            steps,
            look_at: None,
            verified: resumed.into_iter().collect(),
            untidy: false,
            tidying: false,
            removable: Vec::new(),
            is_far: false,
            wake,
            finished: false,
        })
    }

    /// Says whether the program's processes are on other nodes too. What is made in place is never complete by
    /// resting then.
    pub(crate) fn far(mut self, is_far: bool) -> Self {
        self.is_far = is_far;
        self
    }

    /// What to poll.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watch.iter().map(Watch::descriptor).chain([self.wake.as_fd()])
    }

    /// When [`Saver::look`] is due.
    pub(crate) fn next_look(&self, now: Time) -> Option<Time> {
        let retries = self.waiting.values().filter_map(|waiting| match waiting {
            Waiting::Retry { at, .. } => Some(*at),
            _ => None,
        });
        let scan = self.watch.is_none() && !self.finished;
        retries.chain(self.look_at).chain(scan.then_some(now + LOOK)).min()
    }

    /// Nothing is left to wait for.
    pub(crate) fn is_idle(&self) -> bool {
        let open = |waiting: &Waiting| matches!(waiting, Waiting::Sent | Waiting::Retry { .. });
        !self.tidying && !self.waiting.values().any(open)
    }

    /// What was saved and could not be committed until now.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let open = |waiting: &Waiting| matches!(waiting, Waiting::Sent | Waiting::Retry { .. });
        let names = self.waiting.iter().filter(|(_, waiting)| open(waiting));
        names.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Steps that may be removed: that must be recorded first.
    pub(crate) fn take_removable(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.removable)
    }

    /// Removes them.
    pub(crate) fn remove(&mut self, steps: Vec<u64>) {
        self.tidying = true;
        self.worker.send(Job::Remove(steps));
    }

    /// Looks at what has appeared, and sends what is complete to be committed.
    pub(crate) fn look(&mut self, now: Time, place: &Place) -> Vec<Outcome> {
        self.take_results(now);
        let seen = self.watch.as_ref().map(Watch::read).unwrap_or_default();
        for name in seen.renamed {
            if !look::is_shown(self.profile, &name) {
                continue;
            }
            if matches!(self.waiting.get(&name), Some(Waiting::Sent)) {
                self.again.insert(name);
            } else {
                self.waiting.insert(name, Waiting::Complete);
            }
        }
        let due = self.look_at.is_some_and(|at| at <= now) || self.watch.is_none();
        if (seen.other || due) && !self.finished {
            self.scan(now);
        }
        let is_complete = self.waiting.values().any(|one| matches!(one, Waiting::Complete));
        if seen.other || due || is_complete || !self.outcomes.is_empty() {
            self.send_complete(now, place);
        }
        self.send_retries(now);
        std::mem::take(&mut self.outcomes)
    }

    /// The program said that something is complete, and perhaps of which step.
    pub(crate) fn complete(&mut self, name: Vec<u8>, step: Option<u64>) {
        match self.waiting.get(&name) {
            Some(Waiting::Sent | Waiting::Retry { .. }) => {} // it was found by its rename already
            Some(Waiting::Complete | Waiting::InPlace { .. } | Waiting::Refused) | None => {
                self.told.extend(step.map(|step| (name.clone(), step)));
                self.waiting.insert(name, Waiting::Complete);
            }
        }
    }

    /// The program is gone. `in_order`: by itself, with an exit code that says so. What may be torn is told.
    pub(crate) fn finish(&mut self, now: Time, place: &Place, in_order: bool) -> Vec<String> {
        self.outcomes = self.look(now, place);
        let names: Vec<Vec<u8>> = self.names();
        let mut torn = Vec::new();
        for name in names {
            let fresh = self.walk(&name);
            let complete = match self.waiting.get(&name) {
                Some(
                    Waiting::Complete | Waiting::Sent | Waiting::Retry { .. } | Waiting::Refused,
                ) => continue,
                Some(Waiting::InPlace { seen, since }) if fresh.as_ref() == Some(seen) => {
                    in_order
                        || (!self.is_far
                            && look::rests(self.profile, seen, now.saturating_sub(*since)))
                }
                Some(Waiting::InPlace { .. }) | None => in_order,
            };
            if complete {
                self.waiting.insert(name, Waiting::Complete);
            } else {
                let shown = String::from_utf8_lossy(&name);
                torn.push(format!("`{shown}` was not committed: it was being written in place when the program was ended, and may be torn"));
                self.waiting.insert(name, Waiting::Refused);
            }
        }
        self.finished = true;
        self.look_at = None;
        self.send_complete(now, place);
        for waiting in self.waiting.values_mut() {
            if let Waiting::Retry { at, .. } = waiting {
                *at = now;
            }
        }
        self.send_retries(now);
        torn
    }

    fn names(&self) -> Vec<Vec<u8>> {
        let names = Disk::default().list(&self.staging).unwrap_or_default();
        names.into_iter().filter(|name| look::is_shown(self.profile, name)).collect()
    }

    fn walk(&self, name: &[u8]) -> Option<Vec<Entry>> {
        tree::walk(&Disk::default(), &join(&self.staging, name)).ok()
    }

    /// Looks at what was made in place.
    fn scan(&mut self, now: Time) {
        let names = self.names();
        self.waiting.retain(|name, waiting| {
            !matches!(waiting, Waiting::InPlace { .. }) || names.contains(name)
        });
        for name in names {
            let same = match self.waiting.get(&name) {
                None => None,
                Some(Waiting::InPlace { seen, since }) => Some((seen, *since)),
                Some(_) => continue,
            };
            let Some(fresh) = self.walk(&name) else { continue };
            let since = same.filter(|(seen, _)| **seen == fresh).map_or(now, |(_, since)| since);
            let rested = now.saturating_sub(since);
            let long = !self.is_far && look::rests(self.profile, &fresh, rested);
            let path = join(&self.staging, &name);
            let next = if long && !proc_fs::is_open(&path) {
                Waiting::Complete
            } else {
                Waiting::InPlace { seen: fresh, since }
            };
            self.waiting.insert(name, next);
        }
        let in_place =
            self.waiting.values().any(|waiting| matches!(waiting, Waiting::InPlace { .. }));
        self.look_at = in_place.then_some(now + LOOK);
    }

    /// One after the other: two things without a number must not get the same step.
    fn send_complete(&mut self, now: Time, place: &Place) {
        let complete: Vec<Vec<u8>> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Complete))
            .map(|(name, _)| name.clone())
            .collect();
        for name in complete {
            let from = join(&self.staging, &name);
            let Ok(stat) = Disk::default().stat(&from) else {
                self.told.remove(&name);
                self.waiting.remove(&name); // the program took it away again
                continue;
            };
            let count = || self.steps.last().map_or(0, |last| last + 1);
            let told = self.told.remove(&name);
            let found = || look::step(self.profile, &from, stat.kind).or(place.step);
            let step = told.or_else(found).unwrap_or_else(count);
            let request = Request {
                seen: self.walk(&name),
                from,
                entry: name.clone(),
                step,
                checkpoints: self.checkpoints.clone(),
                attempt: self.lease.attempt,
                lease: self.lease.nonce.clone(),
                nonce: lease::nonce().unwrap_or_else(|_| format!("{}", now.as_nanos())),
                metrics: place.metrics.clone(),
            };
            self.steps.insert(step);
            self.send(request);
        }
    }

    fn send_retries(&mut self, now: Time) {
        let is_due = |waiting: &Waiting| matches!(waiting, Waiting::Retry { at, .. } if *at <= now);
        let due = self.waiting.iter().filter(|(_, waiting)| is_due(waiting));
        let requests: Vec<Request> = due
            .filter_map(|(_, waiting)| match waiting {
                Waiting::Retry { request, .. } => Some((**request).clone()),
                _ => None,
            })
            .collect();
        for request in requests {
            self.send(request);
        }
    }

    fn send(&mut self, request: Request) {
        self.waiting.insert(request.entry.clone(), Waiting::Sent);
        self.worker.send(Job::Commit { request, gentle: !self.finished });
    }

    fn take_results(&mut self, now: Time) {
        for answer in self.worker.answers() {
            match answer {
                Answer::Commit(request, done) => self.take_commit(request, done, now),
                // What could not be chosen now is after the next commit.
                Answer::Chosen(steps) => {
                    self.tidying = false;
                    self.removable.extend(steps.unwrap_or_default());
                }
                Answer::Removed => self.tidying = false,
            }
        }
        if self.untidy && !self.tidying && self.removable.is_empty() {
            (self.untidy, self.tidying) = (false, true);
            self.worker.send(Job::Choose(Need::Resume { verified: self.verified.clone() }));
        }
    }

    fn take_commit(&mut self, request: Request, done: io::Result<Done>, now: Time) {
        let name = request.entry.clone();
        let entry = String::from_utf8_lossy(&name).into_owned();
        let (step, bytes) = (request.step, request.bytes());
        let mut is_last = true;
        match &done {
            Ok(Done::Committed | Done::Adopted) => {
                self.waiting.remove(&name);
                self.verified.insert(step);
                self.untidy = true;
            }
            Ok(Done::Superseded) => {
                self.waiting.remove(&name);
            }
            Ok(Done::Refused(_)) => {
                // What was taken away may be made anew; what lies there still was looked at once.
                if Disk::default().stat(&join(&self.staging, &name)).is_ok() {
                    self.waiting.insert(name.clone(), Waiting::Refused);
                } else {
                    self.waiting.remove(&name);
                }
            }
            Ok(Done::Changed) => self.changed(name.clone(), now),
            Err(_) => is_last = self.retry(request, now),
        }
        if self.again.remove(&name) {
            self.waiting.insert(name, Waiting::Complete);
        }
        self.outcomes.push(Outcome { entry, step, bytes, done, is_last });
    }

    /// It is back in the staging folder, and must come to rest first. After the program's end it has.
    fn changed(&mut self, name: Vec<u8>, now: Time) {
        let next = if self.finished {
            Waiting::Complete
        } else {
            self.look_at = Some(now + LOOK);
            Waiting::InPlace { seen: self.walk(&name).unwrap_or_default(), since: now }
        };
        self.waiting.insert(name, next);
    }

    /// Tries again later, for ever while the program runs; says whether it was given up.
    fn retry(&mut self, request: Request, now: Time) -> bool {
        self.tries += u32::from(self.finished);
        let name = request.entry.clone();
        if self.tries > LAST_TRIES {
            self.waiting.insert(name, Waiting::Refused);
            return true;
        }
        let at = now + if self.finished { LOOK } else { LOOK * 5 };
        self.waiting.insert(name, Waiting::Retry { request: Box::new(request), at });
        false
    }
}
