//! How many GPUs a node of a trial has, however they are asked for.

use std::num::NonZeroU32;

use super::SlurmExecutor;

impl SlurmExecutor {
    /// As many as can be told from `gpus_per_node`, or from the options of `sbatch` that ask for GPUs.
    #[must_use]
    pub fn gpus_on_a_node(&self) -> Option<u32> {
        let option = |name: &str| self.sbatch.get(name).map(String::as_str);
        let nodes = self.nodes.map_or(1, NonZeroU32::get);
        let share = |all: u32| all.is_multiple_of(nodes).then_some(all / nodes);
        let own = self.gpus_per_node.as_deref().and_then(number);
        own.or_else(|| generic(option("gres")?))
            .or_else(|| generic(option("tres-per-node")?))
            .or_else(|| share(number(option("gpus")?)?))
            .or_else(|| number(option("gpus-per-task")?))
    }

    /// Whether `gres` asks for GPUs.
    pub(super) fn has_generic_gpus(&self) -> bool {
        self.sbatch.get("gres").is_some_and(|gres| generic(gres).is_some())
    }
}

/// The number in `8`, `h100:8` or `h100:4,a100:4`.
fn number(text: &str) -> Option<u32> {
    text.split(',').map(|part| part.rsplit([':', '=']).next()?.parse::<u32>().ok()).sum()
}

/// The number of GPUs in `gpu:4,license:1`, `gres/gpu:h100:2` or `gpu`, which is one.
fn generic(text: &str) -> Option<u32> {
    let of_gpus = |part: &str| {
        let part = part.strip_prefix("gres/").or(part.strip_prefix("gres:")).unwrap_or(part);
        let rest = part.strip_prefix("gpu")?;
        if rest.is_empty() {
            Some(1)
        } else {
            rest.starts_with([':', '=']).then(|| number(rest))?
        }
    };
    text.split(',').filter_map(of_gpus).reduce(|all, some| all + some)
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
        check(1, "", &[], None);
    }
}
