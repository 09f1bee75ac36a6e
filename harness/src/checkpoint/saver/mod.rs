//! Finds what the program has saved and sends it to the thread that commits, so that no slow disk stops the supervision.
//!
//! A save that came by a rename is complete. A save that was written in place is complete once nothing in it has changed
//! for a while and no process has it open, or once the program has ended in order. Nothing in this module touches the
//! disk: threads do.

mod arrivals;
mod collects;
mod commits;
mod positions;
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
use super::collect::{Collector, CollectorConfig};
use super::commit::CommitOutcome;
use super::inotify::DirWatch;
use super::numbers::{NumberedSave, StepNumbers};
use super::prune::RetentionRules;
use super::resume::VerifiedCheckpoint;
use super::scan::{LeftEntries, ScanResult};
use super::staging;
use super::worker::{Worker, WorkerContext, WorkerJob};
use crate::attempt::lease::Lease;
use crate::job::trial::Trial;
use crate::os::clock::Time;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};
use positions::PositionHistory;

/// How often the saver scans saves that are written in place.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
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
    /// Where else the program saves.
    pub(crate) collector: Option<&'a CollectorConfig>,
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
    /// Where the program was when its output was read last, and when that was.
    position: Option<ProgramPosition>,
    read_at: Time,
    /// The names that were renamed into the folder since the last poll, each with where the program was.
    renamed: Vec<(Vec<u8>, ProgramPosition)>,
    /// Something else has appeared there.
    has_other: bool,
    saves: BTreeMap<Vec<u8>, SaveState>,
    /// Saves that stay in the staging folder, and are no checkpoints. There may be very many.
    left: LeftEntries,
    /// Some of them were surplus, and that was said.
    has_told_surplus: bool,
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
    no_scan_before: Time,
    scan_queue: SerialQueue,
    pending_scan: Option<PendingScan>,
    /// Steps that are known to verify: the one resumed from, and those committed since.
    verified: BTreeSet<u64>,
    worker: Worker,
    /// It looks at the program's own paths, where the file names some.
    collector: Option<Collector>,
    /// The program saves to memory: what it says of a save is about one there.
    tier: Option<PathBuf>,
    /// The steps that it told of those.
    told_steps: BTreeMap<String, Option<u64>>,
    /// Where the program was at each change that the collector saw.
    changes: BTreeMap<u64, ProgramPosition>,
    positions: PositionHistory,
    /// The program's own paths of the copies, for people.
    own_paths: BTreeMap<Vec<u8>, String>,
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
        resumed: Option<&VerifiedCheckpoint>,
        context: SaverContext<'_>,
    ) -> io::Result<Self> {
        let SaverContext { wake, boot_id, collector } = context;
        let (staging, checkpoints) = (trial.dir.staging(lease.attempt), trial.dir.checkpoints());
        staging::prepare(&staging, &checkpoints, trial.spec.profile)?;
        let began = resumed.map(|own| {
            let (reached, entry) = (Some(own.reached()), own.entry.clone());
            (own.step, NumberedSave { reached, entry, is_open: false })
        });
        let context = WorkerContext {
            rules: RetentionRules::of(trial),
            profile: trial.spec.profile,
            staging: staging.clone(),
            checkpoints,
            lease: lease.clone(),
            boot_id: boot_id.to_owned(),
            numbers: Mutex::new(StepNumbers::new(steps, began)),
            gentle: Arc::new(AtomicBool::new(true)),
        };
        let worker = Worker::start(context, wake)?;
        let tier = collector.and_then(|config| config.tier.clone());
        let collector =
            collector.map(|config| Collector::start(config.clone(), wake)).transpose()?;
        let resumed = resumed.map(|own| own.step);
        let own = Self::watching(staging, trial.spec.profile, worker, resumed, wake);
        Ok(Self { collector, tier, ..own })
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
            position: None,
            read_at: Time::ZERO,
            renamed: Vec::new(),
            has_other: false,
            worker,
            collector: None,
            tier: None,
            told_steps: BTreeMap::new(),
            changes: BTreeMap::new(),
            positions: PositionHistory::default(),
            own_paths: BTreeMap::new(),
            staging,
            profile,
            saves: BTreeMap::new(),
            left: LeftEntries::default(),
            has_told_surplus: false,
            queued_again: BTreeMap::new(),
            just_told: BTreeMap::new(),
            tells_complete: false,
            secured: BTreeSet::new(),
            failed_tries: 0,
            outcomes: Vec::new(),
            next_scan_at: None,
            no_scan_before: Time::ZERO,
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
        // Without room the next reply of the worker wakes the loop.
        let has_room = self.room() > 0;
        let retries = self.saves.values().filter_map(|state| match state {
            SaveState::RetryCommit { at, .. } | SaveState::RetryInspection { at, .. } => Some(*at),
            SaveState::Complete(save) if has_room => Some(save.held_until.unwrap_or(now)),
            SaveState::Complete(_)
            | SaveState::InPlace { .. }
            | SaveState::Committing(_)
            | SaveState::Duplicate { .. } => None,
        });
        let scan_at = match self.final_scan {
            // A pending scan wakes the loop by itself.
            _ if self.pending_scan.is_some() => None,
            FinalScan::NotDue if self.watch.is_none() => {
                Some(self.scan_due_at().unwrap_or(now + SCAN_INTERVAL))
            }
            FinalScan::NotDue => self.scan_due_at(),
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
        let is_scanned = is_scanned && !self.is_collecting();
        is_scanned && is_pruned && !self.saves.values().any(SaveState::is_open)
    }

    /// The saves that are not committed yet, and whether the next attempt will commit them.
    pub(crate) fn unfinished(&self) -> Vec<(String, bool)> {
        let names = self.saves.iter().filter(|(_, state)| state.is_open());
        let mut names: Vec<_> =
            names.map(|(name, _)| (self.shown(name), self.secured.contains(name))).collect();
        if matches!(self.final_scan, FinalScan::Due { .. }) || self.is_collecting() {
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
        let returned = self.take_replies(now);
        // The names that were put back are among the renames by now.
        self.note_position(now, position);
        self.take_collected(now, position);
        self.take_renames(returned, now);
        self.take_scan(now, position);
        let due = self.next_scan_at.is_some_and(|at| at <= now) || self.watch.is_none();
        let is_new = std::mem::take(&mut self.has_other);
        if (is_new || due) && !self.is_finished() {
            // Now, even if a later scan was planned: this change belongs to the program's present step.
            self.next_scan_at = Some(self.next_scan_at.map_or(now, |at| at.min(now)));
        }
        self.start_scan(now);
        self.drop_surplus(now);
        self.send_complete(now);
        self.send_retries(now);
        std::mem::take(&mut self.outcomes)
    }

    /// Tells the saver that the program has ended. `in_order`: by itself, with an exit code that says so.
    pub(crate) fn finish(&mut self, in_order: bool) {
        self.final_scan = FinalScan::Due { in_order, is_started: false };
        self.worker.hurry();
        if let Some(collector) = &self.collector {
            collector.finish(in_order);
        }
        for state in self.saves.values_mut() {
            match state {
                SaveState::RetryCommit { at, .. } => *at = Time::ZERO,
                // Every message that the program has sent is read before the next poll.
                SaveState::Complete(save) => save.held_until = None,
                SaveState::InPlace { .. }
                | SaveState::Committing(_)
                | SaveState::Duplicate { .. }
                | SaveState::RetryInspection { .. } => {}
            }
        }
    }

    /// Leaves a save where it is. The saver ignores it until the program saves it again.
    fn leave(&mut self, name: Vec<u8>) {
        self.saves.remove(&name);
        self.end_collected(&name, None);
        self.left.insert(name);
    }

    /// Leaves a save where it is, and says why.
    fn reject(&mut self, name: Vec<u8>, written_at: Time, why: String) {
        let entry = self.shown(&name);
        self.leave(name);
        self.refuse(entry, written_at, why);
    }

    /// Says why something is not committed.
    fn refuse(&mut self, entry: String, written_at: Time, why: String) {
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
