//! The ranks of an attempt as one: what is counted for a whole node counts once.

use std::collections::BTreeMap;

use nemo_core::rundir::{GpuUsage, Usage};

/// What an attempt uses, or used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttemptUsage {
    /// From 0.
    pub attempt: u32,
    /// Where it ran.
    pub nodes: Vec<String>,
    /// When it was looked at last.
    pub time: f64,
    /// For how long it had run then.
    pub seconds: f64,
    /// On all nodes.
    pub cpus: Option<u32>,
    /// On all nodes.
    pub cpu_percent: Option<f64>,
    /// On all nodes.
    pub cpu_seconds: f64,
    /// On the node where it is most.
    pub memory_bytes: Option<u64>,
    /// On the node where it was most.
    pub memory_peak_bytes: Option<u64>,
    /// On a node.
    pub memory_limit_bytes: Option<u64>,
    /// The mean of all GPUs.
    pub gpu_percent: Option<f64>,
    /// The mean of all GPUs and samples.
    pub gpu_mean_percent: Option<f64>,
    /// Of all GPUs.
    pub gpu_memory_bytes: Option<u64>,
    /// Of all GPUs.
    pub gpu_memory_peak_bytes: Option<u64>,
}

/// The ranks on one node.
#[derive(Default)]
struct NodeUsage {
    cpus: Option<u32>,
    memory: Option<u64>,
    peak: Option<u64>,
    limit: Option<u64>,
}

impl AttemptUsage {
    /// The attempts of these ranks, in their order.
    pub(super) fn of_ranks(ranks: Vec<Usage>) -> Vec<Self> {
        let mut attempts: BTreeMap<u32, Vec<Usage>> = BTreeMap::new();
        for rank in ranks {
            attempts.entry(rank.attempt).or_default().push(rank);
        }
        attempts.into_iter().map(|(attempt, ranks)| Self::of(attempt, &ranks)).collect()
    }

    fn of(attempt: u32, ranks: &[Usage]) -> Self {
        let mut nodes: BTreeMap<&str, NodeUsage> = BTreeMap::new();
        let mut gpus: BTreeMap<(&str, &str), &GpuUsage> = BTreeMap::new();
        for rank in ranks {
            nodes.entry(&rank.node).or_default().add(rank);
            gpus.extend(rank.gpus.iter().map(|gpu| ((&*rank.node, &*gpu.id), gpu)));
        }
        let of_gpus = |part: fn(&GpuUsage) -> f64| mean(gpus.values().map(|gpu| part(gpu)));
        let memory_of_gpus = |part: fn(&GpuUsage) -> u64| {
            (!gpus.is_empty()).then(|| gpus.values().map(|gpu| part(gpu)).sum())
        };
        let percents = ranks.iter().filter_map(|rank| rank.cpu_percent);
        Self {
            attempt,
            nodes: nodes.keys().map(|&name| name.to_owned()).collect(),
            time: ranks.iter().map(|rank| rank.time).fold(0.0, f64::max),
            seconds: ranks.iter().map(|rank| rank.seconds).fold(0.0, f64::max),
            cpus: nodes.values().filter_map(|node| node.cpus).reduce(|a, b| a + b),
            cpu_percent: percents.reduce(|a, b| a + b),
            cpu_seconds: ranks.iter().map(|rank| rank.cpu_seconds).sum(),
            memory_bytes: nodes.values().filter_map(|node| node.memory).max(),
            memory_peak_bytes: nodes.values().filter_map(|node| node.peak).max(),
            memory_limit_bytes: nodes.values().filter_map(|node| node.limit).min(),
            gpu_percent: of_gpus(|gpu| gpu.percent),
            gpu_mean_percent: of_gpus(|gpu| gpu.mean_percent),
            gpu_memory_bytes: memory_of_gpus(|gpu| gpu.memory_bytes),
            gpu_memory_peak_bytes: memory_of_gpus(|gpu| gpu.memory_peak_bytes),
        }
    }
}

impl NodeUsage {
    fn add(&mut self, rank: &Usage) {
        self.cpus = self.cpus.max(rank.cpus);
        self.limit = self.limit.max(rank.memory_limit_bytes);
        let parts =
            [(&mut self.memory, rank.memory_bytes), (&mut self.peak, rank.memory_peak_bytes)];
        for (sum, own) in parts {
            let Some(own) = own else { continue };
            *sum = match *sum {
                // Each rank has counted the whole job.
                Some(sum) if rank.is_whole_job => Some(sum.max(own)),
                Some(sum) => Some(sum.saturating_add(own)),
                None => Some(own),
            };
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of GPUs")]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.sum::<f64>() / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(node: &str, memory: u64, is_whole_job: bool) -> Usage {
        let gpu =
            |id: &str, percent| GpuUsage { id: id.to_owned(), percent, ..GpuUsage::default() };
        Usage {
            node: node.to_owned(),
            cpus: Some(8),
            cpu_percent: Some(100.0),
            cpu_seconds: 10.0,
            seconds: 20.0,
            memory_bytes: Some(memory),
            memory_peak_bytes: Some(memory + 1),
            memory_limit_bytes: Some(1000),
            is_whole_job,
            gpus: vec![gpu("a", 100.0), gpu("b", 50.0)],
            ..Usage::default()
        }
    }

    #[test]
    fn ranks_add_up_by_node() {
        let ranks = vec![rank("n1", 10, false), rank("n1", 20, false), rank("n2", 5, false)];
        let attempts = AttemptUsage::of_ranks(ranks);
        let [one] = attempts.as_slice() else { panic!("{attempts:?}") };
        assert_eq!((one.cpus, one.cpu_percent, one.cpu_seconds), (Some(16), Some(300.0), 30.0));
        assert_eq!((one.memory_bytes, one.memory_peak_bytes), (Some(30), Some(32)));
        // GPUs of equal names are different ones on different nodes.
        assert_eq!((one.gpu_percent, one.nodes.len()), (Some(75.0), 2));
        let whole = AttemptUsage::of_ranks(vec![rank("n1", 30, true), rank("n1", 30, true)]);
        assert_eq!(whole[0].memory_bytes, Some(30));
    }
}
