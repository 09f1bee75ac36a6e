//! What a program says by message of its result, kept in a file for the tasks that run after it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nemo_core::{durable, open};
use serde_json::{Map, Value};

use crate::job::trial::with_path;
use crate::os::log::log_stderr;
use crate::os::serial_queue::SerialQueue;

/// The most that a result may have. It is written whole whenever a part of it comes.
const MAX_RESULT_BYTES: usize = 1 << 20;

/// Adds values to those that were said before, in this attempt or an earlier one.
pub(super) fn add(records: &SerialQueue, path: PathBuf, values: Map<String, Value>) {
    if records.is_full() {
        return log_stderr("the program's result is not kept: the disk does not answer");
    }
    records.add(0, move || {
        if let Err(error) = merge(&path, values) {
            log_stderr(&format!("the program's result is not kept: {}", with_path(&path, &error)));
        }
    });
}

fn merge(path: &Path, values: Map<String, Value>) -> io::Result<()> {
    let before = match open::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text?,
    };
    // It is replaced whole: what can't be read is not ours.
    let mut all: Map<String, Value> = serde_json::from_slice(&before).unwrap_or_default();
    all.extend(values);
    let text = serde_json::to_vec(&all)?;
    if text.len() > MAX_RESULT_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    if text == before {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    durable::replace_file_durably(path, &text)
}
