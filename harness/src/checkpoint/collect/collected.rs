//! `collected.json`: what the program's own paths looked like when they were last committed. It tells a later attempt which of
//! them are whole. Lost, they count as not known.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nemo_core::durable;
use serde::{Deserialize, Serialize};

use crate::checkpoint::store::FileKind;
use crate::checkpoint::tree::FileEntry;

/// How many paths are remembered.
const MOST: usize = 4096;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CollectedPaths {
    pub(crate) paths: BTreeMap<String, CollectedPath>,
}

/// A path when it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CollectedPath {
    pub(crate) step: u64,
    #[serde(flatten)]
    pub(crate) looks: PathDigest,
}

/// What a path looks like, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PathDigest {
    files: usize,
    bytes: u64,
    /// The newest time in it: seconds and nanoseconds.
    modified: (i64, i64),
}

/// What the path of a walk looks like.
pub(crate) fn digest_of(tree: &[FileEntry]) -> PathDigest {
    let files = || tree.iter().filter(|entry| entry.stat.kind == FileKind::File);
    PathDigest {
        files: files().count(),
        bytes: files().map(|entry| entry.stat.size).sum(),
        modified: files().map(|entry| entry.stat.modified).max().unwrap_or_default(),
    }
}

impl CollectedPaths {
    /// Reads it. A file that is missing or damaged knows nothing.
    pub(crate) fn read(path: &Path) -> Self {
        let text = nemo_core::open::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn add(&mut self, path: &Path, committed: CollectedPath) {
        let Some(path) = path.to_str() else { return };
        self.paths.insert(path.to_owned(), committed);
        while self.paths.len() > MOST {
            let oldest = self.paths.iter().min_by_key(|(_, own)| own.step);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else { return };
            self.paths.remove(&oldest);
        }
    }

    /// The step as which a path was committed that looks like this.
    pub(crate) fn step_of(&self, path: &Path, looks: PathDigest) -> Option<u64> {
        let own = self.paths.get(path.to_str()?)?;
        (own.looks == looks).then_some(own.step)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        durable::replace_file_durably(path, &serde_json::to_vec(self)?)
    }
}
