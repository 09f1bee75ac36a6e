//! Whether somebody else could put a program of theirs where ours is run from. Nothing is trusted that others may write.
//!
//! A folder that a group may write to is refused whoever the group's members are: this program is static and can't ask
//! the site's directory service, which alone knows them, and one `chmod` settles it.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why programs are not run from a folder.
#[derive(Debug)]
pub enum Distrust {
    /// Its owner may replace what is in it.
    Owner {
        /// The folder.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// Others may replace what is in it.
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Whether the user may change them.
        is_own: bool,
    },
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { path, owner } => {
                let path = path.display();
                write!(f, "`{path}` belongs to user {owner}, who could replace programs in it")
            }
            Self::Writable { path, mode, .. } => write!(
                f,
                "other users can write to `{}` (mode {mode:o}), and could replace programs in it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Distrust {}

impl Distrust {
    /// What to type.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Writable { path, is_own: true, .. } => format!("`chmod go-w {}`", path.display()),
            Self::Writable { .. } | Self::Owner { .. } => {
                "use a home in a folder of your own: `--home FOLDER`, or NEMO_SLURM_HOME".to_owned()
            }
        }
    }
}

/// Why a folder did not pass.
#[derive(Debug)]
pub enum TrustError {
    /// Others could have put a program there.
    Distrust(Distrust),
    /// It can't be looked at.
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrust(why) => why.fmt(f),
            Self::Io { path, source } => write!(f, "can't look at `{}`: {source}", path.display()),
        }
    }
}

/// Whose file it is, and who may write to it.
#[derive(Clone, Copy)]
struct Permissions {
    owner: u32,
    mode: u32,
}

/// The sticky bit: others may add names to the folder, but neither remove nor rename ours.
const STICKY: u32 = 0o1000;
/// The group's and everybody's right to write.
const OTHERS_WRITE: u32 = 0o022;

/// The folders of a home that hold programs, or files that say which program is run.
const PARTS_OF_HOME: [&str; 3] = ["bin", "experiments", "jobs"];

/// Fails where others may write to a home, to its folders that decide what is run, or to any folder above it.
pub fn require_safe_home(home: &Path) -> Result<(), TrustError> {
    require_safe(home, &PARTS_OF_HOME)
}

/// Fails where others may write to a folder, or to any above it.
pub fn require_safe_folder(folder: &Path) -> Result<(), TrustError> {
    require_safe(folder, &[])
}

fn require_safe(folder: &Path, parts: &[&str]) -> Result<(), TrustError> {
    let user = nix::unistd::geteuid().as_raw();
    check(folder, user, false)?;
    parts.iter().try_for_each(|part| check(&folder.join(part), user, false))?;
    above(folder).iter().try_for_each(|path| check(path, user, true))
}

/// Every folder above a path, as it is written and as its links lead.
fn above(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_owned).collect();
    let existing = path.ancestors().find_map(|part| part.canonicalize().ok());
    let is_whole = path.exists();
    for real in existing.iter().flat_map(|real| real.ancestors().skip(usize::from(is_whole))) {
        if !all.iter().any(|known| known == real) {
            all.push(real.to_owned());
        }
    }
    all
}

fn check(path: &Path, user: u32, is_above: bool) -> Result<(), TrustError> {
    let folder = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // it will be made, for us alone
        folder => folder.map_err(|source| TrustError::Io { path: path.to_owned(), source })?,
    };
    let permissions = Permissions { owner: folder.uid(), mode: folder.mode() & 0o7777 };
    judge(path, permissions, user, is_above).map_or(Ok(()), |why| Err(TrustError::Distrust(why)))
}

fn judge(path: &Path, folder: Permissions, user: u32, is_above: bool) -> Option<Distrust> {
    let Permissions { owner, mode } = folder;
    if owner != user && owner != 0 {
        return Some(Distrust::Owner { path: path.to_owned(), owner });
    }
    let is_shared_by_root = is_above && owner == 0 && mode & STICKY != 0;
    if mode & OTHERS_WRITE == 0 || is_shared_by_root {
        return None;
    }
    let is_own = owner == user || user == 0;
    Some(Distrust::Writable { path: path.to_owned(), mode, is_own })
}

/// Whether a program's file can only have been written by us or by root.
#[must_use]
pub fn is_ours(file: &Metadata) -> bool {
    let user = nix::unistd::geteuid().as_raw();
    file.is_file() && (file.uid() == user || file.uid() == 0) && file.mode() & OTHERS_WRITE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_write() {
        let check = |owner, mode, is_above, expected: &str| {
            let found = judge(Path::new("/h"), Permissions { owner, mode }, 1000, is_above);
            let text = found.map_or(String::new(), |why| format!("{why} | {}", why.hint()));
            assert_eq!(text, expected, "{owner} {mode:o} {is_above}");
        };
        for (owner, mode) in [(1000, 0o700), (1000, 0o755), (0, 0o755), (0, 0o1755)] {
            check(owner, mode, true, "");
            check(owner, mode, false, "");
        }
        check(0, 0o1777, true, ""); // /tmp
        let open = |mode| {
            format!("other users can write to `/h` (mode {mode}), and could replace programs in it")
        };
        check(1000, 0o777, false, &format!("{} | `chmod go-w /h`", open("777")));
        check(1000, 0o775, true, &format!("{} | `chmod go-w /h`", open("775")));
        check(1000, 0o1777, true, &format!("{} | `chmod go-w /h`", open("1777")));
        let elsewhere = "use a home in a folder of your own: `--home FOLDER`, or NEMO_SLURM_HOME";
        check(0, 0o2770, true, &format!("{} | {elsewhere}", open("2770")));
        check(0, 0o1777, false, &format!("{} | {elsewhere}", open("1777")));
        let owned = "`/h` belongs to user 1001, who could replace programs in it";
        check(1001, 0o700, true, &format!("{owned} | {elsewhere}"));
    }

    #[test]
    fn folders_are_looked_at_where_links_lead() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("open/home")).unwrap();
        std::os::unix::fs::symlink(real.join("open/home"), real.join("link")).unwrap();
        assert!(above(&real.join("link")).contains(&real.join("open")));
        assert!(above(&real.join("link/not/yet")).contains(&real.join("open/home")));
    }
}
