//! What `/proc` tells of processes: parents, start times, environments. It only reads.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) start_ticks: u64,
    pub(crate) is_zombie: bool,
}

/// The start time of a process in clock ticks since boot: with the boot id it tells a reused pid.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// Whether the process that began then is still there, and not a mere zombie.
pub(crate) fn is_alive(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !stat.is_zombie)
}

pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&String::from_utf8_lossy(&text))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an odd `/proc/PID/stat`"))
}

/// The command's name stands in parentheses, and may hold spaces and parentheses itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// Every process id.
pub(crate) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The living processes below `root`, parents before children, without the trees of `except`.
pub(crate) fn descendants(root: u32, except: &[u32]) -> Vec<u32> {
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

/// A variable of a process's environment as it was when it began.
pub(crate) fn variable(pid: u32, name: &str) -> Option<Vec<u8>> {
    find_variable(&environment(pid)?, name).map(<[u8]>::to_vec)
}

/// The environment of a process as it was when it began.
pub(crate) fn environment(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// The value of a variable in such an environment.
pub(crate) fn find_variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut variables = environment.split(|&byte| byte == 0);
    variables.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The command line of a process.
pub(crate) fn arguments(pid: u32) -> Vec<OsString> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text.strip_suffix(b"\0").unwrap_or(&text).split(|&byte| byte == 0);
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// Whether a process that we may look into holds something at or below a path open.
pub(crate) fn is_open(path: &Path) -> bool {
    pids().into_iter().any(|pid| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut targets = descriptors.flatten().flat_map(|entry| fs::read_link(entry.path()));
        targets.any(|target| target.starts_with(path))
    })
}

/// How many processes the kernel has killed for want of memory in this harness's cgroup.
pub(crate) fn oom_kills() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let file = match controllers {
            "" => format!("/sys/fs/cgroup{path}/memory.events"),
            "memory" => format!("/sys/fs/cgroup/memory{path}/memory.oom_control"),
            _ => return None,
        };
        let text = fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1 1";
        let expected = Stat { parent: 3, start_ticks: 4242, is_zombie: false };
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
