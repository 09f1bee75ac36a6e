//! The commit: what a program saved becomes a checkpoint that no crash can lose or tear.
//!
//! The order is the guarantee: the data is durable before the manifest says so, the manifest before the name
//! `step-N` exists, and the name before the commit is reported.

use std::io;
use std::path::{Path, PathBuf};

use super::content::{files, has_content, manifest_of, step_that_lies_there, sync_and_hash};
use super::manifest::{self, CheckpointForm, Manifest, ManifestEntry};
use super::resume::{self, Unusable};
use super::store::{FileKind, FileStat, Store, join};
use super::take;
use super::taken;
use super::tree::{self, FileEntry};

/// A save to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRequest {
    /// Where it is now: in the staging folder, or where an earlier try left it.
    pub(crate) from: PathBuf,
    pub(crate) entry: Vec<u8>,
    pub(crate) step: u64,
    /// The step that the program had reported, if the save follows the newest one instead.
    pub(crate) reported: Option<u64>,
    /// The program reported no step, so the save follows this one; or it is this step, made in place. The same content as in
    /// this step is no new checkpoint.
    pub(crate) counted_from: Option<u64>,
    /// `checkpoints/`.
    pub(crate) checkpoints: PathBuf,
    pub(crate) attempt: u32,
    pub(crate) lease: String,
    /// Distinguishes this try from others.
    pub(crate) nonce: String,
    /// `metrics.jsonl`, and its length when the checkpoint was complete.
    pub(crate) metrics: Option<(PathBuf, u64)>,
    /// The files before the save was taken out of the staging folder. If they differ later, it is still being written.
    pub(crate) tree: Option<Vec<FileEntry>>,
    /// This node's boot id.
    pub(crate) boot_id: String,
    /// The attempt is being stopped.
    pub(crate) is_hurried: bool,
}

/// Hashing a larger save takes a while.
const LARGE: u64 = 64 << 20;

impl CommitRequest {
    /// The folder in which it waits for its final name.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.checkpoints.join(format!(".tmp-step-{}-{}", self.step, self.nonce))
    }
    /// Its size at the last scan.
    pub(crate) fn bytes(&self) -> u64 {
        let files = self.tree.iter().flatten().filter(|entry| entry.stat.kind == FileKind::File);
        files.map(|entry| entry.stat.size).sum()
    }
    /// Whether the attempt may have to end before the commit does.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_hurried || self.bytes() >= LARGE
    }
    fn target(&self) -> PathBuf {
        self.of_step(self.step)
    }
    pub(super) fn of_step(&self, step: u64) -> PathBuf {
        self.checkpoints.join(format!("step-{step}"))
    }
}

/// The outcome of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    Committed,
    /// The same checkpoint was committed before. That one stays.
    AlreadyCommitted,
    /// The save has no number and the content of this step. Nothing is committed.
    SameContent(u64),
    /// The save can't be a checkpoint, for this reason.
    Rejected(String),
    /// The save changed during the commit. It is back in the staging folder and not complete yet.
    StillChanging,
    /// A later attempt has taken over. This one may not commit any more.
    Superseded,
}

/// Commits a save. After an error the same request can be tried again.
pub(crate) fn commit(
    store: &mut impl Store,
    request: &CommitRequest,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<CommitOutcome> {
    commit_notifying(store, request, is_newest, &|| ())
}

/// Like [`commit`]. Calls `taken` once the save can't get lost any more: the next attempt would finish it.
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

/// The commit itself. It leaves its mark behind.
fn commit_marked(
    store: &mut impl Store,
    request: &CommitRequest,
    is_newest: &dyn Fn() -> io::Result<bool>,
    taken: &dyn Fn(),
) -> io::Result<CommitOutcome> {
    let temporary = request.temporary();
    if let Some(known) = known_outcome(store, request, &temporary, is_newest)? {
        return Ok(known);
    }
    let form = match take::take(store, request, &temporary)? {
        Ok(form) => form,
        Err(why) => return Ok(CommitOutcome::Rejected(why)),
    };
    let before = tree::walk(store, &temporary)?;
    // It was fit, and at rest, a moment ago.
    if take::unfit(form, &before).is_some() || changed_since_seen(form, request, &before) {
        return give_back(store, request, form, &temporary);
    }
    secure(store, request, form, &before, taken)?;
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
    let manifest = write_manifest(store, request, form, parts)?;
    for folder in before.iter().rev().filter(|entry| entry.stat.kind == FileKind::Dir) {
        store.sync_dir(&join(&temporary, &folder.path))?;
    }
    publish(store, request, &temporary, &manifest, is_newest)
}

/// The outcome, where it is known before the save is touched.
fn known_outcome(
    store: &mut impl Store,
    request: &CommitRequest,
    temporary: &Path,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<Option<CommitOutcome>> {
    if !is_published(store, request, temporary) {
        let same = step_that_lies_there(store, request, temporary)?;
        return Ok(same.map(CommitOutcome::SameContent));
    }
    if !is_newest()? {
        return Ok(Some(CommitOutcome::Superseded));
    }
    store.sync_dir(&request.checkpoints)?;
    Ok(Some(CommitOutcome::Committed))
}

/// Marks what was taken, so that the next attempt finishes its commit if this one can't.
fn secure(
    store: &mut impl Store,
    request: &CommitRequest,
    form: CheckpointForm,
    tree: &[FileEntry],
    taken: &dyn Fn(),
) -> io::Result<()> {
    taken::mark(store, request, form, tree, false)?;
    taken();
    if request.is_urgent() {
        // Everything that a crash of the node could lose comes first. Then any node may finish it.
        store.sync_files(&files(&request.temporary(), tree))?;
        taken::mark(store, request, form, tree, true)?;
    }
    Ok(())
}

/// Writes what the checkpoint holds, after the metrics that it counts on are durable.
fn write_manifest(
    store: &mut impl Store,
    request: &CommitRequest,
    form: CheckpointForm,
    parts: Vec<(Vec<u8>, ManifestEntry)>,
) -> io::Result<Manifest> {
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
        reported: request.reported,
        parts,
    };
    let path = request.temporary().join(manifest::NAME);
    store.write(&path, manifest::print(&manifest).as_bytes())?;
    store.sync_file(&path)?;
    Ok(manifest)
}

/// Whether an earlier try renamed it and did not get the answer.
fn is_published(store: &impl Store, request: &CommitRequest, temporary: &Path) -> bool {
    is_gone(store, &request.from)
        && is_gone(store, temporary)
        && manifest_of(store, &request.target())
            .is_some_and(|own| own.lease == request.lease && own.entry == request.entry)
}

fn is_gone(store: &impl Store, path: &Path) -> bool {
    store.stat(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Sizes and times that show a change. Those of folders are left out: writing the manifest changes them.
fn stats(entries: &[FileEntry]) -> Vec<(&[u8], FileStat)> {
    let parts = entries.iter().filter(|entry| manifest::lists(&entry.path));
    parts.map(|entry| (&entry.path[..], essence(entry.stat))).collect()
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

/// Puts the save back for the program, unless the program has made another one of that name.
fn give_back(
    store: &mut impl Store,
    request: &CommitRequest,
    form: CheckpointForm,
    temporary: &Path,
) -> io::Result<CommitOutcome> {
    // A manifest of an earlier try would look like the program's in the staging folder.
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

/// Renames it to `step-N`, unless a later attempt has taken over or that name exists.
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
            settle_taken_step(store, request, temporary, manifest)
        }
        Err(error) => Err(error),
    }
}

/// Decides between the new save and a checkpoint of the same step. One that is whole stays; a damaged one is moved aside.
fn settle_taken_step(
    store: &mut impl Store,
    request: &CommitRequest,
    temporary: &Path,
    manifest: &Manifest,
) -> io::Result<CommitOutcome> {
    let target = request.target();
    match resume::verify(store, &target) {
        Ok(there) => {
            store.remove_tree(temporary)?;
            store.sync_dir(&request.checkpoints)?;
            if there.parts == manifest.parts {
                return Ok(CommitOutcome::AlreadyCommitted);
            }
            Ok(CommitOutcome::Rejected(format!(
                "step {} is committed already, with other content",
                request.step
            )))
        }
        // Nothing is known of it, so both stay and the commit is tried again.
        Err(Unusable::Unreadable(why)) => Err(io::Error::other(format!(
            "step {} is committed already, and can't be compared: {why}",
            request.step
        ))),
        Err(Unusable::Content(_)) => {
            let aside = resume::aside(&request.checkpoints, "bad", request.step, &request.nonce);
            store.rename_new(&target, &aside)?;
            store.rename_new(temporary, &target)?;
            store.sync_dir(&request.checkpoints)?;
            Ok(CommitOutcome::Committed)
        }
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
