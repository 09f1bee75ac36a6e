//! `trials.jsonl`: one line a trial, in the order of their indices. Nothing else lists trials.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checksum;
use crate::lines::{self, Lines};

/// Parameters by name, in the order of names; a nested table is a JSON object.
pub type Params = serde_json::Map<String, serde_json::Value>;

/// One point of a task's search space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialLine {
    /// Its index in the task, from 0.
    pub trial: u32,
    /// Its parameters; empty for a task without a search space.
    pub params: Params,
}

/// Reads the line of one trial and nothing after it.
pub fn read_one(path: &Path, index: u32) -> io::Result<TrialLine> {
    let reader = BufReader::new(std::fs::File::open(path)?);
    let missing = || {
        let text = format!("`{}` has no trial {index}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let line = reader.lines().nth(index as usize).ok_or_else(missing)??;
    let trial: TrialLine = checksum::from_slice(line.as_bytes())?;
    if trial.trial == index { Ok(trial) } else { Err(missing()) }
}

/// Reads the lines of all trials. The file was written whole before any trial ran: that it is not there is an error.
pub fn read_all(path: &Path) -> io::Result<Lines<TrialLine>> {
    Ok(lines::parse(&crate::open::read(path)?))
}
