//! The lease: each attempt claims a numbered file, and only the newest may commit.
//!
//! A later attempt takes over at once. An earlier one stops when it sees a later lease.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use nemo_core::claim::{ClaimDecision, ClaimOutcome, Claims};
use nemo_core::open;
use nemo_core::process_id::ProcessId;
use serde::{Deserialize, Serialize};

use crate::job::context::JobContext;

/// The first part of a lease's name.
const STEM: &str = "lease";

/// The holder of a lease: the content of `lease.<attempt>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseHolder {
    /// Slurm's id as `squeue` shows it; none for a local attempt.
    pub(crate) slurm_job: Option<String>,
    pub(crate) restarts: u32,
    #[serde(flatten)]
    pub(crate) process: ProcessId,
    /// Distinguishes two claims that are otherwise equal.
    pub(crate) nonce: String,
}

impl LeaseHolder {
    pub(crate) fn of(context: &JobContext, nonce: String) -> Self {
        Self {
            slurm_job: context.slurm.as_ref().map(crate::job::context::SlurmJob::id),
            restarts: context.slurm.as_ref().map_or(0, |job| job.restarts),
            process: context.process(),
            nonce,
        }
    }
}

/// A claim that this process holds.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    claims: Claims,
    pub(crate) attempt: u32,
    pub(crate) nonce: String,
}

/// A claim before this process's own.
#[derive(Clone, Debug)]
pub(crate) struct PreviousClaim {
    pub(crate) attempt: u32,
    pub(crate) holder: LeaseHolder,
    /// When it was made, in unix seconds.
    pub(crate) time: f64,
}

/// The outcome of a claim.
#[derive(Debug)]
pub(crate) enum LeaseClaim {
    /// This process holds the lease. The second field has the claims before it that are still there, oldest first.
    Made(Lease, Vec<PreviousClaim>),
    /// A later run of the same Slurm job holds it: this process is a remnant.
    Stale(LeaseHolder),
}

/// Claims the next attempt, none below `least`.
pub(crate) fn claim(folder: &Path, least: u32, own: &LeaseHolder) -> io::Result<LeaseClaim> {
    let claims = Claims::new(folder, STEM);
    let mut before = Vec::new();
    let outcome = claims.take(&own.nonce, &serde_json::to_vec(own)?, |newest| {
        let kept = newest.into_iter().flat_map(|number| number.saturating_sub(1)..=number);
        before = kept.filter_map(|number| read(&claims, number)).collect();
        match before.last() {
            Some(PreviousClaim { holder, .. }) if is_later_run(holder, own) => {
                ClaimDecision::Leave(holder.clone())
            }
            _ => ClaimDecision::Claim(newest.map_or(0, |number| number + 1).max(least)),
        }
    })?;
    Ok(match outcome {
        ClaimOutcome::Claimed(attempt) => {
            LeaseClaim::Made(Lease { claims, attempt, nonce: own.nonce.clone() }, before)
        }
        ClaimOutcome::Left(holder) => LeaseClaim::Stale(holder),
    })
}

/// Removes the leases from a copy of a trial's folder, whose holders work in the original, but for those of tasks of this job.
pub(crate) fn remove_of_others(folder: &Path, job: Option<&str>) -> io::Result<()> {
    let claims = Claims::new(folder, STEM);
    let Some(newest) = claims.newest()? else { return Ok(()) };
    for attempt in newest.saturating_sub(1)..=newest {
        let holder = read(&claims, attempt).and_then(|claim| claim.holder.slurm_job);
        let number = holder.as_deref().and_then(|id| id.split('_').next());
        if job.is_some() && number == job {
            continue;
        }
        match fs::remove_file(claims.path(attempt)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether the holder is a later run of the same Slurm job.
fn is_later_run(holder: &LeaseHolder, own: &LeaseHolder) -> bool {
    holder.slurm_job.is_some()
        && holder.slurm_job == own.slurm_job
        && holder.restarts > own.restarts
}

impl Lease {
    /// One that was claimed elsewhere.
    #[cfg(test)]
    pub(crate) fn of_test(folder: &Path, attempt: u32, nonce: &str) -> Self {
        Self { claims: Claims::new(folder, STEM), attempt, nonce: nonce.to_owned() }
    }

    /// Whether no later attempt has taken over. An error means that it is unknown.
    pub(crate) fn is_newest(&self) -> io::Result<bool> {
        self.claims.is_newest(self.attempt)
    }

    /// Like [`Lease::is_newest`], but asks the server of a shared disk. Commits need it.
    pub(crate) fn is_newest_exactly(&self) -> io::Result<bool> {
        self.claims.is_newest_exactly(self.attempt, &self.nonce)
    }

    /// Removes temporary files of earlier attempts from the trial's folder.
    pub(crate) fn clean(&self) {
        self.claims.clean();
    }
}

fn read(claims: &Claims, attempt: u32) -> Option<PreviousClaim> {
    let path = claims.path(attempt);
    let holder = serde_json::from_slice(&open::read(&path).ok()?).ok()?;
    let made = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
    let time = made.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    Some(PreviousClaim { attempt, holder, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(job: Option<&str>, restarts: u32, nonce: &str) -> LeaseHolder {
        LeaseHolder {
            slurm_job: job.map(str::to_owned),
            restarts,
            process: ProcessId { node: "n1".into(), boot_id: "b".into(), pid: 1, start_ticks: 1 },
            nonce: nonce.into(),
        }
    }

    #[test]
    fn the_claims_before_are_known_while_they_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let before = |nonce| {
            let claim = claim(folder.path(), 0, &holder(None, 0, nonce)).unwrap();
            let LeaseClaim::Made(_, before) = claim else { panic!("{claim:?}") };
            before.iter().map(|claim| claim.attempt).collect::<Vec<_>>()
        };
        let claims = ["a", "b", "c", "d"].map(before);
        assert_eq!(claims, [vec![], vec![0], vec![0, 1], vec![1, 2]]);
    }

    fn made(claim: LeaseClaim) -> Lease {
        let LeaseClaim::Made(lease, _) = claim else { panic!("{claim:?}") };
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
        assert!(matches!(late, LeaseClaim::Stale(_)));
        made(claim(folder.path(), 0, &holder(Some("8"), 0, "c")).unwrap());
    }
}
