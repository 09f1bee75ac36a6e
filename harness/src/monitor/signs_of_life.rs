//! Signs of life of the program: messages, lines, and logs or saves that grow.

use std::fs;
use std::path::Path;

use crate::monitor::{Monitor, MonitorEvent};
use crate::os::clock::Time;

/// How many levels of a checkpoint's folders are searched for a sign of life.
const SEARCH_DEPTH: u32 = 4;

impl Monitor {
    /// Looks for a sign of life: a log or a save that has grown. Messages and lines were counted when they came.
    pub(super) fn check_watchdog(&mut self, now: Time) -> Option<MonitorEvent> {
        let dog = self.watchdog.as_mut().filter(|dog| dog.due() <= now)?;
        let Some(looking) = &self.pending_sizes else {
            let (dir, attempt) = (&self.dir, self.attempt);
            let paths = [dir.stdout(attempt), dir.stderr(attempt), dir.staging(attempt)];
            self.pending_sizes =
                Some(self.size_queue.ask(move || paths.map(|path| bytes(&path, SEARCH_DEPTH))));
            return None;
        };
        // If the disk does not answer, the program may be waiting for it too.
        let written = looking.take()?;
        self.pending_sizes = None;
        let has_changed = written != std::mem::replace(&mut self.sizes, written);
        let since = dog.look(now, has_changed)?;
        self.watchdog = None; // one event is enough
        Some(MonitorEvent::Hung { since })
    }

    /// Counts a sign of life.
    pub(crate) fn alive(&mut self, now: Time) {
        self.alarms.sign(now);
        if let Some(dog) = &mut self.watchdog {
            dog.alive(now);
        }
    }
}

/// The size of a file, or of all files in a folder down to this depth. Unreadable files count as empty.
fn bytes(path: &Path, depth: u32) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() || depth == 0 {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes(&entry.path(), depth - 1)).sum()
}
