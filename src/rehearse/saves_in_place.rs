//! Which saves are made under their final name: told by what happens to each name in the staging folder. Pure.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::inotify::AddWatchFlags;

use super::file_names::shape;

/// What was seen of the names, attempt by attempt.
#[derive(Debug, Default)]
pub(super) struct SavesInPlace {
    /// Names that were made and not renamed or removed since, and whether they were written under that name.
    made: BTreeMap<(u32, String), bool>,
    /// A rename that was half seen: its cookie, and the old name.
    leaving: Option<(u32, String)>,
    /// The shapes of names that were renamed in the folder: what a saver calls what is not complete.
    temporary: BTreeSet<String>,
    /// Names that were written in place, and stayed or were committed.
    written: Vec<(u32, String)>,
}

impl SavesInPlace {
    /// What must be watched.
    pub(super) fn events() -> AddWatchFlags {
        AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
    }

    /// Something happened to a name.
    pub(super) fn add(&mut self, attempt: u32, name: &str, mask: AddWatchFlags, cookie: u32) {
        let key = (attempt, name.to_owned());
        if mask.contains(AddWatchFlags::IN_CREATE) {
            // A file that is linked to its name is complete, and is not written under it.
            self.made.insert(key, mask.contains(AddWatchFlags::IN_ISDIR));
        } else if mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
            if let Some(is_written) = self.made.get_mut(&key) {
                *is_written = true;
            }
        } else if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
            self.leaving = Some((cookie, name.to_owned()));
            // Out of the folder it goes by a commit: it was taken as it was.
            if self.made.remove(&key) == Some(true) {
                self.written.push(key);
            }
        } else if mask.contains(AddWatchFlags::IN_MOVED_TO) {
            self.made.remove(&key);
            if let Some((_, old)) = self.leaving.take_if(|(own, _)| *own == cookie) {
                self.temporary.insert(shape(&old));
                self.written.retain(|(own, name)| *own != attempt || *name != old);
            }
        } else if mask.contains(AddWatchFlags::IN_DELETE) {
            self.made.remove(&key);
        }
    }

    /// What an attempt made under its final name.
    pub(super) fn of(&self, attempt: u32) -> Vec<String> {
        let stayed = self.made.iter().filter(|(_, is_written)| **is_written).map(|(key, _)| key);
        let all = self.written.iter().chain(stayed).filter(|(own, _)| *own == attempt);
        let names = all.map(|(_, name)| name);
        names.filter(|name| !self.is_temporary(name)).cloned().collect()
    }

    /// Whether a name says that what it names is not complete, or is of a kind that was renamed before.
    fn is_temporary(&self, name: &str) -> bool {
        const WORDS: [&str; 7] =
            ["tmp", "temp", "partial", "incomplete", "unfinished", "inprogress", "saving"];
        let lower = name.to_ascii_lowercase();
        let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
        let is_said = words.any(|word| WORDS.iter().any(|own| word == *own || word == "part"));
        is_said
            || name.starts_with('.')
            || name.ends_with('~')
            || self.temporary.contains(&shape(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: AddWatchFlags = AddWatchFlags::IN_CREATE;
    const CLOSED: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE;
    const FROM: AddWatchFlags = AddWatchFlags::IN_MOVED_FROM;
    const TO: AddWatchFlags = AddWatchFlags::IN_MOVED_TO;
    const GONE: AddWatchFlags = AddWatchFlags::IN_DELETE;

    #[track_caller]
    fn check(events: &[(&str, AddWatchFlags)], expected: &[&str]) {
        let mut saves = SavesInPlace::default();
        for (name, mask) in events {
            saves.add(0, name, *mask, 7);
        }
        assert_eq!(saves.of(0), expected, "{events:?}");
        assert!(saves.of(1).is_empty());
    }

    #[test]
    fn what_is_written_under_its_name_is_in_place() {
        let folder = MADE | AddWatchFlags::IN_ISDIR;
        check(&[("step-1.pt", MADE), ("step-1.pt", CLOSED)], &["step-1.pt"]);
        check(&[("step-1", folder)], &["step-1"]);
        // Also once the harness has taken it.
        check(&[("step-1.pt", MADE), ("step-1.pt", CLOSED), ("step-1.pt", FROM)], &["step-1.pt"]);
    }

    #[test]
    fn savers_that_rename_link_or_remove_are_not() {
        let folder = MADE | AddWatchFlags::IN_ISDIR;
        let renamed = |old, new| [(old, MADE), (old, CLOSED), (old, FROM), (new, TO), (new, FROM)];
        check(&renamed("_step2280.cpt", "step-2280.cpt"), &[]);
        check(&renamed("new", "step-1"), &[]);
        let orbax = "step-10.orbax-checkpoint-tmp-17";
        check(&[(orbax, folder), (orbax, FROM), ("step-10", TO)], &[]);
        // Killed in the middle of one: its kind of name is known from another save.
        let cut = [
            &renamed("_step1.cpt", "step-1.cpt")[..],
            &[("_step20.cpt", MADE), ("_step20.cpt", CLOSED)],
        ];
        check(&cut.concat(), &[]);
        check(&[(orbax, folder)], &[]);
        check(&[("step-1.pt.part", MADE), ("step-1.pt.part", CLOSED)], &[]);
        // Linked to its name: never written under it.
        check(&[("step-1.pt", MADE)], &[]);
        check(&[("lock", MADE), ("lock", CLOSED), ("lock", GONE)], &[]);
    }
}
