//! What a plan must know of a cluster: its limits, and whether a preempted job is told in time.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{ClusterLimits, Partition};

/// The facts of one cluster, as they were when it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Slurm's version.
    pub version: String,
    /// How many tasks one job array may have.
    pub max_array: NonZeroU32,
    /// Seconds between SIGTERM and SIGKILL.
    pub kill_wait: u32,
    /// An exit code of the batch script with which Slurm requeues the job, where it has one.
    #[serde(default)]
    pub requeue_exit: Option<u8>,
    /// Whether a preempted job is sent its own signal at the start of its grace.
    pub preempt_user_signal: bool,
    /// What decides who is preempted: `preempt/none`, `preempt/partition_prio`, `preempt/qos`.
    #[serde(default)]
    pub preempt_type: String,
    /// How partitions preempt that say nothing else.
    pub preempt_mode: String,
    /// Whether a user's limits are enforced.
    #[serde(default)]
    pub limits_enforced: bool,
    /// Its partitions.
    pub partitions: Vec<PartitionPreemption>,
}

/// How a partition preempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPreemption {
    /// The partition.
    pub name: String,
    /// Whether it is the cluster's default.
    pub default: bool,
    /// Seconds that a preempted job has left.
    pub grace_time: u32,
    /// What becomes of a preempted job.
    pub preempt_mode: String,
    /// Seconds after which a job ends that asks for no time; none where it may run for ever.
    #[serde(default)]
    pub default_time: Option<u64>,
}

impl Cluster {
    /// Gathers what `scontrol` told.
    #[must_use]
    pub fn new(limits: &ClusterLimits, partitions: &[Partition]) -> Self {
        // Slurm's MaxArraySize caps the index and max_array_tasks the count; with 0 arrays are switched off.
        let most = limits
            .max_array_tasks
            .map_or(limits.max_array_size, |tasks| tasks.min(limits.max_array_size));
        let preemption = |partition: &Partition| PartitionPreemption {
            name: partition.name.clone(),
            default: partition.default,
            grace_time: partition.grace_time,
            preempt_mode: partition.preempt_mode.clone(),
            default_time: partition.default_time.seconds().or(partition.max_time.seconds()),
        };
        Self {
            name: limits.cluster.clone(),
            version: limits.version.clone(),
            max_array: NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN),
            kill_wait: limits.kill_wait,
            requeue_exit: limits
                .requeue_exit
                .iter()
                .filter(|code| *code > 0)
                .find_map(|code| code.try_into().ok()),
            preempt_user_signal: limits.preempt_user_signal,
            limits_enforced: limits.limits_enforced,
            preempt_type: limits.preempt_type.clone(),
            preempt_mode: limits.preempt_mode.clone(),
            partitions: partitions.iter().map(preemption).collect(),
        }
    }

    /// The partitions that a job may come to: the default one if none is named.
    pub fn partitions_for<'a>(
        &'a self,
        partition: Option<&'a str>,
    ) -> impl Iterator<Item = &'a PartitionPreemption> {
        self.partitions.iter().filter(move |known| match partition {
            Some(names) => names.split(',').any(|name| name == known.name),
            None => known.default,
        })
    }

    /// Whether a job of this partition (the default one if none is named) may have a grace of which nobody tells its batch
    /// process: then a step must listen for it. Several may be named, of which Slurm chooses one.
    ///
    /// Where the QOS decides, the grace is the QOS's too. Only the database knows it, and an administrator or the user may
    /// give a waiting job another one: a step listens in any case.
    #[must_use]
    pub fn needs_sentinel(&self, partition: Option<&str>) -> bool {
        let may_have_grace = match self.preempt_type.as_str() {
            "preempt/none" => false,
            "preempt/qos" => true,
            _ => self
                .partitions_for(partition)
                .any(|known| known.grace_time > 0 && !known.preempt_mode.contains("OFF")),
        };
        !self.preempt_user_signal && may_have_grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(preempt_type: &str, preempt_user_signal: bool) -> Cluster {
        let preemption =
            |name: &str, default, grace_time, preempt_mode: &str| PartitionPreemption {
                name: name.to_owned(),
                default,
                grace_time,
                preempt_mode: preempt_mode.to_owned(),
                default_time: None,
            };
        Cluster {
            name: "dev".to_owned(),
            version: "22.05.8".to_owned(),
            max_array: NonZeroU32::MIN,
            kill_wait: 30,
            requeue_exit: None,
            limits_enforced: false,
            preempt_user_signal,
            preempt_type: preempt_type.to_owned(),
            preempt_mode: "REQUEUE".to_owned(),
            partitions: vec![
                preemption("main", true, 20, "OFF"),
                preemption("scavenge", false, 20, "REQUEUE"),
                preemption("harsh", false, 0, "REQUEUE"),
            ],
        }
    }

    #[track_caller]
    fn check(cluster: &Cluster, partition: Option<&str>, expected: bool) {
        assert_eq!(cluster.needs_sentinel(partition), expected, "{cluster:?} {partition:?}");
    }

    #[test]
    fn a_sentinel_listens_where_nobody_else_would() {
        let by_partition = cluster("preempt/partition_prio", false);
        check(&by_partition, Some("scavenge"), true);
        check(&by_partition, Some("main,scavenge"), true);
        check(&by_partition, Some("harsh"), false);
        check(&by_partition, Some("main"), false);
        check(&by_partition, None, false);
        check(&cluster("preempt/partition_prio", true), Some("scavenge"), false);
        check(&cluster("preempt/none", false), Some("scavenge"), false);
    }

    #[test]
    fn a_grace_may_be_the_qos_s() {
        check(&cluster("preempt/qos", false), None, true);
        check(&cluster("preempt/qos", false), Some("harsh"), true);
        check(&cluster("preempt/qos", true), None, false);
    }
}
