//! What a user should know before an experiment is submitted, though nothing is wrong with its file.

use super::{App, prepare};
use crate::experiment::{Executor, Experiment, Task};
use crate::report::say;
use crate::slurm::{Cluster, ignored_defaults};

/// Says it on stderr.
pub(super) fn say_all(app: &App, experiment: &Experiment, cluster: Option<&Cluster>) {
    if !prepare::is_on_slurm(experiment) {
        return;
    }
    let names = app.variables.iter().filter_map(|(name, _)| name.to_str());
    let defaults = ignored_defaults(names).map(|warning| format!("warning: {warning}"));
    let short = cluster.map(|cluster| short_times(experiment, cluster)).unwrap_or_default();
    for warning in defaults.into_iter().chain(short) {
        say(&warning);
    }
}

/// Tasks that would be asked to save as soon as they start: their partition ends a job that asks for no time too early.
fn short_times(experiment: &Experiment, cluster: &Cluster) -> Vec<String> {
    let one = |task: &Task| {
        let Some(Executor::Slurm(slurm)) = experiment.executors.get(&task.executor) else {
            return None;
        };
        let lead = task.checkpoint.lead;
        let is_short =
            |time: Option<u64>| slurm.time.is_none() && time.is_some_and(|time| time <= lead);
        let mut meant = cluster.meant(slurm.partition.as_deref());
        let partition = meant.find(|partition| is_short(partition.default_time))?;
        let time = partition.default_time.unwrap_or_default();
        Some(format!(
            "warning: partition `{}` ends jobs without a `time` after {time} s, and `{}` is asked to save {lead} s before that: set `time` in executor `{}`",
            partition.name, task.name, task.executor
        ))
    };
    experiment.tasks.iter().filter_map(one).collect()
}
