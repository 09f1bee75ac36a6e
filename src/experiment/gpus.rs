//! How many GPUs a node of a trial has, however they are asked for.

use std::num::NonZeroU32;

use super::SlurmExecutor;

impl SlurmExecutor {
    /// As many as can be told from `gpus_per_node`, or from the options of `sbatch` that ask for GPUs.
    #[must_use]
    pub fn gpus_on_a_node(&self) -> Option<u32> {
        self.gpus_per_node()
            .or_else(|| self.share_of_a_node(number(self.option("gpus")?)?))
            .or_else(|| self.gpus_of_tasks())
    }

    /// The same on all nodes of a trial; 0 where it asks for none, or for a number that can't be told.
    #[must_use]
    pub fn gpus_of_a_trial(&self) -> u32 {
        let on_all_nodes = |on_a_node: u32| on_a_node.saturating_mul(count(self.nodes));
        let per_node = self.gpus_per_node().map(on_all_nodes);
        let all = per_node.or_else(|| number(self.option("gpus")?));
        all.or_else(|| self.gpus_of_tasks().map(on_all_nodes)).unwrap_or(0)
    }

    fn gpus_per_node(&self) -> Option<u32> {
        let own = self.gpus_per_node.as_deref().and_then(number);
        own.or_else(|| generic(self.option("gres")?))
            .or_else(|| generic(self.option("tres-per-node")?))
    }

    /// Those of all tasks on a node.
    fn gpus_of_tasks(&self) -> Option<u32> {
        number(self.option("gpus-per-task")?)?.checked_mul(count(self.tasks_per_node))
    }

    /// The value of an option of `sbatch`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.sbatch.get(name).map(String::as_str)
    }

    fn share_of_a_node(&self, all: u32) -> Option<u32> {
        let nodes = count(self.nodes);
        all.is_multiple_of(nodes).then_some(all / nodes)
    }

    /// Whether `gres` asks for GPUs.
    pub(super) fn has_generic_gpus(&self) -> bool {
        self.sbatch.get("gres").is_some_and(|gres| generic(gres).is_some())
    }
}

fn count(number: Option<NonZeroU32>) -> u32 {
    number.map_or(1, NonZeroU32::get)
}

/// The number in `8`, `h100:8` or `h100:4,a100:4`.
fn number(text: &str) -> Option<u32> {
    let numbers = text.split(',').map(|part| part.rsplit([':', '=']).next()?.trim().parse().ok());
    numbers.reduce(|all: Option<u32>, some| all?.checked_add(some?))?
}

/// The number of GPUs in `gpu:4,license:1`, `gres/gpu:h100:2`, or `gpu` and `gpu:h100`, which are one.
fn generic(text: &str) -> Option<u32> {
    text.split(',').filter_map(gpus).reduce(u32::saturating_add)
}

fn gpus(part: &str) -> Option<u32> {
    let part = part.trim();
    let part = part.strip_prefix("gres/").or(part.strip_prefix("gres:")).unwrap_or(part);
    let rest = part.strip_prefix("gpu")?;
    (rest.is_empty() || rest.starts_with([':', '='])).then(|| number(rest).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(nodes: u32, gpus: &str, options: &[(&str, &str)], expected: Option<u32>) {
        let executor = SlurmExecutor {
            nodes: NonZeroU32::new(nodes),
            gpus_per_node: (!gpus.is_empty()).then(|| gpus.to_owned()),
            sbatch: options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..SlurmExecutor::default()
        };
        assert_eq!(executor.gpus_on_a_node(), expected, "{gpus} {options:?}");
        let of_a_trial = expected.map_or(executor.gpus_of_a_trial(), |it| it * nodes);
        assert_eq!(executor.gpus_of_a_trial(), of_a_trial, "{gpus} {options:?}");
    }

    #[test]
    fn gpus_are_counted() {
        check(1, "8", &[], Some(8));
        check(1, "h100:8", &[], Some(8));
        check(1, "h100:4,a100:2", &[], Some(6));
        check(1, "h100", &[], None);
        check(1, "", &[("gres", "gpu:4")], Some(4));
        check(1, "", &[("gres", "license:1,gpu:h100:2")], Some(2));
        check(1, "", &[("gres", "gpu")], Some(1));
        check(1, "", &[("gres", "gputop:3")], None);
        check(1, "", &[("tres-per-node", "gres/gpu:3")], Some(3));
        check(2, "", &[("gpus", "8")], Some(4));
        check(3, "", &[("gpus", "8")], None);
        check(2, "", &[("gpus-per-task", "h100:4")], Some(4));
        check(1, "", &[("gres", "gpu:h100")], Some(1));
        check(1, "", &[("gres", "gpu, shard:4")], Some(1));
        check(1, "", &[], None);
        let with = |name: &str, value: &str| SlurmExecutor {
            nodes: NonZeroU32::new(3),
            tasks_per_node: NonZeroU32::new(2),
            sbatch: [(name.to_owned(), value.to_owned())].into(),
            ..SlurmExecutor::default()
        };
        assert_eq!(with("gpus", "8").gpus_of_a_trial(), 8);
        assert_eq!(with("gpus-per-task", "2").gpus_of_a_trial(), 12);
        assert_eq!(with("mem", "8G").gpus_of_a_trial(), 0);
    }
}
