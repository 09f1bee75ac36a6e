//! All that lies below a folder or a file, in the order of names.

use std::io;
use std::path::Path;

use super::store::{FileKind, FileStat, Store, join};

/// An entry; the path is relative to the root, its parts joined by `/`, and empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) stat: FileStat,
}

/// Walks a tree, folders before what is in them.
pub(crate) fn walk(store: &impl Store, root: &Path) -> io::Result<Vec<FileEntry>> {
    let mut entries = vec![FileEntry { path: Vec::new(), stat: store.stat(root)? }];
    let mut next = 0;
    while let Some(entry) = entries.get(next) {
        next += 1;
        if entry.stat.kind != FileKind::Dir {
            continue;
        }
        let parent = entry.path.clone();
        for name in store.list(&join(root, &parent))? {
            let path = if parent.is_empty() { name } else { [&parent, &b"/"[..], &name].concat() };
            let stat = store.stat(&join(root, &path))?;
            entries.push(FileEntry { path, stat });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}
