//! Where a program looks for its checkpoint by itself (`checkpoint.restore_to`). Only what is in the copy can be prepared. Pure.

use std::path::{Path, PathBuf};

use nemo_core::rundir::TaskSpec;

use crate::error::{CommandError, ExitCode};

/// A place outside of the copy, which stays as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnPlace(PathBuf);

impl OwnPlace {
    /// None where the program is given its checkpoint, or looks for it in its trial's folder.
    pub(super) fn of(spec: &TaskSpec) -> Option<Self> {
        let target = spec.checkpoint.restore_to.as_deref()?;
        let is_relative = Path::new(target).is_relative();
        // With a package, the working folder is the trial's own.
        let is_in_copy = target.starts_with("{dir}") || (is_relative && spec.package.is_some());
        (!is_in_copy).then(|| Self(spec.workdir.join(target)))
    }
}

/// From where the program goes on.
pub(super) fn description(OwnPlace(place): &OwnPlace) -> String {
    format!("from what is at `{}`, where it looks for its checkpoint by itself", place.display())
}

/// Another checkpoint can't be put there: the next attempt of the trial begins from what is there, too.
pub(super) fn refused(OwnPlace(place): &OwnPlace, step: u64, from: &Path) -> CommandError {
    let text = format!(
        "the program looks for its checkpoint at `{}` by itself, which `debug` does not change",
        place.display()
    );
    CommandError::new(ExitCode::Usage, text).hinted(format!(
        "the checkpoint of step {step} is `{}`: run a command that reads it, behind `--`, without `--step`",
        from.display()
    ))
}
