//! `notes/`: what people say of an experiment after its submission, a new file for each change, so that every file has
//! one writer.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::paths::ExperimentDir;
use crate::scope::{Scope, TrialSet};
use crate::{checksum, durable, open};

/// A text, and what it changes. The experiment's labels follow from its file and all notes in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Unix seconds.
    pub time: f64,
    /// Who wrote it.
    pub user: String,
    /// The task that it is about; the experiment where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The trials that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials: Option<TrialSet>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Tags that are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Tags that are taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untagged: Vec<String>,
    /// The new description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// New values of metadata by dotted keys; null takes a key away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
    /// Puts the experiment away, or takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

impl Note {
    /// What it is about.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope { task: self.task.clone(), trials: self.trials.clone() }
    }
}

/// What `notes/` holds.
#[derive(Debug, Default, PartialEq)]
pub struct Notes {
    /// The notes, oldest first.
    pub whole: Vec<(PathBuf, Note)>,
    /// Files that are not as they were written: those say nothing.
    pub damaged: Vec<PathBuf>,
}

impl Notes {
    /// How many files were read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.whole.len() + self.damaged.len()
    }
}

/// How many notes there are. Their files never change.
#[must_use]
pub fn count(dir: &ExperimentDir) -> usize {
    names(&dir.notes()).map_or(0, |names| names.len())
}

/// Reads all notes. One that can't be read now is not counted, so that it is read at the next look.
pub fn read_all(dir: &ExperimentDir) -> io::Result<Notes> {
    let folder = dir.notes();
    let Notes { mut whole, mut damaged } = Notes::default();
    for name in names(&folder)? {
        let path = folder.join(name);
        let text = match open::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Vec::new(),
            Err(_) => continue,
        };
        match checksum::from_slice(&text) {
            Ok(note) => whole.push((path, note)),
            Err(_) => damaged.push(path),
        }
    }
    // Those of programs have no time in their names.
    whole.sort_by(|(_, a), (_, b)| a.time.total_cmp(&b.time));
    Ok(Notes { whole, damaged })
}

/// Whether the last note that says so puts the experiment away.
pub fn is_archived(dir: &ExperimentDir) -> io::Result<bool> {
    let notes = read_all(dir)?;
    let said = notes.whole.iter().rev().find_map(|(_, note)| note.archived);
    Ok(said.unwrap_or(false))
}

/// The names of the notes. Those of people begin with the time.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    open::refresh(folder);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| is_note(name)));
    }
    names.sort();
    Ok(names)
}

/// Others are temporary, or not ours.
fn is_note(name: &str) -> bool {
    !name.starts_with('.') && Path::new(name).extension().is_some_and(|end| end == "json")
}

/// Writes a note under this name, which no other has. It is there whole and durable, or not at all.
pub fn write(dir: &ExperimentDir, name: &str, note: &Note) -> io::Result<()> {
    let folder = dir.notes();
    durable::create_dir_all(&folder)?;
    durable::replace_file_durably(&folder.join(name), &checksum::to_vec(note)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_note_says_nothing_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        assert_eq!((read_all(&dir).unwrap(), count(&dir)), (Notes::default(), 0));
        let note = Note {
            time: 7.5,
            user: "ada".to_owned(),
            text: Some("worth a second look".to_owned()),
            metadata: BTreeMap::from([("lr".to_owned(), 0.1.into())]),
            ..Note::default()
        };
        let name = "1795944000.250000-login1-17-0.json";
        write(&dir, name, &note).unwrap();
        let path = dir.notes().join(name);
        assert_eq!(read_all(&dir).unwrap().whole, [(path.clone(), note.clone())]);
        let text = fs::read(&path).unwrap();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            durable::write_synced(&path, &flipped).unwrap();
            let notes = read_all(&dir).unwrap();
            let is_named = notes.whole.is_empty() && notes.damaged == [path.clone()];
            let is_right = notes.whole == [(path.clone(), note.clone())]; // only the checksum's name was hit
            assert!(is_named || is_right, "bit {bit}: {notes:?}");
            assert_eq!((notes.count(), count(&dir)), (1, 1));
        }
    }

    #[test]
    fn notes_are_in_the_order_of_their_times() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        for (name, time) in [("1.json", 1.0), ("3.json", 3.0), ("said-train-0-ab.json", 2.0)] {
            write(&dir, name, &Note { time, ..Note::default() }).unwrap();
        }
        let times = read_all(&dir).unwrap().whole.into_iter().map(|(_, note)| note.time);
        assert_eq!(times.collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn only_notes_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        let note = |user: &str| Note { user: user.to_owned(), ..Note::default() };
        for (name, user) in [("2-b-1-0.json", "b"), ("1-c-9-0.json", "a"), ("2-b-1-1.json", "c")] {
            write(&dir, name, &note(user)).unwrap();
        }
        for name in [".tmp-3-b-1-0.json-00", ".3.json", "3-b-1-0"] {
            durable::write_synced(&dir.notes().join(name), b"{}").unwrap();
        }
        let users: Vec<String> =
            read_all(&dir).unwrap().whole.into_iter().map(|(_, note)| note.user).collect();
        assert_eq!((users.concat(), count(&dir)), ("abc".to_owned(), 3));
    }
}
