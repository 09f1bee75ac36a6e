//! A package: the code that an experiment was submitted with, in a folder of the home that nobody changes, and the list of
//! what is in it. Its name is the hash of that list, so that the same code lies there once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{checksum, percent};

/// Hexadecimal digits of a package's name: 128 bits.
const NAME: usize = 32;

/// `packages/<hash>/` of a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackageDir(pub PathBuf);

impl PackageDir {
    /// The files themselves.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// One line for each file: [`PackageEntry`]. It was written last: where it is, all of them are.
    #[must_use]
    pub fn list(&self) -> PathBuf {
        self.0.join("files.jsonl")
    }
}

/// A file or symbolic link of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageEntry {
    /// Where it lies below the package's root.
    #[serde(with = "encoded")]
    pub path: PathBuf,
    /// What it is.
    pub content: PackagedContent,
}

/// What an entry of a package is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackagedContent {
    /// A file.
    File {
        /// Its length.
        bytes: u64,
        /// Its BLAKE3 hash, in hexadecimal digits.
        hash: String,
        /// Whether it can be run.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// What it says, which may be absolute.
        #[serde(with = "encoded")]
        target: PathBuf,
    },
}

/// `package.json`: what an experiment was submitted with, and how the working folder of a trial follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippedPackage {
    /// The name of its folder.
    pub hash: String,
    /// Where it lies.
    pub dir: PackageDir,
    /// How many files and links it has.
    pub files: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// The folder that was shipped.
    #[serde(with = "encoded")]
    pub root: PathBuf,
    /// Where programs run below it: from the root to the folder of the experiment's file.
    #[serde(with = "encoded")]
    pub folder: PathBuf,
    /// The folders of a trial that are its own and no links, each after the one that it lies in; the root is the first.
    pub own: Vec<PathBelow>,
    /// What lies beside the shipped files, below the root: a working folder has links to them.
    pub linked: Vec<PathBelow>,
}

/// A path below the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathBelow(#[serde(with = "encoded")] pub PathBuf);

/// A path as text, whatever its bytes are.
mod encoded {
    use super::{Path, PathBuf};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::encode(path))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        super::decode(&text).ok_or_else(|| D::Error::custom("not a path as it is written here"))
    }
}

fn encode(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    if let Ok(text) = str::from_utf8(bytes)
        && !text.contains('%')
    {
        return text.to_owned();
    }
    let mut text = String::new();
    percent::encode(bytes, |byte| byte.is_ascii_graphic() && byte != b'%', &mut text);
    text
}

fn decode(text: &str) -> Option<PathBuf> {
    percent::decode(text).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

/// The list of a package as it is written, sorted, and the name that follows from it.
pub fn listed(entries: &mut [PackageEntry]) -> serde_json::Result<(Vec<u8>, String)> {
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    let mut text = Vec::new();
    for entry in entries {
        text.extend(checksum::to_vec(entry)?);
        text.push(b'\n');
    }
    let name = name_of(&text);
    Ok((text, name))
}

fn name_of(list: &[u8]) -> String {
    let hex = blake3::hash(list).to_hex();
    hex.get(..NAME).unwrap_or_default().to_owned()
}

/// The hash of a file's content, in hexadecimal digits, and its length.
pub fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        let count = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        length += part.len() as u64;
    }
    Ok((hasher.finalize().to_hex().to_string(), length))
}

/// How closely a package is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names and lengths.
    Lengths,
    /// The content too.
    Hashes,
}

/// Why a package can't be run.
#[derive(Debug)]
pub enum PackageError {
    /// It could not be read now, or is not there.
    Unreadable(PathBuf, io::Error),
    /// It is not what was submitted.
    Changed(PathBuf),
}

impl std::fmt::Display for PackageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "`{}`: {error}", path.display()),
            Self::Changed(path) => {
                write!(f, "`{}` is not as it was submitted: somebody changed it", path.display())
            }
        }
    }
}

/// Compares a package with its list, and the list with the package's name.
pub fn verify(dir: &PackageDir, hash: &str, depth: Depth) -> Result<(), PackageError> {
    for entry in read_list(dir, hash)? {
        let path = dir.files().join(&entry.path);
        match is_right(&path, &entry.content, depth) {
            Ok(true) => {}
            Ok(false) => return Err(PackageError::Changed(path)),
            // The list was read: the others came with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PackageError::Changed(path));
            }
            Err(error) => return Err(PackageError::Unreadable(path, error)),
        }
    }
    Ok(())
}

/// The entries of a package.
pub fn read_list(dir: &PackageDir, hash: &str) -> Result<Vec<PackageEntry>, PackageError> {
    let path = dir.list();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) => return Err(PackageError::Unreadable(path, error)),
    };
    let is_own = name_of(&text) == hash;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let entries: serde_json::Result<Vec<PackageEntry>> = lines.map(checksum::from_slice).collect();
    let entries = entries.ok().filter(|_| is_own);
    let is_below = |entry: &PackageEntry| is_plain(&entry.path);
    entries.filter(|all| all.iter().all(is_below)).ok_or(PackageError::Changed(path))
}

/// Whether a file or link is what a package lists.
pub fn is_right(path: &Path, content: &PackagedContent, depth: Depth) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    Ok(match content {
        PackagedContent::Link { target } => found.is_symlink() && fs::read_link(path)? == *target,
        PackagedContent::File { bytes, hash, .. } => {
            let is_as_long = found.is_file() && found.len() == *bytes;
            is_as_long && (depth == Depth::Lengths || hash_file(path)?.0 == *hash)
        }
    })
}

/// Whether a path leads down, and nowhere else.
#[must_use]
pub fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files that need not last")]
mod tests {
    use super::*;

    fn shipped(folder: &Path) -> (PackageDir, String) {
        let dir = PackageDir(folder.to_owned());
        fs::create_dir_all(dir.files().join("a")).unwrap();
        fs::write(dir.files().join("a/b.py"), "print(1)").unwrap();
        std::os::unix::fs::symlink("a", dir.files().join("link")).unwrap();
        let (hash, bytes) = hash_file(&dir.files().join("a/b.py")).unwrap();
        let mut entries = [
            PackageEntry {
                path: "link".into(),
                content: PackagedContent::Link { target: "a".into() },
            },
            PackageEntry {
                path: "a/b.py".into(),
                content: PackagedContent::File { bytes, hash, executable: false },
            },
        ];
        let (text, name) = listed(&mut entries).unwrap();
        fs::write(dir.list(), text).unwrap();
        (dir, name)
    }

    #[test]
    fn what_is_changed_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, name) = shipped(folder.path());
        verify(&dir, &name, Depth::Hashes).unwrap();
        let check = |depth| matches!(verify(&dir, &name, depth), Err(PackageError::Changed(_)));
        fs::write(dir.files().join("a/b.py"), "print(2)").unwrap();
        assert!(check(Depth::Hashes) && !check(Depth::Lengths));
        fs::write(dir.files().join("a/b.py"), "print(22)").unwrap();
        assert!(check(Depth::Lengths));
        fs::remove_file(dir.files().join("a/b.py")).unwrap();
        let gone = verify(&dir, &name, Depth::Lengths);
        assert!(matches!(gone, Err(PackageError::Changed(..))), "{gone:?}");
    }

    #[test]
    fn a_list_that_is_not_the_packages_own_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, name) = shipped(folder.path());
        let text = fs::read(dir.list()).unwrap();
        for place in 0..text.len() {
            let mut flipped = text.clone();
            flipped[place] ^= 1;
            fs::write(dir.list(), flipped).unwrap();
            let read = read_list(&dir, &name);
            assert!(matches!(read, Err(PackageError::Changed(_))), "{place}: {read:?}");
        }
    }

    #[test]
    fn any_name_is_kept() {
        for bytes in [&b"a b.py"[..], b"\xff\xfe", b"100%.txt", "é.py".as_bytes(), b"a\nb"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(decode(&encode(&path)), Some(path), "{bytes:?}");
        }
    }
}
