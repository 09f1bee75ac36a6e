//! Decides from looks at a file or folder of the program's own when it is complete. Pure.
//!
//! A rename says so at once. A file that the program rewrites in place is complete once it rested: unchanged, and closed
//! all the time, as two looks show. (A kill closes what was being written, however long it had not changed.) One that never
//! rests that long is copied while it is closed (a draft), and the draft counts once the program wrote the file anew: what
//! is written anew was not to be continued.

use std::time::Duration;

use super::path_state::PathState;
use crate::checkpoint::inspect::{self, ClosedLooks};
use crate::os::clock::Time;
use nemo_core::rundir::Profile;

/// How long a file must have been closed and unchanged before a draft of it is taken.
const SHORT_REST: Duration = Duration::from_millis(100);
/// How often a file must have been rewritten since the last copy before drafts are taken.
const RESTLESS: u32 = 2;

/// One look at a path.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) state: PathState,
    /// It was renamed into its place since the look before.
    pub(super) is_renamed: bool,
    /// The program says that it is complete.
    pub(super) is_told: bool,
    pub(super) at: Time,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// There is nothing new.
    Rest,
    /// Something is new, and may not be complete.
    Wait,
    /// It may be complete some time after it was closed: see whether a process has it open to write.
    SeeIfOpen,
    /// It is complete if no process has it open to write: copy it.
    Take,
    /// It may be complete if no process has it open to write: copy it, and wait for what the program does next.
    Draft,
}

/// What becomes of the draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DraftFate {
    Keep,
    /// The file was written anew: the draft was complete.
    Complete,
    /// The file is longer now: the draft was complete unless it is the file's beginning.
    Compare,
}

/// What is new of a path.
#[derive(Clone, Debug)]
struct SeenState {
    state: PathState,
    since: Time,
    /// The looks that asked, if all of them have found it closed.
    closed: Option<ClosedLooks>,
    is_renamed: bool,
    is_told: bool,
}

impl SeenState {
    fn rested(&self) -> Duration {
        self.closed.map_or(Duration::ZERO, ClosedLooks::rested)
    }
}

/// What is known of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct TrackedPath {
    /// As it was when it was last copied, or before the program started.
    taken: Option<PathState>,
    seen: Option<SeenState>,
    draft: Option<PathState>,
    /// How often it was seen changed since the last copy.
    changes: u32,
}

impl TrackedPath {
    /// One that was there before the program started.
    pub(super) fn from_before(state: PathState) -> Self {
        Self { taken: Some(state), ..Self::default() }
    }

    /// Whether the look shows something that no look before showed.
    pub(super) fn is_new(&self, state: &PathState) -> bool {
        let is_seen = self.seen.as_ref().is_some_and(|seen| seen.state == *state);
        !is_seen && self.taken.as_ref() != Some(state)
    }

    /// Whether a look soon may decide something.
    pub(super) fn is_pending(&self) -> bool {
        self.seen.is_some() || self.draft.is_some()
    }

    /// Whether what was seen last came by a rename.
    pub(super) fn is_renamed(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.is_renamed)
    }

    /// What a look means for the draft. It comes before [`TrackedPath::look`].
    pub(super) fn draft_fate(&self, state: &PathState) -> DraftFate {
        match &self.draft {
            Some(draft) if draft != state => {
                let is_longer = draft.id == state.id && state.bytes() > draft.bytes();
                if is_longer { DraftFate::Compare } else { DraftFate::Complete }
            }
            Some(_) | None => DraftFate::Keep,
        }
    }

    /// Nothing waits for what the program does next.
    pub(super) fn end_draft(&mut self) {
        self.draft = None;
    }

    /// A look has found what was seen last open to write, or closed.
    pub(super) fn see_open(&mut self, is_open: bool, at: Time) {
        let Some(seen) = &mut self.seen else { return };
        seen.closed = (!is_open).then(|| ClosedLooks::with(seen.closed, at));
    }

    /// Takes a look while the program runs.
    pub(super) fn look(
        &mut self,
        look: Look,
        profile: Option<Profile>,
        is_multi_node: bool,
    ) -> Decision {
        let Look { state, is_renamed, is_told, at } = look;
        if self.taken.as_ref() == Some(&state) {
            self.seen = None;
            return Decision::Rest;
        }
        let is_new = self.is_new(&state);
        let new = SeenState { state, since: at, closed: None, is_renamed, is_told };
        let seen = self.seen.get_or_insert_with(|| new.clone());
        if is_new {
            *seen = new;
            self.changes += 1;
        }
        seen.is_renamed |= is_renamed;
        seen.is_told |= is_told;
        let is_confirmed = seen.is_renamed || seen.is_told;
        let rests = inspect::rests(profile, &seen.state.tree, seen.rested());
        if is_confirmed || (!is_multi_node && rests) {
            return Decision::Take;
        }
        if is_multi_node || at.saturating_sub(seen.since) < SHORT_REST {
            return Decision::Wait;
        }
        let may_draft = seen.state.is_file() && self.changes >= RESTLESS;
        let has_draft = self.draft.as_ref() == Some(&seen.state);
        if may_draft && !has_draft {
            Decision::Draft
        } else if inspect::may_rest(profile, &seen.state.tree) {
            Decision::SeeIfOpen
        } else {
            Decision::Wait
        }
    }

    /// Takes the last look, after the program's end. Nothing has it open any more.
    pub(super) fn last_look(
        &self,
        look: &Look,
        profile: Option<Profile>,
        in_order: bool,
        is_multi_node: bool,
    ) -> Decision {
        if self.taken.as_ref() == Some(&look.state) {
            return Decision::Rest;
        }
        let same = self.seen.as_ref().filter(|seen| seen.state == look.state);
        let rested = same.map_or(Duration::ZERO, SeenState::rested);
        let rests = !is_multi_node && inspect::rests(profile, &look.state.tree, rested);
        let is_confirmed = look.is_renamed
            || look.is_told
            || same.is_some_and(|seen| seen.is_renamed || seen.is_told);
        if in_order || is_confirmed || rests { Decision::Take } else { Decision::Wait }
    }

    /// It was copied, and the copy is complete.
    pub(super) fn taken(&mut self, state: PathState) {
        self.taken = Some(state);
        (self.seen, self.draft, self.changes) = (None, None, 0);
    }

    pub(super) fn drafted(&mut self, state: PathState) {
        self.draft = Some(state);
    }
}

#[cfg(test)]
#[path = "looks_tests.rs"]
mod tests;
