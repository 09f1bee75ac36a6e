//! Which files belong to a package, and what lies beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};

use super::{PackagedFile, secrets};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::PackageKeys;
use crate::git;
use crate::store::Home;

/// What it names, in the syntax of `.gitignore`, is not shipped.
pub(super) const IGNORE_FILE: &str = ".nemoignore";

/// The patterns of `package.include`.
#[derive(Debug)]
pub(super) struct IncludePatterns {
    all: Option<Override>,
    /// Those that name a secret: by its whole name, or as `*.pem`. A pattern such as `extra/**` takes none along.
    of_secrets: Option<Override>,
}

impl IncludePatterns {
    pub(super) fn new(root: &Path, patterns: &[String]) -> Result<Self, CommandError> {
        let names_secrets = |pattern: &&String| {
            !pattern.contains(['*', '?', '[', '{'])
                || secrets::by_name(Path::new(pattern)).is_some()
        };
        Ok(Self {
            all: overrides(root, patterns.iter())?,
            of_secrets: overrides(root, patterns.iter().filter(names_secrets))?,
        })
    }

    /// Whether a file is shipped whatever else is said of it.
    pub(super) fn names(&self, path: &Path) -> bool {
        is_meant(self.all.as_ref(), path)
    }

    /// Whether a file is shipped even if it holds a secret.
    pub(super) fn names_secret(&self, path: &Path) -> bool {
        is_meant(self.of_secrets.as_ref(), path)
    }
}

fn is_meant(patterns: Option<&Override>, path: &Path) -> bool {
    patterns.is_some_and(|patterns| patterns.matched(path, false).is_whitelist())
}

/// None where there is no pattern: an empty set of them would mean every file.
fn overrides<'a>(
    root: &Path,
    patterns: impl Iterator<Item = &'a String>,
) -> Result<Option<Override>, CommandError> {
    let mut builder = OverrideBuilder::new(root);
    for pattern in patterns {
        builder.add(pattern).map_err(|error| not_a_pattern(pattern, &error))?;
    }
    let built = builder.build().map_err(|error| not_a_pattern("", &error))?;
    Ok((built.num_whitelists() > 0).then_some(built))
}

/// The patterns that mean none of the files that are shipped. One that leaves files out may.
pub(super) fn unmatched(
    root: &Path,
    patterns: &[String],
    files: &[PackagedFile],
) -> Result<Vec<String>, CommandError> {
    let mut unmatched = Vec::new();
    for pattern in patterns.iter().filter(|pattern| !pattern.starts_with('!')) {
        let own = IncludePatterns::new(root, std::slice::from_ref(pattern))?;
        if !files.iter().any(|file| own.names(&file.path)) {
            unmatched.push(pattern.clone());
        }
    }
    Ok(unmatched)
}

fn not_a_pattern(pattern: &str, error: &ignore::Error) -> CommandError {
    let text = format!("`package.include`: `{pattern}` is not a pattern: {error}");
    CommandError::new(ExitCode::Usage, text).hinted("write for example \"extra/**\"")
}

/// Those that git knows or would add, without what `.nemoignore` names.
pub(super) fn by_git(
    root: &Path,
    home: &Home,
    keys: &PackageKeys,
    include: &IncludePatterns,
) -> Result<Vec<PackagedFile>, CommandError> {
    let own_home = own_home(home);
    let listed = git::files(root, keys.submodules)?;
    let ignored = IgnoreFiles::of(root, &listed);
    let is_ours = |path: &&PathBuf| {
        !root.join(path).starts_with(&own_home) && (include.names(path) || !ignored.names(path))
    };
    let mut files = found(root, listed.iter().filter(is_ours).cloned())?;
    files.extend(included(root, home, include)?);
    Ok(files)
}

/// All files of a folder, without what `.nemoignore` names.
pub(super) fn all(
    root: &Path,
    home: &Home,
    include: &IncludePatterns,
) -> Result<Vec<PackagedFile>, CommandError> {
    let mut walk = walk(root, home);
    walk.add_custom_ignore_filename(IGNORE_FILE);
    let mut files = found(root, paths(&walk, root)?)?;
    files.extend(included(root, home, include)?);
    Ok(files)
}

/// What the patterns name, though git or `.nemoignore` leaves it out.
fn included(
    root: &Path,
    home: &Home,
    include: &IncludePatterns,
) -> Result<Vec<PackagedFile>, CommandError> {
    if include.all.is_none() {
        return Ok(Vec::new());
    }
    let paths = paths(&walk(root, home), root)?;
    found(root, paths.into_iter().filter(|path| include.names(path)))
}

/// The home, whatever links lead to it: what it holds is no code, and may be secret.
pub(super) fn own_home(home: &Home) -> PathBuf {
    home.path().canonicalize().unwrap_or_else(|_| home.path().to_owned())
}

/// All of a folder but git's own files and the home of this program.
fn walk(root: &Path, home: &Home) -> WalkBuilder {
    let home = own_home(home);
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false).follow_links(false);
    walk.filter_entry(move |entry| entry.file_name() != ".git" && entry.path() != home);
    walk
}

fn paths(walk: &WalkBuilder, root: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let mut paths = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            let text = format!("`{}` can't be read whole: {error}", root.display());
            CommandError::new(ExitCode::Usage, text)
                .hinted(format!("name it in `{IGNORE_FILE}`, or change its permissions"))
        })?;
        if entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink())
            && let Ok(path) = entry.path().strip_prefix(root)
        {
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

/// The files among these paths that are there, with their sizes. FIFOs and sockets are no code.
fn found(
    root: &Path,
    paths: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<PackagedFile>, CommandError> {
    let mut files = Vec::new();
    for path in paths {
        let whole = root.join(&path);
        let found = match fs::symlink_metadata(&whole) {
            // Git still lists what was deleted and not committed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            found => found.at("read", &whole)?,
        };
        if found.is_symlink() {
            files.push(PackagedFile { path, bytes: 0 });
        } else if found.is_file() {
            files.push(PackagedFile { path, bytes: found.len() });
        }
    }
    Ok(files)
}

/// The `.nemoignore` of every folder that has files, by folder.
#[derive(Debug)]
pub(super) struct IgnoreFiles<'a>(BTreeMap<&'a Path, Gitignore>);

impl<'a> IgnoreFiles<'a> {
    pub(super) fn of(root: &Path, listed: &'a [PathBuf]) -> Self {
        let folders: BTreeSet<&Path> =
            listed.iter().flat_map(|path| path.ancestors().skip(1)).collect();
        let read = |folder: &'a Path| {
            let file = root.join(folder).join(IGNORE_FILE);
            file.is_file().then_some(())?;
            let mut builder = GitignoreBuilder::new(folder);
            builder.add(&file); // of a line that is no pattern, the rest holds
            Some((folder, builder.build().ok()?))
        };
        Self(folders.into_iter().filter_map(read).collect())
    }

    /// Whether they leave out a file, or a folder that it lies in.
    pub(super) fn names(&self, path: &Path) -> bool {
        path.ancestors().any(|own| self.decide(own, own != path))
    }

    /// The file that lies nearest decides.
    fn decide(&self, path: &Path, is_folder: bool) -> bool {
        let files = path.ancestors().skip(1).filter_map(|folder| self.0.get(folder));
        let mut said = files.map(|file| file.matched(path, is_folder));
        said.find(|said| !said.is_none()).is_some_and(|said| said.is_ignore())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_file_decides_and_a_folder_takes_all_with_it() {
        let lines = |folder: &'static str, text: &str| {
            let mut builder = GitignoreBuilder::new(folder);
            for line in text.lines() {
                builder.add_line(None, line).unwrap();
            }
            (Path::new(folder), builder.build().unwrap())
        };
        let files =
            [lines("", "*.txt\n/big/\n"), lines("a", "!keep.txt\n/x\n"), lines("big", "!z\n")];
        let files = IgnoreFiles(files.into_iter().collect());
        for path in ["b.txt", "a/b.txt", "a/x", "a/x/y", "big/z"] {
            assert!(files.names(Path::new(path)), "{path}");
        }
        for path in ["b", "a/keep.txt", "a/b/keep.txt", "x", "b/x", "a/b/x", "b/big/z"] {
            assert!(!files.names(Path::new(path)), "{path}");
        }
    }
}
