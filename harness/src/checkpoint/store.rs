//! The file operations of a commit and a resume, so that a test can stop the world between any two.
#![expect(
    clippy::disallowed_methods,
    reason = "each operation is one call: the order of them is the guarantee"
)]

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nemo_core::{durable, open};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::hashing::{self, Digest, HashOptions, SizedFile};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    File,
    Dir,
    Link,
    /// A socket, a FIFO or a device, which can't be in a checkpoint. The text is for people.
    Other(&'static str),
}

/// The properties that show whether a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub(crate) kind: FileKind,
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
}

/// The file operations that a commit needs.
pub(crate) trait Store {
    /// The names in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<Vec<u8>>>;
    fn stat(&self, path: &Path) -> io::Result<FileStat>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Hashes files of known lengths.
    fn digests(&self, files: &[SizedFile]) -> io::Result<Vec<Digest>>;
    /// Makes files durable.
    fn sync_files(&mut self, files: &[SizedFile]) -> io::Result<()>;
    /// Makes files durable, and hashes them.
    fn settle(&mut self, files: &[SizedFile]) -> io::Result<Vec<Digest>>;
    /// The target of a symbolic link.
    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>>;
    fn make_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Writes a whole file. It is durable after [`Store::sync_file`].
    fn write(&mut self, path: &Path, data: &[u8]) -> io::Result<()>;
    fn sync_file(&mut self, path: &Path) -> io::Result<()>;
    /// Makes a folder's names durable.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Renames. Fails if the new name exists.
    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_tree(&mut self, path: &Path) -> io::Result<()>;
}

/// The real file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskStore {
    /// A program is training and must not be slowed down.
    pub(crate) gentle: bool,
    /// Another thread sets it to stop long operations with an error.
    pub(crate) stop: Arc<AtomicBool>,
}

impl DiskStore {
    fn pace(&self) -> HashOptions<'_> {
        HashOptions { gentle: self.gentle, stop: &self.stop }
    }
}

impl Store for DiskStore {
    fn list(&self, folder: &Path) -> io::Result<Vec<Vec<u8>>> {
        open::refresh(folder);
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_vec())).collect()
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let metadata = fs::symlink_metadata(path)?;
        let file_type = metadata.file_type();
        let kind = match () {
            () if file_type.is_file() => FileKind::File,
            () if file_type.is_dir() => FileKind::Dir,
            () if file_type.is_symlink() => FileKind::Link,
            () => FileKind::Other(open::kind(&metadata).unwrap_or_default()),
        };
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(FileStat { kind, size: metadata.len(), modified })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        open::read(path)
    }

    fn digests(&self, files: &[SizedFile]) -> io::Result<Vec<Digest>> {
        hashing::digests(files, self.pace())
    }

    fn sync_files(&mut self, files: &[SizedFile]) -> io::Result<()> {
        hashing::sync(files, self.pace())
    }

    fn settle(&mut self, files: &[SizedFile]) -> io::Result<Vec<Digest>> {
        hashing::settle(files, self.pace())
    }

    fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(fs::read_link(path)?.into_os_string().into_vec())
    }

    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        durable::create_dir_below(path.parent().unwrap_or(path), path)
    }

    fn write(&mut self, path: &Path, data: &[u8]) -> io::Result<()> {
        fs::write(path, data)
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        open::to_read(path)?.sync_all()
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        durable::sync_dir(path)
    }

    fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let own = file_id(from)?;
        let Err(error) = rename_noreplace(from, to) else { return Ok(()) };
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        for _ in 0..RENAMES {
            if was_moved(own, to) || rename_noreplace(from, to).is_ok() {
                return Ok(());
            }
        }
        if was_moved(own, to) { Ok(()) } else { Err(error) }
    }

    fn remove_tree(&mut self, path: &Path) -> io::Result<()> {
        let removed = if path.symlink_metadata()?.is_dir() {
            remove_folder(path, LONGEST_PATH)
        } else {
            fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// How often a rename that failed is tried again.
const RENAMES: u32 = 3;

fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // NFS and older Lustre don't know the flag. The lease lets one writer only come here.
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => match to.symlink_metadata() {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        Err(error) => Err(error.into()),
    }
}

/// Whether a rename was made after all: NFS may lose the answer. Only making something there asks the server whether the
/// name is taken, whatever is cached here.
fn was_moved(own: (u64, u64), to: &Path) -> bool {
    if fs::create_dir(to).is_ok() {
        fs::remove_dir(to).ok();
        return false;
    }
    file_id(to).is_ok_and(|there| there == own)
}

/// What tells whether two names are of one file.
fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Longer paths are shortened before anything in them is removed: the system's limit is 4096 bytes.
const LONGEST_PATH: usize = 2048;

/// Removes a folder of any depth. The standard library needs a descriptor and stack space for each level. Here a
/// folder whose path gets long is moved up first.
fn remove_folder(root: &Path, longest: usize) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    let mut lifted = 0;
    while let Some(folder) = folders.pop() {
        let mut below = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            let mut path = entry.path();
            if path.as_os_str().len() > root.as_os_str().len() + longest {
                let up = root.join(format!(".lifted-{lifted}"));
                fs::rename(&path, &up)?;
                (path, lifted) = (up, lifted + 1);
            }
            below.push(path);
        }
        if below.is_empty() {
            fs::remove_dir(&folder)?;
        } else {
            folders.push(folder);
            folders.extend(below);
        }
    }
    Ok(())
}

/// The name's bytes as a path below a folder.
pub(crate) fn join(folder: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    folder.join(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_tree_that_is_too_deep_for_any_path_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("deep");
        fs::create_dir(&folder).unwrap();
        // Made from the inside out: a path to the innermost can't be said.
        for level in 0..3000 {
            let above = parent.path().join("above");
            fs::create_dir(&above).unwrap();
            File::create(above.join(format!("file-{level}"))).unwrap();
            fs::rename(&folder, above.join("d")).unwrap();
            fs::rename(&above, &folder).unwrap();
        }
        let mut disk = DiskStore::default();
        let too_deep = super::super::tree::walk(&disk, &folder).unwrap_err();
        assert_eq!(too_deep.kind(), io::ErrorKind::InvalidFilename);
        disk.remove_tree(&folder).unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_link_points_at_is_not_removed() {
        let parent = tempfile::tempdir().unwrap();
        let (own, other) = (parent.path().join("own"), parent.path().join("other"));
        fs::create_dir_all(own.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        File::create(other.join("file")).unwrap();
        std::os::unix::fs::symlink(&other, own.join("a/b/link")).unwrap();
        DiskStore::default().remove_tree(&own).unwrap();
        assert!(other.join("file").exists() && !own.exists());
    }
}
