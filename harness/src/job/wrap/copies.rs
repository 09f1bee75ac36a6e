//! A copy of a wrapped job's folder: what in it would still tell of the original is taken away.

use std::fs;
use std::io;
use std::path::Path;

use nemo_core::rundir::ExperimentDir;

use super::folder::TASK;
use super::own_job::OwnJob;
use crate::attempt::lease;

/// Takes from a copy what leads to the jobs and processes of the original: without it, `cancel` and the next attempt would
/// end those. The tasks of an array may do so at the same time.
pub(super) fn forget_original(dir: &Path, id: &str, job: Option<&OwnJob>) -> io::Result<()> {
    let dir = ExperimentDir(dir.to_owned());
    for trial in fs::read_dir(dir.task(TASK).trials()).into_iter().flatten() {
        lease::remove_of_others(&trial?.path(), job.map(|job| &*job.number))?;
    }
    let journal = dir.journal();
    let kept = journal.with_file_name(format!("journal.jsonl.{id}"));
    match fs::hard_link(&journal, kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for path in [journal, dir.summary(), dir.0.join("observed.json")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
