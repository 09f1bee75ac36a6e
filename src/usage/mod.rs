//! What trials use of processors, memory and GPUs: samples of their harnesses, and Slurm's accounting where there are
//! none. Pure but for the reading of files.

mod advice;
mod attempt;

use std::io;

use nemo_core::rundir::{TrialDir, Usage};
use serde::Serialize;

use crate::slurm::JobUsage;
use crate::status::{State, TrialStatus};

pub use advice::{AskedResources, ROOM_ABOVE_PEAK};
pub use attempt::AttemptUsage;

/// One trial's row of `resources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrialResources {
    /// The task.
    pub task: String,
    /// The trial.
    pub trial: u32,
    /// Where it stands.
    pub state: Option<State>,
    /// The nodes of its last attempt.
    pub nodes: Vec<String>,
    /// When this was measured, in unix seconds.
    pub as_of: Option<f64>,
    /// Processor time in percent of one processor: now, or over all of a trial that is over.
    pub cpu_percent: Option<f64>,
    /// The processors that it has.
    pub cpus: Option<u32>,
    /// What it has in memory, on the node where that is most.
    pub memory_bytes: Option<u64>,
    /// The part of the memory that it may have: now, or at the peak of a trial that is over.
    pub memory_percent: Option<f64>,
    /// The most that was seen in any attempt.
    pub memory_peak_bytes: Option<u64>,
    /// What it may have on a node.
    pub memory_limit_bytes: Option<u64>,
    /// How much its GPUs work: now, or over all of a trial that is over.
    pub gpu_percent: Option<f64>,
    /// The memory of its GPUs, all together.
    pub gpu_memory_bytes: Option<u64>,
    /// The most that was seen of it.
    pub gpu_memory_peak_bytes: Option<u64>,
    /// The part of what it had that it used, once it is over.
    pub efficiency: Option<Efficiency>,
    /// What to ask for instead, where half of it is unused.
    pub advice: Option<String>,
    /// Who measured it.
    pub source: Option<UsageSource>,
}

/// Parts from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Efficiency {
    /// Of the processors' time.
    pub cpu: Option<f64>,
    /// Of the memory.
    pub memory: Option<f64>,
    /// Of the GPUs' time.
    pub gpu: Option<f64>,
}

/// Who measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The trial's harness, on its node.
    Harness,
    /// Slurm's accounting.
    Slurm,
}

/// The samples of a trial's attempts, the last one last.
#[derive(Clone, Debug, Default)]
pub struct TrialUsage {
    /// Of each attempt that has any.
    pub attempts: Vec<AttemptUsage>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

impl TrialUsage {
    /// Reads the files of a trial's folder; there are none before its program ran.
    #[must_use]
    pub fn read(dir: &TrialDir) -> Self {
        let (mut ranks, mut warnings) = (Vec::new(), Vec::new());
        let entries = std::fs::read_dir(dir.path());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().ends_with("usage.json") {
                continue;
            }
            match Usage::read(&entry.path()) {
                Ok(usage) => ranks.push(usage),
                // It was replaced in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    warnings.push(format!("can't read `{}`: {error}", entry.path().display()));
                }
            }
        }
        Self { attempts: AttemptUsage::of_ranks(ranks), warnings }
    }

    /// The most memory that it was seen with on a node.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        self.attempts.iter().filter_map(|attempt| attempt.memory_peak_bytes).max()
    }
}

/// The most memory that a trial was seen with on a node, by its harness or by Slurm.
#[must_use]
pub fn memory_peak(usage: &TrialUsage, job: Option<&JobUsage>) -> Option<u64> {
    usage.memory_peak().max(job.and_then(|job| job.peak))
}

/// The harness looks after a second, and a second later again.
const SHORTEST_BY_HARNESS: f64 = 2.0;
/// Slurm looks every half minute, unless a site says otherwise.
const SHORTEST_BY_SLURM: u64 = 60;

/// Whether it ran for two samples at least: fewer tell nothing of what it needs.
fn is_measured(usage: &TrialUsage, job: Option<&JobUsage>) -> bool {
    if !usage.attempts.is_empty() {
        return usage.attempts.iter().any(|attempt| attempt.seconds >= SHORTEST_BY_HARNESS);
    }
    let seconds = job.and_then(|job| job.processor_seconds?.checked_div(job.cpus?));
    seconds.is_some_and(|seconds| seconds >= SHORTEST_BY_SLURM)
}

/// What is shown of a trial.
#[must_use]
pub fn trial_resources(
    task: &str,
    trial: &TrialStatus,
    usage: &TrialUsage,
    job: Option<&JobUsage>,
    asked: &AskedResources,
) -> TrialResources {
    let mut shown = match usage.attempts.last() {
        Some(last) => by_harness(trial, usage, last),
        None => by_slurm(trial, job),
    };
    (shown.task, shown.trial, shown.state) = (task.to_owned(), trial.index, Some(trial.state));
    shown.memory_peak_bytes = memory_peak(usage, job);
    let limit = shown.memory_limit_bytes.or(job.and_then(|job| job.given)).filter(|it| *it > 0);
    shown.memory_limit_bytes = limit;
    let is_over = trial.state.is_final();
    let memory = if is_over { shown.memory_peak_bytes } else { shown.memory_bytes };
    shown.memory_percent = memory.zip(limit).map(|(memory, limit)| 100.0 * ratio(memory, limit));
    if !is_over || shown.source.is_none() {
        shown.efficiency = None;
        return shown;
    }
    shown.memory_bytes = shown.memory_bytes.or(shown.memory_peak_bytes);
    let peak = shown.memory_peak_bytes.zip(limit);
    shown.efficiency.get_or_insert_default().memory = peak.map(|(peak, limit)| ratio(peak, limit));
    shown.advice = is_measured(usage, job).then(|| advice::advise(&shown, asked)).flatten();
    shown
}

fn by_harness(trial: &TrialStatus, usage: &TrialUsage, last: &AttemptUsage) -> TrialResources {
    let is_over = trial.state.is_final();
    let sum = |part: fn(&AttemptUsage) -> f64| usage.attempts.iter().map(part).sum::<f64>();
    let seconds = sum(|attempt| attempt.seconds);
    let cpu_seconds = sum(|attempt| attempt.cpu_seconds);
    let processor_seconds = sum(|attempt| attempt.seconds * f64::from(attempt.cpus.unwrap_or(0)));
    let part = |of: f64| (of > 0.0).then(|| cpu_seconds / of);
    let gpu = if is_over { last.gpu_mean_percent } else { last.gpu_percent };
    TrialResources {
        nodes: last.nodes.clone(),
        as_of: Some(last.time),
        cpu_percent: if is_over { part(seconds).map(|it| it * 100.0) } else { last.cpu_percent },
        cpus: last.cpus,
        memory_bytes: last.memory_bytes,
        memory_limit_bytes: last.memory_limit_bytes,
        gpu_percent: gpu,
        gpu_memory_bytes: last.gpu_memory_bytes,
        gpu_memory_peak_bytes: usage
            .attempts
            .iter()
            .filter_map(|it| it.gpu_memory_peak_bytes)
            .max(),
        efficiency: Some(Efficiency {
            cpu: part(processor_seconds).map(|part| part.min(1.0)),
            memory: None,
            gpu: last.gpu_mean_percent.map(|percent| percent / 100.0),
        }),
        source: Some(UsageSource::Harness),
        ..TrialResources::default()
    }
}

fn by_slurm(trial: &TrialStatus, job: Option<&JobUsage>) -> TrialResources {
    let Some(job) = job else { return TrialResources::default() };
    let node = trial.attempts.last().and_then(|attempt| attempt.node.clone());
    let cpu = job.cpu_seconds.zip(job.processor_seconds.filter(|seconds| *seconds > 0));
    let cpu = cpu.map(|(used, had)| ratio(used, had));
    let cpus = job.cpus.and_then(|cpus| u32::try_from(cpus).ok());
    let has_any = job.peak.is_some() || cpu.is_some();
    TrialResources {
        nodes: node.into_iter().collect(),
        cpu_percent: cpu.zip(cpus).map(|(part, cpus)| part * 100.0 * f64::from(cpus)),
        cpus,
        efficiency: Some(Efficiency { cpu, memory: None, gpu: None }),
        source: has_any.then_some(UsageSource::Slurm),
        ..TrialResources::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a part of the whole, for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
