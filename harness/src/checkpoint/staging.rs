//! Prepares an attempt's folders before the program starts.

use std::io;
use std::path::Path;

use nemo_core::durable;

use super::store::{DiskStore, Store, join};
use super::taken;

/// Makes both folders, empty except for committed checkpoints, and checks that a rename from one to the other works.
pub(super) fn prepare(staging: &Path, checkpoints: &Path) -> io::Result<()> {
    clean(staging, checkpoints)?;
    check_rename(staging, checkpoints)
}

/// Removes unfinished entries of earlier attempts. Only the holder of the lease may do that.
fn clean(staging: &Path, checkpoints: &Path) -> io::Result<()> {
    if let Some(parent) = staging.parent()
        && parent.exists()
    {
        // A process of the earlier attempt may still write there from another node. It does no harm.
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

/// Whether a commit can be a rename. It is tried once, so that a trial does not train for hours in vain.
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
