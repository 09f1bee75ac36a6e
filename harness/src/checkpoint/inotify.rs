//! Sees what appears in the staging folder, and whether it came by a rename: then it is complete.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A watched folder.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Inotify,
}

/// What was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Names that appeared by a rename.
    pub(crate) renamed: Vec<Vec<u8>>,
    /// Something else appeared, or events were lost: the folder must be read.
    pub(crate) other: bool,
}

impl Watch {
    /// Watches a folder; none where the system has no watch left.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        // Writes are not watched, but their end: a big save must not wake this process a thousand times.
        let mask = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(folder, mask).ok()?;
        Some(Self { inotify })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Takes all that has come.
    pub(crate) fn read(&self) -> Seen {
        let mut seen = Seen::default();
        loop {
            let events = match self.inotify.read_events() {
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
    }
}
