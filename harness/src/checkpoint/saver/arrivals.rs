//! The saves that arrive complete: by a rename, or by the program's word.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Saver;
use crate::checkpoint::candidate::{CompleteSave, ProgramPosition, SaveState};
use crate::checkpoint::inspect;
use crate::checkpoint::store::join;
use crate::os::clock::Time;

/// How long a save that came by a rename waits for `CKPT_DONE`, which may tell its step: in a program that has sent one
/// before, and in one that has not.
pub(super) const HOLD: Duration = Duration::from_secs(1);
pub(super) const SHORT_HOLD: Duration = Duration::from_millis(200);

impl Saver {
    /// Takes the names that were renamed into the folder. `returned`: those that commits have put back, which does not
    /// make them complete.
    pub(super) fn take_renames(&mut self, mut returned: BTreeSet<Vec<u8>>, now: Time) {
        for (name, position) in std::mem::take(&mut self.renamed) {
            if !inspect::is_shown(self.profile, &name) || returned.remove(&name) {
                continue;
            }
            let step = self.just_told.remove(&name);
            // Its step may be in a message that comes right after it.
            let held_until = (step.is_none() && !self.is_finished()).then(|| now + self.hold());
            self.add_complete(name, step, held_until, position, now);
        }
        self.just_told.clear();
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
                | SaveState::Duplicate { .. },
            )
            | None => {}
        }
        self.left.remove(&name);
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
        if let Some(tier) = &self.tier {
            let path = join(tier, &name);
            if let Some(collector) = &self.collector {
                collector.complete(path.clone());
            }
            let path = path.display().to_string();
            // Of two before a copy, nobody knows which is that of the copy.
            let is_only = !self.told_steps.contains_key(&path);
            self.told_steps.insert(path, step.filter(|_| is_only));
            return;
        }
        self.placed(name, step, position, now);
    }

    /// A save was put into the staging folder, or is complete there.
    pub(crate) fn placed(
        &mut self,
        name: Vec<u8>,
        step: Option<u64>,
        position: ProgramPosition,
        now: Time,
    ) {
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
            Some(SaveState::InPlace { .. } | SaveState::Duplicate { .. }) | None => None,
        };
        match waiting {
            Some(save) => {
                save.step = step.or(save.step);
                save.held_until = None;
            }
            None => self.add_complete(name, step, None, position, now),
        }
    }
}
