//! What could start a waiting trial sooner: less time, another partition, fewer nodes. Pure.

use crate::experiment::SlurmExecutor;
use crate::slurm::Partition;
use crate::slurm::parse::time::Limit;
use nemo_core::duration::slurm_time;

/// No segment is proposed that is shorter than this, in seconds.
const SHORTEST: u64 = 300;

/// A change of an executor's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyChange {
    /// As `--set` takes it: `executor.gpu.time=00:30:00`.
    pub(super) text: String,
    /// As `scontrol update` takes it: `TimeLimit=00:30:00`; nothing where the job's script would not go with it.
    pub(super) update: Option<String>,
    /// As `sbatch` takes it.
    pub(super) options: Vec<String>,
    /// What else it would bring.
    pub(super) warning: Option<String>,
}

/// The changes that are worth a question, the least one first.
pub(super) fn of(
    (name, executor): (&str, &SlurmExecutor),
    partitions: &[Partition],
) -> Vec<KeyChange> {
    let shorter = shorter(name, executor, partitions);
    let elsewhere = elsewhere(name, executor, partitions);
    shorter.into_iter().chain(elsewhere).chain(fewer_nodes(name, executor)).collect()
}

/// A half and a quarter of the time, which is its partition's where the file gives none: a trial that saves goes on in its
/// next segment.
fn shorter(name: &str, executor: &SlurmExecutor, partitions: &[Partition]) -> Vec<KeyChange> {
    let by_partition = |partition: &Partition| {
        partition.default_time.seconds().or_else(|| partition.max_time.seconds())
    };
    let mut own = partitions.iter().filter(|it| is_own(executor, it));
    let time = executor.time.or_else(|| own.find_map(by_partition));
    let of_part = |part: u64| {
        let seconds = time? / part;
        (seconds >= SHORTEST).then(|| KeyChange {
            text: format!("executor.{name}.time={}", slurm_time(seconds)),
            update: Some(format!("TimeLimit={}", slurm_time(seconds))),
            options: vec![format!("--time={}", slurm_time(seconds))],
            warning: None,
        })
    };
    [2, 4].into_iter().filter_map(of_part).collect()
}

fn is_own(executor: &SlurmExecutor, partition: &Partition) -> bool {
    match &executor.partition {
        Some(own) => own.split(',').any(|own| own == partition.name),
        None => partition.default,
    }
}

/// The other partitions that are up and allow the time.
fn elsewhere(name: &str, executor: &SlurmExecutor, partitions: &[Partition]) -> Vec<KeyChange> {
    let allows = |partition: &Partition| match (partition.max_time, executor.time) {
        (Limit::Seconds(most), Some(time)) => time <= most,
        _ => true,
    };
    let others = partitions.iter().filter(|it| it.up && !is_own(executor, it) && allows(it));
    let mut others: Vec<&Partition> = others.collect();
    // Of two that start it as soon, one whose jobs are not preempted is the better advice.
    others.sort_by_key(|partition| partition.preempt_mode != "OFF");
    let change = |partition: &Partition| KeyChange {
        text: format!("executor.{name}.partition={}", partition.name),
        update: Some(format!("Partition={}", partition.name)),
        options: vec![format!("--partition={}", partition.name)],
        warning: (partition.preempt_mode != "OFF")
            .then(|| format!("jobs in `{}` may be preempted", partition.name)),
    };
    others.into_iter().map(change).collect()
}

/// Half of the nodes.
fn fewer_nodes(name: &str, executor: &SlurmExecutor) -> Option<KeyChange> {
    let nodes = executor.nodes?.get() / 2;
    let tasks = nodes * executor.tasks_per_node.map_or(1, std::num::NonZeroU32::get);
    (nodes > 0).then(|| KeyChange {
        text: format!("executor.{name}.nodes={nodes}"),
        update: None,
        options: vec![format!("--nodes={nodes}"), format!("--ntasks={tasks}")],
        warning: None,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn partition(name: &str, up: bool, max_time: Limit) -> Partition {
        Partition {
            name: name.to_owned(),
            default: name == "main",
            up,
            max_time,
            default_time: Limit::NotSet,
            grace_time: 0,
            preempt_mode: "OFF".to_owned(),
            nodes: "n1".to_owned(),
            max_memory: None,
        }
    }

    fn texts(executor: &SlurmExecutor, partitions: &[Partition]) -> Vec<String> {
        of(("gpu", executor), partitions).into_iter().map(|change| change.text).collect()
    }

    #[test]
    fn only_what_can_work_is_tried() {
        let partitions = [
            partition("main", true, Limit::Unlimited),
            partition("short", true, Limit::Seconds(1800)),
            partition("long", true, Limit::Seconds(86_400)),
            partition("closed", false, Limit::Unlimited),
        ];
        let mut executor = SlurmExecutor { time: Some(3600), ..SlurmExecutor::default() };
        let (half, quarter) = ("executor.gpu.time=00:30:00", "executor.gpu.time=00:15:00");
        assert_eq!(texts(&executor, &partitions), [half, quarter, "executor.gpu.partition=long"]);
        let spare = Partition { preempt_mode: "REQUEUE".to_owned(), ..partitions[1].clone() };
        let both = [spare, partition("urgent", true, Limit::Unlimited)];
        let first = elsewhere("gpu", &SlurmExecutor::default(), &both).remove(0);
        assert_eq!(first.text, "executor.gpu.partition=urgent");
        executor.partition = Some("long,main".to_owned());
        executor.nodes = NonZeroU32::new(4);
        assert_eq!(texts(&executor, &partitions), [half, quarter, "executor.gpu.nodes=2"]);
        executor = SlurmExecutor { nodes: NonZeroU32::new(1), ..SlurmExecutor::default() };
        assert_eq!(
            texts(&executor, &partitions),
            ["executor.gpu.partition=short", "executor.gpu.partition=long"]
        );
        let limited = [Partition { default_time: Limit::Seconds(900), ..partitions[0].clone() }];
        assert_eq!(texts(&executor, &limited), ["executor.gpu.time=00:07:30"]);
    }

    #[test]
    fn fewer_nodes_have_fewer_processes() {
        let executor = SlurmExecutor {
            nodes: NonZeroU32::new(5),
            tasks_per_node: NonZeroU32::new(8),
            ..SlurmExecutor::default()
        };
        let change = fewer_nodes("gpu", &executor).unwrap();
        assert_eq!(change.options, ["--nodes=2", "--ntasks=16"]);
        assert_eq!(change.update, None, "its harness expects the five");
    }
}
