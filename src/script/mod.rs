//! From a job array to the text of its `sbatch` script: the only place that puts a value into shell text. Pure.

mod word;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::experiment::{Launch, SlurmExecutor, Task};
use crate::plan::{JobArray, Relation};
use crate::slurm::id::JobId;
use nemo_core::duration::slurm_time;

pub use word::{shell_word, unquoted_filename};

/// What a script needs to know beyond its array.
#[derive(Debug)]
pub struct ScriptContext<'a> {
    /// The experiment's id, part of the job's name.
    pub experiment: &'a str,
    /// The task that the array belongs to.
    pub task: &'a Task,
    /// Where the task runs.
    pub executor: &'a SlurmExecutor,
    /// `tasks/<task>/`, as the compute nodes see it.
    pub task_dir: &'a Path,
    /// Slurm's own output goes here.
    pub output_dir: PathBuf,
    /// `nemo-harness`, as the compute nodes see it.
    pub harness: &'a Path,
    /// The file in `task_dir` that the harness reads instead of `task.json`.
    pub spec: Option<&'a str>,
}

/// The name by which an array is found again when `sbatch`'s answer was lost. Unique: the experiment's id is.
#[must_use]
pub fn token(experiment: &str, task: &str, array: usize) -> String {
    format!("{experiment}.{task}.{array}")
}

/// The script of one job array, for bash: other shells drop the functions that an environment may hold. Ready for `sbatch`. Its dependencies and its hold are given on the command line,
/// since they are not known before the parents are in.
#[must_use]
pub fn script(array: &JobArray, setting: &ScriptContext<'_>) -> String {
    let mut text = String::from("#!/bin/bash\n");
    for (option, value) in options(array, setting) {
        text.push_str("#SBATCH --");
        text.push_str(&option);
        if !value.is_empty() {
            text.push('=');
            text.push_str(&directive_value(&value));
        }
        text.push('\n');
    }
    let harness = shell_word(&setting.harness.to_string_lossy());
    let task = shell_word(&setting.task_dir.to_string_lossy());
    text.push_str("# The harness is the batch process: signals reach it first.\n");
    text.push_str(&["exec", &harness, "run --task-dir", &task, "--offset"].join(" "));
    let spec =
        setting.spec.map_or_else(String::new, |spec| format!(" --spec {}", shell_word(spec)));
    text.push_str(&[" ", &array.offset.to_string(), &spec, "\n"].concat());
    text
}

/// The options of a script in their order. An empty value is a flag.
fn options(array: &JobArray, setting: &ScriptContext<'_>) -> Vec<(String, String)> {
    let executor = setting.executor;
    let throttle = array.throttle.map_or_else(String::new, |throttle| format!("%{throttle}"));
    let output = unquoted_filename(&setting.output_dir.to_string_lossy());
    let mut options = vec![
        ("job-name", token(setting.experiment, &setting.task.name, array.index)),
        ("array", format!("{}{throttle}", array.indices())),
        ("output", format!("{output}/%A_%a.out")),
        ("open-mode", "append".to_owned()),
        ("requeue", String::new()),
        ("signal", format!("B:USR1@{}", setting.task.checkpoint.lead)),
    ];
    if executor.surroundings.export.is_some() {
        // Slurm then gives the job the environment of a login on the node.
        options.push(("export", "NONE".to_owned()));
    }
    options.extend(processes(setting));
    let given = [
        ("partition", executor.partition.clone()),
        ("gpus-per-node", executor.gpus_per_node.clone()),
        ("cpus-per-task", executor.cpus_per_task.map(|n| n.to_string())),
        ("mem", executor.mem.clone()),
        ("time", executor.time.map(slurm_time)),
    ];
    options.extend(given.into_iter().filter_map(|(option, value)| Some((option, value?))));
    let further = executor.sbatch.iter().map(|(option, value)| (option.clone(), value.clone()));
    options.into_iter().map(|(option, value)| (option.to_owned(), value)).chain(further).collect()
}

/// How many nodes and processes a trial has. `torchrun` is one process on each node.
fn processes(setting: &ScriptContext<'_>) -> Vec<(&'static str, String)> {
    let executor = setting.executor;
    let nodes = executor.nodes.map_or(1, NonZeroU32::get);
    let tasks = match setting.task.launch {
        Some(Launch::Torchrun { .. }) => 1,
        None => executor.tasks_per_node.map_or(1, NonZeroU32::get),
    };
    let all = nodes.saturating_mul(tasks);
    let mut options = vec![("nodes", nodes.to_string()), ("ntasks", all.to_string())];
    if all > 1 {
        options.push(("ntasks-per-node", tasks.to_string()));
    }
    options
}

/// What `sbatch` gets on its command line for an array. `submitted` are the jobs of the plan's earlier arrays, by index.
#[must_use]
pub fn arguments(array: &JobArray, submitted: &BTreeMap<usize, JobId>) -> Vec<String> {
    let mut arguments = Vec::new();
    if array.held {
        arguments.push("--hold".to_owned());
    }
    let dependency = dependency(array, submitted);
    if !dependency.is_empty() {
        arguments.push(format!("--dependency={dependency}"));
        // Else a child whose parent failed stays pending for ever.
        arguments.push("--kill-on-invalid-dep=yes".to_owned());
    }
    arguments
}

/// `afterok:1:2,afterany:3`: kinds in the order in which they first occur.
fn dependency(array: &JobArray, submitted: &BTreeMap<usize, JobId>) -> String {
    let own = array.after.iter().map(|edge| (edge.on, submitted[&edge.array].to_string()));
    let outside = array.outside.iter().map(|edge| (edge.on, edge.job.clone()));
    let open = array.behind.iter().chain(&array.after_jobs);
    let open = open.map(|job| (Relation::AfterAny, job.clone()));
    let mut groups: Vec<(Relation, Vec<String>)> = Vec::new();
    for (on, id) in own.chain(outside).chain(open) {
        match groups.iter_mut().find(|(known, _)| *known == on) {
            Some((_, ids)) => ids.push(id),
            None => groups.push((on, vec![id])),
        }
    }
    groups.iter().map(dependency_of_kind).collect::<Vec<_>>().join(",")
}

/// One kind of dependency with all its jobs, as in `afterok:1:2`.
fn dependency_of_kind((on, ids): &(Relation, Vec<String>)) -> String {
    match on {
        Relation::AfterOk => format!("afterok:{}", ids.join(":")),
        Relation::AfterNotOk => format!("afternotok:{}", ids.join(":")),
        Relation::AfterAny => format!("afterany:{}", ids.join(":")),
        Relation::AfterCorr => format!("aftercorr:{}", ids.join(":")),
        Relation::AnyAfterNotOk => {
            let alternatives: Vec<String> =
                ids.iter().map(|id| format!("afternotok:{id}")).collect();
            alternatives.join("?")
        }
    }
}

/// A value as `#SBATCH` lines read it: split at blanks unless quoted, ended by `#`.
fn directive_value(value: &str) -> String {
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:,%=@+[]*&|!()".contains(c)) {
        return value.to_owned();
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests;
