//! From a task to what the harness must know of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;

use nemo_core::environment::InheritSpec;
use nemo_core::placeholder::{TaskValue, names};
use nemo_core::rundir::{
    Condition, ExperimentDir, InputSpec, LaunchSpec, ParentSpec, PollFrequency, PollSpec, TaskSpec,
};

use crate::experiment::{Executor, Experiment, Launch, On, SlurmExecutor, Task, TaskGraph};
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
    /// Its tasks by their names.
    pub graph: TaskGraph<'a>,
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
    let mut spec = TaskSpec {
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
        inputs: BTreeMap::new(),
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
    };
    spec.inputs = inputs(&spec, &around.graph, around.dir);
    spec
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
        inputs: now.inputs,
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
        let parent = around.graph.get(&dependency.task)?;
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

/// The tasks before a task that its texts name. A chain of tasks would not fit on a disk if each had all that are before it.
#[must_use]
pub fn inputs(
    spec: &TaskSpec,
    graph: &TaskGraph<'_>,
    dir: &ExperimentDir,
) -> BTreeMap<String, InputSpec> {
    let is_before = |task: &str| graph.waits(&spec.task, task).is_some();
    let named = spec.templates().flat_map(names);
    let tasks: BTreeSet<&str> =
        named.filter_map(|name| Some(TaskValue::of(name, is_before)?.0)).collect();
    let input = |name: &str| {
        let (task, per_trial) = (graph.get(name)?, graph.waits(&spec.task, name)?);
        let (dir, trials, metric) = (dir.task(name).0, task.n_trials, task.metric_spec());
        Some((name.to_owned(), InputSpec { dir, trials, per_trial, metric }))
    };
    tasks.into_iter().filter_map(input).collect()
}

#[cfg(test)]
mod tests {
    use nemo_core::rundir::CommandSpec;

    use super::*;
    use crate::plan::{sample_experiment, sample_task};

    /// The inputs of the last of some tasks, as `NAME` or `NAME*` where they are trial by trial.
    #[track_caller]
    fn check(tasks: Vec<Task>, run: &str, expected: &[&str]) {
        let experiment = sample_experiment(tasks);
        let dir = ExperimentDir("/x".into());
        let around = SubmitContext {
            id: "x-1",
            dir: &dir,
            experiment: &experiment,
            graph: experiment.graph(),
            now: 0,
            cluster: None,
            has_more: false,
            is_shipped: false,
            programs: None,
        };
        let last = experiment.tasks.last().unwrap();
        let last = Task { run: CommandSpec::Shell(run.to_owned()), ..last.clone() };
        let inputs = task_spec(&last, &around).inputs;
        let shown = inputs.iter().map(|(name, input)| {
            assert_eq!(input.dir, dir.task(name).0);
            format!("{name}{}", if input.per_trial { "*" } else { "" })
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{run}");
    }

    /// `last` reaches `first` by two ways, one of which goes trial by trial: whichever is written first, its command
    /// gets the folder of the same trial.
    #[test]
    fn one_way_that_goes_trial_by_trial_is_enough() {
        use On::{Each, Ok};
        for last in [[("left", Each), ("right", Ok)], [("right", Ok), ("left", Each)]] {
            let tasks = vec![
                sample_task("first", 3, 0, &[]),
                sample_task("left", 3, 0, &[("first", Each)]),
                sample_task("right", 3, 0, &[("first", Each)]),
                sample_task("last", 3, 0, &last),
            ];
            let run = "{first.dir} {left.result.loss} {right.best.dir}";
            check(tasks, run, &["first*", "left*", "right"]);
        }
    }

    #[test]
    fn only_what_is_named_is_an_input() {
        let chain = || {
            let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
            let after = |n: usize| n.checked_sub(1).map(|n| (names[n].as_str(), On::Ok));
            (0..100).map(|n| sample_task(&names[n], 1, 0, after(n).as_slice())).collect()
        };
        check(chain(), "true", &[]);
        check(chain(), "{t98.dir} {t0.best.checkpoint} {t98.dirs}", &["t0", "t98"]);
        check(chain(), "{t99.dir} {nope.dir} {dir} {{t7.dir}}", &[]);
    }

    /// Of `a` and `a.best` the longer name counts.
    #[test]
    fn a_task_with_a_dot_in_its_name_is_found() {
        let tasks = || {
            let after = [("a", On::Ok), ("a.best", On::Ok)];
            vec![
                sample_task("a", 1, 0, &[]),
                sample_task("a.best", 1, 0, &[]),
                sample_task("last", 1, 0, &after),
            ]
        };
        check(tasks(), "{a.best.dir}", &["a.best"]);
        check(tasks(), "{a.best.result.x} {a.dir}", &["a", "a.best"]);
    }
}
