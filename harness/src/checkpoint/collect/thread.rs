//! The thread of a collector: its looks, its copies, and what it tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nemo_core::log_line;
use nemo_core::open;
use nemo_core::own_paths::OwnPath;
use nemo_core::profile::{self, TooLarge};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::collected::{CollectedPath, CollectedPaths, digest_of};
use super::looks::{Decision, DraftFate, Look, TrackedPath};
use super::path_state::{PathState, same_still};
use super::watch::{FolderWatch, SeenWrite, WatchContext};
use super::{
    CollectedSave, CollectorCommand, CollectorConfig, CollectorNews, PREFIX, Tell, is_temporary,
};
use crate::checkpoint::background;
use crate::checkpoint::copy;
use crate::checkpoint::store::{DiskStore, Store, join};
use crate::os::clock::Time;

/// How often it looks, while something may become complete and while nothing does.
const SOON: Duration = Duration::from_millis(40);
const SELDOM: Duration = Duration::from_secs(1);
/// A look, or a copy, is followed by a pause of so many times its length.
const PAUSE: u32 = 4;
/// The same for the search for open files, which looks at every process.
const OPEN_PAUSE: u32 = 20;
/// How often a path is looked at again that is written meanwhile.
const TRIES: u32 = 3;
/// How much of a file is read to find its step.
const HEAD: u64 = 64 * 1024;

/// A path that is followed.
#[derive(Debug, Default)]
struct Followed {
    looks: TrackedPath,
    /// The number of its last change.
    change: u64,
    /// Only a look has shown that change.
    is_only_looked_at: bool,
    /// The copy that waits for what the program does next, and the number of its change.
    draft: Option<(Vec<u8>, PathState, u64)>,
    /// No copy before.
    copy_not_before: Time,
    search_not_before: Time,
}

/// A copy on its way to its commit.
#[derive(Debug)]
struct OnItsWay {
    path: PathBuf,
    state: PathState,
}

pub(super) struct CollectorThread {
    config: CollectorConfig,
    stop: Arc<AtomicBool>,
    tell: Tell,
    context: WatchContext,
    pub(super) watch: FolderWatch,
    followed: BTreeMap<PathBuf, Followed>,
    on_their_way: BTreeMap<Vec<u8>, OnItsWay>,
    collected: CollectedPaths,
    /// What was written since the look before.
    writes: BTreeMap<PathBuf, SeenWrite>,
    /// What the program calls complete, since the look before.
    completed: BTreeSet<PathBuf>,
    /// Something was seen that asks for a look.
    is_due: bool,
    copies: u64,
    /// When the last look began. What it did not show came later.
    last_look: Time,
    no_look_before: Time,
    ended: Option<bool>,
    is_finished: bool,
}

impl std::fmt::Debug for CollectorThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CollectorThread").field("followed", &self.followed).finish_non_exhaustive()
    }
}

impl CollectorThread {
    pub(super) fn new(config: CollectorConfig, stop: Arc<AtomicBool>, tell: Tell) -> Self {
        let context = WatchContext {
            paths: config.paths.clone(),
            clock: config.clock,
            tell: Arc::clone(&tell),
            changes: Arc::default(),
        };
        let collected = CollectedPaths::read(&config.record);
        Self {
            config,
            stop,
            tell,
            watch: FolderWatch::new(context.clone()),
            context,
            followed: BTreeMap::new(),
            on_their_way: BTreeMap::new(),
            collected,
            writes: BTreeMap::new(),
            completed: BTreeSet::new(),
            is_due: false,
            last_look: Time::ZERO,
            copies: 0,
            no_look_before: Time::ZERO,
            ended: None,
            is_finished: false,
        }
    }

    /// What lies there before the program starts is no save of it.
    pub(super) fn remember_what_is_there(&mut self) {
        self.watch_folders();
        for path in self.found() {
            if let Ok(state) = PathState::of(&path) {
                let looks = TrackedPath::from_before(state);
                self.followed.insert(path, Followed { looks, ..Followed::default() });
            }
        }
        self.watch.take();
        self.last_look = self.config.clock.now();
    }

    /// Looks until the collector is dropped.
    pub(super) fn run(&mut self, commands: &Receiver<CollectorCommand>, wake: &EventFd) {
        background::give_way();
        while !self.stop.load(Ordering::Relaxed) {
            self.wait(wake);
            for command in commands.try_iter() {
                match command {
                    CollectorCommand::Finish { in_order } => self.ended = Some(in_order),
                    CollectorCommand::Complete { path } => {
                        self.completed.insert(path);
                        self.is_due = true;
                    }
                    CollectorCommand::Done { name, committed } => self.done(&name, committed),
                }
            }
            self.take_writes();
            let now = self.config.clock.now();
            match self.ended {
                Some(in_order) if !self.is_finished => self.finish(in_order),
                None if now >= self.no_look_before => self.look_at_all(now),
                Some(_) | None => {}
            }
        }
    }

    fn wait(&self, wake: &EventFd) {
        let now = self.config.clock.now();
        let is_pending = self.followed.values().any(|own| own.looks.is_pending());
        let pause = match (self.is_due, is_pending) {
            (true, _) => Duration::ZERO,
            (false, true) => SOON,
            (false, false) => SELDOM,
        };
        let pause = pause.max(self.no_look_before.saturating_sub(now));
        let pause = if self.is_finished { SELDOM } else { pause };
        let mut set = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        poll(&mut set, timeout).ok(); // both are read without blocking
        wake.read().ok();
    }

    /// Takes what the watch has seen until now.
    fn take_writes(&mut self) {
        let (writes, is_any) = self.watch.take();
        self.is_due |= is_any;
        for (path, write) in writes {
            let own = self.writes.entry(path).or_insert(write);
            *own = SeenWrite { is_renamed: write.is_renamed || own.is_renamed, ..write };
        }
    }

    /// What a path looks like, and the last write before that. The file may be of a later write, never of an earlier one.
    fn look_at(&mut self, path: &Path) -> Option<(PathState, Option<SeenWrite>)> {
        self.take_writes();
        let mut state = PathState::of(path).ok();
        for _ in 0..TRIES {
            let before = self.writes.get(path).copied();
            self.take_writes();
            if self.writes.get(path).copied() == before {
                break;
            }
            state = PathState::of(path).ok();
        }
        Some((state?, self.writes.remove(path)))
    }

    /// Gives a change of a path its number. A write that was seen as it happened tells best when it was.
    fn note_change(&mut self, path: &Path, state: &PathState, write: Option<SeenWrite>) {
        let own = self.followed.entry(path.to_owned()).or_default();
        let is_new = own.looks.is_new(state);
        match write {
            Some(write) if is_new || own.is_only_looked_at => {
                (own.change, own.is_only_looked_at) = (write.change, false);
            }
            None if is_new => {
                let modified = state.modified().and_then(|at| self.config.clock.past_unix(at));
                let not_before = self.last_look.max(modified.unwrap_or_default());
                (own.change, own.is_only_looked_at) =
                    (self.context.changed(not_before, None), true);
            }
            Some(_) | None => {}
        }
    }

    fn watch_folders(&mut self) {
        for folder in self.config.paths.iter().flat_map(OwnPath::folders) {
            self.watch.add(&folder);
        }
    }

    /// All that the patterns mean, temporary names apart.
    fn found(&self) -> BTreeSet<PathBuf> {
        let all = self.config.paths.iter().flat_map(OwnPath::found);
        all.filter(|path| !is_temporary(path) && self.is_meant(path)).collect()
    }

    /// In memory lies all that the program saves, logs too. Where somebody named paths, they mean what they say.
    fn is_meant(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !self.is_in_memory(path) || profile::is_checkpoint(self.config.profile, &name)
    }

    fn is_in_memory(&self, path: &Path) -> bool {
        self.config.tier.as_ref().is_some_and(|tier| path.starts_with(tier))
    }

    fn look_at_all(&mut self, now: Time) {
        self.is_due = false;
        self.watch_folders();
        let found = self.found();
        let mut waiting = Vec::new();
        for path in &found {
            let Some((state, write)) = self.look_at(path) else { continue };
            self.note_change(path, &state, write);
            let is_renamed = write.is_some_and(|write| write.is_renamed);
            let is_told = self.completed.contains(path);
            waiting.push((path, Look { state, is_renamed, is_told, at: now }));
        }
        self.completed.clear(); // what is not there is no save
        self.last_look = now;
        let took = self.config.clock.now().saturating_sub(now);
        self.followed.retain(|path, own| found.contains(path) || own.draft.is_some());
        for (path, look) in waiting {
            self.judge_draft(path, &look.state);
            self.decide(path, look);
        }
        self.writes.retain(|path, _| found.contains(path));
        self.no_look_before = self.config.clock.now() + (took * PAUSE).min(Duration::from_mins(1));
    }

    /// What the program did next says whether the draft was complete.
    fn judge_draft(&mut self, path: &Path, state: &PathState) {
        let Some(own) = self.followed.get_mut(path) else { return };
        let is_complete = match own.looks.draft_fate(state) {
            DraftFate::Keep => return,
            DraftFate::Complete => true,
            DraftFate::Compare => {
                let Some((name, ..)) = &own.draft else { return };
                let draft = join(&self.config.staging, name);
                !copy::begins_with(path, &draft).unwrap_or(true)
            }
        };
        own.looks.end_draft();
        let Some((name, state, change)) = own.draft.take() else { return };
        if is_complete {
            self.send(path, name, state, change);
        } else {
            self.drop_copy(&name);
        }
    }

    fn decide(&mut self, path: &Path, look: Look) {
        let (state, at) = (look.state.clone(), look.at);
        let (profile, is_multi_node) = (self.config.profile, self.config.is_multi_node);
        let is_busy = self.on_their_way.values().any(|own| own.path == path);
        let Some(own) = self.followed.get_mut(path) else { return };
        let decision = own.looks.look(look, profile, is_multi_node);
        let is_renamed = own.looks.is_renamed(); // perhaps by an earlier look, whose copy was put off
        let may_copy = !is_busy && own.copy_not_before <= at;
        let searches = match decision {
            Decision::Take => may_copy,
            Decision::Draft | Decision::SeeIfOpen => true,
            Decision::Rest | Decision::Wait => false,
        };
        // Else the next look decides again.
        if !searches || own.search_not_before > at || self.is_open(path, &state) {
            return;
        }
        match decision {
            Decision::Take => self.take(path, state, is_renamed),
            Decision::Draft if may_copy => {
                if let Some(name) = self.copied(path, &state, false) {
                    let Some(own) = self.followed.get_mut(path) else { return };
                    own.looks.drafted(state.clone());
                    own.draft = Some((name, state, own.change));
                }
            }
            Decision::Draft | Decision::SeeIfOpen | Decision::Rest | Decision::Wait => {}
        }
    }

    /// Whether a process has it open to write. It is not asked again for a while, since the search takes long.
    fn is_open(&mut self, path: &Path, state: &PathState) -> bool {
        let began = self.config.clock.now();
        let is_open = state.is_open(path);
        let took = self.config.clock.now().saturating_sub(began);
        if let Some(own) = self.followed.get_mut(path) {
            own.looks.see_open(is_open, began);
            own.search_not_before = began + took * OPEN_PAUSE;
        }
        is_open
    }

    /// Copies what is complete, or takes the draft of it.
    fn take(&mut self, path: &Path, state: PathState, is_renamed: bool) {
        let drafted = self.followed.get_mut(path).and_then(|own| own.draft.take());
        let name = match drafted {
            Some((name, drafted, _)) if drafted == state => Some(name),
            Some((name, ..)) => {
                self.drop_copy(&name);
                self.copied(path, &state, is_renamed)
            }
            None => self.copied(path, &state, is_renamed),
        };
        let Some(own) = self.followed.get_mut(path) else { return };
        own.looks.end_draft();
        let Some(name) = name else { return };
        own.looks.taken(state.clone());
        let change = own.change;
        self.send(path, name, state, change);
    }

    /// Copies a path into the staging folder. Returns none if it was not as it should be afterwards.
    fn copied(&mut self, path: &Path, state: &PathState, is_renamed: bool) -> Option<Vec<u8>> {
        let began = self.config.clock.now();
        self.copies += 1;
        let folder = [PREFIX, self.copies.to_string().as_bytes()].concat();
        let name = [&folder, &b"/"[..], path.file_name()?.as_bytes()].concat();
        let place = join(&self.config.staging, &folder);
        let made = fs::DirBuilder::new()
            .create(&place)
            .and_then(|()| copy::copy(path, &join(&self.config.staging, &name), "", &self.stop));
        let took = self.config.clock.now().saturating_sub(began);
        if let Some(own) = self.followed.get_mut(path) {
            own.copy_not_before = self.config.clock.now() + took * PAUSE;
        }
        match made.and_then(|opened| same_still(path, state, opened.as_ref(), is_renamed)) {
            Ok(()) => return Some(name),
            Err(error) if self.ended.is_none() && is_change(&error) => {} // the next look tries again
            Err(error) => self.refuse_once(path, state, &error),
        }
        DiskStore::default().remove_tree(&place).ok();
        None
    }

    /// Says once of a state of a path why it can't be copied: it is not looked at again before it changes.
    fn refuse_once(&mut self, path: &Path, state: &PathState, error: &io::Error) {
        let passes = crate::os::patience::may_pass(error) && self.ended.is_none();
        if passes || self.stop.load(Ordering::Relaxed) {
            return; // the next look tries again
        }
        if let Some(own) = self.followed.get_mut(path) {
            own.looks.taken(state.clone());
        }
        self.refuse(path, format!("it could not be copied: {error}"));
    }

    fn refuse(&self, path: &Path, why: String) {
        (self.tell)(CollectorNews::Refused { path: path.display().to_string(), why });
    }

    /// Hands a copy over, to be committed.
    fn send(&mut self, path: &Path, name: Vec<u8>, state: PathState, change: u64) {
        let step = self.step_of(path, &name, &state);
        self.on_their_way.insert(name.clone(), OnItsWay { path: path.to_owned(), state });
        let path = path.display().to_string();
        (self.tell)(CollectorNews::Copied(CollectedSave { name, path, change, step }));
    }

    fn step_of(
        &self,
        path: &Path,
        copied: &[u8],
        state: &PathState,
    ) -> Result<Option<u64>, TooLarge> {
        let Some(own) = self.config.paths.iter().find(|own| own.means(path)) else {
            return Ok(None);
        };
        let mut head = Vec::new();
        if self.config.profile.is_some()
            && let Ok(file) = open::to_read(&join(&self.config.staging, copied))
        {
            file.take(HEAD).read_to_end(&mut head).ok(); // then its name must tell, or a report
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        own.step(self.config.profile, &name, state.is_file(), &head)
    }

    /// A copy was committed, or will never be.
    fn done(&mut self, name: &[u8], committed: Option<u64>) {
        self.drop_copy(name);
        let Some(own) = self.on_their_way.remove(name) else { return };
        let Some(step) = committed else { return };
        if self.is_in_memory(&own.path) {
            return free(&own.path, &own.state);
        }
        let looks = digest_of(&own.state.tree);
        self.collected.add(&own.path, CollectedPath { step, looks });
        self.collected.write(&self.config.record).ok(); // then the path counts as not known
    }

    fn drop_copy(&self, name: &[u8]) {
        let folder = name.split(|&byte| byte == b'/').next().unwrap_or_default();
        DiskStore::default().remove_tree(&join(&self.config.staging, folder)).ok();
    }

    /// Takes what is complete after the program's end, and says what may not be.
    fn finish(&mut self, in_order: bool) {
        let now = self.config.clock.now();
        for path in self.found() {
            let Some((state, write)) = self.look_at(&path) else { continue };
            let is_renamed = write.is_some_and(|write| write.is_renamed);
            self.note_change(&path, &state, write);
            self.judge_draft(&path, &state);
            let is_told = self.completed.contains(&path);
            let look = Look { state: state.clone(), is_renamed, is_told, at: now };
            let (profile, is_multi_node) = (self.config.profile, self.config.is_multi_node);
            let Some(own) = self.followed.get_mut(&path) else { continue };
            match own.looks.last_look(&look, profile, in_order, is_multi_node) {
                Decision::Rest => {}
                Decision::Take => self.take(&path, state, is_renamed),
                Decision::Wait | Decision::SeeIfOpen | Decision::Draft => {
                    self.refuse(&path, log_line::MAY_BE_TORN.to_owned());
                }
            }
        }
        self.is_finished = true;
        (self.tell)(CollectorNews::Finished);
    }
}

/// Removes what was committed from memory, unless the program has put another save there meanwhile. It is renamed before it
/// is looked at, so that nothing is put in its place in between.
fn free(path: &Path, state: &PathState) {
    let mut store = DiskStore::default();
    let mut name = OsString::from(".tmp-committed-");
    name.push(path.file_name().unwrap_or_default());
    let aside = path.with_file_name(name);
    if store.rename_new(path, &aside).is_err() {
        return; // the program has removed it itself
    }
    if PathState::of(&aside).is_ok_and(|own| own != *state)
        && store.rename_new(&aside, path).is_ok()
    {
        return;
    }
    store.remove_tree(&aside).ok(); // else it takes room until the attempt's end
}

/// Whether the program was at work on the path meanwhile.
fn is_change(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound)
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
