//! A shared disk with faults, for tests: `faultfs --faults FILE [--ttl SECONDS] BACKING MOUNT`.
//!
//! It hands every operation on to the folder BACKING. With `--ttl` the kernel keeps names, absent names and attributes for
//! so long, as an NFS client does: two mounts of one folder then see each other's changes late. FILE holds a rule a line
//! (see [`faults`]); it is read again whenever it changes, so that a test turns faults on and off while programs run.
//! Runs in the foreground until the mount is gone; needs root and `/dev/fuse`.

mod faults;
mod inodes;
mod passthrough;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fuser::{Config, MountOption, SessionACL};

/// As many operations may hang at once before others wait too.
const THREADS: usize = 64;

struct Arguments {
    faults: Option<PathBuf>,
    ttl: Duration,
    backing: PathBuf,
    mount: PathBuf,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("usage: faultfs [--faults FILE] [--ttl SECONDS] BACKING MOUNT");
        return ExitCode::from(2);
    };
    let disk = passthrough::Disk::new(arguments.backing, arguments.faults, arguments.ttl);
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("faultfs".to_owned()), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    match fuser::mount(disk, &arguments.mount, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faultfs: {}: {error}", arguments.mount.display());
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let (mut faults, mut ttl, mut folders) = (None, Duration::ZERO, Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--faults" => faults = Some(words.next()?.into()),
            "--ttl" => ttl = Duration::from_secs_f64(words.next()?.parse().ok()?),
            _ => folders.push(PathBuf::from(word)),
        }
    }
    let [backing, mount] = folders.try_into().ok()?;
    Some(Arguments { faults, ttl, backing, mount })
}
