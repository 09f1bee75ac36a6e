//! Saves that were taken from the program but not yet hashed when the attempt had to end. The next attempt commits them.
//!
//! Otherwise a trial whose saves take longer to hash than any grace would never make progress. A marker file describes
//! the save. A save that differs from its marker, or may have lost data with its node, is never used.

use std::io;
use std::path::{Path, PathBuf};

use nemo_core::{checksum, percent};
use serde::{Deserialize, Serialize};

use super::commit::{self, CommitOutcome, CommitRequest};
use super::manifest::{self, CheckpointForm};
use super::store::{FileKind, Store, join};
use super::tree::{self, FileEntry};

/// The prefix of a marker's name.
pub(super) const PREFIX: &str = ".taken-";

/// A marker's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    schema: u32,
    step: u64,
    counted_from: Option<u64>,
    attempt: u32,
    /// A single file, not a folder.
    is_file: bool,
    /// The name that the program gave, as in a MANIFEST.
    entry: String,
    /// The length of `metrics.jsonl` then.
    metrics: Option<u64>,
    /// As in a MANIFEST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported: Option<u64>,
    /// The boot id of the node that took it. Until that node restarts, unsynced data is not lost.
    boot_id: String,
    /// Whether all its files are durable.
    is_synced: bool,
    /// The hash of all names, kinds, sizes and times.
    looks: String,
}

/// The path of a request's marker.
fn path(request: &CommitRequest) -> PathBuf {
    request.checkpoints.join(format!("{PREFIX}step-{}-{}", request.step, request.nonce))
}

/// Writes the marker. It is synced only if the attempt may end before the commit.
pub(super) fn mark(
    store: &mut impl Store,
    request: &CommitRequest,
    form: CheckpointForm,
    entries: &[FileEntry],
    is_synced: bool,
) -> io::Result<()> {
    let marker = Marker {
        schema: 1,
        step: request.step,
        counted_from: request.counted_from,
        attempt: request.attempt,
        is_file: form == CheckpointForm::File,
        entry: manifest::encode(&request.entry),
        metrics: request.metrics.as_ref().map(|&(_, length)| length),
        reported: request.reported,
        boot_id: request.boot_id.clone(),
        is_synced,
        looks: looks(entries),
    };
    let path = path(request);
    store.write(&path, &checksum::to_vec(&marker)?)?;
    if request.is_urgent() {
        store.sync_file(&path)?;
        store.sync_dir(&request.checkpoints)?;
    }
    Ok(())
}

/// Removes the marker: the save is a checkpoint now, or back in the staging folder.
pub(super) fn unmark(store: &mut impl Store, request: &CommitRequest) {
    store.remove_tree(&path(request)).ok(); // without what it marks it says nothing
}

/// The fingerprint of a tree. Sizes and times of folders are left out.
fn looks(entries: &[FileEntry]) -> String {
    let mut hasher = blake3::Hasher::new();
    for FileEntry { path, stat } in
        entries.iter().filter(|entry| entry.path != manifest::NAME.as_bytes())
    {
        let kind = match stat.kind {
            FileKind::File => b'f',
            FileKind::Dir => b'd',
            FileKind::Link => b'l',
            FileKind::Other(_) => b'o',
        };
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path).update(&[kind]);
        if stat.kind == FileKind::File {
            hasher.update(&stat.size.to_le_bytes());
            hasher.update(&stat.modified.0.to_le_bytes()).update(&stat.modified.1.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// Commits saves of earlier attempts.
#[derive(Clone, Debug)]
pub(crate) struct CommitFinisher {
    pub(crate) attempt: u32,
    pub(crate) lease: String,
    pub(crate) boot_id: String,
    pub(crate) metrics: PathBuf,
    /// The newest attempt whose program worked. Saves of older attempts belong to another history.
    pub(crate) worked: Option<u32>,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FinishedCommits {
    /// The step that was committed, and its size.
    pub(crate) step: Option<(u64, u64)>,
    pub(crate) notes: Vec<String>,
}

/// Commits the newest save that is complete. The others will be removed.
pub(crate) fn finish(
    store: &mut impl Store,
    checkpoints: &Path,
    own: &CommitFinisher,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<FinishedCommits> {
    let mut finished = FinishedCommits::default();
    let names = match store.list(checkpoints) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(finished),
        Err(error) => return Err(error),
    };
    let mut taken = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(PREFIX.as_bytes())) {
        let text = store.read(&join(checkpoints, name))?;
        // A torn marker marks nothing.
        let marker = checksum::from_slice::<Marker>(&text).ok().filter(|own| own.schema == 1);
        let temporary = [b".tmp-", &name[PREFIX.len()..]].concat();
        if let Some(marker) = marker.filter(|_| names.contains(&temporary)) {
            taken.push((marker, join(checkpoints, &temporary)));
        }
    }
    taken.sort_by_key(|(marker, _)| std::cmp::Reverse(marker.step));
    for (marker, place) in taken {
        let step = marker.step;
        let (done, bytes) = finish_one(store, (&marker, &place), checkpoints, own, is_newest)?;
        let why = match done {
            CommitOutcome::Committed | CommitOutcome::AlreadyCommitted => {
                finished.step = Some((step, bytes));
                finished.notes.push(format!(
                    "the save of step {step} is committed; attempt {} had no time for that",
                    marker.attempt
                ));
                return Ok(finished);
            }
            CommitOutcome::SameContent(_) | CommitOutcome::Superseded => continue,
            CommitOutcome::Rejected(why) => why,
            CommitOutcome::StillChanging => "it was changed meanwhile".to_owned(),
        };
        finished.notes.push(format!("the unfinished save of step {step} is not used: {why}"));
    }
    Ok(finished)
}

/// The outcome and the size.
fn finish_one(
    store: &mut impl Store,
    (marker, place): (&Marker, &Path),
    checkpoints: &Path,
    own: &CommitFinisher,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<(CommitOutcome, u64)> {
    if let Some(why) = unusable(store, marker, place, own)? {
        return Ok((CommitOutcome::Rejected(why), 0));
    }
    let request = request(store, marker, place, checkpoints, own)?;
    // This comes before the rename, so that a later attempt can finish it wherever this one is stopped.
    let form = if marker.is_file { CheckpointForm::File } else { CheckpointForm::Folder };
    let entries = tree::walk(store, place)?;
    mark(store, &request, form, &entries, marker.is_synced)?;
    Ok((commit::commit(store, &request, is_newest)?, request.bytes()))
}

/// Why the save can't be trusted.
fn unusable(
    store: &impl Store,
    marker: &Marker,
    place: &Path,
    own: &CommitFinisher,
) -> io::Result<Option<String>> {
    if own.worked > Some(marker.attempt) {
        return Ok(Some("a later attempt has worked since".to_owned()));
    }
    if !marker.is_synced && marker.boot_id != own.boot_id {
        return Ok(Some("another node took it, and may have lost a part of it".to_owned()));
    }
    let is_same = looks(&tree::walk(store, place)?) == marker.looks;
    Ok((!is_same).then(|| "it was changed after it was taken".to_owned()))
}

fn request(
    store: &mut impl Store,
    marker: &Marker,
    place: &Path,
    checkpoints: &Path,
    own: &CommitFinisher,
) -> io::Result<CommitRequest> {
    // The manifest of an interrupted commit.
    let old = place.join(manifest::NAME);
    if store.stat(&old).is_ok() {
        store.remove_tree(&old)?;
    }
    let entry = percent::decode(&marker.entry).unwrap_or_default();
    let from = if marker.is_file { join(place, &entry) } else { place.to_owned() };
    Ok(CommitRequest {
        tree: Some(tree::walk(store, &from)?),
        from,
        entry,
        step: marker.step,
        reported: marker.reported,
        counted_from: marker.counted_from,
        checkpoints: checkpoints.to_owned(),
        attempt: own.attempt,
        lease: own.lease.clone(),
        nonce: own.lease.clone(),
        boot_id: own.boot_id.clone(),
        metrics: marker.metrics.map(|length| (own.metrics.clone(), length)),
        is_hurried: true,
    })
}

#[cfg(test)]
#[path = "taken_tests.rs"]
mod tests;
