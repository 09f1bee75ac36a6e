//! Sees what is renamed into any of several folders, and what is closed there after a write. A thread of its own reads it at
//! once: the step of a save is the one at that moment. Where the system has no watch left, it sees nothing.
//!
//! Neither a pipe nor the kernel's events tell times, so their order follows from the order of reading: what the loop had
//! read of the program's output before there was an event was printed before that write. What it reads at the same time may
//! have been printed later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nemo_core::own_paths::OwnPath;
use nemo_core::room::until_room;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::{CollectorNews, Tell, is_temporary};
use crate::os::clock::{Clock, Time};

/// How many folders are watched.
const MOST: usize = 1024;

/// The last write to a path that no look has taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenWrite {
    /// The number of the change.
    pub(super) change: u64,
    pub(super) is_renamed: bool,
}

/// What a watch needs to say what it sees.
#[derive(Clone)]
pub(super) struct WatchContext {
    pub(super) paths: Vec<OwnPath>,
    pub(super) clock: Clock,
    pub(super) tell: Tell,
    /// Numbers the changes, of looks as well.
    pub(super) changes: Arc<AtomicU64>,
}

/// Shared by the thread that reads it at once and the one that looks.
#[derive(Clone)]
pub(super) struct FolderWatch {
    inotify: Option<Arc<Inotify>>,
    context: WatchContext,
    /// Held while a folder is added, so the loop never waits for it.
    seen: Arc<Mutex<SeenWrites>>,
    events: Arc<Mutex<KernelEvents>>,
}

/// What the kernel has told, and is not noted yet.
#[derive(Debug, Default)]
struct KernelEvents {
    /// Until when the loop had read the program's output before the kernel was last asked.
    output_read: Time,
    /// Each with that time, and with the time when the kernel told of it.
    unnoted: Vec<(InotifyEvent, Time, Time)>,
}

#[derive(Debug, Default)]
struct SeenWrites {
    folders: HashMap<WatchDescriptor, PathBuf>,
    known: BTreeSet<PathBuf>,
    writes: BTreeMap<PathBuf, SeenWrite>,
    /// Anything was seen: it is worth a look.
    is_any: bool,
}

impl FolderWatch {
    pub(super) fn new(context: WatchContext) -> Self {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let inotify = Inotify::init(flags).ok().map(Arc::new);
        Self { inotify, context, seen: Arc::default(), events: Arc::default() }
    }

    /// Reads what is seen as it happens, in a thread that ends soon after `stop`. `wake` is written to for each.
    pub(super) fn start(&self, stop: &Arc<AtomicBool>, wake: &Arc<EventFd>) -> io::Result<()> {
        let Some(inotify) = &self.inotify else { return Ok(()) };
        until_room(|| {
            let (own, inotify) = (self.clone(), Arc::clone(inotify));
            let (stop, wake) = (Arc::clone(stop), Arc::clone(wake));
            let builder = std::thread::Builder::new().name("watch".to_owned());
            let run = move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut set = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                    poll(&mut set, PollTimeout::from(1000_u16)).ok(); // it is read without blocking
                    if own.read().is_any {
                        wake.write(1).ok();
                    }
                }
            };
            builder.spawn(run).map(drop)
        })
    }

    /// Watches a folder too.
    pub(super) fn add(&self, folder: &Path) {
        let Some(inotify) = &self.inotify else { return };
        // Held until its name is noted, or its first event would have none.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.known.contains(folder) || seen.known.len() >= MOST {
            return;
        }
        let mask = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if let Ok(descriptor) = inotify.add_watch(folder, mask) {
            seen.folders.insert(descriptor, folder.to_owned());
            seen.known.insert(folder.to_owned());
        }
    }

    /// The writes since the last call, until now, and whether there was anything to see.
    pub(super) fn take(&self) -> (BTreeMap<PathBuf, SeenWrite>, bool) {
        let mut seen = self.read();
        (std::mem::take(&mut seen.writes), std::mem::take(&mut seen.is_any))
    }

    /// The program's output is read until now. What happens from now on comes after that. Whether something has happened
    /// before.
    pub(super) fn output_is_read(&self, now: Time) -> bool {
        let mut events = self.ask_kernel();
        events.output_read = now;
        !events.unnoted.is_empty()
    }

    /// Reads all that has happened, and tells it.
    fn read(&self) -> MutexGuard<'_, SeenWrites> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let events = std::mem::take(&mut self.ask_kernel().unnoted);
        for (event, output_read, seen_at) in events {
            self.note(&mut seen, event, output_read, seen_at);
        }
        seen
    }

    fn ask_kernel(&self) -> MutexGuard<'_, KernelEvents> {
        let mut own = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let output_read = own.output_read;
        while let Some(inotify) = &self.inotify {
            match inotify.read_events() {
                Ok(events) => {
                    let now = self.context.clock.now();
                    own.unnoted.extend(events.into_iter().map(|it| (it, output_read, now)));
                }
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        own
    }

    fn note(&self, seen: &mut SeenWrites, event: InotifyEvent, output_read: Time, seen_at: Time) {
        seen.is_any = true;
        if event.mask.intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED) {
            // A folder of that name may be made anew.
            if let Some(folder) = seen.folders.remove(&event.wd) {
                seen.known.remove(&folder);
            }
            return;
        }
        let is_renamed = event.mask.contains(AddWatchFlags::IN_MOVED_TO);
        if !is_renamed && !event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
            return;
        }
        let Some((folder, name)) = seen.folders.get(&event.wd).zip(event.name) else { return };
        let path = folder.join(name);
        if is_temporary(&path) || !self.context.paths.iter().any(|own| own.means(&path)) {
            return;
        }
        let change = self.context.changed(output_read, Some(seen_at));
        let write = seen.writes.entry(path).or_insert(SeenWrite { change, is_renamed });
        *write = SeenWrite { change, is_renamed: is_renamed || write.is_renamed };
    }
}

impl fmt::Debug for FolderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderWatch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl WatchContext {
    /// Tells of a change, and gives it a number.
    pub(super) fn changed(&self, not_before: Time, seen: Option<Time>) -> u64 {
        let number = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        (self.tell)(CollectorNews::Changed { number, not_before, seen });
        number
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a program's save need not be durable")]
mod tests {
    use std::fs::{self, File};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_save_belongs_to_what_was_read_before_it() {
        let top = tempfile::tempdir().unwrap();
        let (sender, news) = channel();
        let context = WatchContext {
            paths: vec![OwnPath::new(top.path(), "latest").unwrap()],
            clock: Clock::start(),
            tell: Arc::new(move |one| sender.send(one).unwrap()),
            changes: Arc::default(),
        };
        let watch = FolderWatch::new(context);
        watch.add(top.path());
        let [draft, latest] = ["draft", "latest"].map(|name| top.path().join(name));
        let save = || {
            File::create_new(&draft).unwrap();
            fs::rename(&draft, &latest).unwrap();
        };
        let told = || match news.try_recv() {
            Ok(CollectorNews::Changed { not_before, .. }) => Some(not_before.as_secs()),
            _ => None,
        };
        let read_at = |time| watch.output_is_read(Duration::from_secs(time));
        read_at(1);
        save();
        read_at(2); // what it read then may have been printed after the save
        watch.take();
        assert_eq!(told(), Some(1));
        assert!(!read_at(3));
        save();
        watch.take();
        assert_eq!(told(), Some(3));
        save();
        assert!(read_at(4), "somebody must note it");
        assert!(watch.take().0.values().all(|write| write.is_renamed));
        assert_eq!((told(), told()), (Some(3), None));
    }
}
