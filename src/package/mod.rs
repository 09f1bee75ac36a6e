//! Ships the code of an experiment: which files belong to it, what must not be among them, and where they lie in the home.

mod choose;
mod messages;
mod own_folders;
mod secrets;
mod ship;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nemo_core::package::{ShippedPackage, listed};
use nemo_core::rundir::ExperimentDir;
use nemo_core::{checksum, open};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{Dirty, Experiment, PackageKeys, PackageSource};
use crate::git::{self, GitState};
use crate::humanize::{bytes, count};
use crate::parallel::join;
use crate::store::Home;

/// How many files or folders a message names.
const NAMED: usize = 5;

/// What is shipped, before anything is written.
#[derive(Debug)]
pub struct Survey {
    /// What says which files are shipped.
    from: PackageSource,
    /// The folder that is shipped; another one where the commit is taken out of git.
    source: PathBuf,
    root: PathBuf,
    folder: PathBuf,
    files: Vec<PackagedFile>,
    /// The folders of a trial that are its own and no links.
    own: Vec<PathBuf>,
    /// What programs write: it is neither shipped nor linked.
    left_out: Vec<PathBuf>,
    /// What lies beside them and is not shipped, relative to the root.
    beside: Vec<PathBuf>,
    /// The single files of it that several trials might write over.
    shared: Vec<PathBuf>,
    /// What was not committed, relative to the root.
    changes: Vec<PathBuf>,
    /// The commit's files, taken out of git.
    _staged: Option<tempfile::TempDir>,
    include: choose::IncludePatterns,
    /// Those of `package.include` that name no file.
    unmatched: Vec<String>,
    /// Submodules that should be shipped and are empty folders.
    not_checked_out: Vec<PathBuf>,
}

/// A file that is shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PackagedFile {
    /// Relative to the root.
    path: PathBuf,
    bytes: u64,
}

/// A package, and what is to be kept of how it came to be.
#[derive(Debug)]
pub struct Shipped {
    /// What the experiment's trials run.
    pub package: ShippedPackage,
    /// What was not committed of it, as a patch.
    pub uncommitted: Option<Vec<u8>>,
    /// One line for people.
    pub summary: String,
    /// What the user should know besides.
    pub warnings: Vec<String>,
}

/// Finds out what would be shipped of the folder of an experiment's file; none where nothing is.
pub fn survey(home: &Home, experiment: &Experiment) -> Result<Option<Survey>, CommandError> {
    let keys = &experiment.package;
    if !keys.is_shipped() {
        return Ok(None);
    }
    let (from, workdir) = (keys.from, &experiment.workdir);
    let workdir = workdir.canonicalize().at("find", workdir)?;
    let root = workdir.join(&keys.root);
    let root = root.canonicalize().at("find", &root)?;
    let folder = workdir.strip_prefix(&root).unwrap_or(Path::new("")).to_owned();
    let include = choose::IncludePatterns::new(&root, &keys.include)?;
    let staged = match (from, keys.dirty) {
        (PackageSource::Git, Dirty::Ignore) => Some(git::staged_commit(&root, keys.submodules)?),
        _ => None,
    };
    let source = staged.as_ref().map_or_else(|| root.clone(), |(_, folder)| folder.clone());
    let (changes, mut files) = changes_and_files(home, keys, &root, &source, &include)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.dedup();
    require_room(&root, &files, keys.limit)?;
    let own_paths = own_folders::OwnPaths::of(experiment, &folder);
    let own_folders::Beside { own, mut linked, left_out } =
        own_folders::find(&root, &own_paths, &files)?;
    linked.retain(|path| root.join(path) != choose::own_home(home));
    if staged.is_some() {
        // Of the commit alone, what git would add is no part either.
        linked.retain(|path| !changes.iter().any(|change| change.starts_with(path)));
    }
    let unmatched = choose::unmatched(&root, &keys.include, &files)?;
    let not_checked_out = if keys.submodules { empty_folders(&root, &linked) } else { Vec::new() };
    let may_be_shared = |path: &&PathBuf| own_folders::is_shared_file(&root.join(path));
    let shared = match experiment.n_trials() {
        0 | 1 => Vec::new(),
        _ => linked.iter().filter(may_be_shared).cloned().collect(),
    };
    Ok(Some(Survey {
        from,
        source,
        root,
        folder,
        files,
        own,
        beside: linked,
        shared,
        left_out,
        changes,
        _staged: staged.map(|(keep, _)| keep),
        include,
        unmatched,
        not_checked_out,
    }))
}

/// What was not committed below the root, and the files that are shipped.
fn changes_and_files(
    home: &Home,
    keys: &PackageKeys,
    root: &Path,
    source: &Path,
    include: &choose::IncludePatterns,
) -> Result<(Vec<PathBuf>, Vec<PackagedFile>), CommandError> {
    if keys.from != PackageSource::Git {
        return Ok((Vec::new(), choose::all(source, home, include)?));
    }
    // Neither needs the other's answer.
    let (changes, files) = join(
        || git::changed(root, keys.submodules),
        || {
            if source == root {
                choose::by_git(root, home, keys, include)
            } else {
                choose::all(source, home, include)
            }
        },
    );
    let changes = changes?;
    if keys.dirty == Dirty::Refuse && !changes.is_empty() {
        return Err(not_committed(root, &changes));
    }
    Ok((changes, files?))
}

/// Those of the linked folders that have nothing in them, in a work tree that has submodules.
fn empty_folders(root: &Path, linked: &[PathBuf]) -> Vec<PathBuf> {
    if !root.join(".gitmodules").exists() {
        return Vec::new();
    }
    let is_empty = |path: &&PathBuf| {
        fs::read_dir(root.join(path)).is_ok_and(|mut entries| entries.next().is_none())
    };
    linked.iter().filter(is_empty).cloned().collect()
}

impl Survey {
    /// Fails where one of the files holds a secret: it reads all of them.
    pub fn require_no_secrets(&self) -> Result<(), CommandError> {
        ship::entries(self).map(drop)
    }

    /// What was not committed of the files that are shipped, as a patch; none where that is nothing. What was removed or
    /// renamed is in it too, but for what `.nemoignore` names.
    fn uncommitted(&self) -> Result<Option<Vec<u8>>, CommandError> {
        if self.changes.is_empty() || self.source != self.root {
            return Ok(None);
        }
        let changes: BTreeSet<&Path> = self.changes.iter().map(PathBuf::as_path).collect();
        // Of a submodule, git only says that something in it has changed.
        let is_changed = |path: &&Path| path.ancestors().any(|own| changes.contains(own));
        let mut files: Vec<&Path> =
            self.files.iter().map(|file| file.path.as_path()).filter(is_changed).collect();
        let ignored = choose::IgnoreFiles::of(&self.root, &self.changes);
        let is_gone = |path: &&Path| {
            let is_there = fs::symlink_metadata(self.root.join(path)).is_ok();
            !is_there && !ignored.names(path) && secrets::by_name(path).is_none()
        };
        files.extend(changes.iter().copied().filter(is_gone));
        Ok(Some(git::diff(&self.root, &files)?))
    }

    /// What would be shipped, file by file, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let file = |file: &PackagedFile| json!({ "path": file.path.to_string_lossy(), "bytes": file.bytes });
        json!({
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "bytes": self.files.iter().map(|file| file.bytes).sum::<u64>(),
            "left_out": self.left_out.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "linked": self.beside.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        })
    }
}

/// Ships the code of an experiment, unless the home has it already.
pub fn ship(home: &Home, experiment: &Experiment) -> Result<Option<Shipped>, CommandError> {
    let Some(survey) = survey(home, experiment)? else { return Ok(None) };
    let package = ship::ship(home, &survey)?;
    let summary = survey.summary(Some(&package.hash));
    let (uncommitted, told) = without_secrets(survey.uncommitted()?);
    let warnings = survey.warnings().into_iter().chain(told).collect();
    Ok(Some(Shipped { package, uncommitted, summary, warnings }))
}

/// The patch, unless it holds a secret: the line that was removed so that the code can be shipped, say.
fn without_secrets(patch: Option<Vec<u8>>) -> (Option<Vec<u8>>, Option<String>) {
    let Some((what, _)) = patch.as_deref().and_then(secrets::in_text) else {
        return (patch, None);
    };
    let told = format!(
        "warning: the changes that are not committed are shipped, but not kept as a patch: it has what looks like a {what}"
    );
    (None, Some(told))
}

/// Ships the code of an experiment for a rehearsal, whose runs must not touch what the experiment itself works with. Where
/// nothing is shipped, and programs save beside the file, each run has a working folder of links.
pub fn ship_for_rehearsal(
    home: &Home,
    experiment: &Experiment,
) -> Result<Option<Shipped>, CommandError> {
    let mut rehearsed = experiment.clone();
    if rehearsed.package.dirty == Dirty::Refuse {
        rehearsed.package.dirty = Dirty::Include; // nothing is submitted
    }
    match ship(home, &rehearsed)? {
        None => links(home, &rehearsed),
        shipped => Ok(shipped),
    }
}

/// Gives the folders below one the right to be removed, which those of packages have not.
pub fn unprotect(folder: &Path) {
    let folders =
        ignore::WalkBuilder::new(folder).standard_filters(false).follow_links(false).build();
    for entry in folders.flatten().filter(|own| own.file_type().is_some_and(|own| own.is_dir())) {
        let allowed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(entry.path(), allowed).ok(); // who can't change it can't remove it either
    }
}

/// A package without files: all that lies beside the experiment's file is linked, but for what its programs save there.
fn links(home: &Home, experiment: &Experiment) -> Result<Option<Shipped>, CommandError> {
    let own_paths = own_folders::OwnPaths::of(experiment, Path::new(""));
    if own_paths.is_empty() {
        return Ok(None);
    }
    let root = experiment.workdir.canonicalize().at("find", &experiment.workdir)?;
    let beside = own_folders::find(&root, &own_paths, &[])?;
    let survey = Survey {
        from: PackageSource::None,
        source: root.clone(),
        include: choose::IncludePatterns::new(&root, &[])?,
        root,
        folder: PathBuf::new(),
        files: Vec::new(),
        own: beside.own,
        left_out: Vec::new(),
        beside: beside.linked.into_iter().chain(beside.left_out).collect(),
        shared: Vec::new(),
        changes: Vec::new(),
        _staged: None,
        unmatched: Vec::new(),
        not_checked_out: Vec::new(),
    };
    let package = ship::ship(home, &survey)?;
    let (summary, warnings) = (survey.summary(None), Vec::new());
    Ok(Some(Shipped { package, uncommitted: None, summary, warnings }))
}

/// Whether the files are others now than those that were shipped; nothing where that can't be told.
#[must_use]
pub fn has_changed(home: &Home, experiment: &Experiment, shipped: &ShippedPackage) -> Option<bool> {
    let survey = survey(home, experiment).ok()??;
    let (_, hash) = listed(&mut ship::entries(&survey).ok()?).ok()?;
    Some(hash != shipped.hash)
}

/// The package of an experiment; none where nothing was shipped, or where its file can't be read.
#[must_use]
pub fn of(dir: &ExperimentDir) -> Option<ShippedPackage> {
    checksum::from_slice(&open::read(&dir.package()).ok()?).ok()
}

/// What became of changes of the code that were not committed when it was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UncommittedChanges {
    /// They are in the package.
    Shipped,
    /// The package is the commit alone.
    LeftOut,
    /// Nothing was shipped: trials run in the folder itself.
    InPlace,
}

impl UncommittedChanges {
    /// What became of them, if there were any.
    #[must_use]
    pub fn of(git: Option<&GitState>, keys: &PackageKeys, is_shipped: bool) -> Option<Self> {
        git.filter(|git| git.dirty)?;
        Some(match (is_shipped, keys.from, keys.dirty) {
            (false, ..) => Self::InPlace,
            (true, PackageSource::Git, Dirty::Ignore) => Self::LeftOut,
            (true, ..) => Self::Shipped,
        })
    }

    /// For people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Shipped => "with changes that were not committed; they are shipped",
            Self::LeftOut => {
                "without the changes that were not committed: they are not shipped (package.dirty)"
            }
            Self::InPlace => {
                "with changes that were not committed; nothing is shipped, trials run in the folder"
            }
        }
    }
}

/// A few of the names, and how many more there are.
fn named(paths: &[PathBuf]) -> String {
    let names: Vec<String> =
        paths.iter().take(NAMED).map(|path| format!("`{}`", path.display())).collect();
    match paths.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn not_committed(root: &Path, changes: &[PathBuf]) -> CommandError {
    let were = if changes.len() == 1 { "was" } else { "were" };
    let text = format!(
        "`{}` has {} that {were} not committed: {}",
        root.display(),
        count(changes.len(), "change"),
        named(changes)
    );
    CommandError::new(ExitCode::Usage, text)
        .hinted("commit them, or ship them too: `--set package.dirty=include`")
}

fn require_room(root: &Path, files: &[PackagedFile], limit: u64) -> Result<(), CommandError> {
    let size: u64 = files.iter().map(|file| file.bytes).sum();
    if size <= limit {
        return Ok(());
    }
    let mut largest: Vec<&PackagedFile> = files.iter().collect();
    largest.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    let largest: Vec<String> = largest
        .iter()
        .take(NAMED)
        .map(|file| format!("`{}` ({})", file.path.display(), bytes(file.bytes)))
        .collect();
    // By a little more, both read alike.
    let (mut has, mut most) = (bytes(size), bytes(limit));
    if has == most {
        (has, most) = (format!("{size} bytes"), format!("{most} = {limit} bytes"));
    }
    let text = format!(
        "the code in `{}` has {has}, more than `package.limit` ({most}); the largest: {}",
        root.display(),
        largest.join(", ")
    );
    Err(CommandError::new(ExitCode::Usage, text)
        .hinted(format!(
            "name what is no code in `{}`, as in .gitignore: it is then linked",
            root.join(choose::IGNORE_FILE).display()
        ))
        .hinted(
            "or ship more, `--set package.limit=500MiB`, or nothing, `--set package.from=none`",
        ))
}
