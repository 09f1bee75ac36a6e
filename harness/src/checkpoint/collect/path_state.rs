//! What a path of the program's own looks like: it shows whether the program has changed it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nemo_core::open;

use crate::checkpoint::copy;
use crate::checkpoint::store::{DiskStore, FileKind, FileStat, join};
use crate::checkpoint::tree::{self, FileEntry};
use crate::os::proc_fs;

/// What shows whether something was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathState {
    /// Device and inode.
    pub(super) id: (u64, u64),
    pub(super) tree: Vec<FileEntry>,
}

impl PathState {
    pub(super) fn bytes(&self) -> u64 {
        self.files().map(|entry| entry.stat.size).sum()
    }

    /// The newest time of its files, in seconds since 1970.
    pub(super) fn modified(&self) -> Option<f64> {
        let (seconds, nanoseconds) = self.files().map(|entry| entry.stat.modified).max()?;
        #[expect(clippy::cast_precision_loss, reason = "microseconds do")]
        Some(seconds as f64 + nanoseconds as f64 / 1e9)
    }

    pub(super) fn is_file(&self) -> bool {
        self.tree.first().is_some_and(|top| top.stat.kind == FileKind::File)
    }

    /// What a path looks like now. A link at its top stands for what it points at.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        open::refresh(path);
        let metadata = path.metadata()?;
        if metadata.is_dir() {
            let tree = tree::walk(&DiskStore::default(), path)?;
            return Ok(Self { id: (metadata.dev(), metadata.ino()), tree });
        }
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self::of_file(&metadata))
    }

    fn of_file(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let stat = FileStat { kind: FileKind::File, size: metadata.len(), modified };
        let id = (metadata.dev(), metadata.ino());
        Self { id, tree: vec![FileEntry { path: Vec::new(), stat }] }
    }

    /// Whether a process has it, or a file in it, open to write. The search looks at every process.
    pub(super) fn is_open(&self, path: &Path) -> bool {
        !self.parts(path).is_disjoint(&proc_fs::open_to_write(&self.names(path)))
    }

    fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.tree.iter().filter(|entry| entry.stat.kind == FileKind::File)
    }

    /// Device and inode of a file, or of each file in a folder.
    fn parts(&self, path: &Path) -> BTreeSet<(u64, u64)> {
        if self.is_file() {
            return BTreeSet::from([self.id]);
        }
        let parts = self.files().filter_map(|entry| join(path, &entry.path).metadata().ok());
        parts.map(|metadata| (metadata.dev(), metadata.ino())).collect()
    }

    /// The names of a file, or of each file in a folder.
    fn names(&self, path: &Path) -> BTreeSet<OsString> {
        let name = |path: &Path| path.file_name().map(OsString::from);
        if self.is_file() {
            return path.canonicalize().ok().and_then(|path| name(&path)).into_iter().collect();
        }
        self.files().filter_map(|entry| name(&join(path, &entry.path))).collect()
    }
}

/// Whether the copy of a path is of the state that was looked at. A program may replace a folder while its files are copied
/// one by one. The copy of a single file is of what was opened: if that came by a rename, it was complete, whatever lies
/// there by now.
pub(super) fn same_still(
    path: &Path,
    state: &PathState,
    opened: Option<&Metadata>,
    is_renamed: bool,
) -> io::Result<()> {
    let is_same = match opened {
        Some(opened) if PathState::of_file(opened) != *state => false,
        Some(_) if is_renamed => true,
        Some(_) | None => PathState::of(path)? == *state,
    };
    let changed = || io::Error::new(io::ErrorKind::ResourceBusy, copy::CHANGED);
    if is_same { Ok(()) } else { Err(changed()) }
}
