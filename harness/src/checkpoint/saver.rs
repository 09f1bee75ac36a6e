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

use nemo_core::profile::{LAST_STEP, TooLarge};
use nemo_core::rundir::Profile;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::candidate::{Place, Waiting, Whole};
use super::commit::{Done, Request};
use super::inotify::Watch;
use super::inspect;
use super::prune::{Need, Rules};
use super::staging;
use super::store::{Disk, Store, join};
use super::tree::{self, Entry};
use super::worker::{Answer, Job, Worker};
use crate::attempt::lease::Lease;
use crate::job::trial::Trial;
use crate::os::clock::Time;
use crate::os::proc_fs;

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
    /// When it was written, as far as was seen.
    pub(crate) at: Time,
    /// It will not be tried again.
    pub(crate) is_last: bool,
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
    again: BTreeMap<Vec<u8>, Whole>,
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
    hurried: bool,
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
            again: BTreeMap::new(),
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
            hurried: false,
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
        self.watch.iter().filter_map(Watch::descriptor).chain([self.wake.as_fd()])
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

    /// Renames can't be seen: whether a folder is complete is known only when the program ended, or said so.
    pub(crate) fn is_blind(&self) -> bool {
        self.watch.is_none()
    }

    /// The program is being stopped: its saves are committed as fast as may be, and nothing waits for tidiness.
    pub(crate) fn hurry(&mut self) {
        self.hurried = true;
        self.worker.hurry();
    }

    /// Nothing is left to wait for.
    pub(crate) fn is_idle(&self) -> bool {
        (!self.tidying || self.hurried) && !self.waiting.values().any(Waiting::is_open)
    }

    /// What was saved and could not be committed until now.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let names = self.waiting.iter().filter(|(_, waiting)| waiting.is_open());
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
        let mut returned = self.take_results(now);
        let seen = self.watch.as_ref().map(Watch::read).unwrap_or_default();
        for name in seen.renamed {
            // What the commit itself put back is no more complete than before.
            if !inspect::is_shown(self.profile, &name) || returned.remove(&name) {
                continue;
            }
            let whole = Whole { place: place.clone(), at: now, is_told: true };
            if matches!(self.waiting.get(&name), Some(Waiting::Sent(_))) {
                self.again.insert(name, whole);
            } else {
                self.waiting.insert(name, Waiting::Complete(whole));
            }
        }
        let due = self.look_at.is_some_and(|at| at <= now) || self.watch.is_none();
        if due {
            self.look_at = None;
        }
        if (seen.other || due) && !self.finished {
            self.scan(now, place);
        }
        self.send_complete(now);
        self.send_retries(now);
        std::mem::take(&mut self.outcomes)
    }

    /// The program said that something is complete, and perhaps of which step.
    pub(crate) fn complete(&mut self, name: Vec<u8>, step: Option<u64>, place: Place, now: Time) {
        match self.waiting.get(&name) {
            Some(Waiting::Sent(_) | Waiting::Retry { .. }) => {} // it was found by its rename already
            Some(Waiting::Complete(_) | Waiting::InPlace { .. } | Waiting::Refused) | None => {
                self.told.extend(step.map(|step| (name.clone(), step)));
                let whole = Whole { place, at: now, is_told: true };
                self.waiting.insert(name, Waiting::Complete(whole));
            }
        }
    }

    /// The program is gone. `in_order`: by itself, with an exit code that says so. What may be torn is told.
    pub(crate) fn finish(&mut self, now: Time, place: &Place, in_order: bool) -> Vec<String> {
        self.outcomes = self.look(now, place);
        let mut torn = Vec::new();
        let names = self.names().unwrap_or_else(|error| {
            torn.push(format!("what was saved last can't be seen: {error}"));
            Vec::new()
        });
        for name in names {
            let fresh = self.walk(&name);
            let whole = |place: &Place, at| Whole { place: place.clone(), at, is_told: false };
            let (complete, whole) = match self.waiting.get(&name) {
                Some(
                    Waiting::Complete(_)
                    | Waiting::Sent(_)
                    | Waiting::Retry { .. }
                    | Waiting::Refused,
                ) => continue,
                Some(Waiting::InPlace { seen, since, place }) if fresh.as_ref() == Some(seen) => {
                    let rested = now.saturating_sub(*since);
                    let rests = !self.is_far && inspect::rests(self.profile, seen, rested);
                    (in_order || rests, whole(place, *since))
                }
                Some(Waiting::InPlace { .. }) | None => (in_order, whole(place, now)),
            };
            if complete {
                self.waiting.insert(name, Waiting::Complete(whole));
            } else {
                let shown = String::from_utf8_lossy(&name);
                torn.push(format!("`{shown}` was not committed: it was being written in place when the program was ended, and may be torn"));
                self.waiting.insert(name, Waiting::Refused);
            }
        }
        self.finished = true;
        self.worker.hurry();
        self.look_at = None;
        self.send_complete(now);
        for waiting in self.waiting.values_mut() {
            if let Waiting::Retry { at, .. } = waiting {
                *at = now;
            }
        }
        self.send_retries(now);
        torn
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let names = Disk::default().list(&self.staging)?.into_iter();
        Ok(names.filter(|name| inspect::is_shown(self.profile, name)).collect())
    }

    fn walk(&self, name: &[u8]) -> Option<Vec<Entry>> {
        tree::walk(&Disk::default(), &join(&self.staging, name)).ok()
    }

    /// Looks at what was made in place.
    fn scan(&mut self, now: Time, place: &Place) {
        let Ok(names) = self.names() else {
            self.look_at = Some(now + LOOK);
            return;
        };
        self.waiting.retain(|name, waiting| {
            !matches!(waiting, Waiting::InPlace { .. }) || names.contains(name)
        });
        for name in names {
            let known = match self.waiting.get(&name) {
                None => None,
                Some(Waiting::InPlace { seen, since, place }) => Some((seen, *since, place)),
                Some(_) => continue,
            };
            let Some(fresh) = self.walk(&name) else { continue };
            let same = known.filter(|(seen, ..)| **seen == fresh);
            let (since, place) = same.map_or((now, place), |(_, since, place)| (since, place));
            let place = place.clone();
            let rested = now.saturating_sub(since);
            let long = !self.is_far && inspect::rests(self.profile, &fresh, rested);
            let path = join(&self.staging, &name);
            let next = if long && !proc_fs::is_open(&path) {
                Waiting::Complete(Whole { place, at: since, is_told: false })
            } else {
                Waiting::InPlace { seen: fresh, since, place }
            };
            self.waiting.insert(name, next);
        }
        let in_place =
            self.waiting.values().any(|waiting| matches!(waiting, Waiting::InPlace { .. }));
        self.look_at = in_place.then_some(now + LOOK);
    }

    /// One after the other: two things without a number must not get the same step.
    fn send_complete(&mut self, now: Time) {
        let complete = self.waiting.iter().filter_map(|(name, waiting)| match waiting {
            Waiting::Complete(whole) => Some((name.clone(), whole.clone())),
            _ => None,
        });
        for (name, whole) in complete.collect::<Vec<_>>() {
            let from = join(&self.staging, &name);
            let stat = match Disk::default().stat(&from) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.told.remove(&name);
                    self.waiting.remove(&name); // the program took it away again
                    continue;
                }
                Err(error) => {
                    self.unseen(name, &whole, error, now);
                    continue;
                }
            };
            let told = self.told.remove(&name).map(Some).map(Ok);
            let found = told.unwrap_or_else(|| inspect::step(self.profile, &from, stat.kind));
            let newest = self.steps.last().copied();
            let counted = newest.map_or(0, |last| last.saturating_add(1));
            let found = found.map(|found| found.or(whole.place.step));
            let step = match found {
                Ok(step) if step.unwrap_or(counted) <= LAST_STEP => step,
                Ok(_) | Err(TooLarge) => {
                    self.refuse(name, whole.at, TooLarge.to_string());
                    continue;
                }
            };
            let request = Request {
                seen: self.walk(&name),
                from,
                entry: name,
                step: step.unwrap_or(counted),
                counted_from: newest.filter(|_| step.is_none()),
                checkpoints: self.checkpoints.clone(),
                attempt: self.lease.attempt,
                lease: self.lease.nonce.clone(),
                nonce: nemo_core::claim::nonce().unwrap_or_else(|_| format!("{}", now.as_nanos())),
                metrics: whole.place.metrics.clone(),
            };
            self.steps.insert(request.step);
            self.send(request, whole);
        }
    }

    /// It lies where it lies, and is not looked at again unless it is saved anew.
    fn refuse(&mut self, name: Vec<u8>, at: Time, why: String) {
        let entry = String::from_utf8_lossy(&name).into_owned();
        self.waiting.insert(name, Waiting::Refused);
        let done = Ok(Done::Refused(why));
        self.outcomes.push(Outcome { entry, step: 0, bytes: 0, done, at, is_last: true });
    }

    /// A save can't be looked at now: that is tried again, as a commit is.
    fn unseen(&mut self, name: Vec<u8>, whole: &Whole, error: io::Error, now: Time) {
        self.look_at = Some(now + LOOK);
        self.tries += u32::from(self.finished);
        if self.tries > LAST_TRIES {
            let entry = String::from_utf8_lossy(&name).into_owned();
            let (step, bytes) = (whole.place.step.unwrap_or_default(), 0);
            let (done, at) = (Err(error), whole.at);
            self.outcomes.push(Outcome { entry, step, bytes, done, at, is_last: true });
            self.waiting.insert(name, Waiting::Refused);
        }
    }

    fn send_retries(&mut self, now: Time) {
        let is_due = |waiting: &Waiting| matches!(waiting, Waiting::Retry { at, .. } if *at <= now);
        let due = self.waiting.iter().filter(|(_, waiting)| is_due(waiting));
        let due = due.filter_map(|(_, waiting)| match waiting {
            Waiting::Retry { request, whole, .. } => Some(((**request).clone(), whole.clone())),
            _ => None,
        });
        for (request, whole) in due.collect::<Vec<_>>() {
            self.send(request, whole);
        }
    }

    fn send(&mut self, request: Request, whole: Whole) {
        self.waiting.insert(request.entry.clone(), Waiting::Sent(whole));
        self.worker.send(Job::Commit(Box::new(request)));
    }

    /// Takes what the worker has done; the names that it has put back where they were.
    fn take_results(&mut self, now: Time) -> BTreeSet<Vec<u8>> {
        let mut returned = BTreeSet::new();
        for answer in self.worker.answers() {
            match answer {
                Answer::Commit(request, done) => {
                    // Its rename may have been seen before: then it is no second save.
                    let is_back = matches!(done, Ok(Done::Changed));
                    if is_back && self.again.remove(&request.entry).is_none() {
                        returned.insert(request.entry.clone());
                    }
                    self.take_commit(*request, done, now);
                }
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
        returned
    }

    fn take_commit(&mut self, request: Request, done: io::Result<Done>, now: Time) {
        let name = request.entry.clone();
        let entry = String::from_utf8_lossy(&name).into_owned();
        let (step, bytes) = (request.step, request.bytes());
        let Some(Waiting::Sent(whole)) = self.waiting.remove(&name) else { return };
        let at = whole.at;
        let mut is_last = true;
        match &done {
            Ok(Done::Committed | Done::Adopted) => {
                self.verified.insert(step);
                self.untidy = true;
            }
            Ok(Done::Superseded) => {}
            Ok(Done::Same(_)) => {
                self.steps.remove(&step);
            }
            Ok(Done::Refused(_)) => {
                // What was taken away may be made anew; what lies there still was looked at once.
                if Disk::default().stat(&join(&self.staging, &name)).is_ok() {
                    self.waiting.insert(name.clone(), Waiting::Refused);
                }
            }
            Ok(Done::Changed) => is_last = self.changed(request, whole, now),
            Err(_) => is_last = self.retry(request, whole, now),
        }
        if let Some(whole) = self.again.remove(&name) {
            self.waiting.insert(name, Waiting::Complete(whole));
        }
        self.outcomes.push(Outcome { entry, step, bytes, done, at, is_last });
    }

    /// It is back in the staging folder. What was found to be whole by its rest must come to rest first; what was
    /// told to be whole is: its size or time may have been an old one, of a shared file system.
    fn changed(&mut self, request: Request, whole: Whole, now: Time) -> bool {
        let seen = self.walk(&request.entry);
        if whole.is_told || self.finished {
            return self.retry(Request { seen, ..request }, whole, now);
        }
        self.look_at = Some(now + LOOK);
        let (seen, place) = (seen.unwrap_or_default(), whole.place);
        self.waiting.insert(request.entry, Waiting::InPlace { seen, since: now, place });
        false
    }

    /// Tries again later, for ever while the program runs; says whether it was given up.
    fn retry(&mut self, request: Request, whole: Whole, now: Time) -> bool {
        self.tries += u32::from(self.finished);
        let name = request.entry.clone();
        if self.tries > LAST_TRIES {
            self.waiting.insert(name, Waiting::Refused);
            return true;
        }
        let at = now + if self.finished { LOOK } else { LOOK * 5 };
        self.waiting.insert(name, Waiting::Retry { request: Box::new(request), whole, at });
        false
    }
}
