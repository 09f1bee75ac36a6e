//! `trainer_state.json` of Transformers: the history of a training up to the checkpoint that it is part of.

use std::io::{self, Read};
use std::path::Path;

use nemo_core::open;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LeftOut, Take, WrittenValue};

/// A longer history is not read into memory.
const MAX_FILE_BYTES: u64 = 128 << 20;

#[derive(Deserialize)]
struct TrainerState {
    #[serde(default)]
    log_history: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
struct TrainerProgress {
    #[serde(default)]
    global_step: u64,
}

/// Calls a function with each value of the history.
pub(super) fn each(path: &Path, take: Take<'_>) -> io::Result<LeftOut> {
    let Some(text) = text_of(path, MAX_FILE_BYTES)? else {
        return Ok(vec!["is damaged: it is too large for a history".to_owned()]);
    };
    each_entry(&text, take)
}

/// The same for any text.
pub fn each_entry(text: &[u8], take: Take<'_>) -> io::Result<LeftOut> {
    let Ok(state) = serde_json::from_slice::<TrainerState>(text) else {
        return Ok(vec!["is damaged: it is no whole JSON".to_owned()]);
    };
    for entry in state.log_history {
        let step = entry.get("step").and_then(Value::as_u64);
        for (metric, value) in entry {
            if metric == "step" || metric == "epoch" || !(value.is_number() || value.is_null()) {
                continue;
            }
            take(WrittenValue { metric, step, time: None, value: value.as_f64() })?;
        }
    }
    Ok(Vec::new())
}

/// The text of a file; none of one that is too large.
fn text_of(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    let file = open::to_read(path)?;
    if file.metadata()?.len() > longest {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(longest).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// The step of the whole; nothing of a file that can't be read.
pub(super) fn global_step(path: &Path) -> Option<u64> {
    let text = text_of(path, MAX_FILE_BYTES).ok()??;
    serde_json::from_slice::<TrainerProgress>(&text).ok().map(|progress| progress.global_step)
}

#[cfg(test)]
mod tests {
    use nemo_core::durable;

    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trainer_state.json");
        durable::write_synced(&path, b"{\"global_step\": 7}").unwrap();
        assert_eq!(global_step(&path), Some(7));
        assert_eq!(text_of(&path, 17).unwrap(), None);
        // A hole needs no room on the disk.
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_FILE_BYTES + 1)
            .unwrap();
        assert_eq!(global_step(&path), None);
    }
}
