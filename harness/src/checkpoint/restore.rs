//! Puts the checkpoint that an attempt resumes from where the program looks for it by itself (`checkpoint.restore_to`), before
//! the program starts, and sets aside what it must not find there.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nemo_core::durable;
use nemo_core::own_paths::OwnPath;

use super::collect::{CollectedPath, CollectedPaths, digest_of};
use super::content::{manifest_of, sync_and_hash};
use super::copy;
use super::hashing::SizedFile;
use super::manifest::{self, CheckpointForm, Manifest, ManifestEntry};
use super::resume::VerifiedCheckpoint;
use super::store::{DiskStore, FileKind, Store, join};
use super::tree;

/// Where a program looks for its checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct RestorePlan {
    pub(crate) target: PathBuf,
    /// The target is the folder in which the checkpoint lies, under its own name.
    pub(crate) is_folder: bool,
    /// Where the program saves: a save of an earlier attempt may be torn, and must not be found.
    pub(crate) paths: Vec<OwnPath>,
    /// What is remembered of the program's saves.
    pub(crate) record: PathBuf,
    pub(crate) checkpoints: PathBuf,
    pub(crate) nonce: String,
    /// No checkpoint was ever committed, and the target is no path that a commit could come from: what the program of an
    /// earlier attempt left there is all the progress that there is.
    pub(crate) is_all_there_is: bool,
}

/// The names of what is set aside, and of a copy that is being made. Patterns never mean names that begin with a dot.
const ASIDE: &str = ".nemo-aside-";
const COPY: &str = ".nemo-restore-";

/// Who prepares the paths. A newer attempt's program may have begun to work with them already.
struct Preparation<'a> {
    disk: &'a mut DiskStore,
    plan: &'a RestorePlan,
    is_newest: &'a dyn Fn() -> io::Result<bool>,
    /// What to log.
    notes: Vec<String>,
}

/// Prepares the program's own paths, as long as this is the newest attempt. Returns what to log.
pub(crate) fn prepare(
    disk: &mut DiskStore,
    plan: &RestorePlan,
    resumed: Option<&VerifiedCheckpoint>,
    is_newest: &dyn Fn() -> io::Result<bool>,
) -> io::Result<Vec<String>> {
    let mut own = Preparation { disk, plan, is_newest, notes: Vec::new() };
    let Some(resumed) = resumed else {
        let leaves_own = plan.leaves_own();
        for path in plan.found().into_iter().filter(|path| !leaves_own || *path != plan.target) {
            own.set_aside(&path, "the trial begins from its start")?;
        }
        // From now on, what lies there is of this trial's own program.
        if !plan.record.exists() {
            CollectedPaths::default().write(&plan.record).ok(); // then it is set aside, as on the first attempt
        }
        return Ok(own.notes);
    };
    own.restore(resumed)?;
    Ok(own.notes)
}

impl Preparation<'_> {
    fn restore(&mut self, resumed: &VerifiedCheckpoint) -> io::Result<()> {
        let (plan, step) = (self.plan, resumed.step);
        let manifest = manifest_of(self.disk, &plan.checkpoints.join(format!("step-{step}")))
            .ok_or_else(|| io::Error::other("its MANIFEST can't be read any more"))?;
        let target = plan.target_of(&manifest);
        for path in plan.found().into_iter().filter(|path| *path != target) {
            if !plan.is_whole(self.disk, &path, step) {
                self.set_aside(&path, &format!("it is no checkpoint up to step {step}"))?;
            }
        }
        if !is_there(self.disk, &target, &manifest) {
            self.put(resumed, &manifest, &target)?;
        }
        let looks = digest_of(&tree::walk(self.disk, &target)?);
        let mut collected = CollectedPaths::read(&plan.record);
        collected.add(&target, CollectedPath { step, looks });
        collected.write(&plan.record).ok(); // then the path counts as not known
        self.notes.push(format!("put the checkpoint of step {step} at `{}`", target.display()));
        Ok(())
    }

    /// Gives a path a name beside it that no program looks for. Nothing is deleted.
    fn set_aside(&mut self, path: &Path, why: &str) -> io::Result<()> {
        let aside = beside(path, ASIDE, &self.plan.nonce)?;
        if self.rename_away(path, &aside)? {
            let (path, aside) = (path.display(), aside.display());
            self.notes.push(format!("`{path}` was set aside as `{aside}`: {why}"));
        }
        Ok(())
    }

    /// Whether there was something to rename: a folder that was set aside may have held it.
    fn rename_away(&mut self, from: &Path, to: &Path) -> io::Result<bool> {
        self.check_newest()?;
        match self.disk.rename_new(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn check_newest(&self) -> io::Result<()> {
        if (self.is_newest)()? {
            return Ok(());
        }
        Err(io::Error::other("the path belongs to a newer attempt of this trial"))
    }

    /// Copies a checkpoint to its target, checks the copy against the manifest, and lets it take the place of what was there.
    fn put(
        &mut self,
        resumed: &VerifiedCheckpoint,
        manifest: &Manifest,
        target: &Path,
    ) -> io::Result<()> {
        self.check_newest()?;
        durable::create_dir_all(target.parent().unwrap_or(target))?;
        remove_earlier_copies(self.disk, target)?;
        let copied = beside(target, COPY, &self.plan.nonce)?;
        copy::copy(&resumed.from, &copied, manifest::NAME, &self.disk.stop)?;
        if !is_there(self.disk, &copied, manifest) {
            let why = "the copy of the checkpoint differs from what was committed; the disk may be failing";
            return Err(io::Error::other(why));
        }
        let known = self.clear(target, copied.is_dir())?;
        self.check_newest()?;
        replace(&copied, target)?;
        known.map_or(Ok(()), |known| self.disk.remove_tree(&known))
    }

    /// Makes room for a copy. What is not known to be committed stays beside it; what is known can go once the copy is
    /// there, and is returned. Killed in between, the next attempt puts the checkpoint there again.
    fn clear(&mut self, target: &Path, is_folder: bool) -> io::Result<Option<PathBuf>> {
        let Ok(there) = target.symlink_metadata() else { return Ok(None) };
        let is_known = self.plan.is_whole(self.disk, target, u64::MAX);
        // The program itself writes over such a file at each save.
        let is_save = is_known || self.plan.paths.iter().any(|own| own.means(target));
        if !there.is_dir() && !is_folder && is_save {
            return Ok(None);
        }
        if !is_known {
            self.set_aside(target, "it is not known as a checkpoint")?;
            return Ok(None);
        }
        let aside = beside(target, ASIDE, &self.plan.nonce)?;
        Ok(self.rename_away(target, &aside)?.then_some(aside))
    }
}

impl RestorePlan {
    /// Whether the program goes on from its own file, of which nothing was committed. An earlier attempt has prepared it.
    pub(crate) fn leaves_own(&self) -> bool {
        self.is_all_there_is && self.record.exists()
    }

    /// Every path that the program may take for its checkpoint.
    fn found(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self.paths.iter().flat_map(OwnPath::found).collect();
        if !self.is_folder && self.target.symlink_metadata().is_ok() {
            found.push(self.target.clone());
        }
        found.sort();
        found.dedup();
        found
    }

    /// Where this checkpoint goes: like `cp`, into a folder that is there.
    fn target_of(&self, manifest: &Manifest) -> PathBuf {
        let goes_into = manifest.form == CheckpointForm::File && self.target.is_dir();
        if self.is_folder || goes_into {
            join(&self.target, &manifest.entry)
        } else {
            self.target.clone()
        }
    }

    /// Whether a path is as it was when it was committed, as no later step than this.
    fn is_whole(&self, disk: &DiskStore, path: &Path, step: u64) -> bool {
        let Ok(real) = path.canonicalize() else { return false };
        let Ok(tree) = tree::walk(disk, &real) else { return false };
        let own = CollectedPaths::read(&self.record).step_of(path, digest_of(&tree));
        own.is_some_and(|own| own <= step)
    }
}

fn beside(path: &Path, word: &str, nonce: &str) -> io::Result<PathBuf> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "it has no name");
    let name = path.file_name().ok_or_else(invalid)?.to_string_lossy();
    let folder = path.parent().ok_or_else(invalid)?;
    Ok(folder.join(format!("{word}{nonce}-{name}")))
}

#[expect(clippy::disallowed_methods, reason = "a copy that a crash loses is made again")]
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Copies for this path of attempts that were killed while they made them. Other trials may copy to paths beside it right now.
fn remove_earlier_copies(disk: &mut DiskStore, target: &Path) -> io::Result<()> {
    let (Some(folder), Some(own)) = (target.parent(), target.file_name()) else { return Ok(()) };
    for name in disk.list(folder)? {
        if copied_for(&name) == Some(own.as_bytes()) {
            disk.remove_tree(&join(folder, &name)).ok();
        }
    }
    Ok(())
}

/// The name of the path for which a copy was made. A nonce has no `-`.
fn copied_for(copy: &[u8]) -> Option<&[u8]> {
    let rest = copy.strip_prefix(COPY.as_bytes())?;
    let end = rest.iter().position(|&byte| byte == b'-')?;
    Some(&rest[end + 1..])
}

/// Whether a path holds what a checkpoint holds, and nothing else.
fn is_there(disk: &mut DiskStore, path: &Path, manifest: &Manifest) -> bool {
    let Ok(entries) = tree::walk(disk, path) else { return false };
    let is_file = entries.first().is_some_and(|top| top.stat.kind == FileKind::File);
    match manifest.form {
        CheckpointForm::File => {
            let [(_, ManifestEntry::File(known))] = &manifest.parts[..] else { return false };
            let sized: [SizedFile; 1] = [(path.to_owned(), known.size)];
            is_file
                && entries[0].stat.size == known.size
                && disk.digests(&sized).is_ok_and(|found| found == [*known])
        }
        CheckpointForm::Folder => {
            let has_names = || {
                let own = entries.iter().filter(|entry| manifest::lists(&entry.path));
                own.map(|entry| &entry.path).eq(manifest.parts.iter().map(|(path, _)| path))
            };
            !is_file
                && has_names()
                && sync_and_hash(disk, path, &entries).is_ok_and(|found| found == manifest.parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::commit::{self, CommitOutcome};
    use super::super::fake::request;
    use super::*;

    /// A trial's folder, a checkpoint of step 1 (a folder) in it, and a plan that restores to `out` of a working folder.
    struct Scene {
        top: tempfile::TempDir,
        plan: RestorePlan,
        resumed: VerifiedCheckpoint,
    }

    fn scene() -> Scene {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        write(&at("staging/0/saved/model"), "new");
        fs::DirBuilder::new().create(at("checkpoints")).unwrap();
        let mut request = request("saved", 1);
        (request.from, request.checkpoints) = (at("staging/0/saved"), at("checkpoints"));
        request.metrics = None;
        let done = commit::commit(&mut DiskStore::default(), &request, &|| Ok(true)).unwrap();
        assert_eq!(done, CommitOutcome::Committed);
        let plan = RestorePlan {
            target: at("work/out"),
            is_folder: false,
            paths: Vec::new(),
            record: at("collected.json"),
            checkpoints: at("checkpoints"),
            nonce: "n1".to_owned(),
            is_all_there_is: false,
        };
        let from = at("checkpoints/step-1");
        let entry = b"saved".to_vec();
        let resumed = VerifiedCheckpoint { step: 1, from, entry, metrics: 0, reported: None };
        Scene { top, plan, resumed }
    }

    fn write(path: &Path, text: &str) {
        durable::create_dir_all(path.parent().unwrap()).unwrap();
        durable::replace_file_durably(path, text.as_bytes()).unwrap();
    }

    impl Scene {
        fn at(&self, name: &str) -> PathBuf {
            self.top.path().join(name)
        }

        fn prepare(&self, is_newest: bool) -> io::Result<Vec<String>> {
            let disk = &mut DiskStore::default();
            prepare(disk, &self.plan, Some(&self.resumed), &|| Ok(is_newest))
        }
    }

    #[test]
    fn a_folder_that_is_no_known_checkpoint_is_set_aside_and_a_known_one_makes_room() {
        let scene = scene();
        write(&scene.at("work/out/log.txt"), "mine");
        let notes = scene.prepare(true).unwrap();
        assert!(notes[0].contains("was set aside"), "{notes:?}");
        assert!(scene.at("work/.nemo-aside-n1-out/log.txt").exists());
        assert!(scene.at("work/out/model").exists() && !scene.at("work/out/log.txt").exists());
        // What is there now is known: nothing of it stays when an earlier step is put there.
        let known = tree::walk(&DiskStore::default(), &scene.plan.target).unwrap();
        let mut collected = CollectedPaths::default();
        write(&scene.at("work/out/model"), "newer");
        assert_ne!(known, tree::walk(&DiskStore::default(), &scene.plan.target).unwrap());
        let looks = digest_of(&tree::walk(&DiskStore::default(), &scene.plan.target).unwrap());
        collected.add(&scene.plan.target, CollectedPath { step: 2, looks });
        collected.write(&scene.plan.record).unwrap();
        let plan = RestorePlan { nonce: "n2".to_owned(), ..scene.plan.clone() };
        prepare(&mut DiskStore::default(), &plan, Some(&scene.resumed), &|| Ok(true)).unwrap();
        assert!(!scene.at("work/.nemo-aside-n2-out").exists());
        assert_eq!(fs::read(scene.at("work/out/model")).unwrap(), b"new");
    }

    #[test]
    fn an_attempt_that_is_not_the_newest_touches_nothing() {
        let scene = scene();
        write(&scene.at("work/out/log.txt"), "mine");
        assert!(scene.prepare(false).is_err());
        assert!(scene.at("work/out/log.txt").exists());
        let anew =
            prepare(&mut DiskStore::default(), &scene.plan, None, &|| Ok(false)).unwrap_err();
        assert!(anew.to_string().contains("a newer attempt"), "{anew}");
        assert!(scene.at("work/out/log.txt").exists());
    }

    #[test]
    fn only_copies_for_the_same_path_are_removed() {
        let scene = scene();
        let others = [".nemo-restore-x-b-out", ".nemo-restore-x-other", ".nemo-aside-x-out"];
        for name in others.into_iter().chain([".nemo-restore-x-out"]) {
            write(&scene.at("work").join(name), "copy");
        }
        scene.prepare(true).unwrap();
        assert!(!scene.at("work/.nemo-restore-x-out").exists());
        assert!(others.iter().all(|name| scene.at("work").join(name).exists()));
    }
}
