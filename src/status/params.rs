//! What each trial was given: only `trials.jsonl` tells, and no state follows from it.

use std::io;
use std::path::{Path, PathBuf};

use nemo_core::lines::Lines;
use nemo_core::rundir::TrialLine;

use super::{Status, TaskStatus};
use crate::humanize::count;

/// The `trials.jsonl` of a task.
#[derive(Debug)]
pub struct TaskParams {
    /// The task.
    pub task: String,
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub lines: io::Result<Lines<TrialLine>>,
}

/// Tells the trials of a status what each was given. What is missing or damaged is named in the warnings.
pub fn set_params(status: &mut Status, params: Vec<TaskParams>) {
    for TaskParams { task, path, lines } in params {
        let Some(task) = status.tasks.iter_mut().find(|known| known.name == task) else { continue };
        let warning = match lines {
            Ok(lines) => set_params_of(task, &path, lines),
            Err(error) => Some(format!("can't read `{}`: {error}", path.display())),
        };
        status.warnings.extend(warning);
    }
}

/// The same for one task. Returns what is missing or damaged.
fn set_params_of(task: &mut TaskStatus, path: &Path, lines: Lines<TrialLine>) -> Option<String> {
    let damage = lines.damage(path).map(|damage| damage.to_string());
    let mut rows = lines.rows;
    rows.sort_by_key(|line| line.trial);
    let mut rows = rows.into_iter().peekable();
    // Both are in the order of the trials.
    for trial in &mut task.trials {
        while rows.next_if(|line| line.trial < trial.index).is_some() {}
        trial.params = rows.next_if(|line| line.trial == trial.index).map(|line| line.params);
    }
    let missing = task.trials.iter().filter(|trial| trial.params.is_none()).count();
    let is_short = || {
        let trials = count(missing, "trial");
        format!("`{}` is damaged: it does not tell the parameters of {trials}", path.display())
    };
    damage.or_else(|| (missing > 0).then(is_short))
}
