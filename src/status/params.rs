//! What each trial was given: only `trials.jsonl` tells, and no state follows from it.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use nemo_core::lines::Lines;
use nemo_core::rundir::{Params, TrialLine};

use super::Status;
use crate::humanize::count;

/// Tells the trials of a task what each was given, as `trials.jsonl` at `path` has it. What is missing or damaged there is
/// named in the warnings.
pub fn set_params(
    status: &mut Status,
    task: &str,
    path: &Path,
    read: io::Result<Lines<TrialLine>>,
) {
    let Some(task) = status.tasks.iter_mut().find(|known| known.name == task) else { return };
    let lines = match read {
        Ok(lines) => lines,
        Err(error) => {
            return status.warnings.push(format!("can't read `{}`: {error}", path.display()));
        }
    };
    let damage = lines.damage(path).map(|damage| damage.to_string());
    let mut known: HashMap<u32, Params> =
        lines.rows.into_iter().map(|line| (line.trial, line.params)).collect();
    for trial in &mut task.trials {
        trial.params = known.remove(&trial.index);
    }
    let missing = task.trials.iter().filter(|trial| trial.params.is_none()).count();
    let is_short = || {
        let trials = count(missing, "trial");
        format!("`{}` is damaged: it does not tell the parameters of {trials}", path.display())
    };
    status.warnings.extend(damage.or_else(|| (missing > 0).then(is_short)));
}
