//! Prepares an attempt's folders before the program starts.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use nemo_core::durable;
use nemo_core::profile::is_checkpoint;
use nemo_core::rundir::Profile;

use super::copy;
use super::inspect::is_temporary;
use super::store::{DiskStore, Store, join};
use super::taken;

/// Makes both folders, empty except for committed checkpoints, and checks that a rename from one to the other works.
pub(super) fn prepare(
    staging: &Path,
    checkpoints: &Path,
    profile: Option<Profile>,
) -> io::Result<()> {
    if let Some(all) = staging.parent() {
        keep_others(all, checkpoints.parent().unwrap_or(checkpoints), profile);
    }
    clean(staging, checkpoints)?;
    check_rename(staging, checkpoints)
}

/// Moves what earlier attempts left there and is no checkpoint by the task's profile, such as logs, to `left/<attempt>/` of
/// the trial, which lasts. What can't be moved goes with the rest.
fn keep_others(all: &Path, trial: &Path, profile: Option<Profile>) {
    let mut disk = DiskStore::default();
    for attempt in disk.list(all).unwrap_or_default() {
        let from = join(all, &attempt);
        for name in others(&from, profile).unwrap_or_default() {
            let left = join(&trial.join(LEFT), &attempt);
            let made = durable::create_dir_below(trial, &left);
            made.and_then(|()| disk.rename_new(&join(&from, &name), &join(&left, &name))).ok();
        }
    }
}

/// Copies what an attempt left in memory, in the same way.
pub(crate) fn copy_others(
    memory: &Path,
    trial: &Path,
    attempt: u32,
    profile: Option<Profile>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let left = trial.join(LEFT).join(attempt.to_string());
    let mut result = Ok(());
    for name in others(memory, profile)? {
        let copied = durable::create_dir_below(trial, &left)
            .and_then(|()| copy::copy(&join(memory, &name), &join(&left, &name), "", stop));
        result = copied.map(drop).and(result);
    }
    result
}

/// Where in the trial's folder such things lie, by attempts.
const LEFT: &str = "left";

/// The names in a folder that are no checkpoint by the profile. What is not whole yet is none of them.
fn others(folder: &Path, profile: Option<Profile>) -> io::Result<Vec<Vec<u8>>> {
    let is_other = |name: &Vec<u8>| {
        !is_temporary(name) && !is_checkpoint(profile, &String::from_utf8_lossy(name))
    };
    Ok(DiskStore::default().list(folder)?.into_iter().filter(is_other).collect())
}

/// Removes unfinished entries of earlier attempts. Only the holder of the lease may do that.
fn clean(staging: &Path, checkpoints: &Path) -> io::Result<()> {
    if let Some(parent) = staging.parent()
        && parent.exists()
    {
        // A process of the earlier attempt may still write there from another node. It does no harm.
        DiskStore::default().remove_tree(parent).ok();
    }
    let trial = checkpoints.parent().unwrap_or(checkpoints);
    durable::create_dir_below(trial, staging)?;
    durable::create_dir_below(trial, checkpoints)?;
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
