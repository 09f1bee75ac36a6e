//! Scans the staging folder in a thread: it may hold 100,000 files on a disk that hangs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nemo_core::rundir::Profile;

use super::inspect;
use super::store::{DiskStore, Store, join};
use super::tree::{self, FileEntry};
use crate::os::proc_fs;

/// A scan to do.
#[derive(Debug)]
pub(super) struct StagingScan {
    pub(super) staging: PathBuf,
    pub(super) profile: Option<Profile>,
    /// The files of each save in place at the scan before.
    pub(super) known: BTreeMap<Vec<u8>, Vec<FileEntry>>,
    /// Entries that are being committed.
    pub(super) skipped: BTreeSet<Vec<u8>>,
    pub(super) left: LeftEntries,
}

/// The names of entries that stay in the staging folder unread. The saver and the scan share them: there may be 100,000,
/// and the saver does nothing that takes longer the more there are.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftEntries(Arc<Mutex<BTreeSet<Vec<u8>>>>);

impl LeftEntries {
    pub(super) fn insert(&self, name: Vec<u8>) {
        self.names().insert(name);
    }

    pub(super) fn remove(&self, name: &[u8]) {
        self.names().remove(name);
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.names().contains(name)
    }

    /// Forgets those that have left the folder since they were added. `before`: all that were there before the folder
    /// was read.
    fn forget_gone(&self, before: &BTreeSet<Vec<u8>>, names: &BTreeSet<Vec<u8>>) {
        before.difference(names).for_each(|gone| self.remove(gone));
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One entry of the staging folder.
#[derive(Debug)]
pub(super) struct ScannedEntry {
    pub(super) name: Vec<u8>,
    /// Everything below it, or the error of walking it.
    pub(super) tree: io::Result<Vec<FileEntry>>,
    /// Whether a process has it open. The scan looks for that only if nothing else has changed.
    pub(super) is_open: bool,
}

/// The result of a scan.
#[derive(Debug)]
pub(super) struct ScanResult {
    /// The known ones that are there no longer.
    pub(super) gone: BTreeSet<Vec<u8>>,
    /// All entries but those that are being committed or stay.
    pub(super) entries: Vec<ScannedEntry>,
}

/// Scans the folder.
pub(super) fn scan(scan: &StagingScan) -> io::Result<ScanResult> {
    let left = scan.left.names().clone();
    let names = DiskStore::default().list(&scan.staging)?.into_iter();
    let names: BTreeSet<Vec<u8>> =
        names.filter(|name| inspect::is_shown(scan.profile, name)).collect();
    scan.left.forget_gone(&left, &names);
    let mut entries = Vec::new();
    for name in names.difference(&scan.skipped) {
        if scan.left.contains(name) {
            continue;
        }
        let tree = tree::walk(&DiskStore::default(), &join(&scan.staging, name));
        if matches!(&tree, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            continue; // it was taken away meanwhile
        }
        let rests = tree.as_ref().is_ok_and(|tree| scan.known.get(name) == Some(tree));
        // Open files are looked up below, once for all entries.
        entries.push(ScannedEntry { name: name.clone(), tree, is_open: rests });
    }
    if entries.iter().any(|entry| entry.is_open) {
        let open = proc_fs::open_below(&scan.staging);
        for entry in &mut entries {
            entry.is_open &= is_open(&join(&scan.staging, &entry.name), &open);
        }
    }
    let known = scan.known.keys();
    let gone = known.filter(|name| !names.contains(*name)).cloned().collect();
    Ok(ScanResult { gone, entries })
}

/// Whether the path or something below it is open. In the order of the set, entries below a path follow it.
fn is_open(path: &Path, open: &BTreeSet<PathBuf>) -> bool {
    open.range(path.to_owned()..).next().is_some_and(|next| next.starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_found_among_its_neighbours() {
        let open = ["/s/a-b/x", "/s/b/c/d", "/s/e"].map(PathBuf::from).into();
        let check = |path: &str| is_open(Path::new(path), &open);
        assert!(check("/s/a-b") && check("/s/b") && check("/s/b/c") && check("/s/e"));
        assert!(!check("/s/a") && !check("/s/b/cc") && !check("/s/f") && !check("/s/ee"));
    }
}
