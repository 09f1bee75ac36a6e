//! `index/experiments`: a line for each experiment that is over, so that a list reads one file instead of ten thousand.
//!
//! ```text
//! nemo-index 1 <checksum of what follows>
//! <id> <state> <the experiment as `list --json` shows it, but for its folder>
//! ```
//!
//! The lines are in the order of age. Nothing in them can change; only the names of experiments say whether one is
//! missing, or was deleted.

use std::borrow::Cow;
use std::path::PathBuf;

use nemo_core::durable;

use crate::status::State;
use crate::store::{ExperimentId, Home};

const FORMAT: &str = "nemo-index 1";

/// The index as it was read.
#[derive(Debug, Default)]
pub struct Index {
    text: String,
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
}

impl IndexEntry<'_> {
    /// What sorts it among ids, as [`ExperimentId::age`] does.
    #[must_use]
    pub fn age(&self) -> (&str, &str) {
        (self.id.rsplit_once('-').map_or("", |(_, key)| key), self.id)
    }
}

impl Index {
    /// Reads it; empty where there is none, or where it is damaged: then it is made again.
    #[must_use]
    pub fn read(home: &Home) -> Self {
        let text = std::fs::read(path(home)).ok().and_then(|text| String::from_utf8(text).ok());
        text.and_then(|text| unseal(&text).is_some().then_some(Self { text })).unwrap_or_default()
    }

    /// Its lines, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = IndexEntry<'_>> {
        unseal_unchecked(&self.text).lines().filter_map(entry)
    }
}

/// Replaces it whole. A failure costs time at the next list, no more.
pub fn write_index<'a>(
    home: &Home,
    lines: impl Iterator<Item = (ExperimentId, State, Cow<'a, str>)>,
) {
    let mut body = String::new();
    for (id, state, row) in lines {
        body.extend([id.as_str(), " ", state.as_str(), " ", &row, "\n"]);
    }
    let text = format!("{FORMAT} {}\n{body}", checksum(body.as_bytes()));
    let path = path(home);
    let folder = path.parent().map_or(Ok(()), durable::create_dir_all);
    drop(folder.and_then(|()| durable::replace_file(&path, text.as_bytes())));
}

fn path(home: &Home) -> PathBuf {
    home.index().join("experiments")
}

/// 64 bits find any accident.
fn checksum(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..16].to_owned()
}

/// The lines after the first, if its checksum is theirs.
fn unseal(text: &str) -> Option<&str> {
    let (head, body) = text.split_once('\n')?;
    let sum = head.strip_prefix(FORMAT)?.trim_start();
    (sum == checksum(body.as_bytes())).then_some(body)
}

fn unseal_unchecked(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, body)| body)
}

fn entry(line: &str) -> Option<IndexEntry<'_>> {
    let (id, rest) = line.split_once(' ')?;
    let (state, row) = rest.split_once(' ')?;
    Some(IndexEntry { id, state: State::from_word(state)?, row })
}
