//! Adds samples up: processor time, memory and their peaks, of everything below this process.

use std::time::Duration;

use nemo_core::proc_fs::ProcMemory;
use nemo_core::rundir::{GpuUsage, Usage};
use nix::sys::resource::{UsageWho, getrusage};

use super::cgroup;
use super::gpus::{self, GpuSample};
use crate::os::proc_fs;

/// What the program was given on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allotment {
    pub(crate) node: String,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
    /// Which GPUs `nvidia-smi` is asked for; nothing where the program has none.
    pub(crate) gpus: Option<GpuChoice>,
    /// Whether this is a job of Slurm, whose cgroup counts what is in it.
    pub(crate) is_slurm_job: bool,
}

/// Which GPUs are the program's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum GpuChoice {
    /// All that are seen.
    All,
    /// Those of `CUDA_VISIBLE_DEVICES`.
    Only(String),
}

/// The samples of an attempt.
#[derive(Debug)]
pub(super) struct Meter {
    usage: Usage,
    /// Processor time and the largest process of what had ended before.
    before: ChildUsage,
    last: Option<(Duration, f64)>,
    gpus: Option<GpuChoice>,
    gpu_samples: u32,
    gpu_failures: u32,
    is_slurm_job: bool,
}

/// What the kernel keeps of children that were waited for.
#[derive(Clone, Copy, Debug, Default)]
struct ChildUsage {
    cpu_seconds: f64,
    largest: u64,
}

/// `nvidia-smi` is not asked again after so many failures.
const GPU_FAILURES: u32 = 3;
/// `USER_HZ`, which is 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Meter {
    pub(super) fn start(attempt: u32, allotment: Allotment) -> Self {
        let usage = Usage {
            attempt,
            node: allotment.node,
            cpus: allotment.cpus,
            memory_limit_bytes: allotment.memory_bytes,
            ..Usage::default()
        };
        Self {
            usage,
            before: ChildUsage::now(),
            last: None,
            gpus: allotment.gpus,
            gpu_samples: 0,
            gpu_failures: 0,
            is_slurm_job: allotment.is_slurm_job,
        }
    }

    /// What to ask for the GPUs, while there is a point in it.
    pub(super) fn gpu_command(&self) -> Option<Vec<String>> {
        let choice = self.gpus.as_ref()?;
        (self.gpu_failures < GPU_FAILURES).then(|| gpus::command(choice))
    }

    pub(super) fn is_over(&self) -> bool {
        self.usage.is_over
    }

    pub(super) fn sample(&mut self, since_start: Duration, time: f64) {
        let living = living();
        self.count_processors(since_start, time, living.cpu_seconds);
        let of_job = if self.is_slurm_job { cgroup::memory_of_job() } else { None };
        self.usage.is_whole_job = of_job.is_some();
        let now = of_job.unwrap_or(living.memory);
        // The program may have ended right before.
        if now > 0 {
            self.usage.memory_bytes = Some(now);
        }
        self.note_peak(peak_of_living(&living, of_job, self.usage.memory_limit_bytes));
    }

    /// After the end of the program nothing lives any more, and all of its processor time is known.
    pub(super) fn end(&mut self, since_start: Duration, time: f64) {
        let ended = ChildUsage::now();
        self.count_processors(since_start, time, 0.0);
        self.usage.is_over = true;
        self.usage.cpu_percent = None;
        // The largest process so far may have been one of an earlier attempt.
        if ended.largest > self.before.largest {
            let limit = self.usage.memory_limit_bytes.filter(|_| self.usage.is_whole_job);
            self.note_peak(within(ended.largest, limit));
        }
    }

    fn count_processors(&mut self, since_start: Duration, time: f64, living: f64) {
        let all = (ChildUsage::now().cpu_seconds - self.before.cpu_seconds + living)
            // A process that ends between two looks may be missed by both.
            .max(self.usage.cpu_seconds);
        let (since, counted) = self.last.unwrap_or_default();
        let seconds = since_start.saturating_sub(since).as_secs_f64();
        if seconds > 0.0 {
            self.usage.cpu_percent = Some((all - counted) / seconds * 100.0);
        }
        (self.usage.cpu_seconds, self.usage.seconds) = (all, since_start.as_secs_f64());
        self.usage.time = time;
        self.last = Some((since_start, all));
    }

    fn note_peak(&mut self, bytes: u64) {
        self.usage.memory_peak_bytes = self.usage.memory_peak_bytes.max(Some(bytes));
    }

    /// Adds what was answered; that nothing was is counted.
    pub(super) fn count_gpus(&mut self, answer: Option<Vec<GpuSample>>) {
        let Some(samples) = answer else {
            self.gpu_failures += 1;
            return;
        };
        self.gpu_failures = 0;
        self.gpu_samples += 1;
        let n = f64::from(self.gpu_samples);
        for sample in samples {
            let known = self.usage.gpus.iter().position(|known| known.id == sample.id);
            let place = known.unwrap_or_else(|| {
                let id = sample.id.clone();
                self.usage.gpus.push(GpuUsage { id, ..GpuUsage::default() });
                self.usage.gpus.len() - 1
            });
            let gpu = &mut self.usage.gpus[place];
            gpu.percent = sample.percent;
            gpu.mean_percent += (sample.percent - gpu.mean_percent) / n;
            gpu.memory_bytes = sample.memory_bytes;
            gpu.memory_peak_bytes = gpu.memory_peak_bytes.max(sample.memory_bytes);
            gpu.memory_total_bytes = sample.memory_total_bytes;
        }
    }

    pub(super) fn json(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.usage).ok()
    }
}

/// The most that there was. What came and went between two looks is known of each process alone.
fn peak_of_living(living: &Living, of_job: Option<u64>, limit: Option<u64>) -> u64 {
    match of_job {
        Some(now) => now.max(within(living.largest, limit)),
        None => living.memory.max(living.largest),
    }
}

/// The most that a process of a job needed. Files that it maps are in its peak, though the kernel can drop them: nobody knows
/// how much of them was there at that moment, and what is taken off for another moment may be memory that it needed. So
/// nothing is taken off, and too much may be advised, but never too little. It did run within the job's limit.
fn within(peak: u64, limit: Option<u64>) -> u64 {
    limit.filter(|limit| *limit > 0).map_or(peak, |limit| peak.min(limit))
}

impl ChildUsage {
    fn now() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Self::default() };
        let seconds = |time: nix::sys::time::TimeVal| {
            #[expect(clippy::cast_precision_loss, reason = "seconds")]
            let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            seconds
        };
        let cpu_seconds = seconds(usage.user_time()) + seconds(usage.system_time());
        Self { cpu_seconds, largest: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024 }
    }
}

/// What lives below this process.
#[derive(Debug, Default)]
struct Living {
    cpu_seconds: f64,
    memory: u64,
    /// The most that one of them ever had.
    largest: u64,
}

impl Living {
    fn add(&mut self, memory: ProcMemory) {
        self.memory += memory.now;
        self.largest = self.largest.max(memory.peak);
    }
}

fn living() -> Living {
    let mut living = Living::default();
    let helper = gpus::helper();
    for pid in proc_fs::descendants(std::process::id(), helper.as_slice()) {
        let (Ok(stat), memory) = (proc_fs::stat(pid), proc_fs::memory(pid)) else { continue };
        #[expect(clippy::cast_precision_loss, reason = "ticks of a process's life")]
        let ticks = stat.cpu_ticks as f64;
        living.cpu_seconds += ticks / TICKS_PER_SECOND;
        living.add(memory.unwrap_or_default());
    }
    living
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(percent: f64, memory_bytes: u64) -> GpuSample {
        GpuSample { id: "GPU-1".to_owned(), percent, memory_bytes, memory_total_bytes: 100 }
    }

    #[test]
    fn peaks_and_means_stay() {
        let mut meter = Meter::start(3, Allotment::default());
        let at = Duration::from_secs;
        meter.sample(at(1), 1.0);
        meter.count_gpus(Some(vec![gpu(100.0, 60)]));
        meter.sample(at(2), 2.0);
        meter.count_gpus(Some(vec![gpu(50.0, 20)]));
        let usage = &meter.usage;
        assert_eq!((usage.attempt, usage.seconds, usage.time), (3, 2.0, 2.0));
        assert_eq!((usage.gpus[0].percent, usage.gpus[0].mean_percent), (50.0, 75.0));
        assert_eq!((usage.gpus[0].memory_bytes, usage.gpus[0].memory_peak_bytes), (20, 60));
        assert!(usage.memory_peak_bytes >= usage.memory_bytes && usage.cpu_percent.is_some());
        meter.end(at(4), 4.0);
        assert!(meter.usage.is_over && meter.usage.cpu_percent.is_none());
    }

    #[test]
    fn what_came_and_went_between_two_looks_is_in_the_peak() {
        let mut living = Living::default();
        living.add(ProcMemory { now: 40, peak: 900 });
        living.add(ProcMemory { now: 945, peak: 950 });
        let check = |of_job, limit, expected| {
            assert_eq!(peak_of_living(&living, of_job, limit), expected, "{of_job:?} {limit:?}");
        };
        check(None, Some(920), 985);
        // Of the peaks, nobody knows how much was mapped of files then.
        check(Some(20), None, 950);
        check(Some(20), Some(0), 950);
        check(Some(20), Some(920), 920);
        check(Some(2000), Some(920), 2000);
    }

    #[test]
    fn a_node_without_gpus_is_asked_a_few_times_only() {
        let gpus = Some(GpuChoice::Only("0,1".to_owned()));
        let mut meter = Meter::start(0, Allotment { gpus, ..Allotment::default() });
        assert!(meter.gpu_command().unwrap().contains(&"--id=0,1".to_owned()));
        (0..3).for_each(|_| meter.count_gpus(None));
        assert_eq!(meter.gpu_command(), None);
        assert_eq!(Meter::start(0, Allotment::default()).gpu_command(), None);
    }
}
