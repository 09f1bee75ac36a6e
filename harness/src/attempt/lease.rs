//! The lease: attempts are numbered by the files that they claim, and only the newest may commit.
//!
//! A claim is a link to the next free name, which only one process can make, on NFS too. A later attempt takes over
//! at once; an earlier one that sees a later lease stops.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nemo_core::durable;
use serde::{Deserialize, Serialize};

use crate::job::context::Context;

/// Who holds a lease: the content of `lease.<attempt>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Slurm's id as `squeue` shows it; none for a local attempt.
    pub(crate) slurm_job: Option<String>,
    pub(crate) restarts: u32,
    pub(crate) node: String,
    pub(crate) boot_id: String,
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
    /// Tells two claims apart, whatever else is equal.
    pub(crate) nonce: String,
}

impl Holder {
    pub(crate) fn of(context: &Context, nonce: String) -> Self {
        Self {
            slurm_job: context.slurm.as_ref().map(crate::job::context::SlurmJob::id),
            restarts: context.slurm.as_ref().map_or(0, |job| job.restarts),
            node: context.node.clone(),
            boot_id: context.boot_id.clone(),
            pid: context.pid,
            start_ticks: context.start_ticks,
            nonce,
        }
    }
}

/// A claim that was made.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    folder: PathBuf,
    pub(crate) attempt: u32,
    pub(crate) nonce: String,
}

/// The claim before one's own.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) attempt: u32,
    pub(crate) holder: Holder,
    /// When it was made, in unix seconds.
    pub(crate) time: f64,
}

/// What came of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It was made; the one before, where there is one.
    Made(Lease, Option<Before>),
    /// A later run of the same Slurm job was here before: this process is a remnant.
    Stale(Holder),
}

/// Claims the next attempt, none below `least`.
pub(crate) fn claim(folder: &Path, least: u32, own: &Holder) -> io::Result<Claim> {
    let temporary = folder.join(format!(".tmp-lease-{}", own.nonce));
    durable::write_synced(&temporary, &serde_json::to_vec(own)?)?;
    let claim = link(folder, least, own, &temporary);
    fs::remove_file(&temporary)?;
    if let Ok(Claim::Made(lease, _)) = &claim {
        durable::sync_dir(folder)?;
        remove_old(lease);
    }
    claim
}

fn link(folder: &Path, least: u32, own: &Holder, temporary: &Path) -> io::Result<Claim> {
    loop {
        let newest = numbers(folder)?.into_iter().max();
        let before = newest.and_then(|number| read(folder, number));
        if let Some(Before { holder, .. }) = &before
            && holder.slurm_job.is_some()
            && holder.slurm_job == own.slurm_job
            && holder.restarts > own.restarts
        {
            return Ok(Claim::Stale(holder.clone()));
        }
        let attempt = newest.map_or(0, |number| number + 1).max(least);
        let made = match fs::hard_link(temporary, path(folder, attempt)) {
            Ok(()) => true,
            // NFS may lose the answer to a link that was made.
            Err(_) if fs::metadata(temporary)?.nlink() == 2 => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        if !made {
            continue;
        }
        let claimed = Lease { folder: folder.to_owned(), attempt, nonce: own.nonce.clone() };
        if claimed.is_newest()? {
            return Ok(Claim::Made(claimed, before));
        }
        // Others came between, and removed an old name that this claim then took: it is no number of its own.
        fs::remove_file(path(folder, attempt))?;
    }
}

impl Lease {
    /// One that was claimed elsewhere.
    #[cfg(test)]
    pub(crate) fn of_test(folder: &Path, attempt: u32, nonce: &str) -> Self {
        Self { folder: folder.to_owned(), attempt, nonce: nonce.to_owned() }
    }

    /// Whether no later attempt has taken over. An error says neither.
    pub(crate) fn is_newest(&self) -> io::Result<bool> {
        let numbers = numbers(&self.folder)?;
        Ok(numbers.iter().max() == Some(&self.attempt))
    }
}

/// The two newest stay: the one before tells a later claim whom it follows.
fn remove_old(lease: &Lease) {
    let Ok(numbers) = numbers(&lease.folder) else { return };
    for number in numbers.into_iter().filter(|number| number + 1 < lease.attempt) {
        drop(fs::remove_file(path(&lease.folder, number))); // the next attempt tries again
    }
}

fn path(folder: &Path, attempt: u32) -> PathBuf {
    folder.join(format!("lease.{attempt}.json"))
}

fn read(folder: &Path, attempt: u32) -> Option<Before> {
    let path = path(folder, attempt);
    let holder = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let made = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
    let time = made.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    Some(Before { attempt, holder, time })
}

fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("lease.")?.strip_suffix(".json"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// A word that no other claim has.
pub(crate) fn nonce() -> io::Result<String> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(job: Option<&str>, restarts: u32, nonce: &str) -> Holder {
        Holder {
            slurm_job: job.map(str::to_owned),
            restarts,
            node: "n1".into(),
            boot_id: "b".into(),
            pid: 1,
            start_ticks: 1,
            nonce: nonce.into(),
        }
    }

    fn made(claim: Claim) -> Lease {
        let Claim::Made(lease, _) = claim else { panic!("{claim:?}") };
        lease
    }

    #[test]
    fn a_later_attempt_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let first = made(claim(folder.path(), 0, &holder(Some("7"), 0, "a")).unwrap());
        assert_eq!((first.attempt, first.is_newest().unwrap()), (0, true));
        let second = made(claim(folder.path(), 0, &holder(Some("7"), 1, "b")).unwrap());
        assert_eq!((second.attempt, second.is_newest().unwrap()), (1, true));
        assert!(!first.is_newest().unwrap());
        let third = made(claim(folder.path(), 5, &holder(None, 0, "c")).unwrap());
        assert_eq!(third.attempt, 5);
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "old leases and temporary names are gone");
    }

    #[test]
    fn a_remnant_of_an_earlier_run_leaves() {
        let folder = tempfile::tempdir().unwrap();
        made(claim(folder.path(), 0, &holder(Some("7"), 1, "a")).unwrap());
        let late = claim(folder.path(), 0, &holder(Some("7"), 0, "b")).unwrap();
        assert!(matches!(late, Claim::Stale(_)));
        made(claim(folder.path(), 0, &holder(Some("8"), 0, "c")).unwrap());
    }

    #[test]
    fn many_at_once_get_different_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let mut attempts: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|index| {
                    let path = folder.path();
                    let own = holder(None, 0, &index.to_string());
                    scope.spawn(move || made(claim(path, 0, &own).unwrap()).attempt)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        attempts.sort_unstable();
        attempts.dedup();
        assert_eq!(attempts.len(), 8, "{attempts:?}");
    }
}
