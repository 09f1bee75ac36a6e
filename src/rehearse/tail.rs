//! Reads a growing file on, and notices when it is another one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nemo_core::open;

/// Reads a growing file on.
#[derive(Debug, Default)]
pub(super) struct Tail {
    inode: u64,
    offset: u64,
    /// What was read last: where it no longer stands before the offset, the file was cut meanwhile.
    last: Vec<u8>,
}

impl Tail {
    /// The whole lines that are new, and whether the file is another one than before, or was cut.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<(Vec<u8>, bool)> {
        let mut file = match open::to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Vec::new(), false));
            }
            file => file?,
        };
        let inode = file.metadata()?.ino();
        let is_new = inode != self.inode || !self.goes_on(&mut file)?;
        if is_new {
            *self = Self { inode, ..Self::default() };
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        self.offset += whole as u64;
        if let Some(line) = bytes.split_inclusive(|byte| *byte == b'\n').next_back() {
            line.clone_into(&mut self.last);
        }
        Ok((bytes, is_new))
    }

    /// Whether the line that was read last still stands before the offset.
    fn goes_on(&self, file: &mut File) -> io::Result<bool> {
        file.seek(SeekFrom::Start(self.offset.saturating_sub(self.last.len() as u64)))?;
        let mut found = Vec::new();
        Read::by_ref(file).take(self.last.len() as u64).read_to_end(&mut found)?;
        Ok(found == self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_and_grew_again_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut tail = Tail::default();
        let mut check = |content: &str, expected: &str, is_new: bool| {
            let same_file = File::options().create(true).write(true).truncate(true).open(&path);
            std::io::Write::write_all(&mut same_file.unwrap(), content.as_bytes()).unwrap();
            let (fresh, found_new) = tail.read(&path).unwrap();
            assert_eq!((String::from_utf8(fresh).unwrap().as_str(), found_new), (expected, is_new));
        };
        check("a1\na2\na3\n", "a1\na2\na3\n", true);
        check("a1\na2\na3\na4\na", "a4\n", false);
        check("a1\nb2\nb3\nb4\nb5\n", "a1\nb2\nb3\nb4\nb5\n", true);
        check("a1\n", "a1\n", true);
        check("a1\nc2\n", "c2\n", false);
    }
}
