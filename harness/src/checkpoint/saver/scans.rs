//! What a scan of the staging folder says of the saves that were written in place.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::log_line;

use super::{FinalScan, PendingScan, SCAN_INTERVAL, Saver};
use crate::checkpoint::candidate::{CompleteSave, ProgramPosition, SaveState};
use crate::checkpoint::inspect::{self, ClosedLooks};
use crate::checkpoint::scan::{self, ScanResult, ScannedEntry, StagingScan};
use crate::checkpoint::store::FileKind;
use crate::checkpoint::tree::FileEntry;
use crate::os::clock::Time;

/// The error in place of a scan's result keeps its kind.
type Tree = std::io::Result<Vec<FileEntry>>;

/// A scan is followed by a pause of so many times its length: a program may add to a huge folder all the time.
const SCAN_PAUSE: u32 = 4;

impl Saver {
    /// When the next scan may start, if one is wanted.
    pub(super) fn scan_due_at(&self) -> Option<Time> {
        self.next_scan_at.map(|at| at.max(self.no_scan_before))
    }

    /// Starts a scan of the folder if one is due.
    pub(super) fn start_scan(&mut self, now: Time) {
        let is_due = self.scan_due_at().is_some_and(|at| at <= now);
        let is_final = match &mut self.final_scan {
            FinalScan::NotDue => false,
            FinalScan::Due { is_started, .. } if self.pending_scan.is_none() && !*is_started => {
                *is_started = true;
                true
            }
            FinalScan::Due { .. } | FinalScan::Done => return,
        };
        if self.pending_scan.is_some() || !(is_due || is_final) {
            return;
        }
        self.next_scan_at = None;
        let scan = self.staging_scan();
        let answer = self.scan_queue.ask(move || scan::scan(&scan));
        self.pending_scan = Some(PendingScan { answer, started_at: now, is_final });
    }

    pub(super) fn staging_scan(&self) -> StagingScan {
        let (mut known, mut skipped) = (BTreeMap::new(), BTreeSet::new());
        for (name, state) in &self.saves {
            match state {
                SaveState::InPlace { tree, .. } | SaveState::Duplicate { tree } => {
                    known.insert(name.clone(), tree.clone());
                }
                SaveState::Complete(_)
                | SaveState::Committing(_)
                | SaveState::RetryInspection { .. }
                | SaveState::RetryCommit { .. } => {
                    skipped.insert(name.clone());
                }
            }
        }
        let (staging, left) = (self.staging.clone(), self.left.clone());
        StagingScan { staging, profile: self.profile, known, skipped, left }
    }

    /// Takes the result of the pending scan, if it is there.
    pub(super) fn take_scan(&mut self, now: Time, position: &ProgramPosition) {
        let Some(result) = self.pending_scan.as_ref().and_then(|scan| scan.answer.take()) else {
            return;
        };
        let Some(PendingScan { started_at, is_final, .. }) = self.pending_scan.take() else {
            return;
        };
        self.no_scan_before = now + now.saturating_sub(started_at) * SCAN_PAUSE;
        match result {
            Ok(result) if is_final => self.take_final_scan(result, now, position),
            Ok(result) => self.take_running_scan(result, started_at, now, position),
            Err(error) if is_final => {
                self.final_scan = FinalScan::Done;
                let why = format!("its folder can't be read: {error}");
                self.reject(b"the last save".to_vec(), now, why);
            }
            Err(_) => self.next_scan_at = Some(now + SCAN_INTERVAL),
        }
    }

    /// Takes what was written in place while the program runs.
    fn take_running_scan(
        &mut self,
        result: ScanResult,
        scanned_at: Time,
        now: Time,
        position: &ProgramPosition,
    ) {
        self.saves.retain(|name, state| !is_at_rest(state) || !result.gone.contains(name));
        for ScannedEntry { name, tree, is_open } in result.entries {
            let known = match self.saves.get(&name) {
                Some(SaveState::InPlace { tree, since, closed, position }) => {
                    Some((tree, *since, *closed, position))
                }
                Some(SaveState::Duplicate { tree: known }) if is_same(&tree, known) => continue,
                None if self.left.contains(&name) => continue,
                Some(SaveState::Duplicate { .. }) | None => None,
                Some(_) => continue, // it was renamed meanwhile
            };
            let Ok(tree) = tree else { continue };
            let same = known.filter(|(known, ..)| **known == tree);
            // Whether it is open, a scan says only of what has not changed.
            let is_closed = same.is_some() && !is_open;
            let (since, closed, position) =
                same.map_or((now, None, position), |(_, since, closed, at)| (since, closed, at));
            let closed = is_closed.then(|| ClosedLooks::with(closed, scanned_at));
            let position = position.clone();
            let next = if self.rests(&tree, closed) {
                SaveState::Complete(complete_in_place(position, since, Some(tree)))
            } else {
                SaveState::InPlace { tree, since, closed, position }
            };
            self.saves.insert(name, next);
        }
        if self.saves.values().any(|state| matches!(state, SaveState::InPlace { .. })) {
            self.next_scan_at.get_or_insert(now + SCAN_INTERVAL);
        }
    }

    /// Takes what is left after the program's end. A save that may be torn is rejected.
    fn take_final_scan(&mut self, result: ScanResult, now: Time, position: &ProgramPosition) {
        let FinalScan::Due { in_order, .. } = self.final_scan else { return };
        self.final_scan = FinalScan::Done;
        for ScannedEntry { name, tree, .. } in result.entries {
            let (rests, since, position) = match self.saves.get(&name) {
                Some(SaveState::InPlace { tree: known, since, closed, position })
                    if is_same(&tree, known) =>
                {
                    (self.rests(known, *closed), *since, position.clone())
                }
                Some(SaveState::Duplicate { tree: known }) if is_same(&tree, known) => continue,
                None if self.left.contains(&name) => continue,
                Some(SaveState::InPlace { .. } | SaveState::Duplicate { .. }) | None => {
                    (false, now, position.clone())
                }
                Some(_) => continue,
            };
            let is_complete = in_order || tree.as_ref().is_ok_and(|tree| rests || is_special(tree));
            if is_complete {
                let save = complete_in_place(position, since, tree.ok());
                self.saves.insert(name, SaveState::Complete(save));
            } else {
                self.reject(name, now, log_line::MAY_BE_TORN.to_owned());
            }
        }
    }

    /// Whether an entry is complete that has not changed, and was closed all the time. Other nodes may write unseen.
    fn rests(&self, tree: &[FileEntry], closed: Option<ClosedLooks>) -> bool {
        let rests = |looks: ClosedLooks| inspect::rests(self.profile, tree, looks.rested());
        !self.is_multi_node && closed.is_some_and(rests)
    }
}

/// Whether nothing is to be done with a save until it changes.
fn is_at_rest(state: &SaveState) -> bool {
    match state {
        SaveState::InPlace { .. } | SaveState::Duplicate { .. } => true,
        SaveState::Complete(_)
        | SaveState::Committing(_)
        | SaveState::RetryInspection { .. }
        | SaveState::RetryCommit { .. } => false,
    }
}

fn is_same(tree: &Tree, known: &[FileEntry]) -> bool {
    tree.as_ref().is_ok_and(|tree| tree == known)
}

/// A save that was written in place and is complete.
fn complete_in_place(
    position: ProgramPosition,
    written_at: Time,
    tree: Option<Vec<FileEntry>>,
) -> CompleteSave {
    CompleteSave { position, step: None, written_at, is_confirmed: false, held_until: None, tree }
}

/// Whether the entry is a link, a FIFO or a device. It is never torn; the commit says why it is no checkpoint.
fn is_special(tree: &[FileEntry]) -> bool {
    tree.first().is_some_and(|top| matches!(top.stat.kind, FileKind::Link | FileKind::Other(_)))
}
