//! Inspects a save: whether it is a checkpoint, whether it is complete, and its step.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nemo_core::open;
use nemo_core::profile::{self, TooLarge};
use nemo_core::rundir::Profile;

use super::store::FileKind;
use super::tree::FileEntry;
use crate::os::clock::Time;

/// How long a file must stay unchanged.
const FILE_STABLE: Duration = Duration::from_secs(2);
/// How long a folder must stay unchanged if its names show that nothing is missing: other processes may write to it.
const FOLDER_STABLE: Duration = Duration::from_secs(5);
/// How much of a file is read to find its step.
const HEAD: u64 = 64 * 1024;

/// Looks at a save that has not changed, all of which found that no process has it open to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ClosedLooks {
    first: Time,
    last: Time,
}

impl ClosedLooks {
    /// One look more.
    pub(super) fn with(earlier: Option<Self>, at: Time) -> Self {
        Self { first: earlier.map_or(at, |looks| looks.first), last: at }
    }

    /// For how long it is known to have rested. What was after the last look nobody knows: it may have been opened anew.
    pub(super) fn rested(self) -> Duration {
        self.last.saturating_sub(self.first)
    }
}

/// Whether a name is one that programs use while they write: hidden, or with `.tmp` in it, as `.tmp-1` and `.tmp.npy`.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b".") || name.windows(4).any(|part| part == b".tmp")
}

/// Whether a name may be a checkpoint. Temporary names are not, nor are those that a profile excludes.
pub(super) fn is_shown(profile: Option<Profile>, name: &[u8]) -> bool {
    !is_temporary(name) && profile::is_checkpoint(profile, &String::from_utf8_lossy(name))
}

/// Whether a save in place is complete by now. A folder seldom is: any time may pass between two of its files.
pub(super) fn rests(profile: Option<Profile>, seen: &[FileEntry], rested: Duration) -> bool {
    let Some(top) = seen.first() else { return false };
    if top.stat.kind == FileKind::File {
        return rested >= FILE_STABLE;
    }
    let names: Vec<String> =
        seen.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
    rested >= FOLDER_STABLE && profile::is_written(profile, &names)
}

/// Whether it may be complete by a rest, however long.
pub(super) fn may_rest(profile: Option<Profile>, seen: &[FileEntry]) -> bool {
    rests(profile, seen, Duration::MAX)
}

/// The step in its name or its first bytes.
pub(super) fn step(
    profile: Option<Profile>,
    path: &Path,
    kind: FileKind,
) -> Result<Option<u64>, TooLarge> {
    let (is_file, mut head) = (kind == FileKind::File, Vec::new());
    if is_file
        && profile.is_some()
        && let Ok(file) = open::to_read(path)
    {
        file.take(HEAD).read_to_end(&mut head).ok(); // then its name must tell, or a report
    }
    let name = path.file_name().map(|name| String::from_utf8_lossy(name.as_bytes()));
    profile::step(profile, &name.unwrap_or_default(), is_file, &head)
}

#[cfg(test)]
mod tests {
    #[test]
    fn temporary_names_are_left_alone() {
        let is_shown = |name| super::is_shown(None, name);
        assert!(is_shown(b"step-60"));
        assert!(!is_shown(b".step-60") && !is_shown(b"step-60.tmp") && !is_shown(b"a.tmp-b"));
    }
}
