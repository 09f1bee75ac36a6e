//! From a task to what the harness must know of it. Pure.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use nemo_core::environment::InheritSpec;
use nemo_core::rundir::{
    Condition, ExperimentDir, InputSpec, LaunchSpec, MetricSpec, ParentSpec, TaskSpec,
};

use crate::experiment::{Dependency, Executor, Experiment, Goal, Launch, On, SlurmExecutor, Task};
use crate::slurm::Cluster;

/// What holds for the whole experiment.
#[derive(Debug)]
pub struct SubmitContext<'a> {
    /// The experiment's id.
    pub id: &'a str,
    /// Where it will lie.
    pub dir: &'a ExperimentDir,
    /// The resolved experiment.
    pub experiment: &'a Experiment,
    /// When it was submitted, in unix seconds.
    pub now: u64,
    /// What is known of the cluster, where Slurm runs any of it.
    pub cluster: Option<&'a Cluster>,
}

/// What the harness must know of one task.
#[must_use]
pub fn task_spec(task: &Task, around: &SubmitContext<'_>) -> TaskSpec {
    let (surroundings, time_limit, sentinel) = match &around.experiment.executors[&task.executor] {
        Executor::Slurm(slurm) => (
            &slurm.surroundings,
            None,
            around
                .cluster
                .is_some_and(|cluster| cluster.needs_sentinel(slurm.partition.as_deref())),
        ),
        Executor::Local(local) => (&local.surroundings, local.time, false),
    };
    TaskSpec {
        schema: 1,
        experiment: around.id.to_owned(),
        task: task.name.clone(),
        command: task.run.clone(),
        workdir: around.experiment.workdir.clone(),
        setup: surroundings.setup.clone(),
        env: surroundings.env.clone(),
        inherit: Some(InheritSpec {
            only: surroundings.export.clone(),
            secrets: surroundings.secrets.clone(),
        }),
        seed: around.experiment.seed,
        checkpoint: task.checkpoint.clone(),
        restart: task.restart.clone(),
        metrics: task.metrics.clone(),
        inputs: inputs(task, around),
        after: parents(task, around),
        sentinel,
        deadline: around.experiment.timeout.map(|timeout| around.now + timeout),
        kill_wait: around.cluster.map(|cluster| u64::from(cluster.kill_wait)),
        requeue_exit: around.cluster.and_then(|cluster| cluster.requeue_exit),
        time_limit,
        metric: task.metric.as_ref().map(|name| MetricSpec {
            name: name.clone(),
            larger_is_better: task.goal == Goal::Max,
        }),
        log_policy: task.log_policy.clone(),
        profile: task.profile,
        launch: launch(task, &around.experiment.executors[&task.executor]),
    }
}

/// The processes of a trial, where it has more than the program itself.
fn launch(task: &Task, executor: &Executor) -> Option<LaunchSpec> {
    let slurm = match executor {
        Executor::Slurm(slurm) => Some(slurm),
        Executor::Local(_) => None,
    };
    let nodes = slurm.and_then(|slurm| slurm.nodes).map_or(1, NonZeroU32::get);
    let tasks_per_node = slurm.and_then(|slurm| slurm.tasks_per_node).map(NonZeroU32::get);
    let gpus = slurm.and_then(SlurmExecutor::gpus_on_a_node);
    let workers = task.launch.map(|launch| match launch {
        Launch::Torchrun { workers_per_node } => {
            workers_per_node.map(NonZeroU32::get).or(gpus).unwrap_or(1)
        }
    });
    let is_one = nodes == 1 && tasks_per_node.is_none_or(|tasks| tasks == 1);
    (!is_one || workers.is_some()).then_some(LaunchSpec {
        nodes,
        tasks_per_node,
        torchrun: workers.is_some(),
        workers_per_node: workers,
    })
}

/// The tasks that this one waits for.
fn parents(task: &Task, around: &SubmitContext<'_>) -> Vec<ParentSpec> {
    let parent = |dependency: &Dependency| {
        let parent = around.experiment.tasks.iter().find(|task| task.name == dependency.task)?;
        Some(ParentSpec {
            task: parent.name.clone(),
            dir: around.dir.task(&parent.name).0,
            trials: parent.n_trials,
            on: match dependency.on {
                On::Ok => Condition::Ok,
                On::Each => Condition::Each,
                On::Failed => Condition::Failed,
                On::Any => Condition::Any,
            },
        })
    };
    task.after.iter().filter_map(parent).collect()
}

/// Every task that this one waits for, directly or not: those that its command may name.
fn inputs(task: &Task, around: &SubmitContext<'_>) -> BTreeMap<String, InputSpec> {
    let upstream = around.experiment.upstream(&task.name);
    let of = |parent: &Task| {
        let per_trial = *upstream.get(parent.name.as_str())?;
        let dir = around.dir.task(&parent.name).0;
        let input = InputSpec { dir, trials: parent.n_trials, per_trial };
        Some((parent.name.clone(), input))
    };
    around.experiment.tasks.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::On;
    use crate::plan::{sample_experiment, sample_task};

    /// `last` reaches `first` by two ways, one of which goes trial by trial: whichever is written first, its command
    /// gets the folder of the same trial.
    #[test]
    fn one_way_that_goes_trial_by_trial_is_enough() {
        use On::{Each, Ok};
        for last in [[("left", Each), ("right", Ok)], [("right", Ok), ("left", Each)]] {
            let experiment = sample_experiment(vec![
                sample_task("first", 3, 0, &[]),
                sample_task("left", 3, 0, &[("first", Each)]),
                sample_task("right", 3, 0, &[("first", Each)]),
                sample_task("last", 3, 0, &last),
            ]);
            let dir = ExperimentDir("/x".into());
            let around = SubmitContext {
                id: "x-1",
                dir: &dir,
                experiment: &experiment,
                now: 0,
                cluster: None,
            };
            let inputs = inputs(&experiment.tasks[3], &around);
            let per_trial: Vec<(&str, bool)> =
                inputs.iter().map(|(name, input)| (name.as_str(), input.per_trial)).collect();
            assert_eq!(per_trial, [("first", true), ("left", true), ("right", false)], "{last:?}");
        }
    }
}
