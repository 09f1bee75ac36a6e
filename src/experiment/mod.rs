//! What a user wrote, resolved: every default filled, every name checked, every trial counted. Pure.
//!
//! An [`Experiment`] can only come from [`load`] or from an `experiment.json` that [`load`] led to.

mod checkpoint;
mod executors;
mod gpus;
mod graph;
mod grid;
mod load;
mod log_policy;
mod names;
mod overrides;
mod parameters;
mod problem_report;
mod problems;
mod reader;
mod references;
mod sbatch;
mod search_space;
mod source;
mod synonyms;
mod syntax;
mod tasks;
mod toml_tree;
mod trial_list;
mod units;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use nemo_core::rundir::{CheckpointSpec, CommandSpec, LogPolicy, Params, Profile, RestartSpec};
use serde::{Deserialize, Serialize};

pub use load::load;
pub use overrides::{Override, OverrideError};
pub use problems::{Problem, Problems};

/// More trials of a task than this are a slip of the pen, or a wish that no cluster grants.
const MOST_TRIALS: u32 = 1_000_000;
/// The option of `sbatch` that names a cluster.
const CLUSTERS: &str = "clusters";

/// What a file comes to: the experiment, which does not grow with its trials, and what each of its trials is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The experiment.
    pub experiment: Experiment,
    /// The parameters of its trials.
    pub params: TrialParams,
}

/// The parameters of every trial in order, by task. Once submitted they lie in each task's `trials.jsonl`, and nowhere else.
pub type TrialParams = BTreeMap<String, Vec<Params>>;

/// A whole experiment. It serialises as `experiment.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its name, not unique: the newest of a name is found by it.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// For search.
    pub tags: Vec<String>,
    /// Free key-value pairs for search.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Seconds for the whole experiment, from its submission.
    pub timeout: Option<u64>,
    /// Every random choice follows from it; a trial's own is this plus its index.
    pub seed: u64,
    /// Where programs run when the code is not packaged: the folder of `exp.toml`.
    pub workdir: std::path::PathBuf,
    /// The executors that tasks name.
    pub executors: BTreeMap<String, Executor>,
    /// In an order in which every task comes after those it depends on; else as written.
    pub tasks: Vec<Task>,
}

impl Experiment {
    /// The cluster that has its jobs, where that is another one than this machine's.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.executors.values().find_map(|executor| match executor {
            Executor::Slurm(slurm) => slurm.sbatch.get(CLUSTERS).map(String::as_str),
            Executor::Local(_) => None,
        })
    }

    /// Puts the jobs of its Slurm executors on a cluster, where the file names none.
    pub fn set_cluster(&mut self, name: &str) {
        for executor in self.executors.values_mut() {
            if let Executor::Slurm(slurm) = executor {
                slurm.sbatch.entry(CLUSTERS.to_owned()).or_insert_with(|| name.to_owned());
            }
        }
    }

    /// What can't be in an experiment that [`load`] led to: somebody changed its file.
    #[must_use]
    pub fn inconsistency(&self) -> Option<String> {
        let of_task = |(place, task): (usize, &Task)| {
            let is_before = |edge: &&Dependency| {
                self.tasks[..place].iter().any(|earlier| earlier.name == edge.task)
            };
            let unknown = task.after.iter().find(|edge| !is_before(edge));
            if !self.executors.contains_key(&task.executor) {
                Some(format!("task `{}` names an unknown executor: `{}`", task.name, task.executor))
            } else if let Some(edge) = unknown {
                Some(format!(
                    "task `{}` waits for a task that is not before it: `{}`",
                    task.name, edge.task
                ))
            } else if !(1..=MOST_TRIALS).contains(&task.n_trials) {
                Some(format!("task `{}` can't have {} trials", task.name, task.n_trials))
            } else {
                None
            }
        };
        self.tasks.iter().enumerate().find_map(of_task)
    }

    /// How many trials all of its tasks have.
    #[must_use]
    pub fn n_trials(&self) -> usize {
        self.tasks.iter().map(|task| task.n_trials as usize).sum()
    }

    /// Every task that one waits for, directly or not, and whether it does so `per_trial`: those are the tasks that its
    /// command may name, and `true` is where `{task.dir}` is the folder of the same trial.
    pub fn upstream(&self, task: &str) -> BTreeMap<&str, bool> {
        let after = |name: &str| {
            let task = self.tasks.iter().find(|task| task.name == name);
            let after = task.map(|task| task.after.as_slice()).unwrap_or_default();
            after.iter().map(|edge| (edge.task.as_str(), edge.on))
        };
        let own = self.tasks.iter().find(|other| other.name == task);
        own.map(|own| graph::upstream(&own.name, after)).unwrap_or_default()
    }
}

/// A node of the experiment's graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its name, unique in the experiment, and the name of its folder.
    pub name: String,
    /// A key of [`Experiment::executors`].
    pub executor: String,
    /// The command, its placeholders checked but not filled.
    pub run: CommandSpec,
    /// What it waits for.
    pub after: Vec<Dependency>,
    /// How many trials it has. Never 0; without a search space it is one, without parameters.
    pub n_trials: u32,
    /// How many trials may run at once.
    pub concurrent: Option<NonZeroU32>,
    /// The metric that ranks the trials.
    pub metric: Option<String>,
    /// Which way the metric is better.
    pub goal: Goal,
    /// How the program is asked to save.
    pub checkpoint: CheckpointSpec,
    /// When a trial is given up.
    pub restart: RestartSpec,
    /// Metrics by pattern.
    pub metrics: BTreeMap<String, String>,
    /// What lines of the output lead to.
    #[serde(default)]
    pub log_policy: Vec<LogPolicy>,
    /// Which trainer's convention its program follows.
    pub profile: Option<Profile>,
    /// What starts the processes of a trial, where the program does not do it itself.
    #[serde(default)]
    pub launch: Option<Launch>,
}

/// What starts the processes of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Launch {
    /// PyTorch's `torchrun`, once on each node.
    Torchrun {
        /// How many workers each starts; as many as the node's GPUs where none is given.
        workers_per_node: Option<NonZeroU32>,
    },
}

/// One edge of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The task waited for.
    pub task: String,
    /// What must have become of it.
    pub on: On,
}

/// What must have become of a task for its dependents to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Every trial completed: `afterok`.
    Ok,
    /// A trial failed: `afternotok`.
    Failed,
    /// All are over: `afterany`.
    Any,
    /// Trial by trial: `aftercorr`.
    Each,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Smaller is better.
    Min,
    /// Larger is better.
    Max,
}

/// Where tasks run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Executor {
    /// Through Slurm.
    Slurm(SlurmExecutor),
    /// As processes of this machine.
    Local(LocalExecutor),
}

/// What `sbatch` is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlurmExecutor {
    /// Nodes of a trial; one where none is given.
    pub nodes: Option<NonZeroU32>,
    /// Processes of a trial on each node; one where none is given.
    pub tasks_per_node: Option<NonZeroU32>,
    /// `--partition`; the cluster's default where none is named.
    pub partition: Option<String>,
    /// `--gpus-per-node`, as `8` or `h100:8`.
    pub gpus_per_node: Option<String>,
    /// `--cpus-per-task`.
    pub cpus_per_task: Option<NonZeroU32>,
    /// `--mem`, as Slurm writes it (`8G`).
    pub mem: Option<String>,
    /// Seconds of one segment; the partition's default where none is given.
    pub time: Option<u64>,
    /// Any other long option of `sbatch`, without its dashes; an empty value is a flag.
    pub sbatch: BTreeMap<String, String>,
    /// What programs find in their environment.
    pub surroundings: EnvSpec,
}

/// The local executor's limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalExecutor {
    /// How many trials run at once; the number of processors where none is given.
    pub parallel: Option<NonZeroU32>,
    /// Seconds of one segment.
    pub time: Option<u64>,
    /// What programs find in their environment.
    pub surroundings: EnvSpec,
}

/// What programs find around them, on any executor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvSpec {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Names of variables that must be in the caller's environment, and are passed on.
    pub secrets: Vec<String>,
    /// Shell lines that run before the program.
    pub setup: Vec<String>,
    /// The variables of the caller's environment that are passed on, where not all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Vec<String>>,
}
