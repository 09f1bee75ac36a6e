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

use super::candidate::{CompleteSave, ProgramPosition, SaveState};
use super::commit::{CommitOutcome, CommitRequest};
use super::inotify::DirWatch;
use super::inspect;
use super::prune::{RetentionRules, StillNeeded};
use super::scan::{self, ScanResult, ScannedEntry, StagingScan};
use super::staging;
use super::store::FileKind;
use super::worker::{NotTriedReason, Worker, WorkerContext, WorkerJob, WorkerReply};
use crate::attempt::lease::Lease;
use crate::job::trial::Trial;
use crate::os::clock::Time;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};

/// How often what was made in place is looked at.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// How often a commit that failed is tried again after the program's end.
const MAX_FINAL_TRIES: u32 = 10;
/// So many commits are handed on at once.
const MAX_COMMITTING: usize = 8;
/// So many saves may wait for their commit: of more only the newest are kept.
const MAX_WAITING: usize = 256;
/// Those that are known to be whole: so many of the newest matter.
const MAX_VERIFIED: usize = 16;

/// What came of one thing that was saved.
#[derive(Debug)]
pub(crate) struct SaveOutcome {
    pub(crate) entry: String,
    pub(crate) step: u64,
    pub(crate) bytes: u64,
    pub(crate) result: io::Result<CommitOutcome>,
    /// When it was written, as far as was seen.
    pub(crate) written_at: Time,
    /// It will not be tried again.
    pub(crate) is_final: bool,
}

/// What the harness has for a saver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaverContext<'a> {
    /// Written to when a thread has an answer.
    pub(crate) wake: &'a Arc<EventFd>,
    pub(crate) boot_id: &'a str,
}

/// How the program's end is taken.
#[derive(Debug)]
enum FinalScan {
    NotDue,
    /// What lies in the staging folder is looked at once more. `in_order`: the program ended by itself, with an exit code
    /// that says so.
    Due {
        in_order: bool,
        is_started: bool,
    },
    Done,
}

/// A look that is under way.
#[derive(Debug)]
struct PendingScan {
    answer: PendingAnswer<io::Result<ScanResult>>,
    /// When it began: what is seen looked so at some time since.
    started_at: Time,
    /// The program was gone already.
    is_final: bool,
}

/// Watches one attempt's staging folder.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct Saver {
    staging: PathBuf,
    profile: Option<Profile>,
    watch: Option<DirWatch>,
    saves: BTreeMap<Vec<u8>, SaveState>,
    /// Renamed into place once more while the one before was being committed.
    queued_again: BTreeMap<Vec<u8>, CompleteSave>,
    /// Those whose commit the next attempt would finish.
    secured: BTreeSet<Vec<u8>>,
    /// How often a commit failed since the program's end.
    failed_tries: u32,
    outcomes: Vec<SaveOutcome>,
    next_scan_at: Option<Time>,
    scan_queue: SerialQueue,
    pending_scan: Option<PendingScan>,
    /// Those that are known to be whole: the one resumed from, and those committed since.
    verified: BTreeSet<u64>,
    worker: Worker,
    /// Something was committed since it was last looked at what may go.
    must_prune: bool,
    /// The worker chooses what may go, or removes it.
    is_pruning: bool,
    removable: Vec<u64>,
    /// Other nodes write here too: what they hold open is not seen, and a size may be an old one.
    is_multi_node: bool,
    wake: Arc<EventFd>,
    final_scan: FinalScan,
    is_hurried: bool,
}

impl Saver {
    /// Makes the folders and begins to watch: before the program starts, so that nothing is missed. `steps` were
    /// committed before, `resumed` was verified.
    pub(crate) fn begin(
        trial: &Trial,
        lease: &Lease,
        steps: BTreeSet<u64>,
        resumed: Option<u64>,
        start: SaverContext<'_>,
    ) -> io::Result<Self> {
        let SaverContext { wake, boot_id } = start;
        let (staging, checkpoints) = (trial.dir.staging(lease.attempt), trial.dir.checkpoints());
        staging::prepare(&staging, &checkpoints)?;
        let context = WorkerContext {
            rules: RetentionRules::of(trial),
            profile: trial.spec.profile,
            staging: staging.clone(),
            checkpoints,
            lease: lease.clone(),
            boot_id: boot_id.to_owned(),
            steps: Mutex::new(steps),
            gentle: Arc::new(AtomicBool::new(true)),
        };
        Ok(Self {
            watch: DirWatch::new(&staging),
            worker: Worker::start(context, wake)?,
            staging,
            profile: trial.spec.profile,
            saves: BTreeMap::new(),
            queued_again: BTreeMap::new(),
            secured: BTreeSet::new(),
            failed_tries: 0,
            outcomes: Vec::new(),
            next_scan_at: None,
            scan_queue: SerialQueue::start("looks", Some(wake)),
            pending_scan: None,
            verified: resumed.into_iter().collect(),
            must_prune: false,
            is_pruning: false,
            removable: Vec::new(),
            is_multi_node: false,
            wake: Arc::clone(wake),
            final_scan: FinalScan::NotDue,
            is_hurried: false,
        })
    }

    /// Says whether the program's processes are on other nodes too. What is made in place is never complete by
    /// resting then.
    pub(crate) fn with_multi_node(mut self, is_far: bool) -> Self {
        self.is_multi_node = is_far;
        self
    }

    /// What to poll.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watch.iter().filter_map(DirWatch::descriptor).chain([self.wake.as_fd()])
    }

    fn is_finished(&self) -> bool {
        !matches!(self.final_scan, FinalScan::NotDue)
    }

    /// When [`Saver::look`] is due.
    pub(crate) fn next_poll(&self, now: Time) -> Option<Time> {
        let retries = self.saves.values().filter_map(|waiting| match waiting {
            SaveState::RetryCommit { at, .. } | SaveState::RetryInspection { at, .. } => Some(*at),
            _ => None,
        });
        let look_at = match self.final_scan {
            // A look that is under way wakes up by itself.
            _ if self.pending_scan.is_some() => None,
            FinalScan::NotDue if self.watch.is_none() => {
                Some(self.next_scan_at.unwrap_or(now + SCAN_INTERVAL))
            }
            FinalScan::NotDue => self.next_scan_at,
            FinalScan::Due { .. } => Some(now),
            FinalScan::Done => None,
        };
        retries.chain(look_at).min()
    }

    /// Renames can't be seen: whether a folder is complete is known only when the program ended, or said so.
    pub(crate) fn is_blind(&self) -> bool {
        self.watch.is_none()
    }

    /// The program is being stopped: its saves are committed as fast as may be, and nothing waits for tidiness.
    pub(crate) fn hurry(&mut self) {
        self.is_hurried = true;
        self.worker.hurry();
    }

    /// Nothing is left to wait for.
    pub(crate) fn is_idle(&self) -> bool {
        let is_seen = !matches!(self.final_scan, FinalScan::Due { .. });
        let is_tidy = !self.is_pruning || self.is_hurried;
        is_seen && is_tidy && !self.saves.values().any(SaveState::is_open)
    }

    /// What was saved and could not be committed until now, and whether the next attempt will finish that.
    pub(crate) fn unfinished(&self) -> Vec<(String, bool)> {
        let names = self.saves.iter().filter(|(_, waiting)| waiting.is_open());
        let mut names: Vec<_> =
            names.map(|(name, _)| (shown(name), self.secured.contains(name))).collect();
        if matches!(self.final_scan, FinalScan::Due { .. }) {
            names.push(("what was saved last".to_owned(), false));
        }
        names
    }

    /// Steps that may be removed: that must be recorded first.
    pub(crate) fn take_removable(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.removable)
    }

    /// Says that they are removed by who records that first: a [`Job::Remove`] follows.
    pub(crate) fn remover(&mut self) -> Sender<WorkerJob> {
        self.is_pruning = true;
        self.worker.sender()
    }

    /// Looks at what has appeared, and sends what is complete to be committed.
    pub(crate) fn poll(&mut self, now: Time, place: &ProgramPosition) -> Vec<SaveOutcome> {
        let mut returned = self.take_results(now);
        let seen = self.watch.as_ref().map(DirWatch::read).unwrap_or_default();
        for name in seen.renamed {
            // What the commit itself put back is no more complete than before.
            if !inspect::is_shown(self.profile, &name) || returned.remove(&name) {
                continue;
            }
            self.add_complete(name, None, place.clone(), now);
        }
        self.take_scan(now, place);
        let due = self.next_scan_at.is_some_and(|at| at <= now) || self.watch.is_none();
        if (seen.other || due) && !self.is_finished() {
            // Also where a later look was planned: what changed now is of the step at which the program is now.
            self.next_scan_at = Some(self.next_scan_at.map_or(now, |at| at.min(now)));
        }
        self.start_scan(now);
        self.drop_surplus(now);
        self.send_complete(now);
        self.send_retries(now);
        std::mem::take(&mut self.outcomes)
    }

    /// It is whole, by its rename or by the program's word. What is being committed is the one before.
    fn add_complete(
        &mut self,
        name: Vec<u8>,
        step: Option<u64>,
        place: ProgramPosition,
        now: Time,
    ) {
        let whole =
            CompleteSave { position: place, step, written_at: now, is_confirmed: true, tree: None };
        if matches!(self.saves.get(&name), Some(SaveState::Committing(_))) {
            self.queued_again.insert(name, whole);
        } else {
            self.saves.insert(name, SaveState::Complete(whole));
        }
    }

    /// The program said that something is complete, and perhaps of which step.
    pub(crate) fn complete(
        &mut self,
        name: Vec<u8>,
        step: Option<u64>,
        place: ProgramPosition,
        now: Time,
    ) {
        match self.saves.get_mut(&name) {
            Some(
                SaveState::Committing(_)
                | SaveState::RetryInspection { .. }
                | SaveState::RetryCommit { .. },
            ) => {} // it was found by its rename already
            // Nor does the word, which comes after the rename, say anything else of where the program was.
            Some(SaveState::Complete(whole)) if step.is_some() => whole.step = step,
            Some(
                SaveState::Complete(_)
                | SaveState::InPlace { .. }
                | SaveState::Duplicate { .. }
                | SaveState::Rejected,
            )
            | None => {
                self.add_complete(name, step, place, now);
            }
        }
    }

    /// The program is gone. `in_order`: by itself, with an exit code that says so.
    pub(crate) fn finish(&mut self, in_order: bool) {
        self.final_scan = FinalScan::Due { in_order, is_started: false };
        self.worker.hurry();
        for waiting in self.saves.values_mut() {
            if let SaveState::RetryCommit { at, .. } = waiting {
                *at = Time::ZERO;
            }
        }
    }

    /// Has the folder looked at, where that is due.
    fn start_scan(&mut self, now: Time) {
        let is_due = self.next_scan_at.is_some_and(|at| at <= now);
        let is_final = match &mut self.final_scan {
            FinalScan::NotDue => false,
            FinalScan::Due { is_started: is_asked, .. }
                if self.pending_scan.is_none() && !*is_asked =>
            {
                *is_asked = true;
                true
            }
            FinalScan::Due { .. } | FinalScan::Done => return,
        };
        if self.pending_scan.is_some() || !(is_due || is_final) {
            return;
        }
        self.next_scan_at = None;
        let (mut known, mut skipped) = (BTreeMap::new(), BTreeSet::new());
        for (name, waiting) in &self.saves {
            match waiting {
                SaveState::InPlace { tree: seen, .. } | SaveState::Duplicate { tree: seen } => {
                    known.insert(name.clone(), seen.clone());
                }
                SaveState::Complete(_)
                | SaveState::Committing(_)
                | SaveState::RetryInspection { .. }
                | SaveState::RetryCommit { .. }
                | SaveState::Rejected => {
                    skipped.insert(name.clone());
                }
            }
        }
        let scan =
            StagingScan { staging: self.staging.clone(), profile: self.profile, known, skipped };
        let answer = self.scan_queue.ask(move || scan::scan(&scan));
        self.pending_scan = Some(PendingScan { answer, started_at: now, is_final });
    }

    /// Takes what was seen in the folder.
    fn take_scan(&mut self, now: Time, place: &ProgramPosition) {
        let Some(found) = self.pending_scan.as_ref().and_then(|looking| looking.answer.take())
        else {
            return;
        };
        let Some(PendingScan { started_at, is_final, .. }) = self.pending_scan.take() else {
            return;
        };
        match found {
            Ok(snapshot) if is_final => self.take_final_scan(snapshot, started_at, now, place),
            Ok(snapshot) => self.take_running_scan(snapshot, started_at, now, place),
            Err(error) if is_final => {
                self.final_scan = FinalScan::Done;
                let why = format!("it can't be seen: {error}");
                self.reject(b"what was saved last".to_vec(), now, why);
            }
            Err(_) => self.next_scan_at = Some(now + SCAN_INTERVAL),
        }
    }

    /// What was made in place, while the program runs.
    fn take_running_scan(
        &mut self,
        snapshot: ScanResult,
        at: Time,
        now: Time,
        place: &ProgramPosition,
    ) {
        self.saves.retain(|name, waiting| {
            let lies_there = matches!(
                waiting,
                SaveState::InPlace { .. } | SaveState::Duplicate { .. } | SaveState::Rejected
            );
            let is_on_its_way = !lies_there;
            is_on_its_way || snapshot.names.contains(name)
        });
        for ScannedEntry { name, tree, is_open } in snapshot.entries {
            let known = match self.saves.get(&name) {
                Some(SaveState::InPlace { tree: seen, since, position: place }) => {
                    Some((seen, *since, place))
                }
                Some(SaveState::Duplicate { tree: seen })
                    if tree.as_ref().is_ok_and(|tree| tree == seen) =>
                {
                    continue;
                }
                Some(SaveState::Duplicate { .. }) | None => None,
                Some(_) => continue, // it was renamed meanwhile
            };
            let Ok(fresh) = tree else { continue };
            let same = known.filter(|(seen, ..)| **seen == fresh);
            let (since, place) = same.map_or((now, place), |(_, since, place)| (since, place));
            let place = place.clone();
            let rested = at.saturating_sub(since);
            let is_whole =
                !self.is_multi_node && inspect::rests(self.profile, &fresh, rested) && !is_open;
            let next = if is_whole && same.is_some() {
                SaveState::Complete(found_whole(place, since, fresh))
            } else {
                SaveState::InPlace { tree: fresh, since, position: place }
            };
            self.saves.insert(name, next);
        }
        let in_place =
            self.saves.values().any(|waiting| matches!(waiting, SaveState::InPlace { .. }));
        if in_place {
            self.next_scan_at.get_or_insert(now + SCAN_INTERVAL);
        }
    }

    /// What lies there at the end. What may be torn is told.
    fn take_final_scan(
        &mut self,
        snapshot: ScanResult,
        at: Time,
        now: Time,
        place: &ProgramPosition,
    ) {
        let FinalScan::Due { in_order, .. } = self.final_scan else { return };
        self.final_scan = FinalScan::Done;
        for ScannedEntry { name, tree, .. } in snapshot.entries {
            let (rests, since, place) = match self.saves.get(&name) {
                Some(SaveState::InPlace { tree: seen, since, position: place })
                    if tree.as_ref().is_ok_and(|tree| tree == seen) =>
                {
                    let rested = at.saturating_sub(*since);
                    let rests = !self.is_multi_node && inspect::rests(self.profile, seen, rested);
                    (rests, *since, place.clone())
                }
                Some(SaveState::Duplicate { tree: seen })
                    if tree.as_ref().is_ok_and(|tree| tree == seen) =>
                {
                    continue;
                }
                Some(SaveState::InPlace { .. } | SaveState::Duplicate { .. }) | None => {
                    (false, now, place.clone())
                }
                Some(_) => continue,
            };
            match tree {
                Ok(tree) if in_order || rests || is_odd(&tree) => {
                    self.saves.insert(name, SaveState::Complete(found_whole(place, since, tree)));
                }
                Err(_) if in_order => {
                    let whole = CompleteSave {
                        position: place,
                        step: None,
                        written_at: since,
                        is_confirmed: false,
                        tree: None,
                    };
                    self.saves.insert(name, SaveState::Complete(whole));
                }
                Ok(_) | Err(_) => {
                    let why =
                        "it was being written in place when the program was ended, and may be torn";
                    self.reject(name, now, why.to_owned());
                }
            }
        }
    }

    /// Of very many saves that wait only the newest are committed: the others would be let go again.
    fn drop_surplus(&mut self, now: Time) {
        let complete = |waiting: &SaveState| matches!(waiting, SaveState::Complete(_));
        let count = self.saves.values().filter(|waiting| complete(waiting)).count();
        let Some(surplus) = count.checked_sub(MAX_WAITING).filter(|surplus| *surplus > 0) else {
            return;
        };
        let names = self.saves.iter().filter(|(_, waiting)| complete(waiting));
        let step = |name: &Vec<u8>| profile::step(self.profile, &shown(name), true, b"").ok();
        let mut names: Vec<_> =
            names.map(|(name, _)| (step(name).flatten(), name.clone())).collect();
        names.sort();
        for (_, name) in names.into_iter().take(surplus) {
            let why = format!("more than {MAX_WAITING} newer ones wait to be committed");
            self.reject(name, now, why);
        }
    }

    fn send_complete(&mut self, now: Time) {
        for waiting in self.saves.values_mut() {
            if let SaveState::RetryInspection { save: whole, at } = waiting
                && *at <= now
            {
                *waiting = SaveState::Complete(whole.clone());
            }
        }
        let sent =
            self.saves.values().filter(|waiting| matches!(waiting, SaveState::Committing(_)));
        let room = MAX_COMMITTING.saturating_sub(sent.count());
        let complete = self.saves.iter_mut().filter_map(|(name, waiting)| match waiting {
            SaveState::Complete(whole) => {
                let whole = whole.clone();
                *waiting = SaveState::Committing(whole.clone());
                Some((name.clone(), whole))
            }
            _ => None,
        });
        for (name, whole) in complete.take(room) {
            self.worker.send(WorkerJob::Save(name, Box::new(whole)));
        }
    }

    /// It lies where it lies, and is not looked at again unless it is saved anew.
    fn reject(&mut self, name: Vec<u8>, at: Time, why: String) {
        let entry = shown(&name);
        self.saves.insert(name, SaveState::Rejected);
        let done = Ok(CommitOutcome::Rejected(why));
        self.outcomes.push(SaveOutcome {
            entry,
            step: 0,
            bytes: 0,
            result: done,
            written_at: at,
            is_final: true,
        });
    }

    /// No commit was tried.
    fn take_not_tried(&mut self, name: Vec<u8>, why: NotTriedReason, now: Time) {
        let Some(SaveState::Committing(whole)) = self.saves.remove(&name) else { return };
        match why {
            NotTriedReason::Gone => {}
            NotTriedReason::Unfit(why) => self.reject(name.clone(), whole.written_at, why),
            // That is tried again, as a commit is.
            NotTriedReason::Unseen(error) => {
                self.failed_tries += u32::from(self.is_finished());
                if self.failed_tries > MAX_FINAL_TRIES {
                    let (step, bytes) = (whole.position.step.unwrap_or_default(), 0);
                    let (entry, done, at) = (shown(&name), Err(error), whole.written_at);
                    self.outcomes.push(SaveOutcome {
                        entry,
                        step,
                        bytes,
                        result: done,
                        written_at: at,
                        is_final: true,
                    });
                    self.saves.insert(name.clone(), SaveState::Rejected);
                } else {
                    self.saves.insert(
                        name.clone(),
                        SaveState::RetryInspection { save: whole, at: now + SCAN_INTERVAL },
                    );
                }
            }
        }
        self.requeue_again(name);
    }

    fn requeue_again(&mut self, name: Vec<u8>) {
        if let Some(whole) = self.queued_again.remove(&name) {
            self.saves.insert(name, SaveState::Complete(whole));
        }
    }

    fn send_retries(&mut self, now: Time) {
        let is_due = |waiting: &SaveState| matches!(waiting, SaveState::RetryCommit { at, .. } if *at <= now);
        let due = self.saves.iter().filter(|(_, waiting)| is_due(waiting));
        let due = due.filter_map(|(_, waiting)| match waiting {
            SaveState::RetryCommit { request, save: whole, .. } => {
                Some(((**request).clone(), whole.clone()))
            }
            _ => None,
        });
        for (request, whole) in due.collect::<Vec<_>>() {
            self.send(request, whole);
        }
    }

    fn send(&mut self, request: CommitRequest, whole: CompleteSave) {
        self.saves.insert(request.entry.clone(), SaveState::Committing(whole));
        self.worker.send(WorkerJob::Commit(Box::new(request)));
    }

    /// Takes what the worker has done; the names that it has put back where they were.
    fn take_results(&mut self, now: Time) -> BTreeSet<Vec<u8>> {
        let mut returned = BTreeSet::new();
        for answer in self.worker.replies() {
            match answer {
                WorkerReply::Commit { request, outcome: done, is_still_staged: is_left } => {
                    // Its rename may have been seen before: then it is no second save.
                    let is_back = matches!(done, Ok(CommitOutcome::StillChanging));
                    if is_back && self.queued_again.remove(&request.entry).is_none() {
                        returned.insert(request.entry.clone());
                    }
                    self.take_commit(*request, done, is_left, now);
                }
                WorkerReply::Secured(name) => {
                    self.secured.insert(name);
                }
                WorkerReply::NotTried(name, why) => self.take_not_tried(name, why, now),
                // What could not be chosen now is after the next commit.
                WorkerReply::Removable(steps) => {
                    self.is_pruning = false;
                    self.removable.extend(steps.unwrap_or_default());
                }
                WorkerReply::Removed => self.is_pruning = false,
            }
        }
        if self.must_prune && !self.is_pruning && self.removable.is_empty() {
            (self.must_prune, self.is_pruning) = (false, true);
            self.worker.send(WorkerJob::ChooseRemovable(StillNeeded::Resume {
                verified: self.verified.clone(),
            }));
        }
        returned
    }

    fn take_commit(
        &mut self,
        request: CommitRequest,
        done: io::Result<CommitOutcome>,
        is_left: bool,
        now: Time,
    ) {
        let name = request.entry.clone();
        let entry = shown(&name);
        let (step, bytes) = (request.step, request.bytes());
        if done.is_ok() {
            self.secured.remove(&name);
        }
        let Some(SaveState::Committing(whole)) = self.saves.remove(&name) else { return };
        let at = whole.written_at;
        let mut is_last = true;
        match &done {
            Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted) => {
                self.verified.insert(step);
                if self.verified.len() > MAX_VERIFIED {
                    self.verified.pop_first();
                }
                self.must_prune = true;
            }
            // What was taken away may be made anew; what lies there still was looked at once.
            Ok(CommitOutcome::Rejected(_)) if is_left => {
                self.saves.insert(name.clone(), SaveState::Rejected);
            }
            Ok(CommitOutcome::SameContent(_)) => {
                let seen = whole.tree.or(request.tree).unwrap_or_default();
                self.saves.insert(name.clone(), SaveState::Duplicate { tree: seen });
            }
            Ok(CommitOutcome::Superseded | CommitOutcome::Rejected(_)) => {}
            Ok(CommitOutcome::StillChanging) => is_last = self.wait_for_rest(request, whole, now),
            Err(_) => is_last = self.retry(request, whole, now),
        }
        self.requeue_again(name);
        self.outcomes.push(SaveOutcome {
            entry,
            step,
            bytes,
            result: done,
            written_at: at,
            is_final: is_last,
        });
    }

    /// It is back in the staging folder. What was found to be whole by its rest must come to rest first; what was
    /// told to be whole is: its size or time may have been an old one, of a shared file system.
    fn wait_for_rest(&mut self, request: CommitRequest, whole: CompleteSave, now: Time) -> bool {
        if whole.is_confirmed || self.is_finished() {
            return self.retry(request, whole, now);
        }
        self.next_scan_at = Some(now + SCAN_INTERVAL);
        let (seen, place) = (request.tree.unwrap_or_default(), whole.position);
        self.saves
            .insert(request.entry, SaveState::InPlace { tree: seen, since: now, position: place });
        false
    }

    /// Tries again later, for ever while the program runs; says whether it was given up.
    fn retry(&mut self, request: CommitRequest, whole: CompleteSave, now: Time) -> bool {
        self.failed_tries += u32::from(self.is_finished());
        let name = request.entry.clone();
        if self.failed_tries > MAX_FINAL_TRIES {
            self.saves.insert(name, SaveState::Rejected);
            return true;
        }
        let at = now + if self.is_finished() { SCAN_INTERVAL } else { SCAN_INTERVAL * 5 };
        self.saves
            .insert(name, SaveState::RetryCommit { request: Box::new(request), save: whole, at });
        false
    }
}

/// What was made in place, and found to be whole.
fn found_whole(
    place: ProgramPosition,
    at: Time,
    seen: Vec<super::tree::FileEntry>,
) -> CompleteSave {
    CompleteSave {
        position: place,
        step: None,
        written_at: at,
        is_confirmed: false,
        tree: Some(seen),
    }
}

/// A FIFO, say, is never torn: why it is no checkpoint is told where it is refused.
fn is_odd(tree: &[super::tree::FileEntry]) -> bool {
    tree.first().is_some_and(|top| matches!(top.stat.kind, FileKind::Link | FileKind::Other(_)))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
