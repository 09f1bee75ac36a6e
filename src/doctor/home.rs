//! What the disk of the home does with small files: an edge that makes some in a folder of its own, and what follows.
#![expect(clippy::disallowed_methods, reason = "an edge: measures a disk with the real clock")]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use nemo_core::durable;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;

use super::{CheckResult, Promise};
use crate::clock;
use crate::humanize::bytes;

/// How many small files the measurement writes.
const FILES: usize = 20;
/// Slower files than these make a commit slow, or everything (milliseconds).
const SLOW: f64 = 50.0;
const VERY_SLOW: f64 = 500.0;
/// Clocks that differ by more seconds make times in lists wrong; by much more, munge refuses us.
const SKEW: f64 = 2.0;
const GREAT_SKEW: f64 = 60.0;
/// Less room than this is soon used up.
const LITTLE_ROOM: u64 = 10 << 30;
const NO_ROOM: u64 = 256 << 20;
const FEW_FILES: u64 = 10_000;

/// The topic of a disk that only this machine may have.
pub const SHARED_DISK: &str = "shared disk";

/// What was seen of the home.
#[derive(Clone, Debug, PartialEq)]
pub struct HomeFacts {
    /// The home.
    pub home: PathBuf,
    /// Whether it is there yet.
    pub exists: bool,
    /// The kind of its file system.
    pub kind: &'static str,
    /// Milliseconds that a small durable file takes, in the middle.
    pub file_ms: f64,
    /// Why a hard link could not be made, or was made twice.
    pub link_error: Option<String>,
    /// Why a rename failed, or left the old content.
    pub rename_error: Option<String>,
    /// How far the disk's clock is ahead of ours, in seconds.
    pub skew: f64,
    /// Bytes that are free for the user.
    pub free: u64,
    /// Files that can still be made; none where the disk does not count them.
    pub free_files: Option<u64>,
}

/// Looks at a home. All that is made is removed again.
pub fn measure(home: &Path) -> io::Result<HomeFacts> {
    let exists = home.is_dir();
    // What is not there yet will be made on the same disk.
    let place = home.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let folder = tempfile::Builder::new().prefix(".doctor-").tempdir_in(place)?;
    let (file_ms, skew) = small_files(folder.path())?;
    let room = statvfs(place).map_err(io::Error::from)?;
    Ok(HomeFacts {
        home: home.to_owned(),
        exists,
        kind: statfs(place).map_or("unknown", |it| kind(it.filesystem_type().0)),
        file_ms,
        link_error: link(folder.path()).err(),
        rename_error: rename(folder.path()).err(),
        skew,
        free: room.blocks_available().saturating_mul(room.fragment_size()),
        free_files: Some(room.files_available()).filter(|_| room.files() > 0),
    })
}

/// The time that a small file takes in the middle, and how far the disk's clock is ahead.
fn small_files(folder: &Path) -> io::Result<(f64, f64)> {
    let mut times = Vec::new();
    let mut skews = Vec::new();
    for n in 0..FILES {
        let path = folder.join(format!("{n}.json"));
        let (began, before) = (Instant::now(), clock::now());
        durable::replace_file_durably(&path, b"{}")?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        let changed = fs::metadata(&path)?.modified()?;
        let changed = changed.duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64());
        // Anything between both is right.
        skews.push(changed - changed.clamp(before - 0.1, clock::now().max(before)));
    }
    times.sort_by(f64::total_cmp);
    skews.sort_by(f64::total_cmp);
    let middle = |all: &[f64]| all.get(all.len() / 2).copied().unwrap_or(0.0);
    Ok((middle(&times), middle(&skews)))
}

/// A claim is a hard link, which only one process can make.
fn link(folder: &Path) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let (own, name) = (folder.join("own"), folder.join("claim"));
    durable::write_synced(&own, b"own").map_err(failed)?;
    fs::hard_link(&own, &name).map_err(failed)?;
    if fs::metadata(&own).map_err(failed)?.nlink() != 2 {
        return Err("a file with two names does not say so".to_owned());
    }
    match fs::hard_link(&own, &name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(()) => Err("a name was given twice".to_owned()),
    }
}

fn rename(folder: &Path) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    let path = folder.join("replaced");
    durable::replace_file_durably(&path, b"old").map_err(failed)?;
    durable::replace_file_durably(&path, b"new").map_err(failed)?;
    let is_new = fs::read(&path).map_err(failed)? == b"new";
    if is_new { Ok(()) } else { Err("the old content was read after it was replaced".to_owned()) }
}

/// The names of file systems by their numbers (`man 2 statfs`).
fn kind(number: i64) -> &'static str {
    match number & 0xffff_ffff {
        0x6969 => "NFS",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x00c3_6400 => "Ceph",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x6573_5546 => "FUSE",
        0xef53 => "ext4",
        0x5846_5342 => "XFS",
        0x9123_683e => "Btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x2fc1_2fc1 => "ZFS",
        _ => "unknown",
    }
}

/// Whether only this machine can have it.
fn is_of_one_machine(kind: &str) -> bool {
    matches!(kind, "ext4" | "XFS" | "Btrfs" | "tmpfs" | "overlay")
}

/// What follows. `has_slurm`: jobs run on nodes, which must see the home.
#[must_use]
pub fn findings(
    facts: &HomeFacts,
    has_slurm: bool,
    distrust: Option<(String, String)>,
) -> Vec<CheckResult> {
    let HomeFacts { home, kind, .. } = facts;
    let shown = home.display();
    let mut findings = vec![match (facts.exists, distrust) {
        (_, Some((why, hint))) => CheckResult::problem("home", why)
            .since("nothing is run from a folder that others can change")
            .by_typing(hint),
        (true, None) => CheckResult::ok("home", format!("`{shown}` ({kind})")),
        (false, None) => CheckResult::ok(
            "home",
            format!("`{shown}` is not there yet; the first submission makes it ({kind})"),
        ),
    }];
    if has_slurm && is_of_one_machine(kind) {
        findings.push(
            CheckResult::advice(
                SHARED_DISK,
                format!("the home is on {kind}, which is often a disk of one machine"),
            )
            .since("the compute nodes must see the same folder under the same name")
            .by_typing("nemo-slurm doctor --job"),
        );
    }
    findings.extend([speed(facts), links(facts), renames(facts), clocks(facts), room(facts)]);
    findings
}

fn speed(facts: &HomeFacts) -> CheckResult {
    let (topic, ms) = ("small files", facts.file_ms);
    let what = format!("a small durable file takes {ms:.1} ms");
    if ms < SLOW {
        return CheckResult::ok(topic, what);
    }
    let finding = if ms < VERY_SLOW {
        CheckResult::advice(topic, what)
    } else {
        CheckResult::problem(topic, what)
    };
    finding
        .since("each file of a checkpoint, and each step of its commit, takes at least that long")
        .by_typing("write a checkpoint as few large files, or set NEMO_SLURM_HOME to a faster disk")
}

fn links(facts: &HomeFacts) -> CheckResult {
    let topic = "hard links";
    match &facts.link_error {
        None => CheckResult::ok(topic, "hard links work"),
        Some(error) => CheckResult::problem(topic, format!("hard links don't work: {error}"))
            .since(
                "nemo-slurm claims experiments and trials by them: without them it can't run here",
            )
            .by_typing("set NEMO_SLURM_HOME to a folder on another disk"),
    }
}

fn renames(facts: &HomeFacts) -> CheckResult {
    let topic = "rename";
    match &facts.rename_error {
        None => CheckResult::ok(topic, "a rename replaces a file at once"),
        Some(error) => CheckResult::problem(topic, format!("a file can't be replaced: {error}"))
            .since("every record and checkpoint is committed by a rename")
            .by_typing("set NEMO_SLURM_HOME to a folder on another disk"),
    }
}

fn clocks(facts: &HomeFacts) -> CheckResult {
    let (topic, skew) = ("clock", facts.skew);
    let what = format!("the disk's clock differs from this machine's by {skew:.1} s");
    match skew.abs() {
        ..SKEW => CheckResult::ok(topic, "the disk's clock agrees with this machine's"),
        ..GREAT_SKEW => {
            CheckResult::advice(topic, what).since("times in logs and lists differ by as much")
        }
        _ => CheckResult::problem(topic, what)
            .since("Slurm's munge refuses requests between clocks that differ by minutes")
            .by_typing("timedatectl status"),
    }
}

fn room(facts: &HomeFacts) -> CheckResult {
    let topic = "free space";
    let files = facts.free_files.map(|n| format!(", {n} files")).unwrap_or_default();
    let what = format!("{} are free{files}", bytes(facts.free));
    let few_files = facts.free_files.is_some_and(|n| n < FEW_FILES);
    if facts.free < NO_ROOM || facts.free_files.is_some_and(|n| n < 100) {
        return CheckResult::problem(topic, what)
            .since("a checkpoint that does not fit is not committed")
            .by_typing(format!("du -sh {}/experiments/* | sort -h", facts.home.display()));
    }
    if facts.free < LITTLE_ROOM || few_files {
        return CheckResult::advice(topic, what)
            .since("a trial keeps at least two checkpoints (`checkpoint.keep`)")
            .by_typing(format!("du -sh {}/experiments/* | sort -h", facts.home.display()));
    }
    CheckResult::ok(topic, what)
}

/// What the disk leaves of what we promise.
#[must_use]
pub fn promises(facts: &HomeFacts) -> Vec<Promise> {
    vec![
        Promise {
            promise: "a committed checkpoint is never lost or torn",
            holds: Some(facts.rename_error.is_none()),
            why: facts.rename_error.clone(),
        },
        Promise {
            promise: "one process at a time writes a trial",
            holds: Some(facts.link_error.is_none()),
            why: facts.link_error.clone(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn this_disk_is_well_and_nothing_is_left_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let facts = measure(&folder.path().join("not/there")).unwrap();
        assert!(!facts.exists && facts.link_error.is_none() && facts.rename_error.is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let all = findings(&facts, false, None);
        assert!(all.iter().any(|it| it.topic == "hard links" && it.level == Level::Ok), "{all:#?}");
    }

    #[test]
    fn each_fault_of_a_disk_has_its_finding() {
        let bad = HomeFacts {
            home: "/home/ada".into(),
            exists: true,
            kind: "tmpfs",
            file_ms: 700.0,
            link_error: Some("Operation not supported".to_owned()),
            rename_error: Some("it failed".to_owned()),
            skew: -90.0,
            free: 1 << 20,
            free_files: Some(5),
        };
        let all = findings(&bad, true, Some(("others may write".to_owned(), "chmod".to_owned())));
        let problems: Vec<&str> =
            all.iter().filter(|it| it.level == Level::Problem).map(|it| &*it.topic).collect();
        assert_eq!(
            problems,
            ["home", "small files", "hard links", "rename", "clock", "free space"]
        );
        assert!(all.iter().any(|it| it.topic == "shared disk"));
        assert!(promises(&bad).iter().all(|it| it.holds == Some(false)));
    }
}
