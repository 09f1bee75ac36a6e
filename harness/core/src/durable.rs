//! Writes that survive a crash. Each function names what it guarantees.
#![expect(clippy::disallowed_methods, reason = "the one place that makes files durable")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{checksum, claim, lines, open};

/// Makes the names in a folder durable: the file's data is the caller's to sync.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    open::folder(path)?.sync_all()
}

/// Makes `path` and its missing parents, private to the user, each name durable.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => parent.map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes `path` and its missing parents below `top`, private to the user, each name durable. `top` itself must be there: a
/// process that outlives the folder of its experiment does not make it anew.
pub fn create_dir_below(top: &Path, path: &Path) -> io::Result<()> {
    if !top.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let missing = path.ancestors().take_while(|folder| *folder != top && !folder.is_dir());
    for folder in missing.collect::<Vec<_>>().into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => folder.parent().map_or(Ok(()), sync_dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a whole file with durable data. Its name is durable after [`sync_dir`] of its folder.
pub fn write_synced(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(data)?;
    file.sync_all()
}

/// Replaces a file's content. After a crash the whole old or the whole new content is there.
///
/// The order is the guarantee: the data is durable before the name, the name before the return.
pub fn replace_file_durably(path: &Path, data: &[u8]) -> io::Result<()> {
    rewrite_durably(path, |file| file.write_all(data))
}

/// Like [`replace_file_durably`], for content that does not fit into memory.
pub fn rewrite_durably(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut file = BufWriter::new(file);
    let written = write(&mut file)
        .and_then(|()| file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        fs::remove_file(&temporary).ok(); // a full disk needs the room
    }
    written?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A name that no other process uses, on this node or another: in the same folder, since a rename needs that. A crash leaves
/// such a file; [`crate::claim::Claims::clean`] knows it by its beginning.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, "a file needs a name and a folder");
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid());
    };
    let mut temporary = OsString::from(".tmp-");
    temporary.push(name);
    temporary.push(format!("-{}", claim::nonce()?));
    Ok(folder.join(temporary))
}

/// Replaces a file's content. Readers find the whole old or the whole new content. A crash of the machine may lose both.
pub fn replace_file(path: &Path, data: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = fs::write(&temporary, data).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        fs::remove_file(&temporary).ok(); // a full disk needs the room
    }
    written
}

/// Adds lines, each with its checksum, to a file that several processes may add the same lines to: on a shared disk, lines
/// that two nodes append at once may overwrite each other. Readers find the whole old or the whole new content; of several
/// that write at once, one counts. `text` is what the caller read, and found to lack them: read again, it may have them.
pub fn rewrite_with_lines(
    path: &Path,
    mut text: Vec<u8>,
    rows: &[impl serde::Serialize],
) -> io::Result<()> {
    let last = text.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    if !last.is_empty() {
        let end: &[u8] = if lines::is_whole(last) { b"\n" } else { lines::TORN };
        text.extend(end);
    }
    for row in rows {
        text.extend(checksum::to_vec(row)?);
        text.push(b'\n');
    }
    replace_file_durably(path, &text)
}

/// A file that one process appends lines to, each durable before [`Appender::line`] returns.
#[derive(Debug)]
pub struct Appender {
    file: File,
    /// A line was written in part, for example on a full disk.
    torn: bool,
}

impl Appender {
    /// Opens the file, making it (name durable) where it is missing. A torn last line is ended first, so that the
    /// next one starts on a line of its own.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        let mut file = open::to_append(path)?;
        if is_new {
            path.parent().map_or(Ok(()), sync_dir)?;
        } else {
            let last = last_line(path)?;
            if !last.is_empty() {
                let end: &[u8] = if lines::is_whole(&last) { b"\n" } else { lines::TORN };
                file.write_all(end)?;
            }
        }
        Ok(Self { file, torn: false })
    }

    /// Appends one line in a single write, and syncs it.
    pub fn line(&mut self, row: &impl serde::Serialize) -> io::Result<()> {
        self.line_unsynced(row)?;
        self.sync()
    }

    /// Makes all lines so far durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Appends one line with its checksum in a single write. A crash of the machine may lose it.
    pub fn line_unsynced(&mut self, row: &impl serde::Serialize) -> io::Result<()> {
        self.append(&checksum::to_vec(row)?)
    }

    /// The same without a checksum, of a line that is JSON already, for lines that are many and decide nothing.
    pub fn plain_line_unsynced(&mut self, text: &[u8]) -> io::Result<()> {
        self.append(text)
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        // A torn line must not swallow this one.
        let end_of_torn = if self.torn { lines::TORN } else { b"" };
        let line = [end_of_torn, text, b"\n"].concat();
        let written = self.file.write_all(&line);
        self.torn = written.is_err();
        written
    }
}

/// Longer lines are not ours.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The text after a file's last line break. Only the end of the file is read.
fn last_line(path: &Path) -> io::Result<Vec<u8>> {
    let file = open::to_read(path)?;
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    let mut size = 4096;
    loop {
        let from = length.saturating_sub(size);
        tail.resize(usize::try_from(length - from).unwrap_or(usize::MAX), 0);
        file.read_exact_at(&mut tail, from)?;
        let last = tail.iter().rposition(|&byte| byte == b'\n');
        if last.is_some() || from == 0 || size > MAX_LINE_BYTES {
            return Ok(tail.split_off(last.map_or(0, |at| at + 1)));
        }
        size *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        fs::write(&path, "1\n{\"torn\":").unwrap();
        Appender::open(&path).unwrap().line(&2).unwrap();
        let lines = crate::lines::read::<u32>(&path).unwrap();
        assert_eq!((lines.rows.as_slice(), lines.damaged.as_slice()), (&[1, 2][..], &[][..]));
    }

    #[test]
    fn a_line_after_one_that_was_torn_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut appender = Appender::open(&path).unwrap();
        appender.line(&1).unwrap();
        // As a full disk leaves it: half a line, and an error.
        appender.file.write_all(b"{\"event\":").unwrap();
        appender.torn = true;
        appender.line(&2).unwrap();
        appender.line(&3).unwrap();
        let lines = crate::lines::read::<u32>(&path).unwrap();
        assert_eq!((lines.rows.as_slice(), lines.damaged.as_slice()), (&[1, 2, 3][..], &[][..]));
    }

    #[test]
    fn a_whole_line_without_its_break_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let row = serde_json::json!({"event": "end"});
        fs::write(&path, checksum::to_vec(&row).unwrap()).unwrap();
        Appender::open(&path).unwrap().line(&row).unwrap();
        let lines = crate::lines::read::<serde_json::Value>(&path).unwrap();
        assert_eq!((lines.rows.len(), lines.damaged.len()), (2, 0));
    }

    #[test]
    fn lines_are_added_behind_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        rewrite_with_lines(&path, Vec::new(), &[1, 2]).unwrap();
        fs::write(&path, [&*fs::read(&path).unwrap(), b"{\"torn\":"].concat()).unwrap();
        rewrite_with_lines(&path, fs::read(&path).unwrap(), &[3]).unwrap();
        let lines = crate::lines::read::<u32>(&path).unwrap();
        assert_eq!((lines.rows.as_slice(), lines.damaged.as_slice()), (&[1, 2, 3][..], &[][..]));
    }

    #[test]
    fn folders_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        create_dir_all(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_above_a_folder_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("experiment/task");
        let error = create_dir_below(&top, &top.join("trials/0")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        create_dir_all(&top).unwrap();
        for _ in 0..2 {
            create_dir_below(&top, &top.join("trials/0")).unwrap();
        }
        assert!(top.join("trials/0").is_dir());
    }

    #[test]
    fn a_temporary_name_is_nobody_else_s_and_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let [one, other] = [(); 2].map(|()| temporary_beside(&path).unwrap());
        assert_ne!(one, other, "two nodes may have equal process ids");
        assert!(one.file_name().unwrap().as_encoded_bytes().starts_with(b".tmp-a-"));
        fs::create_dir(&path).unwrap();
        assert!(replace_file(&path, b"x").is_err() && replace_file_durably(&path, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
