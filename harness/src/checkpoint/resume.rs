//! Finds the checkpoint to resume from: the newest one that verifies. A bad one is moved aside and never used.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::hashing::SizedFile;
use super::manifest::{self, CheckpointForm, Manifest, ManifestEntry};
use super::store::{FileKind, Store, join};
use super::tree::{self, FileEntry};
use crate::attempt::start_error::StartError;
use nemo_core::rundir::RestartFrom;

/// A checkpoint that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedCheckpoint {
    pub(crate) step: u64,
    /// The path that the program must load: the folder, or the file in it.
    pub(crate) from: PathBuf,
    /// The name that the program gave.
    pub(crate) entry: Vec<u8>,
    /// The length of `metrics.jsonl` at the commit.
    pub(crate) metrics: u64,
    /// The step that the program had reported, if the checkpoint has a counted one.
    pub(crate) reported: Option<u64>,
}

impl VerifiedCheckpoint {
    /// The step at which the program was when it saved this.
    pub(crate) fn reached(&self) -> u64 {
        self.reported.unwrap_or(self.step)
    }
}

/// The checkpoint that was found, and notes for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundCheckpoint {
    pub(crate) resumed: Option<VerifiedCheckpoint>,
    /// The checkpoints that were set aside, since somebody does not want to go on from them.
    pub(crate) set_aside: Option<SetAside>,
    pub(crate) notes: Vec<String>,
    /// What was done to the program's own paths.
    pub(crate) restored: Vec<String>,
    /// The program goes on from a file of its own, of which nothing was ever committed.
    pub(crate) leaves_own: bool,
}

/// Checkpoints that were set aside for a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetAside {
    pub(crate) from: RestartFrom,
    pub(crate) steps: Vec<u64>,
}

/// The checkpoints in the trial's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordedSteps {
    /// All steps that were ever committed.
    pub(crate) steps: BTreeSet<u64>,
    /// Steps that were removed because newer or better ones exist.
    pub(crate) removed: BTreeSet<u64>,
    /// The step after which the program crashed twice.
    pub(crate) suspect: Option<u64>,
    /// Where a retry begins that has not set later checkpoints aside yet.
    pub(crate) restart_from: Option<RestartFrom>,
}

/// A folder of checkpoints that is searched.
struct CheckpointSearch<'a, S> {
    store: &'a mut S,
    checkpoints: &'a Path,
    nonce: &'a str,
    notes: Vec<String>,
}

/// Finds the newest checkpoint that verifies. If one was ever committed and none verifies, that is an error: to start
/// at step 0 would lose work.
pub(crate) fn find(
    store: &mut impl Store,
    checkpoints: &Path,
    recorded: &RecordedSteps,
    nonce: &str,
) -> Result<FoundCheckpoint, StartError> {
    let mut recorded = recorded.clone();
    let set_aside = set_aside(store, checkpoints, &mut recorded, nonce)?;
    let recorded = &recorded;
    let names = match store.list(checkpoints) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound && recorded.steps.is_empty() => {
            return Ok(FoundCheckpoint { set_aside, ..FoundCheckpoint::default() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!("the folder can't be read: {error}");
            return Err(lost(checkpoints, recorded, &why).into());
        }
        Err(error) => return Err(StartError::node(checkpoints, &error)),
    };
    let steps: BTreeSet<u64> = names.iter().filter_map(|name| step_of(name)).collect();
    let mut search = CheckpointSearch { store, checkpoints, nonce, notes: Vec::new() };
    let resumed = search.best(&steps, recorded.suspect)?;
    let mut notes = search.notes;
    match &resumed {
        Some(resumed) => notes.extend(gone(&names, &steps, recorded, resumed.step)),
        None if recorded.steps.is_empty() => {}
        None => {
            let why = notes.last().map_or("the folder holds none", String::as_str);
            return Err(lost(checkpoints, recorded, why).into());
        }
    }
    notes.extend(set_aside.iter().filter_map(SetAside::note));
    Ok(FoundCheckpoint { resumed, set_aside, notes, restored: Vec::new(), leaves_own: false })
}

/// Renames the checkpoints that a retry leaves out, and forgets that they were ever committed. They stay whole. Killed in
/// between, the next attempt renames the rest: the program has not started yet.
fn set_aside(
    store: &mut impl Store,
    checkpoints: &Path,
    recorded: &mut RecordedSteps,
    nonce: &str,
) -> Result<Option<SetAside>, StartError> {
    let Some(from) = recorded.restart_from else { return Ok(None) };
    recorded.steps.retain(|step| !from.leaves_out(*step));
    let names = match store.list(checkpoints) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(|error| StartError::node(checkpoints, &error))?,
    };
    let steps: BTreeSet<u64> = names.iter().filter_map(|name| step_of(name)).collect();
    let steps: Vec<u64> = steps.into_iter().filter(|step| from.leaves_out(*step)).collect();
    // The newest first: whoever is killed in between leaves no gap.
    for step in steps.iter().rev() {
        rename_aside(store, checkpoints, SET_ASIDE, *step, nonce)?;
    }
    Ok(Some(SetAside { from, steps }))
}

impl SetAside {
    fn note(&self) -> Option<String> {
        let steps: Vec<String> = self.steps.iter().map(u64::to_string).collect();
        let from = self.from.step.map_or("the start".to_owned(), |step| format!("step {step}"));
        (!steps.is_empty()).then(|| {
            format!("a retry begins from {from}: set aside the checkpoints of {}", steps.join(", "))
        })
    }
}

/// The word for checkpoints that verify.
const SET_ASIDE: &str = "set-aside";

/// Gives a checkpoint a name under which it is not resumed from, durably.
fn rename_aside(
    store: &mut impl Store,
    checkpoints: &Path,
    word: &str,
    step: u64,
    nonce: &str,
) -> Result<PathBuf, StartError> {
    let path = checkpoints.join(format!("step-{step}"));
    let aside = aside(checkpoints, word, step, nonce);
    let moved = store.rename_new(&path, &aside);
    let moved = moved.and_then(|()| store.sync_dir(checkpoints));
    moved.map_err(|error| StartError::node(&path, &error))?;
    Ok(aside)
}

/// Notes of the steps after this one that were committed, and are missing though nobody removed them.
fn gone(
    names: &[Vec<u8>],
    steps: &BTreeSet<u64>,
    recorded: &RecordedSteps,
    resumed: u64,
) -> Vec<String> {
    let aside: BTreeSet<u64> = names.iter().filter_map(|name| aside_step(name)).collect();
    let known = steps | &(&aside | &recorded.removed);
    let gone = recorded.steps.range(resumed + 1..).filter(|step| !known.contains(step));
    gone.map(|step| format!("checkpoint step-{step} was committed, but is gone")).collect()
}

impl<S: Store> CheckpointSearch<'_, S> {
    /// The newest checkpoint that verifies; with a suspect, the one before it.
    fn best(
        &mut self,
        steps: &BTreeSet<u64>,
        suspect: Option<u64>,
    ) -> Result<Option<VerifiedCheckpoint>, StartError> {
        // The program did not crash after a checkpoint that is newer than the suspect.
        let Some(suspect) = suspect.filter(|suspect| steps.last() == Some(suspect)) else {
            return self.newest(steps.iter());
        };
        match self.one_back(suspect, steps.range(..suspect))? {
            Some(before) => Ok(Some(before)),
            // The checkpoints before it turned out to be bad.
            None => self.newest(steps.range(suspect..)),
        }
    }

    /// The newest of these steps that verifies. Bad ones are moved aside.
    fn newest<'s>(
        &mut self,
        steps: impl DoubleEndedIterator<Item = &'s u64>,
    ) -> Result<Option<VerifiedCheckpoint>, StartError> {
        for &step in steps.rev() {
            let path = self.path(step);
            match verify(self.store, &path).and_then(|manifest| right_step(manifest, step)) {
                Ok(manifest) => {
                    let from = match manifest.form {
                        CheckpointForm::Folder => path,
                        CheckpointForm::File => join(&path, &manifest.entry),
                    };
                    let Manifest { entry, metrics, reported, .. } = manifest;
                    return Ok(Some(VerifiedCheckpoint { step, from, entry, metrics, reported }));
                }
                Err(Unusable::Unreadable(why)) => {
                    return Err(StartError::Node(format!("`{}`: {why}", path.display())));
                }
                Err(Unusable::Content(why)) => self.move_aside("bad", step, &why)?,
            }
        }
        Ok(None)
    }

    /// The checkpoint before the suspect, which verifies and yet crashes the program and is moved aside. If there is none
    /// before it, the suspect is tried again.
    fn one_back<'s>(
        &mut self,
        suspect: u64,
        before: impl DoubleEndedIterator<Item = &'s u64>,
    ) -> Result<Option<VerifiedCheckpoint>, StartError> {
        let found = self.newest(before)?;
        if found.is_some() {
            let why = "the program crashed after it twice in a row, before its next checkpoint";
            self.move_aside(SET_ASIDE, suspect, why)?;
        }
        Ok(found)
    }

    fn move_aside(&mut self, word: &str, step: u64, why: &str) -> Result<(), StartError> {
        let aside = rename_aside(self.store, self.checkpoints, word, step, self.nonce)?;
        self.notes.push(format!(
            "checkpoint step-{step} is not used: {why}; it was moved to `{}`",
            aside.display()
        ));
        Ok(())
    }

    fn path(&self, step: u64) -> PathBuf {
        self.checkpoints.join(format!("step-{step}"))
    }
}

/// Why a checkpoint is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Its content is not what was committed.
    Content(String),
    /// It could not be read now. Its content may be good.
    Unreadable(String),
}

fn unreadable(error: &io::Error) -> Unusable {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Unusable::Content(format!("a part is missing: {error}"))
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            Unusable::Content(error.to_string())
        }
        _ => Unusable::Unreadable(error.to_string()),
    }
}

/// Compares a checkpoint with its manifest: the same files, with the same sizes and hashes, and no others.
pub(crate) fn verify(store: &impl Store, path: &Path) -> Result<Manifest, Unusable> {
    let manifest = read_manifest(store, path)?;
    let entries = tree::walk(store, path).map_err(|error| unreadable(&error))?;
    same_names(&manifest, &entries)?;
    let mut files = Vec::new();
    for (relative, part) in &manifest.parts {
        let path = join(path, relative);
        if !is_alike(store, &path, part)? {
            return Err(altered(relative));
        }
        if let ManifestEntry::File(digest) = part {
            files.push((relative, *digest, (path, digest.size)));
        }
    }
    let sized: Vec<SizedFile> = files.iter().map(|(_, _, file)| file.clone()).collect();
    let found = store.digests(&sized).map_err(|error| unreadable(&error))?;
    match files.iter().zip(found).find(|((_, digest, _), found)| digest != found) {
        Some(((relative, ..), _)) => Err(altered(relative)),
        None => Ok(manifest),
    }
}

fn read_manifest(store: &impl Store, checkpoint: &Path) -> Result<Manifest, Unusable> {
    let text =
        store.read(&checkpoint.join(manifest::NAME)).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Unusable::Content(format!("its MANIFEST: {error}")),
            _ => match unreadable(&error) {
                Unusable::Content(_) => Unusable::Content("it has no MANIFEST".to_owned()),
                other @ Unusable::Unreadable(_) => other,
            },
        })?;
    manifest::parse(&text).map_err(Unusable::Content)
}

fn same_names(manifest: &Manifest, entries: &[FileEntry]) -> Result<(), Unusable> {
    let paths = entries.iter().map(|entry| &entry.path[..]);
    let there: BTreeSet<&[u8]> = paths.filter(|path| manifest::lists(path)).collect();
    let listed: BTreeSet<&[u8]> = manifest.parts.iter().map(|(path, _)| &path[..]).collect();
    if let Some(path) = listed.difference(&there).next() {
        return Err(Unusable::Content(format!("`{}` is missing", String::from_utf8_lossy(path))));
    }
    if let Some(path) = there.difference(&listed).next() {
        return Err(Unusable::Content(format!("`{}` was added", String::from_utf8_lossy(path))));
    }
    Ok(())
}

/// Whether a part is as it was committed, as far as that costs nothing: the content of files is not read.
fn is_alike(store: &impl Store, path: &Path, part: &ManifestEntry) -> Result<bool, Unusable> {
    let stat = store.stat(path).map_err(|error| unreadable(&error))?;
    Ok(match part {
        ManifestEntry::Dir => stat.kind == FileKind::Dir,
        ManifestEntry::Link(target) => {
            stat.kind == FileKind::Link
                && store.read_link(path).map_err(|error| unreadable(&error))? == *target
        }
        ManifestEntry::File(digest) => stat.kind == FileKind::File && stat.size == digest.size,
    })
}

fn altered(path: &[u8]) -> Unusable {
    let path = String::from_utf8_lossy(path);
    Unusable::Content(format!("`{path}` is not as it was committed"))
}

fn right_step(manifest: Manifest, step: u64) -> Result<Manifest, Unusable> {
    if manifest.step == step {
        return Ok(manifest);
    }
    Err(Unusable::Content(format!("its MANIFEST is of step {}", manifest.step)))
}

/// The step of `step-60`. Names that are spelled otherwise are not ours.
pub(crate) fn step_of(name: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(name).ok()?.strip_prefix("step-")?;
    let step: u64 = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

/// The name under which a checkpoint is moved aside.
pub(super) fn aside(checkpoints: &Path, word: &str, step: u64, nonce: &str) -> PathBuf {
    checkpoints.join(format!("{word}-step-{step}-{nonce}"))
}

/// `bad-step-60-…` and `set-aside-step-60-…` are 60.
fn aside_step(name: &[u8]) -> Option<u64> {
    let name = str::from_utf8(name).ok()?;
    let name = name.strip_prefix("bad-").or_else(|| name.strip_prefix("set-aside-"))?;
    step_of(name.rsplit_once('-')?.0.as_bytes())
}

fn lost(checkpoints: &Path, recorded: &RecordedSteps, why: &str) -> String {
    let newest = recorded.steps.last().copied().unwrap_or_default();
    format!(
        "the trial committed checkpoints up to step {newest}, but none can be used from `{}`: {why}; \
         it is not begun anew in silence",
        checkpoints.display()
    )
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
