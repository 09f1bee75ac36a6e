//! Finds what the program has saved and sends it to the thread that commits, so that no slow disk stops the supervision.
//!
//! A save that came by a rename is complete. A save that was written in place is complete once nothing in it has changed
//! for a while and no process has it open, or once the program has ended in order. Nothing in this module touches the
//! disk: threads do.

mod commits;
mod scans;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_core::rundir::Profile;
use nix::sys::eventfd::EventFd;

use super::candidate::{CompleteSave, ProgramPosition, SaveState};
use super::commit::CommitOutcome;
use super::inotify::DirWatch;
use super::inspect;
use super::prune::RetentionRules;
use super::scan::ScanResult;
use super::staging;
use super::worker::{Worker, WorkerContext, WorkerJob};
use crate::attempt::lease::Lease;
use crate::job::trial::Trial;
use crate::os::clock::Time;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};

/// How often the saver scans saves that are written in place.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// How long a save that came by a rename waits for `CKPT_DONE`, which may tell its step: in a program that has sent one
/// before, and in one that has not.
const HOLD: Duration = Duration::from_secs(1);
const SHORT_HOLD: Duration = Duration::from_millis(200);
/// How many times failed commits are tried again after the program's end.
const MAX_FINAL_TRIES: u32 = 10;
/// How many commits the worker has at once.
const MAX_COMMITTING: usize = 8;
/// How many saves may wait for their commit. The saver keeps only the newest.
const MAX_WAITING: usize = 256;
/// How many of the newest verified steps matter.
const MAX_VERIFIED: usize = 16;

/// The outcome of one save.
#[derive(Debug)]
pub(crate) struct SaveOutcome {
    pub(crate) entry: String,
    pub(crate) step: u64,
    pub(crate) bytes: u64,
    pub(crate) result: io::Result<CommitOutcome>,
    /// When the saver saw that it was written.
    pub(crate) written_at: Time,
    /// The saver will not try again.
    pub(crate) is_final: bool,
}

/// What a saver needs of the harness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaverContext<'a> {
    /// Written to when a thread has an answer.
    pub(crate) wake: &'a Arc<EventFd>,
    pub(crate) boot_id: &'a str,
}

/// The scan after the program's end.
#[derive(Debug)]
enum FinalScan {
    NotDue,
    /// The staging folder must be scanned once more. `in_order`: the program ended by itself, with an exit code that says
    /// so.
    Due {
        in_order: bool,
        is_started: bool,
    },
    Done,
}

/// A scan that a thread is doing.
#[derive(Debug)]
struct PendingScan {
    answer: PendingAnswer<io::Result<ScanResult>>,
    /// The scan shows the folder as it was at some time since then.
    started_at: Time,
    /// The program had ended before.
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
    /// Saves that became complete while an earlier one of the same name was being committed or waited for another try.
    queued_again: BTreeMap<Vec<u8>, CompleteSave>,
    /// The steps in the messages since the last poll. The renames before them are read only by that poll.
    just_told: BTreeMap<Vec<u8>, u64>,
    /// The program has said of a save that it is complete, so it will say that of others.
    tells_complete: bool,
    /// Names whose commit the next attempt would finish.
    secured: BTreeSet<Vec<u8>>,
    /// How many commits have failed since the program's end.
    failed_tries: u32,
    outcomes: Vec<SaveOutcome>,
    next_scan_at: Option<Time>,
    scan_queue: SerialQueue,
    pending_scan: Option<PendingScan>,
    /// Steps that are known to verify: the one resumed from, and those committed since.
    verified: BTreeSet<u64>,
    worker: Worker,
    /// Something was committed since the worker last chose what to remove.
    must_prune: bool,
    /// The worker is choosing or removing.
    is_pruning: bool,
    removable: Vec<u64>,
    /// Other nodes write to the folder too. Their open files can't be seen, and a size may be an old one.
    is_multi_node: bool,
    wake: Arc<EventFd>,
    final_scan: FinalScan,
    is_hurried: bool,
}

impl Saver {
    /// Makes the folders and begins to watch them. Must be called before the program starts, or a save could be missed.
    /// `steps` were committed before, `resumed` was verified.
    pub(crate) fn begin(
        trial: &Trial,
        lease: &Lease,
        steps: BTreeSet<u64>,
        resumed: Option<u64>,
        context: SaverContext<'_>,
    ) -> io::Result<Self> {
        let SaverContext { wake, boot_id } = context;
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
        let worker = Worker::start(context, wake)?;
        Ok(Self::watching(staging, trial.spec.profile, worker, resumed, wake))
    }

    /// Begins to watch a staging folder that is there.
    fn watching(
        staging: PathBuf,
        profile: Option<Profile>,
        worker: Worker,
        resumed: Option<u64>,
        wake: &Arc<EventFd>,
    ) -> Self {
        Self {
            watch: DirWatch::new(&staging),
            worker,
            staging,
            profile,
            saves: BTreeMap::new(),
            queued_again: BTreeMap::new(),
            just_told: BTreeMap::new(),
            tells_complete: false,
            secured: BTreeSet::new(),
            failed_tries: 0,
            outcomes: Vec::new(),
            next_scan_at: None,
            scan_queue: SerialQueue::start("scan", Some(wake)),
            pending_scan: None,
            verified: resumed.into_iter().collect(),
            must_prune: false,
            is_pruning: false,
            removable: Vec::new(),
            is_multi_node: false,
            wake: Arc::clone(wake),
            final_scan: FinalScan::NotDue,
            is_hurried: false,
        }
    }

    /// Sets whether the program has processes on other nodes. Then a save in place is never complete by resting.
    pub(crate) fn with_multi_node(mut self, is_multi_node: bool) -> Self {
        self.is_multi_node = is_multi_node;
        self
    }

    /// The file descriptors to poll.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.watch.iter().filter_map(DirWatch::descriptor).chain([self.wake.as_fd()])
    }

    fn is_finished(&self) -> bool {
        !matches!(self.final_scan, FinalScan::NotDue)
    }

    /// When [`Saver::poll`] is due.
    pub(crate) fn next_poll(&self, now: Time) -> Option<Time> {
        let retries = self.saves.values().filter_map(|state| match state {
            SaveState::RetryCommit { at, .. } | SaveState::RetryInspection { at, .. } => Some(*at),
            SaveState::Complete(save) => save.held_until.filter(|at| *at > now),
            SaveState::InPlace { .. }
            | SaveState::Committing(_)
            | SaveState::Duplicate { .. }
            | SaveState::Rejected => None,
        });
        let scan_at = match self.final_scan {
            // A pending scan wakes the loop by itself.
            _ if self.pending_scan.is_some() => None,
            FinalScan::NotDue if self.watch.is_none() => {
                Some(self.next_scan_at.unwrap_or(now + SCAN_INTERVAL))
            }
            FinalScan::NotDue => self.next_scan_at,
            FinalScan::Due { .. } => Some(now),
            FinalScan::Done => None,
        };
        retries.chain(scan_at).min()
    }

    /// Whether renames can't be seen. Then a folder is complete only when the program has ended or says so.
    pub(crate) fn is_blind(&self) -> bool {
        self.watch.is_none()
    }

    /// Commits as fast as possible from now on, since the program is being stopped. Nothing waits for pruning.
    pub(crate) fn hurry(&mut self) {
        self.is_hurried = true;
        self.worker.hurry();
    }

    /// Whether nothing is left to wait for.
    pub(crate) fn is_idle(&self) -> bool {
        let is_scanned = !matches!(self.final_scan, FinalScan::Due { .. });
        let is_pruned = !self.is_pruning || self.is_hurried;
        is_scanned && is_pruned && !self.saves.values().any(SaveState::is_open)
    }

    /// The saves that are not committed yet, and whether the next attempt will commit them.
    pub(crate) fn unfinished(&self) -> Vec<(String, bool)> {
        let names = self.saves.iter().filter(|(_, state)| state.is_open());
        let mut names: Vec<_> =
            names.map(|(name, _)| (display_name(name), self.secured.contains(name))).collect();
        if matches!(self.final_scan, FinalScan::Due { .. }) {
            names.push(("the last save".to_owned(), false));
        }
        names
    }

    /// Steps that may be removed. The caller must record that first.
    pub(crate) fn take_removable(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.removable)
    }

    /// The sender for the [`WorkerJob::Remove`] that must follow once the removal is recorded.
    pub(crate) fn remover(&mut self) -> Sender<WorkerJob> {
        self.is_pruning = true;
        self.worker.sender()
    }

    /// Looks for new saves, and sends those that are complete to be committed.
    pub(crate) fn poll(&mut self, now: Time, position: &ProgramPosition) -> Vec<SaveOutcome> {
        let mut returned = self.take_replies(now);
        let events = self.watch.as_ref().map(DirWatch::read).unwrap_or_default();
        for name in events.renamed {
            // A commit that put a save back did not make it complete.
            if !inspect::is_shown(self.profile, &name) || returned.remove(&name) {
                continue;
            }
            let step = self.just_told.remove(&name);
            // Its step may be in a message that comes right after it.
            let held_until = (step.is_none() && !self.is_finished()).then(|| now + self.hold());
            self.add_complete(name, step, held_until, position.clone(), now);
        }
        self.just_told.clear();
        self.take_scan(now, position);
        let due = self.next_scan_at.is_some_and(|at| at <= now) || self.watch.is_none();
        if (events.other || due) && !self.is_finished() {
            // Now, even if a later scan was planned: this change belongs to the program's present step.
            self.next_scan_at = Some(self.next_scan_at.map_or(now, |at| at.min(now)));
        }
        self.start_scan(now);
        self.drop_surplus(now);
        self.send_complete(now);
        self.send_retries(now);
        std::mem::take(&mut self.outcomes)
    }

    /// How long a save that came by a rename waits for the message with its step.
    fn hold(&self) -> Duration {
        if self.tells_complete { HOLD } else { SHORT_HOLD }
    }

    /// Adds a save that a rename or the program has confirmed. An earlier one of that name may be out of its reach
    /// already, and not be committed yet.
    fn add_complete(
        &mut self,
        name: Vec<u8>,
        step: Option<u64>,
        held_until: Option<Time>,
        position: ProgramPosition,
        now: Time,
    ) {
        let mut save = CompleteSave {
            position,
            step,
            written_at: now,
            is_confirmed: true,
            held_until,
            tree: None,
        };
        match self.saves.get(&name) {
            Some(SaveState::Committing(_) | SaveState::RetryCommit { .. }) => {
                self.queued_again.insert(name, save);
                return;
            }
            // A program that saves under one name again and again is not held for ever.
            Some(SaveState::Complete(before)) => {
                save.held_until = save.held_until.and(before.held_until);
            }
            // What could not be inspected lay in the staging folder, where the new one is now.
            Some(
                SaveState::RetryInspection { .. }
                | SaveState::InPlace { .. }
                | SaveState::Duplicate { .. }
                | SaveState::Rejected,
            )
            | None => {}
        }
        self.saves.insert(name, SaveState::Complete(save));
    }

    /// The program said that a save is complete, and perhaps its step.
    pub(crate) fn complete(
        &mut self,
        name: Vec<u8>,
        step: Option<u64>,
        position: ProgramPosition,
        now: Time,
    ) {
        self.tells_complete = true;
        match step {
            Some(step) => self.just_told.insert(name.clone(), step),
            None => self.just_told.remove(&name),
        };
        let waiting = match self.saves.get_mut(&name) {
            // The rename came first, so its position stays.
            Some(SaveState::Complete(save) | SaveState::RetryInspection { save, .. }) => Some(save),
            // Either of a save that was made meanwhile, or of the one that is being committed. Then the worker finds none.
            Some(SaveState::Committing(_) | SaveState::RetryCommit { .. }) => {
                self.queued_again.get_mut(&name)
            }
            Some(SaveState::InPlace { .. } | SaveState::Duplicate { .. } | SaveState::Rejected)
            | None => None,
        };
        match waiting {
            Some(save) => {
                save.step = step.or(save.step);
                save.held_until = None;
            }
            None => self.add_complete(name, step, None, position, now),
        }
    }

    /// Tells the saver that the program has ended. `in_order`: by itself, with an exit code that says so.
    pub(crate) fn finish(&mut self, in_order: bool) {
        self.final_scan = FinalScan::Due { in_order, is_started: false };
        self.worker.hurry();
        for state in self.saves.values_mut() {
            match state {
                SaveState::RetryCommit { at, .. } => *at = Time::ZERO,
                // Every message that the program has sent is read before the next poll.
                SaveState::Complete(save) => save.held_until = None,
                SaveState::InPlace { .. }
                | SaveState::Committing(_)
                | SaveState::Duplicate { .. }
                | SaveState::RetryInspection { .. }
                | SaveState::Rejected => {}
            }
        }
    }

    /// Leaves a save where it is. The saver ignores it until the program saves it again.
    fn reject(&mut self, name: Vec<u8>, written_at: Time, why: String) {
        let entry = display_name(&name);
        self.saves.insert(name, SaveState::Rejected);
        self.outcomes.push(SaveOutcome {
            entry,
            step: 0,
            bytes: 0,
            result: Ok(CommitOutcome::Rejected(why)),
            written_at,
            is_final: true,
        });
    }
}

fn display_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
#[path = "../saver_tests.rs"]
mod tests;
