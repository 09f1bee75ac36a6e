//! The lines of `scontrol -o show node`.

use super::{Parsed, UnreadLine, excerpt};

/// A node: what a job can have of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Megabytes that jobs can have.
    pub memory: u64,
    /// The partitions that it is in.
    pub partitions: Vec<String>,
}

/// Reads one line. A reason at its end may hold anything: the first word of a key counts.
fn node(line: &str) -> Option<Node> {
    let value = |key: &str| {
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let number = |key: &str| value(key).and_then(|number| number.parse::<u64>().ok());
    let partitions = value("Partitions").unwrap_or_default();
    Some(Node {
        name: value("NodeName")?.to_owned(),
        memory: number("RealMemory")?.saturating_sub(number("MemSpecLimit").unwrap_or(0)),
        partitions: partitions
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// Reads every line.
#[must_use]
pub fn parse(output: &[u8]) -> Parsed<Node> {
    let text = String::from_utf8_lossy(output);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            node(line).ok_or_else(|| UnreadLine {
                line: index + 1,
                what: "a node",
                text: excerpt(line.as_bytes()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jobs_can_have_is_read() {
        let text = "NodeName=n1 Arch=x86_64 CoresPerSocket=1 CPUAlloc=0 RealMemory=4000 AllocMem=0 FreeMem=1 Sockets=8 \
            MemSpecLimit=500 State=IDLE ThreadsPerCore=1 Weight=1 Partitions=main,scavenge BootTime=Unknown \
            Reason=RealMemory=9 is wrong [root@x]\nNodeName=n2 RealMemory=8000 Partitions=main\nnonsense\n";
        let parsed = parse(text.as_bytes());
        let shown: Vec<String> = parsed
            .rows
            .iter()
            .map(|node| format!("{} {} {}", node.name, node.memory, node.partitions.join("+")))
            .collect();
        assert_eq!(shown, ["n1 3500 main+scavenge", "n2 8000 main"]);
        assert_eq!(parsed.unread.len(), 1);
    }
}
