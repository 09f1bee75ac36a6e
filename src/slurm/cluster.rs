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
    /// How partitions preempt that say nothing else.
    pub preempt_mode: String,
    /// Its partitions.
    pub partitions: Vec<Notice>,
}

/// How a partition preempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The partition.
    pub name: String,
    /// Whether it is the cluster's default.
    pub default: bool,
    /// Seconds that a preempted job has left.
    pub grace_time: u32,
    /// What becomes of a preempted job.
    pub preempt_mode: String,
}

impl Cluster {
    /// Gathers what `scontrol` told.
    #[must_use]
    pub fn new(limits: &ClusterLimits, partitions: &[Partition]) -> Self {
        // Slurm's MaxArraySize caps the index and max_array_tasks the count; with 0 arrays are switched off.
        let most = limits
            .max_array_tasks
            .map_or(limits.max_array_size, |tasks| tasks.min(limits.max_array_size));
        let notice = |partition: &Partition| Notice {
            name: partition.name.clone(),
            default: partition.default,
            grace_time: partition.grace_time,
            preempt_mode: partition.preempt_mode.clone(),
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
            preempt_mode: limits.preempt_mode.clone(),
            partitions: partitions.iter().map(notice).collect(),
        }
    }

    /// Whether a job of this partition (the default one if none is named) has a grace of which nobody tells its batch
    /// process: then a step must listen for it. Several may be named, of which Slurm chooses one.
    #[must_use]
    pub fn needs_sentinel(&self, partition: Option<&str>) -> bool {
        let meant = |notice: &&Notice| match partition {
            Some(names) => names.split(',').any(|name| name == notice.name),
            None => notice.default,
        };
        let silent =
            |notice: &Notice| notice.grace_time > 0 && !notice.preempt_mode.contains("OFF");
        !self.preempt_user_signal && self.partitions.iter().filter(meant).any(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(user_signal: bool, partition: Option<&str>, expected: bool) {
        let notice = |name: &str, default, grace_time, preempt_mode: &str| Notice {
            name: name.to_owned(),
            default,
            grace_time,
            preempt_mode: preempt_mode.to_owned(),
        };
        let cluster = Cluster {
            name: "dev".to_owned(),
            version: "22.05.8".to_owned(),
            max_array: NonZeroU32::MIN,
            kill_wait: 30,
            requeue_exit: None,
            preempt_user_signal: user_signal,
            preempt_mode: "REQUEUE".to_owned(),
            partitions: vec![
                notice("main", true, 20, "OFF"),
                notice("scavenge", false, 20, "REQUEUE"),
                notice("harsh", false, 0, "REQUEUE"),
            ],
        };
        assert_eq!(cluster.needs_sentinel(partition), expected, "{user_signal} {partition:?}");
    }

    #[test]
    fn a_sentinel_listens_where_nobody_else_would() {
        check(false, Some("scavenge"), true);
        check(false, Some("main,scavenge"), true);
        check(true, Some("scavenge"), false);
        check(false, Some("harsh"), false);
        check(false, Some("main"), false);
        check(false, None, false);
    }
}
