//! The commit: what a program saved becomes a checkpoint that no crash can lose or tear.
//!
//! The order is the guarantee: the data is durable before the manifest says so, the manifest before the name
//! `step-N` exists, and the name before anybody is told.

use std::io;
use std::path::{Path, PathBuf};

use super::hashing::SizedFile;
use super::manifest::{self, CheckpointForm, Manifest, ManifestEntry};
use super::store::{FileKind, FileStat, Store, join};
use super::taken;
use super::tree::{self, FileEntry};

/// What is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRequest {
    /// Where it lies now: in the staging folder, or where an earlier try left it.
    pub(crate) from: PathBuf,
    pub(crate) entry: Vec<u8>,
    pub(crate) step: u64,
    /// Nobody told the step: it follows this one, and the same content as there is no new checkpoint.
    pub(crate) counted_from: Option<u64>,
    /// `checkpoints/`.
    pub(crate) checkpoints: PathBuf,
    pub(crate) attempt: u32,
    pub(crate) lease: String,
    /// Tells this try from others.
    pub(crate) nonce: String,
    /// `metrics.jsonl`, and its length when the checkpoint was complete.
    pub(crate) metrics: Option<(PathBuf, u64)>,
    /// What was seen before it was taken out of the staging folder: a change since means that it is still written.
    pub(crate) tree: Option<Vec<FileEntry>>,
    /// The boot of this node.
    pub(crate) boot_id: String,
    /// The attempt is being stopped.
    pub(crate) is_hurried: bool,
}

/// A save that is larger takes a while to be hashed.
const LARGE: u64 = 64 << 20;

impl CommitRequest {
    /// Where it waits for its name.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.checkpoints.join(format!(".tmp-step-{}-{}", self.step, self.nonce))
    }
    /// Its size, as far as it was seen.
    pub(crate) fn bytes(&self) -> u64 {
        let files = self.tree.iter().flatten().filter(|entry| entry.stat.kind == FileKind::File);
        files.map(|entry| entry.stat.size).sum()
    }
    /// The attempt may have to end before the commit is through.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_hurried || self.bytes() >= LARGE
    }
    fn target(&self) -> PathBuf {
        self.of_step(self.step)
    }
    fn of_step(&self, step: u64) -> PathBuf {
        self.checkpoints.join(format!("step-{step}"))
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    Committed,
    /// The same checkpoint was committed before: that one stays.
    AlreadyCommitted,
    /// Without a number, and with the content of this step: nothing new.
    SameContent(u64),
    /// It can't be a checkpoint; why.
    Rejected(String),
    /// It was changed meanwhile: it lies where it lay, and is not complete yet.
    StillChanging,
    /// A later attempt has taken over: nothing may be committed any more.
    Superseded,
}

/// Commits. An error leaves everything so that the same request can be tried again.
pub(crate) fn commit(
    store: &mut impl Store,
    request: &CommitRequest,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<CommitOutcome> {
    commit_notifying(store, request, is_newest, &|| ())
}

/// The same; `taken` is told once the save can't get lost any more: the next attempt would finish it.
pub(crate) fn commit_notifying(
    store: &mut impl Store,
    request: &CommitRequest,
    is_newest: &dyn Fn() -> io::Result<bool>,
    taken: &dyn Fn(),
) -> io::Result<CommitOutcome> {
    let done = commit_marked(store, request, is_newest, taken);
    match &done {
        Ok(CommitOutcome::Superseded) | Err(_) => {}
        Ok(
            CommitOutcome::Committed
            | CommitOutcome::AlreadyCommitted
            | CommitOutcome::SameContent(_)
            | CommitOutcome::Rejected(_)
            | CommitOutcome::StillChanging,
        ) => {
            taken::unmark(store, request);
        }
    }
    done
}

fn commit_marked(
    store: &mut impl Store,
    request: &CommitRequest,
    is_newest: &dyn Fn() -> io::Result<bool>,
    taken: &dyn Fn(),
) -> io::Result<CommitOutcome> {
    let temporary = request.temporary();
    if is_published(store, request, &temporary) {
        if !is_newest()? {
            return Ok(CommitOutcome::Superseded);
        }
        store.sync_dir(&request.checkpoints)?;
        return Ok(CommitOutcome::Committed);
    }
    if let Some(step) = step_that_lies_there(store, request, &temporary)? {
        return Ok(CommitOutcome::SameContent(step));
    }
    let form = match take(store, request, &temporary)? {
        Ok(form) => form,
        Err(why) => return Ok(CommitOutcome::Rejected(why)),
    };
    let before = tree::walk(store, &temporary)?;
    if unfit(form, &before).is_some() {
        return give_back(store, request, form, &temporary); // it was fit a moment ago
    }
    if changed_since_seen(form, request, &before) {
        return give_back(store, request, form, &temporary);
    }
    taken::mark(store, request, form, &before, false)?;
    taken();
    if request.is_urgent() {
        // First all that a crash of the node could take away: then any node may finish it.
        store.sync_files(&files(&temporary, &before))?;
        taken::mark(store, request, form, &before, true)?;
    }
    let parts = sync_and_hash(store, &temporary, &before)?;
    if stats(&tree::walk(store, &temporary)?) != stats(&before) {
        return give_back(store, request, form, &temporary);
    }
    if let Some(step) =
        request.counted_from.filter(|&step| has_content(store, request, step, &parts))
    {
        store.remove_tree(&temporary)?;
        return Ok(CommitOutcome::SameContent(step));
    }
    if let Some((metrics, _)) = &request.metrics
        && store.stat(metrics).is_ok()
    {
        store.sync_file(metrics)?;
    }
    let manifest = Manifest {
        step: request.step,
        attempt: request.attempt,
        lease: request.lease.clone(),
        form,
        entry: request.entry.clone(),
        metrics: request.metrics.as_ref().map_or(0, |&(_, length)| length),
        parts,
    };
    let path = temporary.join(manifest::NAME);
    store.write(&path, manifest::print(&manifest).as_bytes())?;
    store.sync_file(&path)?;
    for folder in before.iter().rev().filter(|entry| entry.stat.kind == FileKind::Dir) {
        store.sync_dir(&join(&temporary, &folder.path))?;
    }
    publish(store, request, &temporary, &manifest, is_newest)
}

/// Whether an earlier try of this request gave it its name, and did not hear of it.
fn is_published(store: &impl Store, request: &CommitRequest, temporary: &Path) -> bool {
    let is_gone =
        |path| store.stat(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    is_gone(&request.from)
        && is_gone(temporary)
        && manifest_of(store, &request.target())
            .is_some_and(|own| own.lease == request.lease && own.entry == request.entry)
}

fn manifest_of(store: &impl Store, checkpoint: &Path) -> Option<Manifest> {
    manifest::parse(&store.read(&checkpoint.join(manifest::NAME)).ok()?).ok()
}

/// Whether a checkpoint has this content, whatever its files are called.
fn has_content(
    store: &impl Store,
    request: &CommitRequest,
    step: u64,
    parts: &[(Vec<u8>, ManifestEntry)],
) -> bool {
    let there = manifest_of(store, &request.of_step(step));
    let content = |parts: &[(Vec<u8>, ManifestEntry)]| -> Vec<ManifestEntry> {
        parts.iter().map(|(_, part)| part.clone()).collect()
    };
    there.is_some_and(|there| content(&there.parts) == content(parts))
}

/// The step whose content lies there under another name: most often a copy of the resumed checkpoint, which the program has
/// yet to read. It is not taken away.
fn step_that_lies_there(
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
    // Reading it all is for what may be the same.
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

/// Takes the entry out of the program's reach, into a folder that becomes the checkpoint.
fn take(
    store: &mut impl Store,
    request: &CommitRequest,
    temporary: &Path,
) -> io::Result<Result<CheckpointForm, String>> {
    let inside = join(temporary, &request.entry);
    // What an earlier try took is whole; a new one of that name is the program's next.
    if store.stat(temporary).is_ok() && !store.list(temporary)?.is_empty() {
        let is_file = is_file_form(store, request, temporary)?;
        return Ok(Ok(if is_file { CheckpointForm::File } else { CheckpointForm::Folder }));
    }
    let kind = match store.stat(&request.from) {
        Ok(stat) => stat.kind,
        // An earlier try came this far.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let form = if is_file_form(store, request, temporary)? {
                CheckpointForm::File
            } else {
                CheckpointForm::Folder
            };
            return Ok(Ok(form));
        }
        Err(error) => return Err(error),
    };
    match kind {
        FileKind::Dir if store.stat(&request.from.join(manifest::NAME)).is_ok() => {
            Ok(Err("it contains a file named MANIFEST, a name that nemo-slurm reserves".to_owned()))
        }
        FileKind::Dir => {
            if let Some(why) = unfit_folder(store, request)? {
                return Ok(Err(why));
            }
            store.rename_new(&request.from, temporary)?;
            Ok(Ok(CheckpointForm::Folder))
        }
        FileKind::File if request.entry == manifest::NAME.as_bytes() => {
            Ok(Err("a checkpoint can't be called MANIFEST".to_owned()))
        }
        FileKind::File if str::from_utf8(&request.entry).is_err() => {
            Ok(Err("its name is not UTF-8, so a resumed program could not be given its path"
                .to_owned()))
        }
        FileKind::File => {
            if store.stat(temporary).is_err() {
                store.make_dir(temporary)?;
            }
            store.rename_new(&request.from, &inside)?;
            Ok(Ok(CheckpointForm::File))
        }
        FileKind::Link => Ok(Err("it is a link, neither a folder nor a file".to_owned())),
        FileKind::Other(kind) => Ok(Err(format!("it is {kind}, neither a folder nor a file"))),
    }
}

/// Whether an earlier try had put a single file here. Its folder holds that file, and perhaps a manifest.
fn is_file_form(store: &impl Store, request: &CommitRequest, temporary: &Path) -> io::Result<bool> {
    let names = store.list(temporary)?;
    let own = |name: &Vec<u8>| *name == request.entry || name == manifest::NAME.as_bytes();
    Ok(names.contains(&request.entry) && names.iter().all(own))
}

/// Why a folder that the program saved can't be a checkpoint. It is not even touched then.
fn unfit_folder(store: &impl Store, request: &CommitRequest) -> io::Result<Option<String>> {
    if let Some(seen) = &request.tree {
        return Ok(unfit(CheckpointForm::Folder, seen));
    }
    match tree::walk(store, &request.from) {
        Ok(entries) => Ok(unfit(CheckpointForm::Folder, &entries)),
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
            Ok(Some("it is too deep: a path in it is longer than the system takes".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Why a tree can't be a checkpoint.
fn unfit(form: CheckpointForm, entries: &[FileEntry]) -> Option<String> {
    for entry in entries {
        if let FileKind::Other(kind) = entry.stat.kind {
            let name = String::from_utf8_lossy(&entry.path);
            return Some(format!("`{name}` in it is {kind}, neither a file, a folder nor a link"));
        }
    }
    // A manifest that is here is of an earlier, interrupted try.
    let own = manifest::NAME.as_bytes();
    let is_empty =
        !entries.iter().any(|entry| entry.stat.kind == FileKind::File && entry.path != own);
    (is_empty && form == CheckpointForm::Folder).then(|| "it holds no file".to_owned())
}

/// Whether it is the program's: the root and our own manifest are not.
fn is_part(entry: &FileEntry) -> bool {
    !entry.path.is_empty() && entry.path != manifest::NAME.as_bytes()
}

fn files(root: &Path, entries: &[FileEntry]) -> Vec<SizedFile> {
    let is_file = |entry: &&FileEntry| is_part(entry) && entry.stat.kind == FileKind::File;
    let files = entries.iter().filter(is_file);
    files.map(|entry| (join(root, &entry.path), entry.stat.size)).collect()
}

fn sync_and_hash(
    store: &mut impl Store,
    root: &Path,
    entries: &[FileEntry],
) -> io::Result<Vec<(Vec<u8>, ManifestEntry)>> {
    let mut digests = store.settle(&files(root, entries))?.into_iter();
    let mut parts = Vec::new();
    for entry in entries.iter().filter(|entry| is_part(entry)) {
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

/// All that tells of a change. A folder's own size and time change when its manifest is written.
fn stats(entries: &[FileEntry]) -> Vec<(&[u8], FileStat)> {
    let own =
        |entry: &&FileEntry| entry.path != manifest::NAME.as_bytes() && !entry.path.is_empty();
    entries.iter().filter(own).map(|entry| (&entry.path[..], essence(entry.stat))).collect()
}

fn essence(stat: FileStat) -> FileStat {
    if stat.kind == FileKind::File { stat } else { FileStat { size: 0, modified: (0, 0), ..stat } }
}

fn changed_since_seen(form: CheckpointForm, request: &CommitRequest, now: &[FileEntry]) -> bool {
    let Some(seen) = &request.tree else { return false };
    let mut seen = seen.clone();
    if form == CheckpointForm::File {
        for entry in &mut seen {
            entry.path.clone_from(&request.entry);
        }
    }
    stats(&seen) != stats(now)
}

/// Puts it back for the program to go on with, unless it has made a new one of that name.
fn give_back(
    store: &mut impl Store,
    request: &CommitRequest,
    form: CheckpointForm,
    temporary: &Path,
) -> io::Result<CommitOutcome> {
    // One of an earlier try: in the staging folder it would be the program's.
    let manifest = temporary.join(manifest::NAME);
    if store.stat(&manifest).is_ok() {
        store.remove_tree(&manifest)?;
    }
    let own = match form {
        CheckpointForm::Folder => temporary.to_owned(),
        CheckpointForm::File => join(temporary, &request.entry),
    };
    let done = match store.rename_new(&own, &request.from) {
        Ok(()) => CommitOutcome::StillChanging,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let why =
                "it changed during the commit, and the program saved another one under its name";
            CommitOutcome::Rejected(why.to_owned())
        }
        Err(error) => return Err(error),
    };
    if store.stat(temporary).is_ok() {
        store.remove_tree(temporary)?;
    }
    Ok(done)
}

/// Gives it its name, unless a later attempt has taken over or the name is taken.
fn publish(
    store: &mut impl Store,
    request: &CommitRequest,
    temporary: &Path,
    manifest: &Manifest,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<CommitOutcome> {
    if !is_newest()? {
        return Ok(CommitOutcome::Superseded);
    }
    match store.rename_new(temporary, &request.target()) {
        Ok(()) => {
            store.sync_dir(&request.checkpoints)?;
            Ok(CommitOutcome::Committed)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = super::resume::verify(store, &request.target());
            let equal = there.is_ok_and(|there| there.parts == manifest.parts);
            store.remove_tree(temporary)?;
            store.sync_dir(&request.checkpoints)?;
            if equal {
                return Ok(CommitOutcome::AlreadyCommitted);
            }
            Ok(CommitOutcome::Rejected(format!(
                "step {} is committed already, with other content",
                request.step
            )))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
