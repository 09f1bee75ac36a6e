//! The folder that a trial's program runs in. With a package it is the trial's own: a copy of the package, and what the
//! program makes there, which lasts over its attempts and is shared with nobody.
#![expect(clippy::disallowed_methods, reason = "an edge: links and folders that can be made again")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nemo_core::package::{self, Depth, PackageError, PackagedContent, ShippedPackage};
use nemo_core::rundir::TrialDir;
use nemo_core::{durable, open};

use crate::attempt::start_error::StartError;
use crate::job::context::JobContext;
use crate::job::trial::Trial;
use crate::os::patience::Patience;

/// Makes the working folder ready. The package is verified before each attempt. Returns what to warn of.
pub(crate) fn prepare(
    trial: &Trial,
    context: &JobContext,
    patience: Patience<'_>,
) -> Result<Option<String>, StartError> {
    let Some(shipped) = &trial.package else { return Ok(None) };
    let depth = verify(&trial.dir, shipped, context)?;
    let made = patience.with(|| make(&trial.dir, shipped, depth));
    let changed = made.map_err(|error| StartError::node(&trial.dir.work(), &error))?;
    Ok(described(&changed))
}

/// What to say of files of the package that are others in the trial's folder by now. They stay: the program may have written
/// them.
fn described(changed: &[PathBuf]) -> Option<String> {
    let names: Vec<String> =
        changed.iter().take(NAMED).map(|path| format!("`{}`", path.display())).collect();
    let more = match changed.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!changed.is_empty()).then(|| {
        format!(
            "files in the working folder differ from the submitted ones: {}{more}. This attempt uses them as they are. Delete a \
             file there to get the submitted one back",
            names.join(", ")
        )
    })
}

/// How many files a line of the log names.
const NAMED: usize = 5;

/// Compares the package with what was submitted: its content once on each boot of a node and before it is copied for a
/// trial, else its names and lengths.
fn verify(
    trial: &TrialDir,
    shipped: &ShippedPackage,
    context: &JobContext,
) -> Result<Depth, StartError> {
    let seen = seen_mark(shipped, context);
    let is_seen = seen.as_ref().is_some_and(|mark| mark.exists());
    let is_copied = trial.work_is_whole().exists();
    let depth = if is_seen && is_copied { Depth::Lengths } else { Depth::Hashes };
    match package::verify(&shipped.dir, &shipped.hash, depth) {
        Ok(()) => {}
        Err(error @ PackageError::Changed(_)) => {
            let again = "submit the experiment again: it ships its code anew";
            return Err(StartError::Permanent(format!("the package: {error}; {again}")));
        }
        Err(error) => return Err(StartError::Node(format!("the package: {error}"))),
    }
    if let Some(mark) = seen.filter(|_| !is_seen) {
        // Without the mark the content is compared once more.
        if let Some(nodes) = mark.parent() {
            fs::create_dir(nodes).ok();
            remove_older_marks(nodes, context);
        }
        fs::write(mark, "").ok();
    }
    Ok(depth)
}

/// `nodes/` of the home: an empty file says that this boot of this node has read the whole package.
fn seen_mark(shipped: &ShippedPackage, context: &JobContext) -> Option<PathBuf> {
    let home = shipped.dir.0.parent()?.parent()?;
    let name = format!("package-{}-{}-{}", shipped.hash, context.node, context.boot_id);
    Some(home.join("nodes").join(name))
}

/// Removes the marks of earlier boots of this node.
fn remove_older_marks(nodes: &Path, context: &JobContext) {
    for entry in fs::read_dir(nodes).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix("package-")?.split_once('-'));
        let of_node = rest.and_then(|(_, rest)| rest.strip_prefix(context.node.as_str()));
        let boot = of_node.and_then(|rest| rest.strip_prefix('-'));
        if boot.is_some_and(|boot| boot.len() == context.boot_id.len() && boot != context.boot_id) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// The package's folders as folders of the trial's own, with its files as copies, so that a program finds itself and its
/// data beside each other whatever links it follows; and links to what was not shipped. All is on the disk before a program
/// runs there: a mark says so, and what differs from then on is the program's. Returns the files that do.
fn make(trial: &TrialDir, shipped: &ShippedPackage, depth: Depth) -> io::Result<Vec<PathBuf>> {
    let (work, mark) = (&trial.work(), trial.work_is_whole());
    open::refresh(&mark);
    let is_whole = mark.try_exists()?;
    fs::create_dir_all(work)?;
    for own in &shipped.own {
        fs::create_dir_all(work.join(&own.0))?;
    }
    let list = package::read_list(&shipped.dir, &shipped.hash)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let (mut changed, mut files) = (Vec::new(), Vec::new());
    for entry in list {
        let place = work.join(&entry.path);
        if !is_whole {
            remove_torn(&place, &entry.content)?;
        } else if matches!(package::is_right(&place, &entry.content, depth), Ok(false)) {
            changed.push(entry.path.clone());
        }
        match entry.content {
            PackagedContent::Link { target } => link(&target, &place)?,
            PackagedContent::File { bytes, executable, .. } => {
                let from = &shipped.dir.files().join(&entry.path);
                let file = ShippedFile { from, bytes, executable };
                put(&file, &place, work, is_whole)?;
                files.push(place);
            }
        }
    }
    for beside in &shipped.linked {
        link(&shipped.root.join(&beside.0), &work.join(&beside.0))?;
    }
    if is_whole {
        return Ok(changed);
    }
    let own = shipped.own.iter().map(|own| work.join(&own.0));
    sync(work, &files, own)?;
    durable::replace_file_durably(&mark, b"")?;
    Ok(changed)
}

/// Puts a new working folder on the disk: all by one call, which is fast, and then each part, since only that tells of every
/// error. A file that failed is removed: what is read of it afterwards comes from memory, and looks right.
fn sync(work: &Path, files: &[PathBuf], folders: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    nix::unistd::syncfs(File::open(work)?).ok();
    for path in files {
        if let Err(error) = File::open(path).and_then(|file| file.sync_all()) {
            fs::remove_file(path)?;
            return Err(error);
        }
    }
    folders.chain([work.to_owned()]).try_for_each(|folder| durable::sync_dir(&folder))
}

/// Removes a file that a node has not written to its end before it died: its name may last longer than its content.
fn remove_torn(place: &Path, content: &PackagedContent) -> io::Result<()> {
    match package::is_right(place, content, Depth::Hashes) {
        Ok(false) => fs::remove_file(place),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Files up to this size are copied. Larger ones are data: a hard link, where the file system has them.
const COPIED: u64 = 1 << 20;

/// A file of the package as it is put into the working folder.
struct ShippedFile<'a> {
    from: &'a Path,
    bytes: u64,
    executable: bool,
}

/// Puts a file of the package there, whole or not at all. What is there already is the trial's own.
fn put(file: &ShippedFile<'_>, place: &Path, work: &Path, is_synced: bool) -> io::Result<()> {
    if fs::symlink_metadata(place).is_ok() {
        return Ok(());
    }
    // Through a link, root could write into the package.
    let may_be_linked = file.bytes > COPIED && !nix::unistd::geteuid().is_root();
    if may_be_linked && fs::hard_link(file.from, place).is_ok() {
        return Ok(());
    }
    let draft = work.join(DRAFT);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::copy(file.from, &draft)?;
    // The trial's own: what the program copies of it in turn, it may write over again after a resume.
    let mode = if file.executable { 0o700 } else { 0o600 };
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
    if is_synced {
        File::open(&draft)?.sync_all()?;
    }
    fs::rename(&draft, place)
}

/// What a copy is called until it is whole.
const DRAFT: &str = ".nemo-copy";

/// What the program has put there itself stays: it is the trial's own.
fn link(target: &Path, place: &Path) -> io::Result<()> {
    match symlink(target, place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    use nemo_core::package::{PackageDir, PackageEntry, hash_file, listed};

    fn shipped(folder: &Path) -> ShippedPackage {
        let dir = PackageDir(folder.join("package"));
        fs::create_dir_all(dir.files()).unwrap();
        fs::write(dir.files().join("train.py"), "print(1)").unwrap();
        let (hash, bytes) = hash_file(&dir.files().join("train.py")).unwrap();
        let content = PackagedContent::File { bytes, hash, executable: false };
        let (text, hash) =
            listed(&mut [PackageEntry { path: "train.py".into(), content }]).unwrap();
        fs::write(dir.list(), text).unwrap();
        let (root, folder) = (folder.to_owned(), PathBuf::new());
        ShippedPackage {
            hash,
            dir,
            files: 1,
            bytes,
            root,
            folder,
            own: Vec::new(),
            linked: Vec::new(),
        }
    }

    #[test]
    fn what_a_node_that_died_has_left_is_put_there_anew_and_what_the_program_wrote_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (trial, shipped) = (TrialDir(folder.path().join("0")), shipped(folder.path()));
        let place = trial.work().join("train.py");
        fs::create_dir_all(trial.work()).unwrap();
        fs::write(&place, "").unwrap(); // the name was on the disk, the content was not
        let make = |depth| make(&trial, &shipped, depth).unwrap();
        assert_eq!(make(Depth::Hashes), Vec::<PathBuf>::new());
        assert_eq!(fs::read_to_string(&place).unwrap(), "print(1)");
        fs::write(&place, "print(2)").unwrap();
        assert_eq!(make(Depth::Lengths), Vec::<PathBuf>::new());
        assert_eq!(make(Depth::Hashes), [PathBuf::from("train.py")]);
        assert_eq!(fs::read_to_string(&place).unwrap(), "print(2)");
        assert!(
            described(&make(Depth::Hashes))
                .unwrap()
                .contains("differ from the submitted ones: `train.py`.")
        );
    }

    #[test]
    fn a_copy_may_be_written_over_and_nothing_of_the_package_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (from, work) = (folder.path().join("from"), folder.path().join("work"));
        fs::create_dir(&work).unwrap();
        fs::write(&from, "print(1)").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o400)).unwrap();
        let put = |name: &str, bytes, executable| {
            let file = ShippedFile { from: &from, bytes, executable };
            super::put(&file, &work.join(name), &work, false).unwrap();
            fs::metadata(work.join(name)).unwrap()
        };
        assert_eq!(put("train.py", 8, false).permissions().mode() & 0o777, 0o600);
        assert_eq!(put("run.sh", 8, true).permissions().mode() & 0o777, 0o700);
        // Root may write through any link.
        let links = if nix::unistd::geteuid().is_root() { 1 } else { 2 };
        assert_eq!(put("data", COPIED + 1, false).nlink(), links);
    }
}
