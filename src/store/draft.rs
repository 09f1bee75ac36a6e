//! Folders that nobody sees before they are whole: they are made under another name, and renamed.
#![expect(clippy::disallowed_methods, reason = "renames a folder that was made durable")]

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nemo_core::process_id::ProcessId;

use super::{ExperimentId, StoreError, at};
use crate::clock;

/// A folder that is being made. It is removed unless it is renamed.
#[derive(Debug)]
pub struct Draft(Option<PathBuf>);

impl Draft {
    /// An empty folder. What killed processes left there half made is removed.
    pub fn make(parent: &Path, of: &str) -> Result<Self, StoreError> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
        let now = clock::now() as u64;
        remove_abandoned(parent, now);
        let path = parent.join(name(ExperimentId::new(of, now, 0).as_str()));
        at("make", &path, DirBuilder::new().mode(0o700).create(&path))?;
        Ok(Self(Some(path)))
    }

    /// Where it is made.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Puts it in its place.
    pub fn rename_to(mut self, place: &Path) -> io::Result<()> {
        std::fs::rename(self.path(), place)?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // A full disk needs the room; what stays is removed by the next one.
            drop(std::fs::remove_dir_all(path));
        }
    }
}

/// What the name of a folder begins with that is being made.
const DRAFT: &str = ".new-";
/// Seconds after which nobody can still be making a folder.
const ABANDONED: u64 = 86_400;

/// The folder's name while this process makes it: `.new-<name>~<pid>~<start_ticks>~<host>`, so that others see whether
/// it still does.
pub(super) fn name(of: &str) -> String {
    let this = ProcessId::current();
    format!("{DRAFT}{of}~{}~{}~{}", this.pid, this.start_ticks, this.node)
}

/// Removes what killed submissions left half made. What can't be removed is tried again by the next submission.
pub(super) fn remove_abandoned(parent: &Path, now: u64) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| is_abandoned(name, now)) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// Whether a name is that of a draft whose maker is dead or, on another host, must have been long done.
fn is_abandoned(name: &str, now: u64) -> bool {
    let Some(rest) = name.strip_prefix(DRAFT) else { return false };
    let mut parts = rest.splitn(4, '~');
    let made = parts.next().and_then(|id| id.parse::<ExperimentId>().ok());
    let is_old = made.is_some_and(|id| id.made_at() + ABANDONED < now);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(pid), Some(start_ticks)) = (number(), number()) else { return is_old };
    let this = ProcessId::current();
    if parts.next() != Some(this.node.as_str()) {
        return is_old;
    }
    let pid = u32::try_from(pid).unwrap_or(0);
    !ProcessId { pid, start_ticks, ..this }.is_alive_on_this_node()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_makes_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let this = ProcessId::current();
        let id: ExperimentId = "digits-1rs0xg11".parse().unwrap();
        let (now, later) = (id.made_at(), id.made_at() + ABANDONED + 1);
        let other = |ticks, host: &str| format!(".new-{id}~{}~{ticks}~{host}", this.pid);
        let own = name(id.as_str());
        let dead = other(this.start_ticks + 1, &this.node);
        let elsewhere = other(this.start_ticks, "login1");
        let nameless = format!(".new-{id}");
        for folder_name in [&own, &dead, &elsewhere, &nameless, &id.to_string()] {
            std::fs::create_dir_all(folder.path().join(folder_name).join("tasks")).unwrap();
        }
        let left = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let expected = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            names.sort();
            names
        };
        remove_abandoned(folder.path(), now);
        assert_eq!(left(), expected(&[&own, &elsewhere, &nameless, id.as_str()]));
        remove_abandoned(folder.path(), later);
        assert_eq!(left(), expected(&[&own, id.as_str()]));
    }
}
