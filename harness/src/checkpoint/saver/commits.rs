//! The commits of a saver: which saves the worker gets, and what follows from its replies.

use std::collections::BTreeSet;
use std::io;

use nemo_core::profile;

use super::{
    MAX_COMMITTING, MAX_FINAL_TRIES, MAX_VERIFIED, MAX_WAITING, SCAN_INTERVAL, SaveOutcome, Saver,
    display_name,
};
use crate::checkpoint::candidate::{CompleteSave, SaveState};
use crate::checkpoint::collect::is_collected;
use crate::checkpoint::commit::{CommitOutcome, CommitRequest};
use crate::checkpoint::prune::StillNeeded;
use crate::checkpoint::worker::{NotTriedReason, WorkerJob, WorkerReply};
use crate::os::clock::Time;

impl Saver {
    /// Keeps only the newest of very many saves that wait: the others would be pruned right after their commit. While the
    /// worker has none, the oldest stays too: newer ones may come faster than their holds end, and then none would ever
    /// be committed.
    pub(super) fn drop_surplus(&mut self, now: Time) {
        let waiting = self.saves.values().filter(|state| matches!(state, SaveState::Complete(_)));
        let Some(surplus @ 1..) = waiting.count().checked_sub(MAX_WAITING) else { return };
        let next = usize::from(self.room() == MAX_COMMITTING);
        for name in self.waiting(|_| true).into_iter().skip(next).take(surplus) {
            if std::mem::replace(&mut self.has_told_surplus, true) {
                self.leave(name);
                continue;
            }
            let why = format!(
                "more than {MAX_WAITING} newer ones wait, since the program saves faster than the disk takes it; \
                 the next ones that are left so are not named"
            );
            self.reject(name, now, why);
        }
    }

    /// The names of the complete saves that pass, from the oldest to the newest.
    fn waiting(&self, passes: impl Fn(&CompleteSave) -> bool) -> Vec<Vec<u8>> {
        let complete = self.saves.iter().filter_map(|(name, state)| match state {
            SaveState::Complete(save) if passes(save) => Some((save.written_at, name)),
            _ => None,
        });
        let mut names: Vec<_> = complete
            .map(|(written_at, name)| (written_at, self.step_in(name), name.clone()))
            .collect();
        names.sort();
        names.into_iter().map(|(.., name)| name).collect()
    }

    /// How many more commits the worker may have.
    pub(super) fn room(&self) -> usize {
        let sent = self.saves.values().filter(|state| matches!(state, SaveState::Committing(_)));
        MAX_COMMITTING.saturating_sub(sent.count())
    }

    /// The step that a name alone tells.
    fn step_in(&self, name: &[u8]) -> Option<u64> {
        profile::step(self.profile, &display_name(name), true, b"").ok().flatten()
    }

    /// Sends complete saves to the worker, a few at once: the oldest first, but in a hurry the newest, since the time may
    /// not be enough for all.
    pub(super) fn send_complete(&mut self, now: Time) {
        for state in self.saves.values_mut() {
            if let SaveState::RetryInspection { save, at } = state
                && *at <= now
            {
                *state = SaveState::Complete(save.clone());
            }
        }
        let room = self.room();
        if room == 0 {
            return;
        }
        let mut due = self.waiting(|save| save.held_until.is_none_or(|at| at <= now));
        if self.is_hurried {
            due.reverse();
        }
        for name in due.into_iter().take(room) {
            let Some(state) = self.saves.get_mut(&name) else { continue };
            if let SaveState::Complete(save) = state {
                let save = save.clone();
                *state = SaveState::Committing(save.clone());
                self.worker.send(WorkerJob::Save(name, Box::new(save)));
            }
        }
    }

    /// Sends the commits again that failed a while ago.
    pub(super) fn send_retries(&mut self, now: Time) {
        for state in self.saves.values_mut() {
            if let SaveState::RetryCommit { request, save, at } = state
                && *at <= now
            {
                let request = request.clone();
                *state = SaveState::Committing(save.clone());
                self.worker.send(WorkerJob::Commit(request));
            }
        }
    }

    /// Takes the worker's replies. Returns the names that it has put back into the staging folder.
    pub(super) fn take_replies(&mut self, now: Time) -> BTreeSet<Vec<u8>> {
        let mut returned = BTreeSet::new();
        for reply in self.worker.replies() {
            match reply {
                WorkerReply::Commit { request, outcome, is_still_staged } => {
                    // If the watch has seen that rename already, it was not a second save.
                    let is_back = matches!(outcome, Ok(CommitOutcome::StillChanging));
                    let name = self.name_of(&request);
                    let is_told = self.is_told_again(&name);
                    if is_back && (is_told || self.queued_again.remove(&name).is_none()) {
                        returned.insert(name);
                    }
                    self.take_commit(*request, outcome, is_still_staged, now);
                }
                WorkerReply::Secured(name) => {
                    self.secured.insert(name);
                }
                WorkerReply::NotTried(name, why) => self.take_not_tried(name, why, now),
                // If the worker could not choose, it chooses again after the next commit.
                WorkerReply::Removable(steps) => {
                    self.is_pruning = false;
                    self.removable.extend(steps.unwrap_or_default());
                }
                WorkerReply::Removed => self.is_pruning = false,
            }
        }
        if self.must_prune && !self.is_pruning && self.removable.is_empty() {
            (self.must_prune, self.is_pruning) = (false, true);
            let needed = StillNeeded::Resume { verified: self.verified.clone() };
            self.worker.send(WorkerJob::ChooseRemovable(needed));
        }
        returned
    }

    /// Whether the program has told a step since the commit began.
    fn is_told_again(&self, name: &[u8]) -> bool {
        self.queued_again.get(name).is_some_and(|save| save.step.is_some())
    }

    /// The worker did not try a commit.
    fn take_not_tried(&mut self, name: Vec<u8>, why: NotTriedReason, now: Time) {
        let Some(SaveState::Committing(save)) = self.saves.remove(&name) else { return };
        match why {
            NotTriedReason::Gone => self.end_collected(&name, None),
            NotTriedReason::Unfit(why) => self.reject(name.clone(), save.written_at, why),
            // The saver tries that again, as it does with a commit.
            NotTriedReason::Unseen(error) => {
                self.failed_tries += u32::from(self.is_finished());
                if self.failed_tries > MAX_FINAL_TRIES {
                    self.outcomes.push(SaveOutcome {
                        entry: self.shown(&name),
                        step: save.position.step.unwrap_or_default(),
                        bytes: 0,
                        result: Err(error),
                        written_at: save.written_at,
                        is_final: true,
                    });
                    self.leave(name.clone());
                } else {
                    let again = SaveState::RetryInspection { save, at: now + SCAN_INTERVAL };
                    self.saves.insert(name.clone(), again);
                }
            }
        }
        self.requeue_again(name, now);
    }

    /// Queues what the program saved under the same name during the commit, unless the commit is tried again. What it
    /// wrote in place was not looked at meanwhile, so a scan is due.
    fn requeue_again(&mut self, name: Vec<u8>, now: Time) {
        if self.saves.get(&name).is_some_and(SaveState::is_open) {
            return;
        }
        if let Some(save) = self.queued_again.remove(&name) {
            self.left.remove(&name);
            self.saves.insert(name, SaveState::Complete(save));
        }
        if !self.is_finished() {
            self.next_scan_at.get_or_insert(now);
        }
    }

    fn take_commit(
        &mut self,
        request: CommitRequest,
        result: io::Result<CommitOutcome>,
        is_still_staged: bool,
        now: Time,
    ) {
        let name = self.name_of(&request);
        let (entry, step, bytes) = (self.shown(&name), request.step, request.bytes());
        if result.is_ok() {
            self.secured.remove(&name);
        }
        let Some(SaveState::Committing(save)) = self.saves.remove(&name) else { return };
        let written_at = save.written_at;
        let mut is_final = true;
        match &result {
            Ok(CommitOutcome::Committed | CommitOutcome::AlreadyCommitted) => {
                self.add_verified(step);
                self.must_prune = true;
                self.end_collected(&name, Some(step));
            }
            // The program may save it again if it is gone. If it is still there, one look was enough.
            Ok(CommitOutcome::Rejected(_)) if is_still_staged => {
                self.leave(name.clone());
            }
            Ok(CommitOutcome::SameContent(step)) if is_collected(&name) => {
                self.end_collected(&name, Some(*step));
            }
            Ok(CommitOutcome::SameContent(_)) => {
                let tree = save.tree.or(request.tree).unwrap_or_default();
                self.saves.insert(name.clone(), SaveState::Duplicate { tree });
            }
            Ok(CommitOutcome::Superseded | CommitOutcome::Rejected(_)) => {
                self.end_collected(&name, None);
            }
            Ok(CommitOutcome::StillChanging) if self.is_told_again(&name) => is_final = false,
            Ok(CommitOutcome::StillChanging) => is_final = self.wait_for_rest(request, save, now),
            Err(_) => is_final = self.retry(request, save, now),
        }
        self.requeue_again(name, now);
        self.outcomes.push(SaveOutcome { entry, step, bytes, result, written_at, is_final });
    }

    fn add_verified(&mut self, step: u64) {
        self.verified.insert(step);
        if self.verified.len() > MAX_VERIFIED {
            self.verified.pop_first();
        }
    }

    /// The save is back in the staging folder. If only its rest made it complete, it must rest again. If a rename or the
    /// program confirmed it, it is complete: the size or time that differs may be an old one of a shared file system.
    fn wait_for_rest(&mut self, request: CommitRequest, save: CompleteSave, now: Time) -> bool {
        if save.is_confirmed || self.is_finished() {
            return self.retry(request, save, now);
        }
        self.next_scan_at = Some(now + SCAN_INTERVAL);
        let name = self.name_of(&request);
        let (tree, position) = (request.tree.unwrap_or_default(), save.position);
        self.saves.insert(name, SaveState::InPlace { tree, since: now, closed: None, position });
        false
    }

    /// Plans another try. Returns true if there were too many. While the program runs there is no limit.
    fn retry(&mut self, request: CommitRequest, save: CompleteSave, now: Time) -> bool {
        self.failed_tries += u32::from(self.is_finished());
        let name = self.name_of(&request);
        if self.failed_tries > MAX_FINAL_TRIES {
            self.leave(name);
            return true;
        }
        let at = now + if self.is_finished() { SCAN_INTERVAL } else { SCAN_INTERVAL * 5 };
        self.saves.insert(name, SaveState::RetryCommit { request: Box::new(request), save, at });
        false
    }
}
