//! `index/experiments.<n>`: a line for each experiment that is over, so that a list reads one file instead of ten thousand.
//!
//! ```text
//! nemo-index 3 <checksum of what follows>
//! <id> <state> <the experiment as `list --json` shows it, but for its folder>TAB<what else finds it>
//! ```
//!
//! The lines are in the order of age. The names of experiments say whether one is missing, or was deleted. Only a note
//! changes a line: before it is written, `index/noted/<id>~<note>` says that the line does not hold any more, until an
//! index is there that knows the note.
//!
//! The highest number is the index. Whoever writes one links it to the number after the one that it follows from: of
//! several the first wins, so that none takes back what another one knew.
#![expect(
    clippy::disallowed_methods,
    reason = "links a derived file into place, which may be lost"
)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use nemo_core::{claim, durable, open};

use super::ExperimentBrief;
use crate::status::State;
use crate::store::{ExperimentId, Home};

const FORMAT: &str = "nemo-index 3";
const STEM: &str = "experiments.";

/// The index as it was read.
#[derive(Debug, Default)]
pub struct Index {
    text: String,
    /// The highest number that there was, whole or not.
    number: Option<u64>,
    /// The notes that its lines may not know, by experiment.
    noted: BTreeMap<String, Vec<String>>,
}

/// One line of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexEntry<'a> {
    /// The experiment's id.
    pub id: &'a str,
    /// Where it stands, for good.
    pub state: State,
    /// A [`ExperimentRow`](super::ExperimentRow) as JSON.
    pub row: &'a str,
    /// [`Facts`](super::Facts) as JSON.
    pub facts: &'a str,
}

impl IndexEntry<'_> {
    /// What sorts it among ids, as [`ExperimentId::age`] does.
    #[must_use]
    pub fn age(&self) -> (&str, &str) {
        (self.id.rsplit_once('-').map_or("", |(_, key)| key), self.id)
    }

    /// Whether it was put away.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        // It is the last key of a row. Thousands may be archived: none is read for that. What metadata say is inside of braces.
        match self.row.rsplit_once(",\"archived\":") {
            Some((_, "true}")) => true,
            Some((_, "false}")) => false,
            Some(_) | None => {
                let row = serde_json::from_str::<ExperimentBrief>(self.row);
                row.is_ok_and(|row| row.archived)
            }
        }
    }
}

/// What is written of an experiment.
#[derive(Debug)]
pub struct NewEntry<'a> {
    /// Its id.
    pub id: &'a str,
    /// Where it stands, for good.
    pub state: State,
    /// Its row as JSON.
    pub row: Cow<'a, str>,
    /// Its facts as JSON.
    pub facts: Cow<'a, str>,
}

impl Index {
    /// Reads it; empty where there is none, or where it is damaged: then it is made again.
    #[must_use]
    pub fn read(home: &Home) -> Self {
        // The marks first: whoever removes one has written its index before.
        let noted = noted(home);
        // One that is removed meanwhile has a higher one beside it.
        for _ in 0..3 {
            let Some(number) = numbers(home).into_iter().max() else {
                return Self { noted, ..Self::default() };
            };
            let text = match open::read(&path(home, number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.ok().and_then(|text| String::from_utf8(text).ok()),
            };
            let text = text.filter(|text| is_sealed(text)).unwrap_or_default();
            return Self { text, number: Some(number), noted };
        }
        Self { noted, ..Self::default() }
    }

    /// Its lines, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry<'_>> {
        body(&self.text).lines().filter_map(entry)
    }

    /// Whether the line of an experiment may lack a note.
    #[must_use]
    pub fn is_noted(&self, id: &str) -> bool {
        self.noted.contains_key(id)
    }

    /// The notes that it may lack.
    #[must_use]
    pub fn marks_of(&self, id: &str) -> &[String] {
        self.noted.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether any line may lack a note.
    #[must_use]
    pub fn has_marks(&self) -> bool {
        !self.noted.is_empty()
    }

    /// Writes the index that follows this one, unless another process did so meanwhile. A failure costs time at the next
    /// list, no more. Returns whether it was written.
    pub fn replace<'a>(&self, home: &Home, lines: impl Iterator<Item = NewEntry<'a>>) -> bool {
        let mut lines_text = String::new();
        for line in lines {
            lines_text.extend([
                line.id,
                " ",
                line.state.as_str(),
                " ",
                &line.row,
                "\t",
                &line.facts,
                "\n",
            ]);
        }
        let text = format!("{FORMAT} {}\n{lines_text}", checksum(lines_text.as_bytes()));
        let number = self.number.map_or(0, |number| number + 1);
        if link(home, number, text.as_bytes()).is_err() {
            return false;
        }
        let numbers = numbers(home);
        if numbers.iter().any(|other| *other > number) {
            // Others wrote two meanwhile, and removed the name that this one then took.
            drop(fs::remove_file(path(home, number)));
            return false;
        }
        for older in numbers.into_iter().filter(|older| *older < number) {
            drop(fs::remove_file(path(home, older)));
        }
        true
    }

    /// Removes the marks of notes that are in the index by now: those for which `is_known` holds of id and note. One whose
    /// note never came is removed after a day: its writer was killed before.
    pub fn remove_marks(&self, home: &Home, now: f64, is_known: impl Fn(&str, &str) -> bool) {
        for (id, notes) in &self.noted {
            let is_old = |note: &str| {
                let time = note.split('-').next().and_then(|time| time.parse::<f64>().ok());
                time.is_none_or(|time| time + A_DAY < now)
            };
            for note in notes.iter().filter(|note| is_known(id, note) || is_old(note)) {
                drop(fs::remove_file(marks(home).join(mark(id, note))));
            }
        }
    }
}

/// After so many seconds nobody can still be writing a note.
const A_DAY: f64 = 86_400.0;

/// Says that an index which does not know this note is not to be believed. To be called before the note is written.
pub fn mark_as_noted(home: &Home, id: &ExperimentId, note: &str) -> io::Result<()> {
    let folder = marks(home);
    durable::create_dir_all(&folder)?;
    durable::write_synced(&folder.join(mark(id.as_str(), note)), b"")?;
    durable::sync_dir(&folder)
}

fn marks(home: &Home) -> PathBuf {
    home.index().join("noted")
}

fn mark(id: &str, note: &str) -> String {
    format!("{id}~{note}")
}

fn noted(home: &Home) -> BTreeMap<String, Vec<String>> {
    let mut noted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(marks(home)).into_iter().flatten().flatten() {
        if let Some((id, note)) = entry.file_name().to_str().and_then(|name| name.split_once('~')) {
            noted.entry(id.to_owned()).or_default().push(note.to_owned());
        }
    }
    noted
}

fn path(home: &Home, number: u64) -> PathBuf {
    home.index().join(format!("{STEM}{number}"))
}

fn numbers(home: &Home) -> Vec<u64> {
    let entries = fs::read_dir(home.index()).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix(STEM)?.parse().ok();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(number)).collect()
}

/// Puts a whole file under a number that no other has.
fn link(home: &Home, number: u64, text: &[u8]) -> io::Result<()> {
    durable::create_dir_all(&home.index())?;
    let temporary = home.index().join(format!(".tmp-{}", claim::nonce()?));
    let linked =
        fs::write(&temporary, text).and_then(|()| fs::hard_link(&temporary, path(home, number)));
    drop(fs::remove_file(&temporary));
    linked
}

/// 64 bits find any accident.
fn checksum(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..16].to_owned()
}

/// Whether the checksum of the first line is that of the others.
fn is_sealed(text: &str) -> bool {
    let Some((head, body)) = text.split_once('\n') else { return false };
    head.strip_prefix(FORMAT).map(str::trim_start) == Some(&checksum(body.as_bytes()))
}

fn body(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, body)| body)
}

fn entry(line: &str) -> Option<IndexEntry<'_>> {
    let (id, rest) = line.split_once(' ')?;
    let (state, rest) = rest.split_once(' ')?;
    let (row, facts) = rest.split_once('\t')?;
    Some(IndexEntry { id, state: State::from_word(state)?, row, facts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines<'a>(ids: &[&'a str]) -> Vec<NewEntry<'a>> {
        let line =
            |id| NewEntry { id, state: State::Completed, row: "{}".into(), facts: "{}".into() };
        ids.iter().map(|&id| line(id)).collect()
    }

    fn ids(index: &Index) -> Vec<&str> {
        index.entries().map(|entry| entry.id).collect()
    }

    #[test]
    fn an_index_never_takes_back_what_another_one_knew() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let first = Index::read(&home);
        assert!(first.replace(&home, lines(&["a-00000001"]).into_iter()));
        assert!(
            !first.replace(&home, lines(&["b-00000002"]).into_iter()),
            "another one was faster"
        );
        let (second, slow) = (Index::read(&home), Index::read(&home));
        assert_eq!(ids(&second), ["a-00000001"]);
        assert!(second.replace(&home, lines(&["a-00000001", "c-00000003"]).into_iter()));
        assert!(!slow.replace(&home, lines(&["a-00000001"]).into_iter()));
        assert_eq!(ids(&Index::read(&home)), ["a-00000001", "c-00000003"]);
        assert_eq!(fs::read_dir(home.index()).unwrap().count(), 1, "older ones are removed");
        // A damaged one is replaced by the next.
        fs::write(path(&home, 1), "nemo-index 3 0\na-00000001 completed {}\t{}\n").unwrap();
        assert!(ids(&Index::read(&home)).is_empty());
        assert!(Index::read(&home).replace(&home, lines(&["d-00000004"]).into_iter()));
        assert_eq!(ids(&Index::read(&home)), ["d-00000004"]);
    }

    #[test]
    fn a_row_tells_at_its_end_whether_it_is_archived() {
        let check = |archived: bool, metadata: &str, slurm_job: &str| {
            let row = format!(
                r#"{{"state":"failed","as_of":1,"trials":{{}},"best":null,"tags":[],"metadata":{metadata},"ended":null,"archived":{archived}{slurm_job}}}"#
            );
            let entry = IndexEntry { id: "a-1", state: State::Failed, row: &row, facts: "{}" };
            assert_eq!(entry.is_archived(), archived, "{row}");
        };
        for archived in [true, false] {
            for metadata in ["{}", r#"{"x":1,"archived":true}"#, r#"{"x":",\"archived\":true}"}"#] {
                check(archived, metadata, "");
                check(archived, metadata, r#","slurm_job":7"#);
            }
        }
        let row = r#"{"archived":true,"state":"failed","as_of":1,"trials":{},"best":null,"tags":[],"ended":null,"metadata":{"x":1,"archived":false}}"#;
        let entry = IndexEntry { id: "a-1", state: State::Failed, row, facts: "{}" };
        assert!(entry.is_archived(), "in another order");
    }

    #[test]
    fn a_mark_stays_until_its_note_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        let id: ExperimentId = "a-00000001".parse().unwrap();
        for note in ["1000.000000-login1-7-0.json", "2000.000000-login1-7-0.json"] {
            mark_as_noted(&home, &id, note).unwrap();
        }
        let index = Index::read(&home);
        assert!(index.is_noted(id.as_str()) && !index.is_noted("a-00000002"));
        index.remove_marks(&home, 2000.0, |_, note| note.starts_with("2000"));
        assert_eq!(Index::read(&home).noted[id.as_str()], ["1000.000000-login1-7-0.json"]);
        index.remove_marks(&home, 1001.0 + A_DAY, |_, _| false);
        assert!(!Index::read(&home).has_marks());
    }
}
