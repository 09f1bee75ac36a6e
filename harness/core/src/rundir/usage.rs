//! `<attempt>.usage.json`: what the processes of an attempt use, as its harness saw it last. For people; no state rests
//! on it.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::open;

/// The newest sample of one rank, and its peaks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The attempt.
    pub attempt: u32,
    /// Where it runs.
    pub node: String,
    /// When it was looked at last, in unix seconds.
    pub time: f64,
    /// For how long it had run then.
    pub seconds: f64,
    /// The program has ended: this is the last sample.
    #[serde(default)]
    pub is_over: bool,
    /// The processors of this node that it may use.
    pub cpus: Option<u32>,
    /// Processor time since the sample before, in percent of one processor.
    pub cpu_percent: Option<f64>,
    /// Processor time since its start.
    pub cpu_seconds: f64,
    /// What its processes have in memory.
    pub memory_bytes: Option<u64>,
    /// The most that was seen of it.
    pub memory_peak_bytes: Option<u64>,
    /// What it may have on this node.
    pub memory_limit_bytes: Option<u64>,
    /// The memory is that of the whole job on this node, as its cgroup counts it.
    #[serde(default)]
    pub is_whole_job: bool,
    /// The GPUs that it may use on this node.
    #[serde(default)]
    pub gpus: Vec<GpuUsage>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuUsage {
    /// Its UUID.
    pub id: String,
    /// How much of the time it worked lately, in percent.
    pub percent: f64,
    /// The mean of all samples.
    pub mean_percent: f64,
    /// Used memory.
    pub memory_bytes: u64,
    /// The most that was seen of it.
    pub memory_peak_bytes: u64,
    /// All of its memory.
    pub memory_total_bytes: u64,
}

impl Usage {
    /// Reads the file of an attempt; nothing where there is none, or where it can't be read as such.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&open::read(path)?)?)
    }
}
