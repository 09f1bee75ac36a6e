//! Programs that jobs run, kept in the home by their content: a job keeps the harness that it was submitted with.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nemo_core::{durable, trust};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{Home, StoreError, at, require_safe};

/// The name of the harness.
pub const HARNESS_NAME: &str = "nemo-harness";
/// The name of this program.
pub const OWN_NAME: &str = "nemo-slurm";

/// What a file looked like when its content was last read: as long as it looks so, it is not read again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFingerprint {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FileFingerprint {
    /// What it looks like now.
    pub fn of(file: &Path) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            path: file.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// A program whose content was read, and its copy in the home.
#[derive(Serialize, Deserialize)]
struct InstalledProgram {
    look: FileFingerprint,
    name: String,
    copy: FileFingerprint,
}

/// Puts a copy of a program into the home, called `<name>-<hash>` by its content, and returns its path. One that is there is kept if it
/// is ours and holds what its name says; another is replaced. Fails where others may write to the home.
pub fn install_program(home: &Home, name: &str, program: &Path) -> Result<PathBuf, StoreError> {
    require_safe(home)?;
    let look = at("read", program, FileFingerprint::of(program))?;
    let memory = home.cache().join(format!("{name}.json"));
    let known: Option<InstalledProgram> =
        std::fs::read(&memory).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(known) = known.filter(|known| known.look == look) {
        let path = home.programs().join(&known.name);
        if is_ours(&path) && FileFingerprint::of(&path).is_ok_and(|now| now == known.copy) {
            debug!("{name}: `{}` is `{}`, as at the last look", program.display(), path.display());
            return Ok(path);
        }
    }
    let content = at("read", program, std::fs::read(program))?;
    let name = format!("{name}-{}", &blake3::hash(&content).to_hex()[..12]);
    let path = home.programs().join(&name);
    if !is_ours(&path) || std::fs::read(&path).ok().as_ref() != Some(&content) {
        at("write", &path, persist(&path, &content))?;
    }
    debug!("program: `{}` is kept as `{}`", program.display(), path.display());
    let copy = at("read", &path, FileFingerprint::of(&path))?;
    if let Ok(text) = serde_json::to_vec(&InstalledProgram { look, name, copy }) {
        // Only a hint: without it the program is read again.
        drop(durable::create_dir_all(&home.cache()));
        drop(durable::replace_file_durably(&memory, &text));
    }
    Ok(path)
}

fn is_ours(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|file| trust::is_ours(&file))
}

/// Writes a program whole under another name. Nobody has it open for writing once it has its own: it could not be run.
fn persist(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    durable::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o700))?;
    file.as_file().sync_all()?;
    file.into_temp_path().persist(path)?;
    durable::sync_dir(folder)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of a test need not last")]
mod tests {
    use super::*;

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    /// A home, and a program to install.
    fn scene() -> (tempfile::TempDir, Home, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "ours").unwrap();
        let home = Home::new(folder.path().join("home"));
        (folder, home, program)
    }

    #[test]
    fn what_is_not_what_its_name_says_is_replaced() {
        let (folder, home, program) = scene();
        let path = install_program(&home, "nemo-harness", &program).unwrap();
        assert_eq!(install_program(&home, "nemo-harness", &program).unwrap(), path);
        std::fs::write(&path, "evil").unwrap();
        assert_eq!(content(&install_program(&home, "nemo-harness", &program).unwrap()), "ours");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(folder.path().join("other"), "ours").unwrap();
        std::os::unix::fs::symlink(folder.path().join("other"), &path).unwrap();
        install_program(&home, "nemo-harness", &program).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file(), "a link could lead elsewhere later");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        install_program(&home, "nemo-harness", &program).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_home_that_others_may_write_to_is_refused() {
        let (_folder, home, program) = scene();
        install_program(&home, "nemo-harness", &program).unwrap();
        for folder in [home.path().to_owned(), home.programs()] {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
            let error = install_program(&home, "nemo-harness", &program).unwrap_err();
            assert!(matches!(error, StoreError::Distrust(_)), "{error}");
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        install_program(&home, "nemo-harness", &program).unwrap();
    }

    /// The classic: while one process writes a program, another starts it.
    #[test]
    fn a_program_can_be_run_as_soon_as_it_has_its_name() {
        let (_folder, home, program) = scene();
        std::fs::write(&program, "#!/bin/sh\nexit 0\n").unwrap();
        let path = install_program(&home, "nemo-harness", &program).unwrap();
        let open = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path));
        assert!(!open, "it is not open for writing");
    }
}
