//! Opens what a program may have put in a file's place: it never waits for a FIFO, never follows a link, and never takes
//! a device for a file.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

/// Opens a regular file to read it.
pub fn to_read(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true), path)
}

/// Opens a regular file that a program named, be it by a link.
pub fn to_read_named(path: &Path) -> io::Result<File> {
    checked(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path))
}

/// Opens a regular file to append to it; it is made where it is missing, private to the user.
pub fn to_append(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().append(true).create(true).mode(0o600), path)
}

/// Opens a regular file to change it.
pub fn to_write(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().write(true), path)
}

/// The most that is read whole. None of our files is larger; what a program put in the place of one may be.
const MOST: u64 = 1024 * MIB;
const MIB: u64 = 1 << 20;

/// Reads a regular file whole.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, MOST)
}

/// Reads a regular file whole, unless it has more than so many bytes: that is an error.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    limited(&to_read(path)?, most)
}

/// Reads what a person named, be it a link or a pipe of the shell, unless it has more than so many bytes.
pub fn read_named(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    limited(&File::open(path)?, most)
}

fn limited(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let text = format!("it has more than {} MiB", most / MIB);
        io::Error::new(io::ErrorKind::FileTooLarge, text)
    };
    if file.metadata()?.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, most + 1), &mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// Opens a folder, to sync it.
pub fn folder(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// Asks the server of a shared disk what a file or folder is like now: what is cached of it may be old for a minute. What
/// can't be asked stays as it is.
#[expect(unsafe_code, reason = "nix has no statx")]
pub fn refresh(path: &Path) {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: both pointers are valid for the call, and the answer is not looked at: the kernel's cache is what changes.
    unsafe {
        let mut answer = std::mem::zeroed::<libc::statx>();
        let flags = libc::AT_STATX_FORCE_SYNC;
        let wanted = libc::STATX_BASIC_STATS;
        libc::statx(libc::AT_FDCWD, name.as_ptr(), flags, wanted, &raw mut answer);
    }
}

fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    checked(options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path))
}

fn checked(opened: io::Result<File>) -> io::Result<File> {
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => no_file("a link"),
        Some(libc::ENXIO) => no_file("a FIFO, a socket or a device"),
        _ => error,
    })?;
    match kind(&file.metadata()?) {
        None => Ok(file),
        Some(kind) => Err(no_file(kind)),
    }
}

/// What something is that is neither a file nor a folder, for people.
#[must_use]
pub fn kind(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_symlink() => Some("a link"),
        () if kind.is_fifo() => Some("a FIFO"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

/// Its kind is one that no other error of an open has: a file that is none says nothing of the disk.
fn no_file(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}, not a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_named_and_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
        std::fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        let check = |path: &Path, expected: &str| {
            for opened in [to_read(path), to_append(path)] {
                let error = opened.unwrap_err();
                let is_told = error.to_string().contains(expected);
                assert!(is_told || error.kind() == io::ErrorKind::IsADirectory, "{error}");
            }
        };
        check(&path("fifo"), "FIFO");
        check(&path("socket"), "socket");
        check(&path("folder"), "folder");
        check(&path("link"), "a link");
        check(Path::new("/dev/null"), "a device");
        for (name, kind) in [("fifo", "a FIFO"), ("socket", "socket"), ("link", "a device")] {
            let error = to_read_named(&path(name)).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
        assert_eq!(to_read(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        to_append(&path("file")).unwrap();
        assert!(read(&path("file")).unwrap().is_empty());
    }

    #[test]
    fn what_has_no_end_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        to_append(&path).unwrap().set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("link")).unwrap();
        for error in [
            read(&path).unwrap_err(),
            read_named(&path, MIB).unwrap_err(),
            read_named(&folder.path().join("link"), MIB).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
        }
        to_write(&path).unwrap().set_len(MIB).unwrap();
        assert_eq!(read_at_most(&path, MIB).unwrap().len() as u64, MIB);
    }
}
