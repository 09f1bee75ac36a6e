//! `NEMO_SCRATCH`: a folder on the node for one attempt. Whoever uses it holds a lock on it, which the kernel frees when the
//! process ends, however it ends: a folder that nobody holds is left over and may be removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;

use nemo_core::process_id;
use nix::unistd::geteuid;

use crate::os::log::log_stderr;

/// The variable that names it.
pub(crate) const VARIABLE: &str = "NEMO_SCRATCH";

/// A scratch folder in use by this process.
#[derive(Debug)]
pub(crate) struct Scratch {
    _lock: File,
}

/// Where the guard looks for what is left over.
const MEMORY: &str = "/dev/shm";

/// The folder of an attempt on this node, by the nonce of its lease.
pub(crate) fn path(nonce: &str) -> PathBuf {
    path_in(&std::env::temp_dir(), nonce)
}

/// The same in another place of the node.
pub(crate) fn path_in(place: &Path, nonce: &str) -> PathBuf {
    place.join(format!("{}{nonce}", prefix()))
}

/// The folder on this node of an attempt that has another one on its first node.
pub(crate) fn beside(other: &Path) -> PathBuf {
    let name = other.file_name().unwrap_or_default().to_string_lossy();
    path(name.rsplit('-').next().unwrap_or_default())
}

/// What is in the names of this user's folders on this node: other nodes may have the same temporary folder, but not know of
/// its locks.
fn prefix() -> String {
    format!("nemo-scratch-{}-{}-", geteuid(), process_id::host_name().unwrap_or_default())
}

impl Scratch {
    /// Makes the folder, or joins the other processes of the attempt on this node.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        loop {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            match hold(path) {
                Ok(lock) if is_at(&lock, path) => return Ok(Self { _lock: lock }),
                // Before it was locked somebody may have taken it for one that is left over.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Locks a folder that others may use too.
fn hold(path: &Path) -> io::Result<File> {
    let state = path.symlink_metadata()?;
    if !state.is_dir() || state.uid() != geteuid().as_raw() || state.mode() & 0o077 != 0 {
        return Err(io::Error::other("is not a folder of this user alone"));
    }
    let lock = File::open(path)?;
    lock.lock_shared()?;
    Ok(lock)
}

/// Whether an open folder is still what has this name.
fn is_at(open: &File, path: &Path) -> bool {
    let id = |state: fs::Metadata| (state.dev(), state.ino());
    let own = open.metadata().map(id);
    path.symlink_metadata().map(id).is_ok_and(|there| own.is_ok_and(|own| own == there))
}

/// The same as [`sweep`], in a thread: what a killed program left may be huge, and nobody waits for it.
pub(crate) fn sweep_beside() {
    // Without a thread the next attempt or the guard does it.
    thread::Builder::new().name("sweep".to_owned()).spawn(sweep).ok();
}

/// Removes the scratch folders of this user on this node that nobody holds any more.
pub(crate) fn sweep() {
    sweep_in(&std::env::temp_dir());
    sweep_in(Path::new(MEMORY));
}

/// The same in one place.
pub(crate) fn sweep_in(place: &Path) {
    let prefix = prefix();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if is_own(&entry.file_name().to_string_lossy(), &prefix) {
            remove_unused(&entry.path()).ok(); // whoever comes next tries again
        }
    }
}

/// Whether a name is one of this node's. Behind the prefix of a host `gpu` there may be more of a host `gpu-02`; a nonce has
/// no hyphen.
fn is_own(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|nonce| !nonce.contains('-'))
}

fn remove_unused(path: &Path) -> io::Result<()> {
    let state = path.symlink_metadata()?;
    if !state.is_dir() || state.uid() != geteuid().as_raw() {
        return Ok(());
    }
    let lock = File::open(path)?;
    // Before it was locked somebody may have removed it, and somebody else made a new one.
    if lock.try_lock().is_err() || !is_at(&lock, path) {
        return Ok(());
    }
    let device = lock.metadata()?.dev();
    if let Some(mounted) = find_below(path, &|state| state.dev() != device)? {
        // It is not the trial's, and may be all that a person has.
        let mounted = mounted.display();
        log_stderr(&format!("`{}` stays: `{mounted}` is mounted in it", path.display()));
        return Ok(());
    }
    fs::remove_dir_all(path)
}

/// Something below a folder for which this is true, or which is a mount whose server is gone.
fn find_below(root: &Path, is_it: &dyn Fn(&fs::Metadata) -> bool) -> io::Result<Option<PathBuf>> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Some(path)),
                Err(error) => return Err(error),
                Ok(state) if is_it(&state) => return Ok(Some(path)),
                Ok(state) if state.is_dir() => folders.push(path),
                Ok(_) => {}
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_host_is_not_ours() {
        let is_own = |name| is_own(name, "nemo-scratch-7-gpu-");
        assert!(is_own("nemo-scratch-7-gpu-1a2b") && is_own("nemo-scratch-7-gpu-tier.1a2b"));
        assert!(
            !is_own("nemo-scratch-7-gpu-02-1a2b") && !is_own("nemo-scratch-7-gpu-02-tier.1a2b")
        );
        assert!(!is_own("nemo-scratch-77-gpu-1a2b"));
    }

    #[test]
    fn folders_that_come_and_go_are_held_or_swept() {
        let place = tempfile::tempdir().unwrap();
        let path = path_in(place.path(), "1a");
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            // Another attempt's sweep takes each for one that is left over, whenever nobody holds it.
            let sweeps = scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep_in(place.path());
                }
            });
            for _ in 0..2000 {
                let held = Scratch::open(&path);
                let is_there = path.is_dir();
                if held.is_err() || !is_there {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                assert!(held.is_ok() && is_there, "{held:?}");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            sweeps.join().unwrap();
        });
    }

    #[test]
    fn a_folder_whose_name_was_given_away_is_not_removed() {
        let place = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| place.path().join(name));
        fs::create_dir(&old).unwrap();
        let open = File::open(&old).unwrap();
        assert!(is_at(&open, &old));
        fs::rename(&old, &new).unwrap();
        assert!(!is_at(&open, &old));
        fs::create_dir(&old).unwrap();
        assert!(!is_at(&open, &old) && is_at(&open, &new));
    }

    #[test]
    fn what_is_mounted_below_is_found_before_anything_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("left");
        let mounted = root.join("a/mounted");
        fs::create_dir_all(&mounted).unwrap();
        fs::create_dir_all(root.join("b/c")).unwrap();
        std::os::unix::fs::symlink("/proc", root.join("b/link")).unwrap();
        let other = mounted.metadata().unwrap().ino();
        let device = root.metadata().unwrap().dev();
        let found = find_below(&root, &|state| state.ino() == other).unwrap();
        assert_eq!(found, Some(mounted));
        let found = find_below(&root, &|state| state.dev() != device).unwrap();
        assert_eq!(found, None, "a link is no mount");
        remove_unused(&root).unwrap();
        assert!(!root.exists());
    }
}
