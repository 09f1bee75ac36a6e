//! Which paths an inode of the backing folder has: the kernel names inodes, the folder is asked by paths.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The kernel's number of the mount's top.
pub const ROOT: u64 = 1;

/// Paths below the mount, by inode. A file may have several.
pub struct Inodes(Mutex<HashMap<u64, BTreeSet<PathBuf>>>);

impl Inodes {
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::from([(ROOT, BTreeSet::from([PathBuf::new()]))])))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, BTreeSet<PathBuf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path of the inode, relative to the top.
    pub fn path(&self, inode: u64) -> Option<PathBuf> {
        self.all().get(&inode)?.first().cloned()
    }

    /// `is_only`: the inode has no other name.
    pub fn add(&self, inode: u64, path: PathBuf, is_only: bool) {
        let mut all = self.all();
        // A name stands for one inode: whoever had it before has lost it.
        for (other, paths) in all.iter_mut() {
            if *other != inode {
                paths.remove(&path);
            }
        }
        let paths = all.entry(inode).or_default();
        if is_only {
            paths.clear();
        }
        paths.insert(path);
    }

    pub fn remove(&self, path: &Path) {
        for paths in self.all().values_mut() {
            paths.remove(path);
        }
    }

    /// What was at `from`, and below it, is at `to` now.
    pub fn rename(&self, from: &Path, to: &Path) {
        let mut all = self.all();
        for paths in all.values_mut() {
            paths.retain(|path| path == from || !path.starts_with(to) || path.starts_with(from));
            let moved: Vec<PathBuf> = paths.iter().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                paths.remove(&path);
                let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
                let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
                paths.insert(new);
            }
        }
    }
}
