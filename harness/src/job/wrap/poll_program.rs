//! Which `nemo-slurm` the guard of a killed harness starts, to have a wrapped job requeued.

use std::fs;
use std::path::{Path, PathBuf};

use nemo_core::rundir::{PollFrequency, PollSpec};
use nemo_core::trust;

use crate::os::log::log_stderr;

/// The `nemo-slurm` that lies beside this program. None where others could have put it there: the guard starts it as the
/// user whose job this is.
pub(super) fn find() -> Option<PollSpec> {
    let harness = std::env::current_exe().ok()?;
    let folder = harness.parent()?;
    let program = newest_beside(folder)?;
    if let Err(why) = require_safe(folder, &program) {
        log_stderr(&format!(
            "`{}` is not run: {why}. If the harness of this job is killed, the job is not requeued",
            program.display()
        ));
        return None;
    }
    let at_ends = PollFrequency::Never;
    Some(PollSpec { program, harness, at_ends, at_restarts: false })
}

/// Of the copies of several versions, the one that came last.
fn newest_beside(folder: &Path) -> Option<PathBuf> {
    let named = |name: &str| name == "nemo-slurm" || name.starts_with("nemo-slurm-");
    let entries = fs::read_dir(folder).ok()?.flatten();
    let own = entries.filter(|entry| entry.file_name().to_str().is_some_and(named));
    let newest = own.max_by_key(|entry| entry.metadata().and_then(|file| file.modified()).ok())?;
    Some(newest.path())
}

fn require_safe(folder: &Path, program: &Path) -> Result<(), String> {
    trust::require_safe_folder(folder).map_err(|why| why.to_string())?;
    match program.symlink_metadata() {
        Ok(file) if trust::is_ours(&file) => Ok(()),
        Ok(_) => Err("other users can write to it or own it, or it is a link".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
