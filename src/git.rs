//! Asks git what a folder's code is.
#![expect(clippy::disallowed_methods, reason = "an edge: runs git")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tracing::debug;

use crate::parallel::join;

/// The state of a work tree at a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit; none before the first one.
    pub commit: Option<String>,
    /// The branch; none where none is checked out.
    pub branch: Option<String>,
    /// Whether files that git knows were changed since the commit.
    pub dirty: bool,
    /// The address of `origin`, without names and passwords; else the work tree's folder.
    pub repo: String,
}

/// The state of the work tree that a folder is in; none where it is in none, or git can't tell.
#[must_use]
pub fn state(folder: &Path) -> Option<GitState> {
    let top = folder.ancestors().find(|folder| folder.join(".git").exists())?;
    // Neither needs the other's answer.
    let (origin, status) = join(
        || ask(folder, &["config", "--get", "remote.origin.url"]),
        || ask(folder, &["status", "--porcelain=v2", "--branch", "--untracked-files=no"]),
    );
    let status = status?;
    let origin =
        origin.as_deref().map(str::trim).filter(|url| !url.is_empty()).map(without_secrets);
    Some(parse(&status, origin.unwrap_or_else(|| top.to_string_lossy().into_owned())))
}

/// Whether a folder is in a work tree.
#[must_use]
pub fn is_work_tree(folder: &Path) -> bool {
    folder.ancestors().any(|folder| folder.join(".git").exists())
}

/// Why git did not tell what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be started.
    #[error("git could not be started: {0}")]
    NotStarted(std::io::Error),
    /// It ended with an error.
    #[error("`git {command}` failed in `{}`: {said}", folder.display())]
    Failed {
        /// Its arguments.
        command: String,
        /// Where it ran.
        folder: PathBuf,
        /// What it printed.
        said: String,
    },
    /// Its index could not be copied.
    #[error("`{}` could not be copied: {error}", index.display())]
    NotCopied {
        /// The index.
        index: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// The files below a folder that git knows or would add, relative to it; those of submodules too where they are wanted.
pub fn files(root: &Path, submodules: bool) -> Result<Vec<PathBuf>, GitError> {
    let listed = run(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"], &[])?;
    let mut files = Vec::new();
    for path in paths(&listed) {
        let whole = root.join(&path);
        if whole.is_symlink() || !whole.is_dir() {
            files.push(path);
        } else if submodules && whole.join(".git").exists() {
            files.extend(self::files(&whole, true)?.into_iter().map(|own| path.join(own)));
        }
    }
    Ok(files)
}

/// The files below a folder that differ from the commit, new ones too; those in submodules where they are wanted.
pub fn changed(root: &Path, submodules: bool) -> Result<Vec<PathBuf>, GitError> {
    let args = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all"];
    // A setting of a submodule may hide its changes: what is shipped of it counts all the same.
    let all: &[&str] = if submodules { &["--ignore-submodules=none"] } else { &[] };
    let args = [&args[..], all, &["--", "."]].concat();
    let unwatched = unwatched(root)?;
    let own = if unwatched.is_empty() { None } else { Some(OwnIndex::copy(root, &unwatched)?) };
    let index = own.as_ref().map(OwnIndex::path);
    let index = index.as_deref().map(|index| ("GIT_INDEX_FILE", index));
    let listed = run(root, &args, index.as_slice())?;
    // Git names them from the top of the work tree.
    let prefix = prefix(root)?;
    let rows = listed.split(|byte| *byte == 0).filter_map(|row| row.get(3..));
    let names = rows.map(|name| Path::new(OsStr::from_bytes(name)));
    let names = names.filter_map(|name| name.strip_prefix(&prefix).ok());
    let mut changed: BTreeSet<PathBuf> = names.map(Path::to_owned).collect();
    if submodules {
        // In a submodule too, git may have been told to overlook a change: then it tells nothing of the submodule.
        let mut places = changed.clone();
        places.extend(gitlinks(root)?);
        for place in places {
            let nested = root.join(&place);
            if !nested.join(".git").exists() {
                continue;
            }
            let own = self::changed(&nested, true)?;
            changed.extend(own.iter().map(|own| place.join(own)));
            if !own.is_empty() {
                changed.insert(place);
            }
        }
    }
    Ok(changed.into_iter().collect())
}

/// The submodules below a folder, checked out or not.
fn gitlinks(root: &Path) -> Result<Vec<PathBuf>, GitError> {
    let listed = run(root, &["ls-files", "-z", "--stage"], &[])?;
    let rows = listed.split(|byte| *byte == 0).filter(|row| row.starts_with(b"160000 "));
    let names = rows.filter_map(|row| row.get(memchr::memchr(b'\t', row)? + 1..));
    Ok(names.map(|name| OsStr::from_bytes(name).into()).collect())
}

/// The most file names on one command line.
const NAMES: usize = 500;

/// The changes of some files below a folder since the commit, as a patch. New files are in it, and those of submodules.
pub fn diff(root: &Path, files: &[&Path]) -> Result<Vec<u8>, GitError> {
    diff_from(root, "HEAD", Path::new(""), files)
}

/// The same, from a commit, for a work tree that lies at `place` in another one.
fn diff_from(
    root: &Path,
    commit: &str,
    place: &Path,
    files: &[&Path],
) -> Result<Vec<u8>, GitError> {
    let base = tree_of(root, commit)?;
    let mut patch = Vec::new();
    for (nested, files) in by_work_tree(root, files) {
        if nested == Path::new("") {
            patch.extend(diff_of_work_tree(root, &base, place, &files)?);
            continue;
        }
        let recorded = format!("{base}:./{}", nested.display());
        let recorded = run(root, &["rev-parse", "--verify", "--quiet", &recorded], &[]);
        let place = place.join(prefix(root)?).join(nested);
        let commit = recorded.map(|commit| in_words(&commit)).unwrap_or_default();
        patch.extend(diff_from(&root.join(nested), &commit, &place, &files)?);
    }
    Ok(patch)
}

/// Files by the submodule that they lie in, relative to it.
fn by_work_tree<'a>(root: &Path, files: &[&'a Path]) -> BTreeMap<&'a Path, Vec<&'a Path>> {
    let mut groups: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for file in files {
        let is_work_tree = |folder: &&Path| root.join(folder).join(".git").exists();
        let folders = file.ancestors().skip(1).filter(|folder| *folder != Path::new(""));
        let nested = folders.filter(is_work_tree).last().unwrap_or(Path::new(""));
        groups.entry(nested).or_default().push(file.strip_prefix(nested).unwrap_or(file));
    }
    groups
}

/// The files of a commit. Before the first one, or where git has it no longer, there is nothing, and all files are new.
fn tree_of(root: &Path, commit: &str) -> Result<String, GitError> {
    let tree = format!("{commit}^{{tree}}");
    let known = run(root, &["rev-parse", "--verify", "--quiet", &tree], &[]);
    let tree = known.or_else(|_| run(root, &["hash-object", "-t", "tree", "/dev/null"], &[]))?;
    Ok(in_words(&tree))
}

/// The files that are there and that git was told to take for unchanged (`assume-unchanged`, `skip-worktree`). They are
/// shipped as they are.
fn unwatched(root: &Path) -> Result<Vec<PathBuf>, GitError> {
    let listed = run(root, &["ls-files", "-z", "-v"], &[])?;
    let rows = listed.split(|byte| *byte == 0);
    let flagged = rows.filter(|row| matches!(row.first(), Some(b'a'..=b'z' | b'S')));
    let names = flagged.filter_map(|row| row.get(2..)).map(|name| OsStr::from_bytes(name).into());
    Ok(names.filter(|path: &PathBuf| root.join(path).exists()).collect())
}

/// A copy of the index, by which git looks at all files, and which may be changed: the user's own stays as it is.
struct OwnIndex(TempDir);

impl OwnIndex {
    /// It watches the files that git was told to overlook.
    fn copy(root: &Path, unwatched: &[PathBuf]) -> Result<Self, GitError> {
        let own = Self(TempDir::new().map_err(GitError::NotStarted)?);
        let index = git_path(root, "index")?;
        match copy_file_and_time(&index, &own.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(GitError::NotCopied { index, error });
            }
            _ => {} // before the first `git add` there is none
        }
        for files in unwatched.chunks(NAMES) {
            for option in ["--no-assume-unchanged", "--no-skip-worktree"] {
                let words = ["update-index", option, "--"].map(OsStr::new);
                let words = words.into_iter().chain(files.iter().map(|file| file.as_os_str()));
                run(root, &words.collect::<Vec<_>>(), &[("GIT_INDEX_FILE", &own.path())])?;
            }
        }
        Ok(own)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("index")
    }
}

/// With its time: a file that is as old as the index, or newer, is what git compares by its content.
fn copy_file_and_time(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    let modified = std::fs::metadata(from)?.modified()?;
    std::fs::File::options().write(true).open(to)?.set_modified(modified)
}

/// Where git has a file of its own.
fn git_path(root: &Path, name: &str) -> Result<PathBuf, GitError> {
    let path = run(root, &["rev-parse", "--git-path", name], &[])?;
    Ok(root.join(OsStr::from_bytes(path.trim_ascii_end())))
}

/// Git tells nothing of new files unless an index has them: a copy of it does.
fn diff_of_work_tree(
    root: &Path,
    base: &str,
    place: &Path,
    files: &[&Path],
) -> Result<Vec<u8>, GitError> {
    let own = OwnIndex::copy(root, &unwatched(root)?)?;
    let known = git_path(root, "objects")?;
    let env: [(&str, &Path); 4] = [
        ("GIT_INDEX_FILE", &own.path()),
        ("GIT_OBJECT_DIRECTORY", own.0.path()),
        ("GIT_ALTERNATE_OBJECT_DIRECTORIES", &known),
        ("GIT_LITERAL_PATHSPECS", Path::new("1")),
    ];
    let place = place.join("");
    let old = format!("--src-prefix=a/{}", place.display());
    let new = format!("--dst-prefix=b/{}", place.display());
    let mut patch = Vec::new();
    for files in files.chunks(NAMES) {
        let git = |arguments: &[&str], files: &[&Path]| {
            let words = arguments.iter().map(OsStr::new).chain([OsStr::new("--")]);
            let words = words.chain(files.iter().map(|file| file.as_os_str()));
            run(root, &words.collect::<Vec<_>>(), &env)
        };
        let added = git(&["ls-files", "-z", "--others"], files)?;
        let added: Vec<PathBuf> = paths(&added).collect();
        let added: Vec<&Path> = added.iter().map(PathBuf::as_path).collect();
        if !added.is_empty() {
            git(&["add", "--intent-to-add", "--force"], &added)?;
        }
        let options =
            ["diff", "--binary", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"];
        patch.extend(git(&[&options[..], &[&old, &new, base]].concat(), files)?);
    }
    Ok(patch)
}

/// The files of the commit, taken out into a temporary folder: that folder, and what in it stands for `root`.
pub fn staged_commit(root: &Path, submodules: bool) -> Result<(TempDir, PathBuf), GitError> {
    let folder = TempDir::new().map_err(GitError::NotStarted)?;
    let whole = folder.path().canonicalize().map_err(GitError::NotStarted)?;
    let (index, tree) = (whole.join("index"), whole.join("tree"));
    let top = run(root, &["rev-parse", "--show-toplevel"], &[])?;
    let top = PathBuf::from(OsStr::from_bytes(top.trim_ascii_end()));
    check_out(&top, "HEAD", &tree, &index, submodules)?;
    let staged = tree.join(prefix(root)?);
    Ok((folder, staged))
}

/// Writes the files of a commit into a folder, with those of the submodules that are checked out.
fn check_out(
    top: &Path,
    commit: &str,
    folder: &Path,
    index: &Path,
    submodules: bool,
) -> Result<(), GitError> {
    let own_index: &[(&str, &Path)] = &[("GIT_INDEX_FILE", index)];
    run(top, &["read-tree", commit], own_index)?;
    let prefix = format!("--prefix={}/", folder.display());
    run(top, &["checkout-index", "--all", &prefix], own_index)?;
    let listed =
        if submodules { run(top, &["ls-tree", "-r", "-z", commit], &[])? } else { Vec::new() };
    for row in listed.split(|byte| *byte == 0) {
        let Some((commit, path)) = submodule(row) else { continue };
        let nested = top.join(path);
        if nested.join(".git").exists() {
            check_out(&nested, &commit, &folder.join(path), index, true)?;
        }
    }
    Ok(())
}

/// `160000 commit HASH<tab>PATH`.
fn submodule(row: &[u8]) -> Option<(String, &Path)> {
    let rest = row.strip_prefix(b"160000 commit ")?;
    let tab = memchr::memchr(b'\t', rest)?;
    let (hash, path) = (rest.get(..tab)?, rest.get(tab + 1..)?);
    Some((in_words(hash), Path::new(OsStr::from_bytes(path))))
}

/// Where a folder lies in its work tree.
fn prefix(root: &Path) -> Result<PathBuf, GitError> {
    let prefix = run(root, &["rev-parse", "--show-prefix"], &[])?;
    Ok(PathBuf::from(OsStr::from_bytes(prefix.trim_ascii_end())))
}

fn in_words(printed: &[u8]) -> String {
    String::from_utf8_lossy(printed.trim_ascii_end()).into_owned()
}

fn paths(listed: &[u8]) -> impl Iterator<Item = PathBuf> {
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| PathBuf::from(OsStr::from_bytes(name)))
}

/// What git sets for its hooks and for `git rebase --exec`: here the folder alone says which work tree is meant.
const OF_A_WORK_TREE: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
];

fn git(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut git = Command::new("git");
    // `diff.relative` would make patches that do not apply. Git before 2.28 does not know `--no-relative`.
    git.args(["--no-optional-locks", "-c", "diff.relative=false"]);
    git.arg("-C").arg(folder).args(arguments);
    for name in OF_A_WORK_TREE {
        git.env_remove(name);
    }
    git.env("LC_ALL", "C").stdin(Stdio::null());
    git
}

/// Runs git, which must succeed, and returns what it prints.
fn run(
    folder: &Path,
    arguments: &[impl AsRef<OsStr>],
    env: &[(&str, &Path)],
) -> Result<Vec<u8>, GitError> {
    let mut git = git(folder, arguments);
    let output = git.envs(env.iter().copied()).output().map_err(GitError::NotStarted)?;
    let command = arguments.first().map(|word| word.as_ref().to_string_lossy().into_owned());
    let command = command.unwrap_or_default();
    debug!("git {command}: {}", output.status);
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(GitError::Failed {
        command,
        folder: folder.to_owned(),
        said: String::from_utf8_lossy(output.stderr.trim_ascii()).into_owned(),
    })
}

fn ask(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = git(folder, arguments).output();
    let answer = output.ok().filter(|output| output.status.success());
    debug!(
        "git {}: {}",
        arguments.join(" "),
        if answer.is_some() { "answered" } else { "no answer" }
    );
    answer.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(status: &str, repo: String) -> GitState {
    let head = |name: &str, none: &str| {
        let found =
            status.lines().find_map(|line| line.strip_prefix("# branch.")?.strip_prefix(name));
        found.map(|value| value.trim().to_owned()).filter(|value| value != none)
    };
    let dirty = status.lines().any(|line| !line.starts_with('#') && !line.is_empty());
    GitState { commit: head("oid ", "(initial)"), branch: head("head ", "(detached)"), dirty, repo }
}

/// What stands before the host may be a password.
fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_read() {
        let state = |text: &str| parse(text, "r".to_owned());
        let clean = state("# branch.oid 4f5fccd\n# branch.head main\n# branch.ab +0 -0\n");
        assert_eq!(
            (clean.commit.as_deref(), clean.branch.as_deref()),
            (Some("4f5fccd"), Some("main"))
        );
        assert!(!clean.dirty);
        let new = state(
            "# branch.oid (initial)\n# branch.head (detached)\n1 .M N... 1 1 1 a b train.py\n",
        );
        assert_eq!((new.commit, new.branch, new.dirty), (None, None, true));
    }

    #[test]
    fn only_an_index_that_is_not_there_is_none() {
        let folder = TempDir::new().unwrap();
        let root = folder.path();
        run(root, &["init", "-q"], &[]).unwrap();
        assert!(OwnIndex::copy(root, &[]).is_ok(), "before the first `git add`");
        std::fs::create_dir(root.join(".git/index")).unwrap();
        let error = OwnIndex::copy(root, &[]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("index` could not be copied: ")));
    }

    #[test]
    fn an_address_is_kept_without_passwords() {
        let check = |url: &str, expected: &str| assert_eq!(without_secrets(url), expected);
        check("https://ada:secret@example.org/ada/lr.git", "https://example.org/ada/lr.git");
        check("https://example.org/a@b/c.git", "https://example.org/a@b/c.git");
        check("git@example.org:ada/lr.git", "git@example.org:ada/lr.git");
        check("/srv/git/lr.git", "/srv/git/lr.git");
    }
}
