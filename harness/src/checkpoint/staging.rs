//! Makes an attempt's folders ready, before anything is trained.

use std::io;
use std::path::Path;

use nemo_core::durable;

use super::store::{DiskStore, Store, join};
use super::taken;

/// Makes both folders, empty but for what is committed, and checks that a commit can be a rename from one to the other.
pub(super) fn prepare(staging: &Path, checkpoints: &Path) -> io::Result<()> {
    clean(staging, checkpoints)?;
    check_rename(staging, checkpoints)
}

/// Removes what earlier attempts left unfinished: only the lease's holder may.
fn clean(staging: &Path, checkpoints: &Path) -> io::Result<()> {
    if let Some(parent) = staging.parent()
        && parent.exists()
    {
        // A process of the attempt before, on another node, may still write there. It is in nobody's way.
        DiskStore::default().remove_tree(parent).ok();
    }
    durable::create_dir_all(staging)?;
    durable::create_dir_all(checkpoints)?;
    for name in DiskStore::default().list(checkpoints)? {
        if name.starts_with(b".tmp-") || name.starts_with(taken::PREFIX.as_bytes()) {
            DiskStore::default().remove_tree(&join(checkpoints, &name)).ok();
        }
    }
    Ok(())
}

/// Whether a commit can be a rename: tried once, so that a trial does not train for hours what can't be kept.
fn check_rename(staging: &Path, checkpoints: &Path) -> io::Result<()> {
    let mut disk = DiskStore::default();
    let (from, to) = (staging.join(".tmp-probe"), checkpoints.join(".tmp-probe"));
    disk.make_dir(&from)?;
    match disk.rename_new(&from, &to) {
        Ok(()) => disk.remove_tree(&to),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let why = format!(
                "it lies on another file system than `{}`: a checkpoint could not be committed by a rename; \
                 let both lie on one",
                checkpoints.display()
            );
            Err(io::Error::new(error.kind(), why))
        }
        Err(error) => Err(error),
    }
}
