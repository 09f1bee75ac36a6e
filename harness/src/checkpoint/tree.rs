//! All that lies below a folder or a file, in the order of names.

use std::io;
use std::path::Path;

use super::store::{Kind, Stat, Store, join};

/// An entry; the path is relative to the root, its parts joined by `/`, and empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) stat: Stat,
}

/// Walks a tree, folders before what is in them.
pub(crate) fn walk(store: &impl Store, root: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = vec![Entry { path: Vec::new(), stat: store.stat(root)? }];
    let mut next = 0;
    while let Some(entry) = entries.get(next) {
        next += 1;
        if entry.stat.kind != Kind::Dir {
            continue;
        }
        let parent = entry.path.clone();
        for name in store.list(&join(root, &parent))? {
            let path = if parent.is_empty() { name } else { [&parent, &b"/"[..], &name].concat() };
            let stat = store.stat(&join(root, &path))?;
            entries.push(Entry { path, stat });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}
