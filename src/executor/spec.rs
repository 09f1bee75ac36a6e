//! From a task to what the harness must know of it. Pure.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use nemo_core::environment::InheritSpec;
use nemo_core::rundir::{
    Condition, ExperimentDir, InputSpec, LaunchSpec, ParentSpec, PollFrequency, PollSpec, TaskSpec,
};

use crate::experiment::{Executor, Experiment, Launch, On, SlurmExecutor, Task};
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
    /// Whether trials are left that are submitted later.
    pub has_more: bool,
    /// Whether its code was shipped with it.
    pub is_shipped: bool,
    /// The programs of its jobs, where they shall look after each other.
    pub programs: Option<JobPrograms<'a>>,
}

/// The programs in the home that jobs run.
#[derive(Clone, Copy, Debug)]
pub struct JobPrograms<'a> {
    /// `nemo-harness`.
    pub harness: &'a Path,
    /// `nemo-slurm`.
    pub nemo_slurm: &'a Path,
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
        metric: task.metric_spec(),
        log_policy: task.log_policy.clone(),
        profile: task.profile,
        launch: launch(task, &around.experiment.executors[&task.executor]),
        trackers: task.trackers.clone(),
        tags: if task.trackers.is_empty() { Vec::new() } else { around.experiment.tags.clone() },
        threads: threads(task, &around.experiment.executors[&task.executor]),
        poll: around.programs.and_then(|programs| poll(task, around, programs)),
        package: around.is_shipped.then(|| around.dir.package()),
        restart_from: None,
    }
}

/// The same task where a retry has changed keys of its executor, of `restart` or of `checkpoint`: all else stays as it was
/// submitted.
#[must_use]
pub fn changed_spec(before: TaskSpec, task: &Task, around: &SubmitContext<'_>) -> TaskSpec {
    let now = task_spec(task, around);
    TaskSpec {
        setup: now.setup,
        env: now.env,
        checkpoint: now.checkpoint,
        restart: now.restart,
        sentinel: now.sentinel,
        time_limit: now.time_limit,
        launch: now.launch,
        threads: now.threads,
        ..before
    }
}

/// What a job of the task starts at its end.
fn poll(task: &Task, around: &SubmitContext<'_>, programs: JobPrograms<'_>) -> Option<PollSpec> {
    let experiment = around.experiment;
    let on_slurm = matches!(experiment.executors[&task.executor], Executor::Slurm(_));
    let has_dependencies = experiment.tasks.iter().any(|task| !task.after.is_empty());
    let has_rules = experiment.tasks.iter().any(|task| !task.retry.is_empty());
    let is_watched = experiment.notify.is_some() || experiment.has_budget();
    let at_ends = match experiment.n_trials() {
        _ if has_rules || around.has_more || is_watched => PollFrequency::Often,
        1 => PollFrequency::Never,
        _ if has_dependencies => PollFrequency::Often,
        _ => PollFrequency::Seldom,
    };
    let (program, harness) = (programs.nemo_slurm.to_owned(), programs.harness.to_owned());
    let at_restarts = experiment.has_budget();
    on_slurm.then_some(PollSpec { program, harness, at_ends, at_restarts })
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
        gpus_per_task: slurm.is_some_and(|slurm| slurm.sbatch.contains_key("gpus-per-task")),
    })
}

/// How many threads a process of a trial is to have: its processors, which workers of a `torchrun` share.
fn threads(task: &Task, executor: &Executor) -> Option<u32> {
    let Executor::Slurm(slurm) = executor else { return None };
    let workers = launch(task, executor).and_then(|launch| launch.workers_per_node).unwrap_or(1);
    slurm.cpus_per_task.map(|cpus| (cpus.get() / workers.max(1)).max(1))
}

/// The tasks that this one waits for.
fn parents(task: &Task, around: &SubmitContext<'_>) -> Vec<ParentSpec> {
    let parents = task.after.iter().filter_map(|dependency| {
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
    });
    parents.collect()
}

/// Every task that this one waits for, directly or not: those that its command may name.
fn inputs(task: &Task, around: &SubmitContext<'_>) -> BTreeMap<String, InputSpec> {
    let upstream = around.experiment.upstream(&task.name);
    let inputs = around.experiment.tasks.iter().filter_map(|parent| {
        let per_trial = *upstream.get(parent.name.as_str())?;
        let dir = around.dir.task(&parent.name).0;
        let (trials, metric) = (parent.n_trials, parent.metric_spec());
        let input = InputSpec { dir, trials, per_trial, metric };
        Some((parent.name.clone(), input))
    });
    inputs.collect()
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
                has_more: false,
                is_shipped: false,
                programs: None,
            };
            let inputs = inputs(&experiment.tasks[3], &around);
            let per_trial: Vec<(&str, bool)> =
                inputs.iter().map(|(name, input)| (name.as_str(), input.per_trial)).collect();
            assert_eq!(per_trial, [("first", true), ("left", true), ("right", false)], "{last:?}");
        }
    }
}
