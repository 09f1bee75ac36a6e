//! What `/proc` tells of processes: environments, arguments, open files. It only reads.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) use nemo_core::proc_fs::{descendants, exe, memory, pids, stat};

/// Whether the process that began then is still there, and not a mere zombie.
pub(crate) fn is_alive(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !stat.is_zombie)
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

/// The cgroups of a process, a line each.
pub(crate) fn cgroups(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

/// The parent of a process, its parent, and so on.
pub(crate) fn ancestors(pid: u32) -> Vec<u32> {
    let parent = |pid: &u32| stat(*pid).ok().map(|stat| stat.parent).filter(|&parent| parent != 0);
    std::iter::successors(parent(&pid), parent).collect()
}

/// The files below a folder that a process of this node has open.
pub(crate) fn open_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut open = BTreeSet::new();
    for pid in pids() {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let targets = descriptors.flatten().flat_map(|entry| fs::read_link(entry.path()));
        open.extend(targets.filter(|target| target.starts_with(folder)));
    }
    open
}

/// Device and inode of each file of one of these names that a process of this node has open to write. In a container its
/// folder may have another path.
pub(crate) fn open_to_write(names: &BTreeSet<OsString>) -> BTreeSet<(u64, u64)> {
    let mut open = BTreeSet::new();
    for pid in pids() {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in descriptors.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let is_meant = target.file_name().is_some_and(|name| names.contains(name));
            if !is_meant || !is_for_writing(pid, &entry.file_name().to_string_lossy()) {
                continue;
            }
            let metadata = fs::metadata(entry.path());
            open.extend(metadata.map(|metadata| (metadata.dev(), metadata.ino())));
        }
    }
    open
}

/// Whether a descriptor was opened to write. Where nobody tells, it may be.
fn is_for_writing(pid: u32, descriptor: &str) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")) else {
        return true;
    };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & 0o3 != 0)
}

/// The memory of this node in bytes.
pub(crate) fn total_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
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
