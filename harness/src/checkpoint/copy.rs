//! Copies files and folders of a program: as a reflink where the file system can, and never as a hard link, since a program
//! that rewrites its file in place would change the copy with it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nemo_core::open;

/// How much is copied before the thread looks whether it shall stop. A multiple of every block size, so that a part of a
/// file can be a reflink.
const PIECE: u64 = 256 << 20;

/// Copies a file, or a folder with all that is in it but one name. Links in it stay links. Tells which file was copied.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    except: &str,
    stop: &AtomicBool,
) -> io::Result<Option<fs::Metadata>> {
    if !from.metadata()?.is_dir() {
        return copy_file(from, to, stop).map(Some);
    }
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = folders.pop() {
        fs::DirBuilder::new().create(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let (own, copied) = (entry.path(), to.join(&name));
            if name == except {
                continue;
            }
            if kind.is_dir() {
                folders.push((own, copied));
            } else if kind.is_symlink() {
                symlink(fs::read_link(&own)?, &copied)?;
            } else {
                copy_file(&own, &copied, stop)?;
            }
        }
    }
    Ok(None)
}

/// Copies one file. It is an error if it changes meanwhile.
fn copy_file(from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<fs::Metadata> {
    let from = open::to_read(&from.canonicalize()?)?;
    let before = from.metadata()?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(before.mode() & 0o777 | 0o600);
    let to: File = options.open(to)?;
    loop {
        let copied = io::copy(&mut io::Read::take(&from, PIECE), &mut &to)?;
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if copied < PIECE {
            break;
        }
    }
    let after = from.metadata()?;
    let times = |own: &fs::Metadata| (own.len(), own.mtime(), own.mtime_nsec());
    if times(&before) != times(&after) || to.metadata()?.len() != after.len() {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, CHANGED));
    }
    Ok(after)
}

/// Why a copy was not made.
pub(super) const CHANGED: &str = "it changed while it was copied";

/// Whether a file begins with all that another one holds.
pub(super) fn begins_with(file: &Path, beginning: &Path) -> io::Result<bool> {
    use io::Read;
    let (mut own, mut other) = (open::to_read(file)?, open::to_read(beginning)?);
    let (mut mine, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = other.read(&mut theirs)?;
        if length == 0 {
            return Ok(true);
        }
        match own.read_exact(&mut mine[..length]) {
            Ok(()) if mine[..length] == theirs[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
