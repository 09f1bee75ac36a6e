//! What a user wrote, resolved: every default filled, every name checked, every trial counted. Pure.
//!
//! An [`Experiment`] can only come from [`load`] or from an `experiment.json` that [`load`] led to.

mod changes;
mod checkpoint;
mod config;
mod executors;
mod gpus;
mod graph;
mod grid;
mod growth;
mod load;
mod log_policy;
mod names;
mod notify;
mod outside;
mod overrides;
mod own_paths;
mod package;
mod parameters;
mod problem_report;
mod problems;
mod reader;
mod references;
mod rehearsal_rules;
mod retry_rules;
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

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;

use nemo_core::rundir::{
    CheckpointSpec, CommandSpec, LogPolicy, MetricSpec, Params, Profile, RestartSpec, Tracker,
};
use serde::{Deserialize, Serialize};

pub use changes::{ChangeError, ChangedKeys, RetryChange, changed, changed_config};
pub use config::ResolvedConfig;
pub use graph::TaskGraph;
pub use growth::{Growth, megabytes, memory_text, scaled};
pub use load::{load, load_in};
pub use names::check_tag;
pub use notify::{NoticeKind, NoticeScope, Notify, shown_url};
pub use outside::{Outside, OutsideDependency};
pub use overrides::{Override, OverrideError};
pub use package::{Dirty, PackageKeys, PackageSource};
pub use problems::{Problem, Problems};
pub use rehearsal_rules::RehearsalRules;
pub use retry_rules::{RetryRule, RetryRules, rule_for};
pub use sbatch::why_no_sbatch_option;

/// The most trials of a task. More are most likely a typing error, and no cluster would run them.
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
    /// The file as it holds, and where each key is from.
    pub config: ResolvedConfig,
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
    /// What all of it waits for: other experiments and jobs of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<OutsideDependency>,
    /// Who is told of its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// Every random choice follows from it; a trial's own is this plus its index.
    pub seed: u64,
    /// Which code is shipped with it.
    #[serde(default, skip_serializing_if = "PackageKeys::is_default")]
    pub package: PackageKeys,
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
        let mut before: HashSet<&str> = HashSet::new();
        self.tasks.iter().find_map(|task| {
            let unknown = task.after.iter().find(|edge| !before.contains(edge.task.as_str()));
            before.insert(&task.name);
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
        })
    }

    /// How many trials all of its tasks have.
    #[must_use]
    pub fn n_trials(&self) -> usize {
        self.tasks.iter().map(|task| task.n_trials as usize).sum()
    }

    /// Its tasks by their names, for who asks of many of them what they wait for.
    #[must_use]
    pub fn graph(&self) -> TaskGraph<'_> {
        TaskGraph(self.tasks.iter().map(|task| (task.name.as_str(), task)).collect())
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
    /// To which trackers its program reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<Tracker>,
    /// Which failures are retried by themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retry: RetryRules,
    /// What a rehearsal does not compare.
    #[serde(default, skip_serializing_if = "RehearsalRules::is_default")]
    pub rehearse: RehearsalRules,
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

impl Goal {
    /// Whether a value is better than another one.
    #[must_use]
    pub fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Self::Min => value < than,
            Self::Max => value > than,
        }
    }
}

impl Experiment {
    /// Whether a task runs on this machine.
    #[must_use]
    pub fn is_local(&self, task: &Task) -> bool {
        matches!(self.executors.get(&task.executor), Some(Executor::Local(_)))
    }

    /// Whether any task runs on this machine.
    #[must_use]
    pub fn has_local(&self) -> bool {
        self.tasks.iter().any(|task| self.is_local(task))
    }

    /// The most GPUs that trials on this machine have for themselves at once; none if no executor says so.
    #[must_use]
    pub fn gpus_per_trial(&self) -> Option<u32> {
        let local = self.executors.values().filter_map(|executor| match executor {
            Executor::Local(local) => Some((local.gpus_per_trial?.get(), local.parallel)),
            Executor::Slurm(_) => None,
        });
        local.map(|(gpus, at_once)| gpus.saturating_mul(at_once.map_or(1, NonZeroU32::get))).max()
    }

    /// The budgets of the executors that run its tasks, by their names.
    pub fn budgets(&self) -> impl Iterator<Item = (&str, Budget)> {
        let is_used = |name: &str| self.tasks.iter().any(|task| task.executor == name);
        self.executors
            .iter()
            .filter(move |(name, _)| is_used(name))
            .filter_map(|(name, executor)| Some((name.as_str(), executor.budget()?)))
    }

    /// Whether any task runs with a budget.
    #[must_use]
    pub fn has_budget(&self) -> bool {
        self.budgets().next().is_some()
    }

    /// Whether Slurm runs any task.
    #[must_use]
    pub fn has_slurm(&self) -> bool {
        self.tasks.iter().any(|task| !self.is_local(task))
    }
}

impl Task {
    /// What ranks its trials and checkpoints.
    #[must_use]
    pub fn metric_spec(&self) -> Option<MetricSpec> {
        let larger_is_better = self.goal == Goal::Max;
        self.metric.clone().map(|name| MetricSpec { name, larger_is_better })
    }
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

impl Executor {
    /// What its trials may use up.
    #[must_use]
    pub fn budget(&self) -> Option<Budget> {
        match self {
            Self::Slurm(slurm) => slurm.budget,
            Self::Local(local) => local.budget,
        }
    }

    /// What programs find in their environment.
    #[must_use]
    pub fn surroundings(&self) -> &EnvSpec {
        match self {
            Self::Slurm(slurm) => &slurm.surroundings,
            Self::Local(local) => &local.surroundings,
        }
    }
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
    /// What its trials may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What programs find in their environment.
    pub surroundings: EnvSpec,
}

/// What the trials of an executor may use up before all of them are paused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Hours of one GPU each.
    pub gpu_hours: f64,
}

impl Budget {
    /// The same in whole seconds.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    pub fn gpu_seconds(self) -> u64 {
        ((self.gpu_hours * 3600.0).round() as u64).max(1)
    }
}

/// The local executor's limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalExecutor {
    /// How many trials run at once; the number of processors where none is given.
    pub parallel: Option<NonZeroU32>,
    /// How many GPUs each trial has for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus_per_trial: Option<NonZeroU32>,
    /// Seconds of one segment.
    pub time: Option<u64>,
    /// What its trials may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
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
