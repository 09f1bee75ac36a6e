//! What to ask for instead, where a trial left half of what was asked for unused.

use super::TrialResources;
use crate::experiment::{Executor, Experiment, Task, memory_text, scaled};
use crate::goodput::resources;
use crate::humanize::bytes;
use crate::status::State;

/// How much more memory than the measured peak is advised.
pub const ROOM_ABOVE_PEAK: f64 = 1.3;
/// Less than this part of what was asked for is worth a word.
const HALF: f64 = 0.5;
const MEBIBYTE: u64 = 1 << 20;
/// Fewer megabytes are never advised: the harness and what starts a program need some too.
const LEAST: u64 = 100;
/// No more than this part of the limit is worth the change of a file.
const WORTHWHILE: f64 = 0.8;

/// What the file asks for. What is only given is nobody's waste.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedResources {
    memory: AskedMemory,
    cpus: u32,
    gpus: u32,
}

/// How a file asks for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AskedMemory {
    /// Not at all.
    #[default]
    Nothing,
    /// `mem`.
    PerNode,
    /// For each processor or GPU.
    PerPart,
}

impl AskedResources {
    /// What a task asks Slurm for; nothing on this machine.
    #[must_use]
    pub fn of(experiment: &Experiment, task: &Task) -> Self {
        let Some(Executor::Slurm(slurm)) = experiment.executors.get(&task.executor) else {
            return Self::default();
        };
        let per_part = ["mem-per-cpu", "mem-per-gpu"];
        let memory = if per_part.iter().any(|name| slurm.sbatch.contains_key(*name)) {
            AskedMemory::PerPart
        } else if slurm.mem.is_some() || slurm.sbatch.contains_key("mem") {
            AskedMemory::PerNode
        } else {
            AskedMemory::Nothing
        };
        let held = resources(experiment, task);
        Self { memory, cpus: held.cores, gpus: held.gpus }
    }
}

/// Words for a trial that is over. One that failed tells little of what it needs.
pub(super) fn advise(shown: &TrialResources, asked: &AskedResources) -> Option<String> {
    if shown.state == Some(State::Failed) {
        return None;
    }
    let advice = [memory(shown, asked), processors(shown, asked), gpus(shown, asked)];
    let advice: Vec<String> = advice.into_iter().flatten().collect();
    (!advice.is_empty()).then(|| advice.join("; "))
}

fn memory(shown: &TrialResources, asked: &AskedResources) -> Option<String> {
    let (peak, limit) = (shown.memory_peak_bytes?, shown.memory_limit_bytes?);
    let part = shown.efficiency?.memory?;
    if part >= HALF {
        return None;
    }
    let enough = rounded_up(scaled(peak, ROOM_ABOVE_PEAK).div_ceil(MEBIBYTE).max(LEAST));
    if peak == 0 || enough > scaled(limit, WORTHWHILE) / MEBIBYTE {
        return None;
    }
    let enough = memory_text(enough);
    let used = format!("at most {} of {} memory were used", bytes(peak), bytes(limit));
    match asked.memory {
        AskedMemory::Nothing => None,
        AskedMemory::PerNode => Some(format!("{used}: `mem = \"{enough}\"` is enough")),
        AskedMemory::PerPart => Some(format!("{used}: {enough} on a node are enough")),
    }
}

/// Megabytes as people write them: a multiple of 10, and above a gigabyte of a quarter or of a whole one.
fn rounded_up(megabytes: u64) -> u64 {
    let step = match megabytes {
        ..1024 => 10,
        1024..8192 => 256,
        _ => 1024,
    };
    megabytes.next_multiple_of(step)
}

fn processors(shown: &TrialResources, asked: &AskedResources) -> Option<String> {
    let busy = shown.cpu_percent? / 100.0;
    let asked = f64::from(asked.cpus);
    (asked > 1.0 && busy < asked * HALF).then(|| {
        format!("{busy:.1} of {asked} processors were busy: ask for {:.0}", busy.ceil().max(1.0))
    })
}

fn gpus(shown: &TrialResources, asked: &AskedResources) -> Option<String> {
    let percent = shown.gpu_percent?;
    (asked.gpus > 0 && percent < 100.0 * HALF).then(|| {
        let gpus = if asked.gpus == 1 { "the GPU was" } else { "the GPUs were" };
        format!("{gpus} busy for {percent:.0} % of the time: give each more work, or ask for fewer")
    })
}

#[cfg(test)]
mod tests {
    use super::super::Efficiency;
    use super::*;

    #[test]
    fn half_of_what_was_asked_for_is_worth_a_word() {
        let shown = TrialResources {
            state: Some(State::Completed),
            cpu_percent: Some(110.0),
            memory_peak_bytes: Some(100 * MEBIBYTE),
            memory_limit_bytes: Some(1000 * MEBIBYTE),
            gpu_percent: Some(20.0),
            efficiency: Some(Efficiency { memory: Some(0.1), ..Efficiency::default() }),
            ..TrialResources::default()
        };
        let check = |shown: &TrialResources, memory, cpus, gpus, expected: Option<&str>| {
            let asked = AskedResources { memory, cpus, gpus };
            assert_eq!(advise(shown, &asked).as_deref(), expected);
        };
        check(&shown, AskedMemory::Nothing, 1, 0, None);
        let memory = "at most 100 MiB of 1000 MiB memory were used: `mem = \"130M\"` is enough";
        check(&shown, AskedMemory::PerNode, 2, 0, Some(memory));
        let per_part = "at most 100 MiB of 1000 MiB memory were used: 130M on a node are enough";
        check(&shown, AskedMemory::PerPart, 2, 0, Some(per_part));
        let processors = "1.1 of 8 processors were busy: ask for 2";
        check(&shown, AskedMemory::Nothing, 8, 0, Some(processors));
        let gpu = "the GPU was busy for 20 % of the time: give each more work, or ask for fewer";
        check(&shown, AskedMemory::Nothing, 1, 1, Some(gpu));
        let failed = TrialResources { state: Some(State::Failed), ..shown };
        check(&failed, AskedMemory::PerNode, 8, 1, None);
    }

    #[test]
    fn little_memory_is_never_advised_and_amounts_are_round() {
        let check = |peak: u64, limit: u64, expected: Option<&str>| {
            let shown = TrialResources {
                memory_peak_bytes: Some(peak * MEBIBYTE),
                memory_limit_bytes: Some(limit * MEBIBYTE),
                efficiency: Some(Efficiency { memory: Some(0.1), ..Efficiency::default() }),
                ..TrialResources::default()
            };
            let asked = AskedResources { memory: AskedMemory::PerNode, ..Default::default() };
            let advice = advise(&shown, &asked);
            let advised = advice.as_deref().map(|text| text.split('"').nth(1).unwrap());
            assert_eq!(advised, expected, "{peak} of {limit}");
        };
        check(0, 90, None);
        check(0, 9000, None);
        check(3, 90, None);
        check(3, 120, None);
        check(3, 4000, Some("100M"));
        check(101, 4000, Some("140M"));
        check(1000, 4000, Some("1536M"));
        check(7000, 64_000, Some("9G"));
    }
}
