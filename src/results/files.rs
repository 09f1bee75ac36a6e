//! The files that a trial left: its newest checkpoint and its artifacts.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nemo_core::rundir::{AttemptRecord, TrialDir};
use nemo_core::{lines, open};
use serde::Serialize;

/// Deeper folders of artifacts are not looked into.
const DEEPEST: u32 = 32;

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Its step.
    pub step: u64,
    /// Its folder.
    pub path: String,
    /// The size of its files.
    pub bytes: u64,
}

/// A file below `artifacts/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Relative to `artifacts/`.
    pub name: String,
    /// The file.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3 hash, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Whether artifacts are hashed, which reads all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashes {
    /// They are.
    Wanted,
    /// Only their names and sizes are told.
    Unwanted,
}

/// The committed checkpoint of the highest step that is there.
pub(super) fn newest_checkpoint(dir: &TrialDir) -> Option<Checkpoint> {
    let entries = fs::read_dir(dir.checkpoints()).ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let steps = names.filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok());
    let step = steps.filter(|step| dir.checkpoint(*step).is_dir()).max()?;
    let path = dir.checkpoint(step);
    let recorded = recorded_bytes(dir, step);
    let bytes = recorded.unwrap_or_else(|| files(&path).iter().map(|(_, file)| file.bytes).sum());
    Some(Checkpoint { step, path: path.to_string_lossy().into_owned(), bytes })
}

/// What the record of its commit says.
fn recorded_bytes(dir: &TrialDir, wanted: u64) -> Option<u64> {
    let records = lines::read::<AttemptRecord>(&dir.attempts()).ok()?.rows;
    records.iter().rev().find_map(|record| match record {
        AttemptRecord::Checkpoint { step, bytes, .. } if *step == wanted => *bytes,
        _ => None,
    })
}

/// The artifacts of a trial, by name.
pub(super) fn artifacts(
    folder: &Path,
    hashes: Hashes,
    warnings: &mut Vec<String>,
) -> Vec<Artifact> {
    let mut found = files(folder);
    if hashes == Hashes::Wanted {
        for (path, artifact) in &mut found {
            match hash(path) {
                Ok(hash) => artifact.hash = Some(hash),
                Err(error) => warnings.push(format!("can't read `{}`: {error}", artifact.path)),
            }
        }
    }
    found.into_iter().map(|(_, artifact)| artifact).collect()
}

/// All regular files below a folder, by their own paths: what is shown of one that is no UTF-8 opens no file. Links are not
/// followed.
fn files(folder: &Path) -> Vec<(PathBuf, Artifact)> {
    let mut found = Vec::new();
    add_files(folder, "", DEEPEST, &mut found);
    found.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    found
}

fn add_files(folder: &Path, prefix: &str, depth: u32, found: &mut Vec<(PathBuf, Artifact)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        // One that is being copied.
        if entry.file_name().as_encoded_bytes().starts_with(b".tmp-") {
            continue;
        }
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if metadata.is_dir() && depth > 0 {
            add_files(&entry.path(), &format!("{name}/"), depth - 1, found);
        } else if metadata.is_file() {
            let path = entry.path();
            let shown = path.to_string_lossy().into_owned();
            let bytes = metadata.len();
            found.push((path, Artifact { name, path: shown, bytes, hash: None }));
        }
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (open::to_read(path)?, blake3::Hasher::new());
    let mut block = vec![0; 64 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            length => hasher.update(&block[..length]),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use nemo_core::durable;

    use super::*;

    #[test]
    fn a_file_whose_name_is_no_utf_8_is_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join(OsStr::from_bytes(b"of \xff"));
        fs::create_dir(&inner).unwrap();
        for name in [&b"a \xfe"[..], b"b"] {
            durable::write_synced(&inner.join(OsStr::from_bytes(name)), b"text").unwrap();
        }
        let mut warnings = Vec::new();
        let found = artifacts(folder.path(), Hashes::Wanted, &mut warnings);
        let expected = Some(blake3::hash(b"text").to_hex().to_string());
        let shown: Vec<(&str, bool)> =
            found.iter().map(|it| (&*it.name, it.hash == expected)).collect();
        let names = ["of \u{fffd}/a \u{fffd}", "of \u{fffd}/b"];
        assert_eq!((shown, warnings), (names.map(|name| (name, true)).to_vec(), Vec::new()));
    }
}
