//! The memory of a whole job on this node, as the cgroup counts it that Slurm made for it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::jobs;

/// The memory that the processes of this job have, without what the kernel merely keeps of files. Nothing where Slurm
/// made no cgroup for the job.
pub(super) fn memory_of_job() -> Option<u64> {
    memory_below(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

fn memory_below(root: &Path, own: &str) -> Option<u64> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (folder, wanted): (PathBuf, &[&str]) = match controllers {
            "" => (root.to_owned(), &["anon", "shmem"]),
            "memory" => (root.join("memory"), &["total_rss", "total_shmem"]),
            _ => return None,
        };
        let of_job = job_folder(Path::new(path.trim_start_matches('/')))?;
        let text = fs::read_to_string(folder.join(of_job).join("memory.stat")).ok()?;
        sum_of(&text, wanted)
    })
}

/// The part of a path up to the cgroup of the job, which holds all of its steps.
fn job_folder(path: &Path) -> Option<&Path> {
    let is_job =
        |path: &&Path| path.file_name().and_then(|name| jobs::of_folder(name.to_str()?)).is_some();
    path.ancestors().find(is_job)
}

fn sum_of(stat: &str, wanted: &[&str]) -> Option<u64> {
    let mut found = wanted.iter().filter_map(|name| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok();
        stat.lines().find_map(value)
    });
    let first = found.next()?;
    Some(first + found.sum::<u64>())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_cgroups_tell_the_memory_of_the_job() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, text: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("memory.stat"), text).unwrap();
        };
        write("system.slice/slurmstepd.scope/job_7", "anon 100\nfile 9000\nanon_thp 5\nshmem 20\n");
        write("memory/slurm/uid_1/job_7", "cache 9000\nrss 1\ntotal_rss 50\ntotal_shmem 3\n");
        let check = |own: &str, expected| assert_eq!(memory_below(root.path(), own), expected);
        check("0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0\n", Some(120));
        check("4:memory:/slurm/uid_1/job_7/step_0\n0::/\n", Some(53));
        check("0::/user.slice/user-1000.slice\n", None);
        check("0::/job_x\n4:memory:/job_8\n", None);
    }
}
