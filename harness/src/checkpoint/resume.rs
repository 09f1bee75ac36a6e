//! Finds the checkpoint to go on from: the newest one that verifies. A bad one is moved aside, never used.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::manifest::{self, Form, Manifest, Part};
use super::store::{Kind, Store, join};
use super::tree;
use crate::resumed::Resumed;

/// What was found, and what there is to say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) resumed: Option<Resumed>,
    pub(crate) notes: Vec<String>,
}

/// Looks for the newest checkpoint that verifies. `recorded` are the steps that were ever committed: where there is
/// one, starting at step 0 in silence would lose work, and is an error.
pub(crate) fn find(
    store: &mut impl Store,
    checkpoints: &Path,
    recorded: &BTreeSet<u64>,
    nonce: &str,
) -> Result<Found, String> {
    let mut found = Found::default();
    let names = match store.list(checkpoints) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound && recorded.is_empty() => {
            return Ok(found);
        }
        Err(error) => {
            return Err(lost(checkpoints, recorded, &format!("the folder can't be read: {error}")));
        }
    };
    let mut steps: Vec<u64> = names.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    let seen: BTreeSet<u64> = steps.iter().copied().collect();
    for step in steps.into_iter().rev() {
        let path = checkpoints.join(format!("step-{step}"));
        match verify(store, &path).and_then(|manifest| right_step(manifest, step)) {
            Ok(manifest) => {
                let from = match manifest.form {
                    Form::Folder => path,
                    Form::File => join(&path, &manifest.entry),
                };
                let gone = recorded.range(step + 1..).filter(|step| !seen.contains(step));
                found.notes.extend(
                    gone.map(|gone| format!("checkpoint step-{gone} was committed, but is gone")),
                );
                found.resumed = Some(Resumed { step, from, metrics: manifest.metrics });
                return Ok(found);
            }
            Err(Bad::Unreadable(why)) => return Err(format!("`{}`: {why}", path.display())),
            Err(Bad::Content(why)) => {
                let aside = checkpoints.join(format!("bad-step-{step}-{nonce}"));
                let moved =
                    store.rename_new(&path, &aside).and_then(|()| store.sync_dir(checkpoints));
                moved.map_err(|error| format!("`{}`: {error}", path.display()))?;
                found.notes.push(format!(
                    "checkpoint step-{step} is not used: {why}; it was moved to `{}`",
                    aside.display()
                ));
            }
        }
    }
    if recorded.is_empty() {
        return Ok(found);
    }
    let why = found.notes.last().map_or("the folder holds none", String::as_str);
    Err(lost(checkpoints, recorded, why))
}

/// Why a checkpoint is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Its content is not what was committed.
    Content(String),
    /// It could not be read now: that says nothing of its content.
    Unreadable(String),
}

/// Compares a checkpoint with its manifest: every file there, each with its size and hash, and nothing more.
pub(crate) fn verify(store: &impl Store, path: &Path) -> Result<Manifest, Bad> {
    let content = |why: String| Bad::Content(why);
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Bad::Content(format!("a part is missing: {error}"))
        }
        _ => Bad::Unreadable(error.to_string()),
    };
    let text = store.read(&path.join(manifest::NAME)).map_err(|error| match unreadable(error) {
        Bad::Content(_) => content("it has no MANIFEST".to_owned()),
        other @ Bad::Unreadable(_) => other,
    })?;
    let manifest = manifest::parse(&text).map_err(content)?;
    let entries = tree::walk(store, path).map_err(unreadable)?;
    let own =
        |entry: &&tree::Entry| !entry.path.is_empty() && entry.path != manifest::NAME.as_bytes();
    let there: BTreeSet<&[u8]> = entries.iter().filter(own).map(|entry| &entry.path[..]).collect();
    let listed: BTreeSet<&[u8]> = manifest.parts.iter().map(|(path, _)| &path[..]).collect();
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    if let Some(path) = listed.difference(&there).next() {
        return Err(content(format!("`{}` is missing", shown(path))));
    }
    if let Some(path) = there.difference(&listed).next() {
        return Err(content(format!("`{}` was added", shown(path))));
    }
    for (relative, part) in &manifest.parts {
        let path = join(path, relative);
        let stat = store.stat(&path).map_err(unreadable)?;
        let is_same = match part {
            Part::Dir => stat.kind == Kind::Dir,
            Part::Link(target) => {
                stat.kind == Kind::Link && store.read_link(&path).map_err(unreadable)? == *target
            }
            // The size is compared first: it costs nothing.
            Part::File(digest) => {
                stat.kind == Kind::File
                    && stat.size == digest.size
                    && store.digest(&path).map_err(unreadable)? == *digest
            }
        };
        if !is_same {
            return Err(content(format!("`{}` is not as it was committed", shown(relative))));
        }
    }
    Ok(manifest)
}

fn right_step(manifest: Manifest, step: u64) -> Result<Manifest, Bad> {
    if manifest.step == step {
        return Ok(manifest);
    }
    Err(Bad::Content(format!("its MANIFEST is of step {}", manifest.step)))
}

/// `step-60` is 60; a name that is spelled otherwise is none of ours.
pub(crate) fn step_of(name: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(name).ok()?.strip_prefix("step-")?;
    let step: u64 = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

fn lost(checkpoints: &Path, recorded: &BTreeSet<u64>, why: &str) -> String {
    let newest = recorded.last().copied().unwrap_or_default();
    format!(
        "the trial committed checkpoints up to step {newest}, but none can be used from `{}`: {why}; \
         it is not begun anew in silence",
        checkpoints.display()
    )
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
