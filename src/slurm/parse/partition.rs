//! The lines of `scontrol -o show partition`.

use super::id::whole;
use super::time::{Limit, limit};
use super::{Parsed, UnreadLine, excerpt};

/// A partition: what a plan needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Whether jobs that name no partition go there.
    pub default: bool,
    /// Whether jobs start there.
    pub up: bool,
    /// The longest time limit.
    pub max_time: Limit,
    /// The time limit of a job that names none; not set means the longest.
    pub default_time: Limit,
    /// Seconds that a preempted job has left.
    pub grace_time: u32,
    /// What preemption does to its jobs: `OFF`, `REQUEUE`, `CANCEL`, `SUSPEND`, `GANG` …
    pub preempt_mode: String,
    /// Its nodes, as a host list.
    pub nodes: String,
    /// Megabytes that a job can have on a node; none where there is no limit.
    pub max_memory: Option<u64>,
}

/// Reads one line.
fn partition(line: &str) -> Option<Partition> {
    let value = |key: &str| {
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let time = |key: &str| whole(limit, value(key)?.as_bytes()).ok();
    Some(Partition {
        name: value("PartitionName")?.to_owned(),
        default: value("Default") == Some("YES"),
        up: value("State") == Some("UP"),
        max_time: time("MaxTime")?,
        default_time: time("DefaultTime").unwrap_or(Limit::NotSet),
        grace_time: value("GraceTime").and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
        preempt_mode: value("PreemptMode").unwrap_or("OFF").to_owned(),
        nodes: value("Nodes").filter(|nodes| *nodes != "(null)").unwrap_or_default().to_owned(),
        max_memory: value("MaxMemPerNode").and_then(|memory| memory.parse().ok()),
    })
}

/// Reads every line.
#[must_use]
pub fn parse(output: &[u8]) -> Parsed<Partition> {
    let text = String::from_utf8_lossy(output);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            partition(line).ok_or_else(|| UnreadLine {
                line: index + 1,
                what: "a partition",
                text: excerpt(line.as_bytes()),
            })
        })
        .collect()
}
