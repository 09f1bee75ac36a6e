//! `summary.json`: written whole by whoever looked last, and read only if its checksum holds.

use std::io;
use std::path::Path;

use nemo_core::checksum::{self, Checksum};
use nemo_core::durable;
use nemo_core::open;
use nemo_core::rundir::{ExperimentDir, notes};
use serde::{Deserialize, Serialize};

use super::{InputVersions, Summary};

/// The number of the format.
const SCHEMA: u32 = 3;

#[derive(Serialize)]
struct SummaryFileRef<'a> {
    schema: u32,
    summary: &'a Summary,
}

#[derive(Deserialize)]
struct SummaryFile {
    schema: u32,
    summary: Summary,
}

/// What was known at the last look; nothing where nobody looked, or where the file is damaged: then it is made again.
#[must_use]
pub fn read(dir: &ExperimentDir) -> Option<Summary> {
    let text = open::read(&dir.summary()).ok()?;
    // Without its checksum it could be a wrong `final`, which would be believed for ever.
    let is_right = checksum::check(&text) == Checksum::Right;
    let file: SummaryFile = checksum::from_slice(&text).ok().filter(|_| is_right)?;
    (file.schema == SCHEMA).then_some(file.summary)
}

/// Keeps what is known now. A failure costs another look, no more.
pub fn keep(dir: &ExperimentDir, summary: &Summary) {
    drop(write(&dir.summary(), summary));
}

fn write(path: &Path, summary: &Summary) -> io::Result<()> {
    let mut line = checksum::to_vec(&SummaryFileRef { schema: SCHEMA, summary })?;
    line.push(b'\n');
    durable::replace_file(path, &line)
}

impl InputVersions {
    /// What is there now.
    #[must_use]
    pub fn of(dir: &ExperimentDir) -> Self {
        let size = |path| std::fs::metadata(path).map_or(0, |file| file.len());
        let requests = std::fs::read_dir(dir.requests()).map_or(0, Iterator::count);
        let (journal, runner) = (size(dir.journal()), size(dir.runner_log()));
        Self { journal, runner, requests, notes: notes::count(dir), slurm: None }
    }
}
