//! What a trial holds while it runs, and the unit in which an experiment's losses are told.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::experiment::{Executor, Experiment, Task};

/// What a trial of a task holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// How many nodes.
    pub nodes: u32,
    /// GPUs on all of them.
    pub gpus: u32,
    /// Cores on all of them.
    pub cores: u32,
    /// Whether nobody else may use its nodes.
    pub whole_nodes: bool,
}

/// In what losses are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Where any task asks for GPUs.
    #[serde(rename = "gpu-hours")]
    Gpu,
    /// Where any task has its nodes for itself, and none asks for GPUs.
    #[serde(rename = "node-hours")]
    Node,
    /// Else.
    #[serde(rename = "core-hours")]
    Core,
}

impl Unit {
    /// How many of them an hour of a trial is.
    #[must_use]
    pub fn of(self, resources: Resources) -> u32 {
        match self {
            Self::Gpu => resources.gpus,
            Self::Node => resources.nodes,
            Self::Core => resources.cores,
        }
    }

    /// An hour of one.
    #[must_use]
    pub fn one(self) -> &'static str {
        match self {
            Self::Gpu => "GPU-hour",
            Self::Node => "node-hour",
            Self::Core => "core-hour",
        }
    }

    /// Hours of them.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "GPU-hours",
            Self::Node => "node-hours",
            Self::Core => "core-hours",
        }
    }
}

/// The unit of a whole experiment.
#[must_use]
pub fn unit(experiment: &Experiment) -> Unit {
    let all = || experiment.tasks.iter().map(|task| resources(experiment, task));
    if all().any(|resources| resources.gpus > 0) {
        Unit::Gpu
    } else if all().any(|resources| resources.whole_nodes) {
        Unit::Node
    } else {
        Unit::Core
    }
}

/// What a trial of a task holds, as it was asked for. On the local executor each trial counts as one core.
#[must_use]
pub fn resources(experiment: &Experiment, task: &Task) -> Resources {
    let slurm = match experiment.executors.get(&task.executor) {
        Some(Executor::Slurm(slurm)) => slurm,
        Some(Executor::Local(local)) => {
            let gpus = local.gpus_per_trial.map_or(0, NonZeroU32::get);
            return Resources { nodes: 1, gpus, cores: 1, whole_nodes: false };
        }
        None => return Resources { nodes: 1, gpus: 0, cores: 1, whole_nodes: false },
    };
    let nodes = number(slurm.nodes);
    let gpus = slurm.gpus_of_a_trial();
    let tasks = number(slurm.tasks_per_node).saturating_mul(nodes);
    let cores = number(slurm.cpus_per_task).saturating_mul(tasks);
    // `--exclusive`, but not `--exclusive=user`, which shares them with one's own jobs.
    let whole_nodes = slurm.option("exclusive").is_some_and(str::is_empty);
    Resources { nodes, gpus, cores, whole_nodes }
}

fn number(number: Option<NonZeroU32>) -> u32 {
    number.map_or(1, NonZeroU32::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_holds_all_its_nodes() {
        let mut experiment =
            crate::plan::sample_experiment(vec![crate::plan::sample_task("t", 1, 0, &[])]);
        let slurm = crate::experiment::SlurmExecutor {
            nodes: NonZeroU32::new(4),
            tasks_per_node: NonZeroU32::new(2),
            cpus_per_task: NonZeroU32::new(6),
            gpus_per_node: Some("h100:8".to_owned()),
            ..Default::default()
        };
        let name = experiment.tasks[0].executor.clone();
        experiment.executors.insert(name, Executor::Slurm(slurm));
        let held = resources(&experiment, &experiment.tasks[0]);
        assert_eq!((held.nodes, held.gpus, held.cores), (4, 32, 48));
        assert_eq!(unit(&experiment), Unit::Gpu);
    }
}
