//! What `/proc` tells of processes: parents and start times. It only reads.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcStat {
    /// The process that it belongs to.
    pub parent: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its processor time in clock ticks, with that of its children that it has waited for.
    pub cpu_ticks: u64,
    /// It is over, and its parent has not yet heard.
    pub is_zombie: bool,
}

/// Reads one process.
pub fn stat(pid: u32) -> io::Result<ProcStat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&String::from_utf8_lossy(&text))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an odd `/proc/PID/stat`"))
}

/// The command's name stands in parentheses, and may hold spaces and parentheses itself.
fn parse_stat(text: &str) -> Option<ProcStat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0));
    Some(ProcStat {
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        cpu_ticks: ticks.sum(),
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// What a process has in memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcMemory {
    /// Now.
    pub now: u64,
    /// The most that it had.
    pub peak: u64,
}

/// What a process has in memory. Nothing of one that has ended.
#[must_use]
pub fn memory(pid: u32) -> Option<ProcMemory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    Some(ProcMemory { now: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// Every process id.
#[must_use]
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The living processes below `root`, parents before children, without the trees of `except`.
#[must_use]
pub fn descendants(root: u32, except: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in pids() {
        if let Ok(stat) = stat(pid)
            && !stat.is_zombie
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    below(root, except, &children)
}

/// Walks a tree; apart, so that it is tested without processes.
fn below(root: u32, except: &[u32], children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let own = children.get(&parent).map_or(&[][..], Vec::as_slice);
        found.extend(own.iter().filter(|pid| !except.contains(pid)));
        next += 1;
    }
    found.remove(0);
    found
}

/// The file of the program that a process runs; nothing where it can't be looked at.
#[must_use]
pub fn exe(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194560 1 0 0 0 5 2 30 10 20 0 1 0 4242 1 1 1";
        let expected = ProcStat { parent: 3, start_ticks: 4242, cpu_ticks: 47, is_zombie: false };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_tree_is_walked_from_the_top_and_pruned() {
        let children = HashMap::from([(1, vec![2, 3]), (2, vec![4]), (3, vec![5]), (9, vec![8])]);
        assert_eq!(below(1, &[], &children), [2, 3, 4, 5]);
        assert_eq!(below(1, &[3], &children), [2, 4]);
        assert_eq!(below(7, &[], &children), [0; 0]);
    }
}
