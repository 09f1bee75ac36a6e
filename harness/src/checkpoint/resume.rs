//! Finds the checkpoint to resume from: the newest one that verifies. A bad one is moved aside and never used.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::hashing::SizedFile;
use super::manifest::{self, CheckpointForm, Manifest, ManifestEntry};
use super::store::{FileKind, Store, join};
use super::tree;
use crate::attempt::start_error::StartError;

/// A checkpoint that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedCheckpoint {
    pub(crate) step: u64,
    /// The path that the program must load: the folder, or the file in it.
    pub(crate) from: PathBuf,
    /// The length of `metrics.jsonl` at the commit.
    pub(crate) metrics: u64,
}

/// The checkpoint that was found, and notes for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundCheckpoint {
    pub(crate) resumed: Option<VerifiedCheckpoint>,
    pub(crate) notes: Vec<String>,
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
    let names = match store.list(checkpoints) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound && recorded.steps.is_empty() => {
            return Ok(FoundCheckpoint::default());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!("the folder can't be read: {error}");
            return Err(lost(checkpoints, recorded, &why).into());
        }
        Err(error) => return Err(StartError::node(checkpoints, &error)),
    };
    let steps: BTreeSet<u64> = names.iter().filter_map(|name| step_of(name)).collect();
    let mut search = CheckpointSearch { store, checkpoints, nonce, notes: Vec::new() };
    // The program did not crash after a checkpoint that is newer than the suspect.
    let suspect = recorded.suspect.filter(|suspect| steps.last() == Some(suspect));
    let before = match suspect {
        Some(suspect) => search.one_back(suspect, steps.range(..suspect))?,
        None => None,
    };
    let resumed = match before {
        Some(before) => Some(before),
        // With a suspect, the checkpoints before it turned out to be bad.
        None => search.newest(steps.range(suspect.unwrap_or(0)..))?,
    };
    let mut notes = search.notes;
    if let Some(resumed) = &resumed {
        let aside: BTreeSet<u64> = names.iter().filter_map(|name| aside_step(name)).collect();
        let known = |step: &&u64| !(&steps | &(&aside | &recorded.removed)).contains(step);
        let gone = recorded.steps.range(resumed.step + 1..).filter(known);
        notes.extend(gone.map(|gone| format!("checkpoint step-{gone} was committed, but is gone")));
    } else if !recorded.steps.is_empty() {
        let why = notes.last().map_or("the folder holds none", String::as_str);
        return Err(lost(checkpoints, recorded, why).into());
    }
    Ok(FoundCheckpoint { resumed, notes })
}

impl<S: Store> CheckpointSearch<'_, S> {
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
                    return Ok(Some(VerifiedCheckpoint { step, from, metrics: manifest.metrics }));
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
            self.move_aside("set-aside", suspect, why)?;
        }
        Ok(found)
    }

    fn move_aside(&mut self, word: &str, step: u64, why: &str) -> Result<(), StartError> {
        let path = self.path(step);
        let aside = aside(self.checkpoints, word, step, self.nonce);
        let moved = self.store.rename_new(&path, &aside);
        let moved = moved.and_then(|()| self.store.sync_dir(self.checkpoints));
        moved.map_err(|error| StartError::node(&path, &error))?;
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
    let content = Unusable::Content;
    let text = store.read(&path.join(manifest::NAME)).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => content(format!("its MANIFEST: {error}")),
        _ => match unreadable(&error) {
            Unusable::Content(_) => content("it has no MANIFEST".to_owned()),
            other @ Unusable::Unreadable(_) => other,
        },
    })?;
    let manifest = manifest::parse(&text).map_err(content)?;
    let entries = tree::walk(store, path).map_err(|error| unreadable(&error))?;
    let own = |entry: &&tree::FileEntry| {
        !entry.path.is_empty() && entry.path != manifest::NAME.as_bytes()
    };
    let there: BTreeSet<&[u8]> = entries.iter().filter(own).map(|entry| &entry.path[..]).collect();
    let listed: BTreeSet<&[u8]> = manifest.parts.iter().map(|(path, _)| &path[..]).collect();
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    if let Some(path) = listed.difference(&there).next() {
        return Err(content(format!("`{}` is missing", shown(path))));
    }
    if let Some(path) = there.difference(&listed).next() {
        return Err(content(format!("`{}` was added", shown(path))));
    }
    let altered =
        |relative: &[u8]| content(format!("`{}` is not as it was committed", shown(relative)));
    let mut files = Vec::new();
    for (relative, part) in &manifest.parts {
        let path = join(path, relative);
        let stat = store.stat(&path).map_err(|error| unreadable(&error))?;
        let is_same = match part {
            ManifestEntry::Dir => stat.kind == FileKind::Dir,
            ManifestEntry::Link(target) => {
                stat.kind == FileKind::Link
                    && store.read_link(&path).map_err(|error| unreadable(&error))? == *target
            }
            // Sizes come first, since comparing them costs nothing.
            ManifestEntry::File(digest) => {
                files.push((relative, *digest, (path, digest.size)));
                stat.kind == FileKind::File && stat.size == digest.size
            }
        };
        if !is_same {
            return Err(altered(relative));
        }
    }
    let sized: Vec<SizedFile> = files.iter().map(|(_, _, file)| file.clone()).collect();
    let found = store.digests(&sized).map_err(|error| unreadable(&error))?;
    match files.iter().zip(found).find(|((_, digest, _), found)| digest != found) {
        Some(((relative, ..), _)) => Err(altered(relative)),
        None => Ok(manifest),
    }
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
