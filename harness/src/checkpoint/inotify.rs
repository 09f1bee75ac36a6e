//! Sees what appears in the staging folder, and whether it came by a rename: then it is complete.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The stack of the thread that closes a watch.
const STACK: usize = 64 * 1024;

/// A watched folder.
#[derive(Debug)]
pub(crate) struct DirWatch {
    /// There until the end.
    inotify: Option<Inotify>,
}

/// What was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchEvents {
    /// Names that appeared by a rename.
    pub(crate) renamed: Vec<Vec<u8>>,
    /// Something else appeared, or events were lost: the folder must be read.
    pub(crate) other: bool,
}

impl DirWatch {
    /// Watches a folder; none where the system has no watch left.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        // Writes are not watched, but their end: a big save must not wake this process a thousand times.
        let mask = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(folder, mask).ok()?;
        Some(Self { inotify: Some(inotify) })
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Takes all that has come.
    pub(crate) fn read(&self) -> WatchEvents {
        let mut seen = WatchEvents::default();
        while let Some(inotify) = &self.inotify {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(_) => return seen,
            };
            for event in events {
                match event.name {
                    Some(name) if event.mask.contains(AddWatchFlags::IN_MOVED_TO) => {
                        seen.renamed.push(name.into_vec());
                    }
                    _ => seen.other = true,
                }
            }
        }
        seen
    }
}

impl Drop for DirWatch {
    /// The kernel closes it only when nobody in the whole system is handling an event: after 15 ms, at times after
    /// hundreds. The requeue does not wait for that.
    fn drop(&mut self) {
        let inotify = self.inotify.take();
        let thread = std::thread::Builder::new().name("unwatch".to_owned()).stack_size(STACK);
        thread.spawn(move || drop(inotify)).ok(); // where no thread can start, it is closed here
    }
}
