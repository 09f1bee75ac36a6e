//! Whether the files of a retry are as they were submitted: a damaged one would end every attempt before it begins.

use std::collections::BTreeSet;
use std::path::Path;

use nemo_core::rundir::{TaskSpec, trials};
use nemo_core::{checksum, open};

use crate::commands::generation::ChosenTrials;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::store::Stored;

/// Fails with the name of a damaged file.
pub(super) fn require(stored: &Stored, chosen: &ChosenTrials) -> Result<(), CommandError> {
    for (task, wanted) in chosen {
        let task = stored.dir.task(task);
        let path = task.spec();
        let text = open::read(&path).at("read", &path)?;
        if let Err(why) = checksum::from_slice::<TaskSpec>(&text) {
            return Err(damaged(stored, &path, &why.to_string()));
        }
        let path = task.trial_lines();
        let lines = trials::read_all(&path).at("read", &path)?;
        let known: BTreeSet<u32> = lines.rows.iter().map(|line| line.trial).collect();
        if let Some(trial) = wanted.iter().find(|trial| !known.contains(trial)) {
            return Err(damaged(stored, &path, &format!("trial {trial} is not in it")));
        }
    }
    Ok(())
}

fn damaged(stored: &Stored, path: &Path, why: &str) -> CommandError {
    let text = format!("`{}` is damaged: {why}", path.display());
    CommandError::new(ExitCode::Refused, text).hinted(format!(
        "nothing of this task can be started again: correct your file in `{}` if need be, and submit it as a new experiment",
        stored.experiment.workdir.display()
    ))
}
