//! What `scontrol show config` says about the limits that a plan has to keep.

use std::collections::HashMap;

use nemo_core::stop_times::DEFAULT_KILL_WAIT;

use super::id::{index_set, whole};
use crate::slurm::indices::IndexSet;

/// The limits and habits of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct ClusterLimits {
    /// The cluster's name.
    pub cluster: String,
    /// Slurm's version, as it prints it.
    pub version: String,
    /// One more than the largest index of a job array.
    pub max_array_size: u32,
    /// How many tasks one array may have, where that is limited too.
    pub max_array_tasks: Option<u32>,
    /// Seconds between SIGTERM and SIGKILL.
    pub kill_wait: u32,
    /// Seconds that a finished job stays in `squeue`.
    pub min_job_age: u32,
    /// Seconds after which a credential is void: a requeued job waits that long and one more.
    pub cred_expire: u32,
    /// Whether a preempted job is sent the signal of its `--signal` when its grace begins.
    pub preempt_user_signal: bool,
    /// What decides who is preempted: `preempt/none`, `preempt/partition_prio`, `preempt/qos`.
    pub preempt_type: String,
    /// How preemption is done where a partition doesn't say otherwise.
    pub preempt_mode: String,
    /// Exit codes of a batch script that make Slurm requeue the job.
    pub requeue_exit: IndexSet,
    /// Whether jobs may be requeued unless they say otherwise.
    pub job_requeue: bool,
    /// Whether there is an accounting database.
    pub accounting: bool,
    /// Whether a user's limits are enforced, and only users with an association may submit.
    pub limits_enforced: bool,
    /// Whether the memory of jobs is measured.
    pub memory_measured: bool,
}

/// Slurm's own defaults, for what an output doesn't say.
const MAX_ARRAY_SIZE: u32 = 1001;
const MIN_JOB_AGE: u32 = 300;
const CRED_EXPIRE: u32 = 120;

/// The `Key = value` lines.
struct ConfigSettings<'a>(HashMap<&'a str, &'a str>);

impl<'a> ConfigSettings<'a> {
    fn new(text: &'a str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.trim(), value.trim())).collect())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied().filter(|value| !matches!(*value, "" | "(null)" | "N/A"))
    }

    /// `30 sec` is 30.
    fn number(&self, key: &str) -> Option<u32> {
        leading_number(self.get(key)?)
    }

    /// `b` of a list such as `a=1,b=2`; an empty text for a plain `b`.
    fn option(&self, key: &str, option: &str) -> Option<&'a str> {
        self.get(key)?.split(',').find_map(|item| {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            name.trim().eq_ignore_ascii_case(option).then_some(value.trim())
        })
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Reads the settings; nothing if the output doesn't even name Slurm's version.
#[must_use]
pub fn parse(output: &[u8]) -> Option<ClusterLimits> {
    let text = String::from_utf8_lossy(output);
    let settings = ConfigSettings::new(&text);
    let version = settings.get("SLURM_VERSION")?.to_owned();
    let accounting = settings.get("AccountingStorageType");
    let requeue_exit = settings.get("RequeueExit");
    Some(ClusterLimits {
        cluster: settings.get("ClusterName").unwrap_or_default().to_owned(),
        version,
        max_array_size: settings.number("MaxArraySize").unwrap_or(MAX_ARRAY_SIZE),
        max_array_tasks: settings
            .option("SchedulerParameters", "max_array_tasks")
            .and_then(leading_number),
        kill_wait: settings.number("KillWait").unwrap_or(DEFAULT_KILL_WAIT),
        min_job_age: settings.number("MinJobAge").unwrap_or(MIN_JOB_AGE),
        cred_expire: settings
            .option("AuthInfo", "cred_expire")
            .and_then(leading_number)
            .unwrap_or(CRED_EXPIRE),
        preempt_user_signal: settings
            .option("SlurmctldParameters", "preempt_send_user_signal")
            .or_else(|| settings.option("PreemptParameters", "send_user_signal"))
            .is_some(),
        preempt_type: settings.get("PreemptType").unwrap_or("preempt/none").to_owned(),
        preempt_mode: settings.get("PreemptMode").unwrap_or("OFF").to_owned(),
        requeue_exit: requeue_exit
            .and_then(|list| whole(index_set, list.as_bytes()).ok())
            .unwrap_or_default(),
        job_requeue: settings.number("JobRequeue") != Some(0),
        accounting: accounting.is_some_and(|kind| !kind.ends_with("/none")),
        limits_enforced: ["limits", "qos", "safe", "all"]
            .iter()
            .any(|word| settings.option("AccountingStorageEnforce", word).is_some()),
        memory_measured: settings
            .get("JobAcctGatherType")
            .is_some_and(|kind| !kind.ends_with("/none")),
    })
}
