//! What a save holds: its parts with their hashes, and whether a checkpoint holds the same.

use std::io;
use std::path::Path;

use super::commit::CommitRequest;
use super::hashing::SizedFile;
use super::manifest::{self, Manifest, ManifestEntry};
use super::store::{FileKind, Store, join};
use super::tree::{self, FileEntry};

pub(super) fn manifest_of(store: &impl Store, checkpoint: &Path) -> Option<Manifest> {
    manifest::parse(&store.read(&checkpoint.join(manifest::NAME)).ok()?).ok()
}

/// Whether a checkpoint has this content. File names may differ.
pub(super) fn has_content(
    store: &impl Store,
    request: &CommitRequest,
    step: u64,
    parts: &[(Vec<u8>, ManifestEntry)],
) -> bool {
    let there = manifest_of(store, &request.of_step(step));
    there.is_some_and(|there| {
        there.parts.iter().map(|(_, part)| part).eq(parts.iter().map(|(_, part)| part))
    })
}

/// The step whose content the save has under another name. Most often it is a copy of the resumed checkpoint, which the
/// program has yet to read, so it stays in place.
pub(super) fn step_that_lies_there(
    store: &mut impl Store,
    request: &CommitRequest,
    temporary: &Path,
) -> io::Result<Option<u64>> {
    let known = request.counted_from.and_then(|step| manifest_of(store, &request.of_step(step)));
    let (Some(known), Err(_)) = (known, store.stat(temporary)) else { return Ok(None) };
    let Ok(entries) = tree::walk(store, &request.from) else { return Ok(None) };
    let is_file = entries.first().is_some_and(|root| root.stat.kind == FileKind::File);
    let found = if is_file {
        vec![(request.from.clone(), entries[0].stat.size)]
    } else {
        files(&request.from, &entries)
    };
    let sizes = known.parts.iter().filter_map(|(_, part)| match part {
        ManifestEntry::File(digest) => Some(digest.size),
        ManifestEntry::Dir | ManifestEntry::Link(_) => None,
    });
    // Only an equal list of sizes is worth reading all the data.
    if !found.iter().map(|(_, size)| *size).eq(sizes) {
        return Ok(None);
    }
    let parts = if is_file {
        store
            .settle(&found)?
            .into_iter()
            .map(|digest| (Vec::new(), ManifestEntry::File(digest)))
            .collect()
    } else {
        sync_and_hash(store, &request.from, &entries)?
    };
    Ok(request.counted_from.filter(|&step| has_content(store, request, step, &parts)))
}

pub(super) fn files(root: &Path, entries: &[FileEntry]) -> Vec<SizedFile> {
    let parts = entries.iter().filter(|entry| manifest::lists(&entry.path));
    let files = parts.filter(|entry| entry.stat.kind == FileKind::File);
    files.map(|entry| (join(root, &entry.path), entry.stat.size)).collect()
}

pub(super) fn sync_and_hash(
    store: &mut impl Store,
    root: &Path,
    entries: &[FileEntry],
) -> io::Result<Vec<(Vec<u8>, ManifestEntry)>> {
    let mut digests = store.settle(&files(root, entries))?.into_iter();
    let mut parts = Vec::new();
    for entry in entries.iter().filter(|entry| manifest::lists(&entry.path)) {
        let part = match entry.stat.kind {
            FileKind::File => digests.next().map(ManifestEntry::File),
            FileKind::Dir => Some(ManifestEntry::Dir),
            FileKind::Link | FileKind::Other(_) => {
                Some(ManifestEntry::Link(store.read_link(&join(root, &entry.path))?))
            }
        };
        parts.extend(part.map(|part| (entry.path.clone(), part)));
    }
    Ok(parts)
}
