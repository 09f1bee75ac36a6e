//! Finds what the program has saved, and has it committed by a thread, so that no slow disk stops the supervision.
//!
//! What came by a rename is complete. What was made in place is complete once nothing in it changed for a while as
//! the program lived, no process holds it open, or the program ended in order after it. Nothing here touches the disk:
//! what has to is done by threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_core::profile;
use nemo_core::rundir::Profile;
use nix::sys::eventfd::EventFd;

use super::candidate::{Place, Waiting, Whole};
use super::commit::{Done, Request};
use super::inotify::Watch;
use super::inspect;
use super::look::{self, Look, Seen, Snapshot};
use super::prune::{Need, Rules};
use super::staging;
use super::store::Kind;
use super::worker::{Answer, Job, NotTried, Worker, WorkerContext};
use crate::attempt::lease::Lease;
use crate::job::trial::Trial;
use crate::os::clock::Time;
use crate::os::serial_queue::{Asked, SerialQueue};

/// How often what was made in place is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a commit that failed is tried again after the program's end.
const LAST_TRIES: u32 = 10;
/// So many commits are handed on at once.
const AT_ONCE: usize = 8;
/// So many saves may wait for their commit: of more only the newest are kept.
const MOST: usize = 256;
/// Those that are known to be whole: so many of the newest matter.
const VERIFIED: usize = 16;

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

/// What the harness has for a saver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    /// Written to when a thread has an answer.
    pub(crate) wake: &'a Arc<EventFd>,
    pub(crate) boot_id: &'a str,
}

/// How the program's end is taken.
#[derive(Debug)]
enum End {
    NotYet,
    /// What lies in the staging folder is looked at once more. `in_order`: the program ended by itself, with an exit code
    /// that says so.
    Looking {
        in_order: bool,
        is_asked: bool,
    },
    Seen,
}

/// A look that is under way.
#[derive(Debug)]
struct Looking {
    asked: Asked<io::Result<Snapshot>>,
    /// When it began: what is seen looked so at some time since.
    at: Time,
    /// The program was gone already.
    is_last: bool,
}

/// Watches one attempt's staging folder.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct Saver {
    staging: PathBuf,
    profile: Option<Profile>,
    watch: Option<Watch>,
    waiting: BTreeMap<Vec<u8>, Waiting>,
    /// Renamed into place once more while the one before was being committed.
    again: BTreeMap<Vec<u8>, Whole>,
    /// Those whose commit the next attempt would finish.
    taken: BTreeSet<Vec<u8>>,
    /// How often a commit failed since the program's end.
    tries: u32,
    outcomes: Vec<Outcome>,
    look_at: Option<Time>,
    looks: SerialQueue,
    looking: Option<Looking>,
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
    end: End,
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
        start: Start<'_>,
    ) -> io::Result<Self> {
        let Start { wake, boot_id } = start;
        let (staging, checkpoints) = (trial.dir.staging(lease.attempt), trial.dir.checkpoints());
        staging::prepare(&staging, &checkpoints)?;
        let context = WorkerContext {
            rules: Rules::of(trial),
            profile: trial.spec.profile,
            staging: staging.clone(),
            checkpoints,
            lease: lease.clone(),
            boot_id: boot_id.to_owned(),
            steps: Mutex::new(steps),
            gentle: Arc::new(AtomicBool::new(true)),
        };
        Ok(Self {
            watch: Watch::new(&staging),
            worker: Worker::start(context, wake)?,
            staging,
            profile: trial.spec.profile,
            waiting: BTreeMap::new(),
            again: BTreeMap::new(),
            taken: BTreeSet::new(),
            tries: 0,
            outcomes: Vec::new(),
            look_at: None,
            looks: SerialQueue::start("looks", Some(wake)),
            looking: None,
            verified: resumed.into_iter().collect(),
            untidy: false,
            tidying: false,
            removable: Vec::new(),
            is_far: false,
            wake: Arc::clone(wake),
            end: End::NotYet,
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

    fn is_finished(&self) -> bool {
        !matches!(self.end, End::NotYet)
    }

    /// When [`Saver::look`] is due.
    pub(crate) fn next_look(&self, now: Time) -> Option<Time> {
        let retries = self.waiting.values().filter_map(|waiting| match waiting {
            Waiting::Retry { at, .. } | Waiting::Later { at, .. } => Some(*at),
            _ => None,
        });
        let look_at = match self.end {
            // A look that is under way wakes up by itself.
            _ if self.looking.is_some() => None,
            End::NotYet if self.watch.is_none() => Some(self.look_at.unwrap_or(now + LOOK)),
            End::NotYet => self.look_at,
            End::Looking { .. } => Some(now),
            End::Seen => None,
        };
        retries.chain(look_at).min()
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
        let is_seen = !matches!(self.end, End::Looking { .. });
        let is_tidy = !self.tidying || self.hurried;
        is_seen && is_tidy && !self.waiting.values().any(Waiting::is_open)
    }

    /// What was saved and could not be committed until now, and whether the next attempt will finish that.
    pub(crate) fn unfinished(&self) -> Vec<(String, bool)> {
        let names = self.waiting.iter().filter(|(_, waiting)| waiting.is_open());
        let mut names: Vec<_> =
            names.map(|(name, _)| (shown(name), self.taken.contains(name))).collect();
        if matches!(self.end, End::Looking { .. }) {
            names.push(("what was saved last".to_owned(), false));
        }
        names
    }

    /// Steps that may be removed: that must be recorded first.
    pub(crate) fn take_removable(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.removable)
    }

    /// Says that they are removed by who records that first: a [`Job::Remove`] follows.
    pub(crate) fn remover(&mut self) -> Sender<Job> {
        self.tidying = true;
        self.worker.sender()
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
            self.is_whole(name, None, place.clone(), now);
        }
        self.take_snapshot(now, place);
        let due = self.look_at.is_some_and(|at| at <= now) || self.watch.is_none();
        if (seen.other || due) && !self.is_finished() {
            // Also where a later look was planned: what changed now is of the step at which the program is now.
            self.look_at = Some(self.look_at.map_or(now, |at| at.min(now)));
        }
        self.begin_look(now);
        self.thin_out(now);
        self.send_complete(now);
        self.send_retries(now);
        std::mem::take(&mut self.outcomes)
    }

    /// It is whole, by its rename or by the program's word. What is being committed is the one before.
    fn is_whole(&mut self, name: Vec<u8>, step: Option<u64>, place: Place, now: Time) {
        let whole = Whole { place, step, at: now, is_told: true, seen: None };
        if matches!(self.waiting.get(&name), Some(Waiting::Sent(_))) {
            self.again.insert(name, whole);
        } else {
            self.waiting.insert(name, Waiting::Complete(whole));
        }
    }

    /// The program said that something is complete, and perhaps of which step.
    pub(crate) fn complete(&mut self, name: Vec<u8>, step: Option<u64>, place: Place, now: Time) {
        match self.waiting.get_mut(&name) {
            Some(Waiting::Sent(_) | Waiting::Later { .. } | Waiting::Retry { .. }) => {} // it was found by its rename already
            // Nor does the word, which comes after the rename, say anything else of where the program was.
            Some(Waiting::Complete(whole)) if step.is_some() => whole.step = step,
            Some(
                Waiting::Complete(_)
                | Waiting::InPlace { .. }
                | Waiting::Copy { .. }
                | Waiting::Refused,
            )
            | None => {
                self.is_whole(name, step, place, now);
            }
        }
    }

    /// The program is gone. `in_order`: by itself, with an exit code that says so.
    pub(crate) fn finish(&mut self, in_order: bool) {
        self.end = End::Looking { in_order, is_asked: false };
        self.worker.hurry();
        for waiting in self.waiting.values_mut() {
            if let Waiting::Retry { at, .. } = waiting {
                *at = Time::ZERO;
            }
        }
    }

    /// Has the folder looked at, where that is due.
    fn begin_look(&mut self, now: Time) {
        let is_due = self.look_at.is_some_and(|at| at <= now);
        let is_last = match &mut self.end {
            End::NotYet => false,
            End::Looking { is_asked, .. } if self.looking.is_none() && !*is_asked => {
                *is_asked = true;
                true
            }
            End::Looking { .. } | End::Seen => return,
        };
        if self.looking.is_some() || !(is_due || is_last) {
            return;
        }
        self.look_at = None;
        let (mut known, mut skipped) = (BTreeMap::new(), BTreeSet::new());
        for (name, waiting) in &self.waiting {
            match waiting {
                Waiting::InPlace { seen, .. } | Waiting::Copy { seen } => {
                    known.insert(name.clone(), seen.clone());
                }
                Waiting::Complete(_)
                | Waiting::Sent(_)
                | Waiting::Later { .. }
                | Waiting::Retry { .. }
                | Waiting::Refused => {
                    skipped.insert(name.clone());
                }
            }
        }
        let look = Look { staging: self.staging.clone(), profile: self.profile, known, skipped };
        let asked = self.looks.ask(move || look::look(&look));
        self.looking = Some(Looking { asked, at: now, is_last });
    }

    /// Takes what was seen in the folder.
    fn take_snapshot(&mut self, now: Time, place: &Place) {
        let Some(found) = self.looking.as_ref().and_then(|looking| looking.asked.take()) else {
            return;
        };
        let Some(Looking { at, is_last, .. }) = self.looking.take() else { return };
        match found {
            Ok(snapshot) if is_last => self.take_last(snapshot, at, now, place),
            Ok(snapshot) => self.take_look(snapshot, at, now, place),
            Err(error) if is_last => {
                self.end = End::Seen;
                let why = format!("it can't be seen: {error}");
                self.refuse(b"what was saved last".to_vec(), now, why);
            }
            Err(_) => self.look_at = Some(now + LOOK),
        }
    }

    /// What was made in place, while the program runs.
    fn take_look(&mut self, snapshot: Snapshot, at: Time, now: Time, place: &Place) {
        self.waiting.retain(|name, waiting| {
            let lies_there = matches!(
                waiting,
                Waiting::InPlace { .. } | Waiting::Copy { .. } | Waiting::Refused
            );
            let is_on_its_way = !lies_there;
            is_on_its_way || snapshot.names.contains(name)
        });
        for Seen { name, tree, is_open } in snapshot.seen {
            let known = match self.waiting.get(&name) {
                Some(Waiting::InPlace { seen, since, place }) => Some((seen, *since, place)),
                Some(Waiting::Copy { seen }) if tree.as_ref().is_ok_and(|tree| tree == seen) => {
                    continue;
                }
                Some(Waiting::Copy { .. }) | None => None,
                Some(_) => continue, // it was renamed meanwhile
            };
            let Ok(fresh) = tree else { continue };
            let same = known.filter(|(seen, ..)| **seen == fresh);
            let (since, place) = same.map_or((now, place), |(_, since, place)| (since, place));
            let place = place.clone();
            let rested = at.saturating_sub(since);
            let is_whole = !self.is_far && inspect::rests(self.profile, &fresh, rested) && !is_open;
            let next = if is_whole && same.is_some() {
                Waiting::Complete(found_whole(place, since, fresh))
            } else {
                Waiting::InPlace { seen: fresh, since, place }
            };
            self.waiting.insert(name, next);
        }
        let in_place =
            self.waiting.values().any(|waiting| matches!(waiting, Waiting::InPlace { .. }));
        if in_place {
            self.look_at.get_or_insert(now + LOOK);
        }
    }

    /// What lies there at the end. What may be torn is told.
    fn take_last(&mut self, snapshot: Snapshot, at: Time, now: Time, place: &Place) {
        let End::Looking { in_order, .. } = self.end else { return };
        self.end = End::Seen;
        for Seen { name, tree, .. } in snapshot.seen {
            let (rests, since, place) = match self.waiting.get(&name) {
                Some(Waiting::InPlace { seen, since, place })
                    if tree.as_ref().is_ok_and(|tree| tree == seen) =>
                {
                    let rested = at.saturating_sub(*since);
                    let rests = !self.is_far && inspect::rests(self.profile, seen, rested);
                    (rests, *since, place.clone())
                }
                Some(Waiting::Copy { seen }) if tree.as_ref().is_ok_and(|tree| tree == seen) => {
                    continue;
                }
                Some(Waiting::InPlace { .. } | Waiting::Copy { .. }) | None => {
                    (false, now, place.clone())
                }
                Some(_) => continue,
            };
            match tree {
                Ok(tree) if in_order || rests || is_odd(&tree) => {
                    self.waiting.insert(name, Waiting::Complete(found_whole(place, since, tree)));
                }
                Err(_) if in_order => {
                    let whole = Whole { place, step: None, at: since, is_told: false, seen: None };
                    self.waiting.insert(name, Waiting::Complete(whole));
                }
                Ok(_) | Err(_) => {
                    let why =
                        "it was being written in place when the program was ended, and may be torn";
                    self.refuse(name, now, why.to_owned());
                }
            }
        }
    }

    /// Of very many saves that wait only the newest are committed: the others would be let go again.
    fn thin_out(&mut self, now: Time) {
        let complete = |waiting: &Waiting| matches!(waiting, Waiting::Complete(_));
        let count = self.waiting.values().filter(|waiting| complete(waiting)).count();
        let Some(surplus) = count.checked_sub(MOST).filter(|surplus| *surplus > 0) else { return };
        let names = self.waiting.iter().filter(|(_, waiting)| complete(waiting));
        let step = |name: &Vec<u8>| profile::step(self.profile, &shown(name), true, b"").ok();
        let mut names: Vec<_> =
            names.map(|(name, _)| (step(name).flatten(), name.clone())).collect();
        names.sort();
        for (_, name) in names.into_iter().take(surplus) {
            let why = format!("more than {MOST} newer ones wait to be committed");
            self.refuse(name, now, why);
        }
    }

    fn send_complete(&mut self, now: Time) {
        for waiting in self.waiting.values_mut() {
            if let Waiting::Later { whole, at } = waiting
                && *at <= now
            {
                *waiting = Waiting::Complete(whole.clone());
            }
        }
        let sent = self.waiting.values().filter(|waiting| matches!(waiting, Waiting::Sent(_)));
        let room = AT_ONCE.saturating_sub(sent.count());
        let complete = self.waiting.iter_mut().filter_map(|(name, waiting)| match waiting {
            Waiting::Complete(whole) => {
                let whole = whole.clone();
                *waiting = Waiting::Sent(whole.clone());
                Some((name.clone(), whole))
            }
            _ => None,
        });
        for (name, whole) in complete.take(room) {
            self.worker.send(Job::Save(name, Box::new(whole)));
        }
    }

    /// It lies where it lies, and is not looked at again unless it is saved anew.
    fn refuse(&mut self, name: Vec<u8>, at: Time, why: String) {
        let entry = shown(&name);
        self.waiting.insert(name, Waiting::Refused);
        let done = Ok(Done::Refused(why));
        self.outcomes.push(Outcome { entry, step: 0, bytes: 0, done, at, is_last: true });
    }

    /// No commit was tried.
    fn take_not_tried(&mut self, name: Vec<u8>, why: NotTried, now: Time) {
        let Some(Waiting::Sent(whole)) = self.waiting.remove(&name) else { return };
        match why {
            NotTried::Gone => {}
            NotTried::Unfit(why) => self.refuse(name.clone(), whole.at, why),
            // That is tried again, as a commit is.
            NotTried::Unseen(error) => {
                self.tries += u32::from(self.is_finished());
                if self.tries > LAST_TRIES {
                    let (step, bytes) = (whole.place.step.unwrap_or_default(), 0);
                    let (entry, done, at) = (shown(&name), Err(error), whole.at);
                    self.outcomes.push(Outcome { entry, step, bytes, done, at, is_last: true });
                    self.waiting.insert(name.clone(), Waiting::Refused);
                } else {
                    self.waiting.insert(name.clone(), Waiting::Later { whole, at: now + LOOK });
                }
            }
        }
        self.take_again(name);
    }

    fn take_again(&mut self, name: Vec<u8>) {
        if let Some(whole) = self.again.remove(&name) {
            self.waiting.insert(name, Waiting::Complete(whole));
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
                Answer::Commit { request, done, is_left } => {
                    // Its rename may have been seen before: then it is no second save.
                    let is_back = matches!(done, Ok(Done::Changed));
                    if is_back && self.again.remove(&request.entry).is_none() {
                        returned.insert(request.entry.clone());
                    }
                    self.take_commit(*request, done, is_left, now);
                }
                Answer::Taken(name) => {
                    self.taken.insert(name);
                }
                Answer::Not(name, why) => self.take_not_tried(name, why, now),
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

    fn take_commit(&mut self, request: Request, done: io::Result<Done>, is_left: bool, now: Time) {
        let name = request.entry.clone();
        let entry = shown(&name);
        let (step, bytes) = (request.step, request.bytes());
        if done.is_ok() {
            self.taken.remove(&name);
        }
        let Some(Waiting::Sent(whole)) = self.waiting.remove(&name) else { return };
        let at = whole.at;
        let mut is_last = true;
        match &done {
            Ok(Done::Committed | Done::Adopted) => {
                self.verified.insert(step);
                if self.verified.len() > VERIFIED {
                    self.verified.pop_first();
                }
                self.untidy = true;
            }
            // What was taken away may be made anew; what lies there still was looked at once.
            Ok(Done::Refused(_)) if is_left => {
                self.waiting.insert(name.clone(), Waiting::Refused);
            }
            Ok(Done::Same(_)) => {
                let seen = whole.seen.or(request.seen).unwrap_or_default();
                self.waiting.insert(name.clone(), Waiting::Copy { seen });
            }
            Ok(Done::Superseded | Done::Refused(_)) => {}
            Ok(Done::Changed) => is_last = self.changed(request, whole, now),
            Err(_) => is_last = self.retry(request, whole, now),
        }
        self.take_again(name);
        self.outcomes.push(Outcome { entry, step, bytes, done, at, is_last });
    }

    /// It is back in the staging folder. What was found to be whole by its rest must come to rest first; what was
    /// told to be whole is: its size or time may have been an old one, of a shared file system.
    fn changed(&mut self, request: Request, whole: Whole, now: Time) -> bool {
        if whole.is_told || self.is_finished() {
            return self.retry(request, whole, now);
        }
        self.look_at = Some(now + LOOK);
        let (seen, place) = (request.seen.unwrap_or_default(), whole.place);
        self.waiting.insert(request.entry, Waiting::InPlace { seen, since: now, place });
        false
    }

    /// Tries again later, for ever while the program runs; says whether it was given up.
    fn retry(&mut self, request: Request, whole: Whole, now: Time) -> bool {
        self.tries += u32::from(self.is_finished());
        let name = request.entry.clone();
        if self.tries > LAST_TRIES {
            self.waiting.insert(name, Waiting::Refused);
            return true;
        }
        let at = now + if self.is_finished() { LOOK } else { LOOK * 5 };
        self.waiting.insert(name, Waiting::Retry { request: Box::new(request), whole, at });
        false
    }
}

/// What was made in place, and found to be whole.
fn found_whole(place: Place, at: Time, seen: Vec<super::tree::Entry>) -> Whole {
    Whole { place, step: None, at, is_told: false, seen: Some(seen) }
}

/// A FIFO, say, is never torn: why it is no checkpoint is told where it is refused.
fn is_odd(tree: &[super::tree::Entry]) -> bool {
    tree.first().is_some_and(|top| matches!(top.stat.kind, Kind::Link | Kind::Other(_)))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
