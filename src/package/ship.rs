//! Writes a package into the home, whole or not at all. The same code lies there once.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nemo_core::package::{
    self, Depth, PackageDir, PackageEntry, PackageError, PackagedContent, PathBelow, ShippedPackage,
};
use nemo_core::{claim, durable};

use super::secrets::{self, Secret};
use super::{PackagedFile, Survey, choose};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::parallel::map_chunks;
use crate::store::{Draft, Home};

/// How often a package is begun anew whose files change meanwhile.
const TRIES: usize = 3;
/// Files are read by so many threads at once.
const THREADS: usize = 4;

/// Ships what was found, unless the home has it.
pub(super) fn ship(home: &Home, survey: &Survey) -> Result<ShippedPackage, CommandError> {
    for _ in 0..TRIES {
        let mut entries = entries(survey)?;
        let listed = package::listed(&mut entries);
        let (list, hash) =
            listed.map_err(|error| CommandError::new(ExitCode::Refused, error.to_string()))?;
        let dir = PackageDir(home.packages().join(&hash));
        if is_whole(&dir, &hash)? || write(home, survey, &entries, &list, &dir)? {
            return Ok(shipped(survey, &entries, hash, dir));
        }
    }
    let text = format!("files of `{}` change while they are shipped", survey.root.display());
    Err(CommandError::new(ExitCode::Refused, text)
        .hinted(format!("name what is no code in `{}`", choose::IGNORE_FILE)))
}

/// Whether the home has a package as it was shipped. A damaged one is put aside: jobs that have it say so, and this
/// submission ships it anew.
fn is_whole(dir: &PackageDir, hash: &str) -> Result<bool, CommandError> {
    if !dir.0.exists() {
        return Ok(false);
    }
    match package::verify(dir, hash, Depth::Hashes) {
        Ok(()) => Ok(true),
        Err(PackageError::Unreadable(path, error)) if error.kind() != ErrorKind::NotFound => {
            Err(error).at("read", &path)?
        }
        Err(_) => put_aside(&dir.0).map(|()| false),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is damaged need not be durable where it is put"
)]
fn put_aside(dir: &Path) -> Result<(), CommandError> {
    let nonce = claim::nonce().at("read", Path::new("/dev/urandom"))?;
    let aside = dir.with_extension(format!("damaged-{nonce}"));
    Ok(fs::rename(dir, &aside).at("rename", dir)?)
}

fn shipped(
    survey: &Survey,
    entries: &[PackageEntry],
    hash: String,
    dir: PackageDir,
) -> ShippedPackage {
    ShippedPackage {
        hash,
        dir,
        files: entries.len(),
        bytes: survey.files.iter().map(|file| file.bytes).sum(),
        root: survey.root.clone(),
        folder: survey.folder.clone(),
        own: survey.own.iter().cloned().map(PathBelow).collect(),
        linked: survey.beside.iter().cloned().map(PathBelow).collect(),
    }
}

/// A file as it is shipped, or why it must not be.
type LookedAt = Result<PackageEntry, Secret>;

/// Reads all files: their hashes, and which of them hold secrets.
pub(super) fn entries(survey: &Survey) -> Result<Vec<PackageEntry>, CommandError> {
    let files = &survey.files;
    let parts = files.chunks(files.len().div_ceil(THREADS).max(1));
    let read = |part: &[PackagedFile]| -> Result<Vec<LookedAt>, CommandError> {
        part.iter().map(|file| entry(survey, &file.path)).collect()
    };
    let parts: Result<Vec<_>, CommandError> = map_chunks(parts, read).into_iter().collect();
    let (mut entries, mut found) = (Vec::with_capacity(files.len()), Vec::new());
    for looked_at in parts?.into_iter().flatten() {
        match looked_at {
            Ok(entry) => entries.push(entry),
            Err(secret) => found.push(secret),
        }
    }
    if found.is_empty() { Ok(entries) } else { Err(secrets::refused(&found)) }
}

fn entry(survey: &Survey, path: &Path) -> Result<LookedAt, CommandError> {
    let whole = survey.source.join(path);
    let found = fs::symlink_metadata(&whole).at("read", &whole)?;
    let is_listed = survey.include.names_secret(path);
    if !is_listed && let Some(why) = secrets::by_name(path) {
        return Ok(Err(Secret { path: path.to_owned(), why: why.to_owned() }));
    }
    if found.is_symlink() {
        let target = link_target(survey, path, &whole)?;
        let content = PackagedContent::Link { target };
        return Ok(Ok(PackageEntry { path: path.to_owned(), content }));
    }
    let text = fs::read(&whole).at("read", &whole)?;
    if !is_listed && let Some((what, line)) = secrets::in_text(&text) {
        let why = format!("line {line} has what looks like a {what}");
        return Ok(Err(Secret { path: path.to_owned(), why }));
    }
    let content = PackagedContent::File {
        bytes: text.len() as u64,
        hash: blake3::hash(&text).to_hex().to_string(),
        executable: found.permissions().mode() & 0o111 != 0,
    };
    Ok(Ok(PackageEntry { path: path.to_owned(), content }))
}

/// Where a link leads, from its place in the package: to what is shipped, where that is what it means here, else to the
/// place itself.
fn link_target(survey: &Survey, path: &Path, whole: &Path) -> Result<PathBuf, CommandError> {
    let target = fs::read_link(whole).at("read", whole)?;
    let parent = path.parent().unwrap_or(Path::new(""));
    let is_shipped = |path: &Path| is_shipped(&survey.files, path);
    if below(&parent.join(&target)).is_some_and(|path| is_shipped(&path)) {
        return Ok(target);
    }
    // By an absolute path, or through other links, it may mean a shipped file all the same.
    let meant = survey.source.join(parent).join(&target).canonicalize().ok();
    let meant = meant.as_deref().and_then(|meant| place_below(survey, meant));
    Ok(match meant.filter(|meant| is_shipped(meant)) {
        Some(meant) if *parent == *meant => PathBuf::from("."),
        Some(meant) => parent.components().map(|_| "..").collect::<PathBuf>().join(meant),
        None => survey.root.join(parent).join(target),
    })
}

/// Where a file lies below the root; also where an absolute path names the root and the commit is taken out of git.
fn place_below<'a>(survey: &Survey, path: &'a Path) -> Option<&'a Path> {
    path.strip_prefix(&survey.source).or_else(|_| path.strip_prefix(&survey.root)).ok()
}

/// A path without `.` and `..`; none if it leaves the root on its way, or is absolute.
fn below(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => plain.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// Whether a path is one of the files, or a folder of them. They are sorted.
fn is_shipped(files: &[PackagedFile], path: &Path) -> bool {
    let at = files.partition_point(|file| *file.path < *path);
    files.get(at).is_some_and(|file| file.path.starts_with(path))
}

/// Writes the package beside its place, makes it durable and renames it there. False if a file is another one by now.
fn write(
    home: &Home,
    survey: &Survey,
    entries: &[PackageEntry],
    list: &[u8],
    dir: &PackageDir,
) -> Result<bool, CommandError> {
    let parent = home.packages();
    durable::create_dir_all(&parent).at("make", &parent)?;
    let draft = Draft::make(&parent, "package")?;
    let own = PackageDir(draft.path().to_owned());
    fs::create_dir(own.files()).at("make", &own.files())?;
    make_folders(&own.files(), entries)?;
    let parts = entries.chunks(entries.len().div_ceil(THREADS).max(1));
    let copy = |part: &[PackageEntry]| -> Result<bool, CommandError> {
        for entry in part {
            if !copy(survey, &own, entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let copied: Result<Vec<bool>, CommandError> = map_chunks(parts, copy).into_iter().collect();
    if copied?.contains(&false) {
        return Ok(false);
    }
    durable::write_synced(&own.list(), list).at("write", &own.list())?;
    // One call for ten thousand files.
    let folder = fs::File::open(&parent).at("open", &parent)?;
    nix::unistd::syncfs(&folder).map_err(std::io::Error::from).at("sync", &parent)?;
    match draft.rename_to(&dir.0) {
        // Another process was as fast.
        Err(_) if dir.list().is_file() => {}
        renamed => renamed.at("rename", &dir.0)?,
    }
    durable::sync_dir(&parent).at("sync", &parent)?;
    protect(&dir.files(), entries);
    Ok(true)
}

fn make_folders(files: &Path, entries: &[PackageEntry]) -> Result<(), CommandError> {
    let mut made = PathBuf::new();
    for entry in entries {
        let Some(parent) = entry.path.parent().filter(|parent| **parent != made) else { continue };
        let folder = files.join(parent);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).at("make", &folder)?;
        parent.clone_into(&mut made);
    }
    Ok(())
}

/// Copies one file. False if it is another one than was read before.
fn copy(survey: &Survey, own: &PackageDir, entry: &PackageEntry) -> Result<bool, CommandError> {
    let place = own.files().join(&entry.path);
    match &entry.content {
        PackagedContent::Link { target } => symlink(target, &place).at("make", &place)?,
        PackagedContent::File { hash, executable, .. } => {
            let from = survey.source.join(&entry.path);
            let text = fs::read(&from).at("read", &from)?;
            if blake3::hash(&text).to_hex().as_str() != hash {
                return Ok(false);
            }
            let mode = if *executable { 0o500 } else { 0o400 };
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(mode).open(&place);
            file.at("write", &place)?.write_all(&text).at("write", &place)?;
        }
    }
    Ok(true)
}

/// Takes the right to write from the folders. One that a crash leaves out is no harm: the content is compared at each start.
fn protect(files: &Path, entries: &[PackageEntry]) {
    let mut folders: Vec<&Path> =
        entries.iter().flat_map(|entry| entry.path.ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders.into_iter().rev() {
        let path = files.join(folder);
        fs::set_permissions(path, fs::Permissions::from_mode(0o500)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_kept_where_its_target_is_shipped() {
        let file = |path: &str| PackagedFile { path: path.into(), bytes: 0 };
        let files = ["a/b", "a-b", "c/d/e"].map(file);
        let check = |path: &str, expected: bool| {
            let found = below(Path::new(path)).is_some_and(|path| is_shipped(&files, &path));
            assert_eq!(found, expected, "{path}");
        };
        for path in ["a", "a/b", "c/d", "c/../a/./b"] {
            check(path, true);
        }
        for path in ["b", "c/e", "a/b/c", "../a", "a/../../a", "/a"] {
            check(path, false);
        }
    }
}
