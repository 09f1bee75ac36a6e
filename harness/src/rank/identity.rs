//! Which of the processes of a trial this one is, and what it is told of the others.
#![expect(clippy::disallowed_methods, reason = "one of the places that read the environment")]

use std::env;
use std::ffi::OsString;

/// The place of one process among those of its trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    /// From 0, over all nodes.
    pub(crate) number: u32,
    /// How many there are.
    pub(crate) of: u32,
    /// From 0, on its own node.
    pub(crate) local: u32,
    /// How many this node has.
    pub(crate) local_of: u32,
    /// The number of its node in the job, from 0.
    pub(crate) node: u32,
    /// How many nodes there are.
    pub(crate) nodes: u32,
    /// Where rank 0 is.
    pub(crate) master: String,
    /// Slurm's name of the node.
    pub(crate) node_name: String,
    /// `12.0`: the job's step.
    pub(crate) step: String,
}

impl Rank {
    /// Reads what Slurm says of this task.
    pub(crate) fn of_slurm() -> Result<Self, String> {
        let nodes = number("SLURM_STEP_NUM_NODES").or_else(|_| number("SLURM_NNODES"))?;
        let node = number("SLURM_NODEID")?;
        let tasks = text("SLURM_STEP_TASKS_PER_NODE").or_else(|_| text("SLURM_TASKS_PER_NODE"))?;
        Ok(Self {
            number: number("SLURM_PROCID")?,
            of: number("SLURM_STEP_NUM_TASKS").or_else(|_| number("SLURM_NTASKS"))?,
            local: number("SLURM_LOCALID")?,
            local_of: nth_count(&tasks, node).ok_or("`SLURM_STEP_TASKS_PER_NODE` is odd")?,
            node,
            nodes,
            // The harness, which started the step, runs on the first node. An address needs no resolver.
            master: text("SLURM_LAUNCH_NODE_IPADDR")?,
            node_name: text("SLURMD_NODENAME")?,
            step: format!("{}.{}", text("SLURM_JOB_ID")?, text("SLURM_STEP_ID")?),
        })
    }

    /// What `torch.distributed` and its like read. The environment may say where the ranks meet, but not who is who.
    pub(crate) fn variables(&self, port: u16, workers: Option<u32>) -> Vec<(String, OsString)> {
        let variables = self.of_all(port, workers);
        variables.into_iter().filter(|(name, _)| !is_given(name)).collect()
    }

    /// The same, whatever the environment says.
    pub(crate) fn of_all(&self, port: u16, workers: Option<u32>) -> Vec<(String, OsString)> {
        match workers {
            Some(workers) => torchrun(self.node, self.nodes, workers, &self.master, port),
            None => self.own(port),
        }
    }

    /// The only one, on this machine.
    pub(crate) fn alone() -> Self {
        Self {
            number: 0,
            of: 1,
            local: 0,
            local_of: 1,
            node: 0,
            nodes: 1,
            master: "127.0.0.1".to_owned(),
            node_name: String::new(),
            step: String::new(),
        }
    }

    fn own(&self, port: u16) -> Vec<(String, OsString)> {
        let numbers = [
            ("RANK", self.number),
            ("WORLD_SIZE", self.of),
            ("LOCAL_RANK", self.local),
            ("LOCAL_WORLD_SIZE", self.local_of),
            ("GROUP_RANK", self.node),
            ("MASTER_PORT", port.into()),
        ];
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number.to_string().into()));
        let master = ("MASTER_ADDR".to_owned(), self.master.clone().into());
        numbers.into_iter().chain([master]).collect()
    }
}

fn is_given(name: &str) -> bool {
    let may_be_given = !name.ends_with("RANK") && name != "WORLD_SIZE";
    may_be_given && env::var_os(name).is_some()
}

/// What `torchrun` reads in place of its options. Ranks follow the order of the nodes, so that rank 0 is on the first.
fn torchrun(
    node: u32,
    nodes: u32,
    workers: u32,
    master: &str,
    port: u16,
) -> Vec<(String, OsString)> {
    let variables = [
        ("PET_NNODES", nodes.to_string()),
        ("PET_NPROC_PER_NODE", workers.to_string()),
        ("PET_NODE_RANK", node.to_string()),
        ("PET_RDZV_BACKEND", "static".to_owned()),
        ("PET_MASTER_ADDR", master.to_owned()),
        ("PET_MASTER_PORT", port.to_string()),
        ("PET_MAX_RESTARTS", "0".to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.into())).into()
}

/// Whether the harness listens to messages.
pub(crate) fn is_heard() -> bool {
    env::var_os("NEMO_SOCKET").is_some()
}

/// Where programs are looked for.
pub(crate) fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// `4(x2),3` counts the tasks of each node.
fn nth_count(text: &str, node: u32) -> Option<u32> {
    let mut first = 0;
    for group in text.split(',') {
        let (count, times) = match group.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (group, 1),
        };
        first += times;
        if node < first {
            return count.parse().ok();
        }
    }
    None
}

fn text(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("`{name}` is not set: `exec` is started by Slurm's `srun`"))
}

fn number(name: &str) -> Result<u32, String> {
    let text = text(name)?;
    text.parse().map_err(|_| format!("`{name}` is no number: `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_counted_node_by_node() {
        let count = |node| nth_count("4(x2),3,1(x2)", node);
        assert_eq!([0, 1, 2, 3, 4, 5].map(count), [4, 4, 3, 1, 1, 0].map(|n| (n > 0).then_some(n)));
        assert_eq!(nth_count("x", 0), None);
    }

    #[test]
    fn a_launcher_is_told_by_its_own_variables() {
        let found = torchrun(1, 4, 2, "10.0.0.1", 23_000);
        let shown: Vec<String> = found
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_string_lossy()))
            .collect();
        assert_eq!(
            shown.join(" "),
            "PET_NNODES=4 PET_NPROC_PER_NODE=2 PET_NODE_RANK=1 PET_RDZV_BACKEND=static \
             PET_MASTER_ADDR=10.0.0.1 PET_MASTER_PORT=23000 PET_MAX_RESTARTS=0"
        );
    }
}
