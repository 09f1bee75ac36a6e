//! The fast tier: a folder in memory of the node, to which the program saves in place of the disk. The collector copies out
//! what is complete there, and only that copy is committed: until then nothing in memory counts as saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::attempt::history::History;
use crate::attempt::lease::Lease;
use crate::attempt::outcome::AttemptReport;
use crate::attempt::patience;
use crate::checkpoint::staging;
use crate::job::harness::Harness;
use crate::os::log::Log;
use crate::os::serial_queue::SerialQueue;
use crate::program::guard;
use crate::program::scratch::{self, Scratch};

/// The folder of one attempt. It is removed when this is dropped: memory must not be held for what does not count.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) folder: PathBuf,
    held: Option<Scratch>,
}

impl Drop for Tier {
    fn drop(&mut self) {
        self.held = None;
        if let Some(place) = self.folder.parent() {
            scratch::sweep_in(place);
        }
    }
}

impl Tier {
    /// Gives the memory back after the program's end. Logs and other things that are no checkpoint are copied out first.
    pub(super) fn close(self, harness: &Harness, attempt: u32, report: &mut AttemptReport) {
        let limit = patience(harness, report);
        let is_full = room(&self.folder).is_ok_and(|free| free < FULL);
        if let Err(why) = self.keep_others(harness, attempt, limit) {
            report.log.warn(&format!("what is no checkpoint is lost with the memory: {why}"));
        }
        let place = self.folder.parent().map(Path::to_owned);
        drop(self);
        let fits = |place: &PathBuf| would_fit(harness, place, attempt + 1, limit);
        report.notes.had_no_room = is_full || !place.is_some_and(|place| fits(&place));
    }

    fn keep_others(&self, harness: &Harness, attempt: u32, limit: Duration) -> Result<(), String> {
        let (folder, trial) = (self.folder.clone(), harness.trial.dir.path().to_owned());
        let (profile, stop) = (harness.trial.spec.profile, Arc::new(AtomicBool::new(false)));
        let is_late = Arc::clone(&stop);
        let copy = move || staging::copy_others(&folder, &trial, attempt, profile, &is_late);
        let copied = SerialQueue::start("others", None).ask(copy).wait(limit);
        stop.store(true, Ordering::Relaxed);
        copied.ok_or("there was no time left to copy it")?.map_err(|error| error.to_string())
    }
}

/// Whether an attempt that knows all that was committed so far would save there.
fn would_fit(harness: &Harness, place: &Path, attempt: u32, limit: Duration) -> bool {
    let path = harness.trial.dir.attempts();
    let read = harness.records.ask(move || History::read(&path)).wait(limit);
    let Some(Ok(history)) = read else { return true };
    check_room(harness, place, &history, attempt).is_ok()
}

/// Makes the folder, where the task asks for it and there is room. Otherwise the log says why the program saves to the disk.
pub(super) fn open(
    harness: &Harness,
    lease: &Lease,
    history: &History,
    log: &mut Log,
) -> Option<Tier> {
    let place = harness.trial.spec.checkpoint.tier.as_ref()?;
    // What an attempt before has left takes room.
    guard::sweep_too(place);
    scratch::sweep_in(place);
    let opened = check_room(harness, place, history, lease.attempt).and_then(|()| {
        // `TMPDIR` may be the same place, with the scratch folder in it.
        let folder = scratch::path_in(place, &format!("tier.{}", lease.nonce));
        let held = Scratch::open(&folder).map_err(|error| error.to_string())?;
        Ok(Tier { folder, held: Some(held) })
    });
    match opened {
        Ok(tier) => Some(tier),
        Err(why) => {
            let place = place.display();
            log.warn(&format!("checkpoint.tier `{place}`: {why}; the program saves to the disk"));
            None
        }
    }
}

/// Says why an attempt can't save there.
fn check_room(
    harness: &Harness,
    place: &Path,
    history: &History,
    attempt: u32,
) -> Result<(), String> {
    if history.had_no_room.is_some() {
        return Err("it may have had no room for the saves of an attempt before".to_owned());
    }
    let free = room(place)?;
    let allotment = harness.context.allotment();
    let memory = allotment.memory_bytes.filter(|_| allotment.is_slurm_job);
    too_small(history.bytes, attempt, free, memory).map_or(Ok(()), Err)
}

/// With less than this free a save has failed, or the next one would.
const FULL: u64 = 64 * 1024;

/// How many bytes are free there.
fn room(place: &Path) -> Result<u64, String> {
    let state = statvfs(place).map_err(|error| error.to_string())?;
    Ok(state.blocks_available().saturating_mul(state.fragment_size()))
}

/// Why checkpoints don't fit. There may be two at once: the next one is written while one is copied out. What lies there is
/// memory of the job, and the program needs some itself.
fn too_small(bytes: Option<u64>, attempt: u32, free: u64, memory: Option<u64>) -> Option<String> {
    let Some(bytes) = bytes else {
        let is_unsure = attempt > 0 || free == 0;
        return is_unsure.then(|| {
            "no earlier attempt has saved, so whether it has room is not known".to_owned()
        });
    };
    let two = bytes.saturating_mul(2);
    let shown = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    if free < two {
        Some(format!("two checkpoints have {}, and {} are free", shown(two), shown(free)))
    } else if let Some(memory) = memory.filter(|memory| memory / 2 < two) {
        let (two, memory) = (shown(two), shown(memory));
        Some(format!("two checkpoints have {two}, more than half of the job's {memory} of memory"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_checkpoints_must_fit_beside_the_program() {
        let fits = |bytes, attempt, free, memory| too_small(bytes, attempt, free, memory).is_none();
        assert!(fits(None, 0, 1, None), "the first attempt tries");
        assert!(!fits(None, 0, 0, None) && !fits(None, 1, 1 << 40, None));
        assert!(fits(Some(10), 1, 20, Some(40)));
        assert!(!fits(Some(10), 1, 19, None));
        assert!(!fits(Some(10), 1, 20, Some(38)));
        let said = too_small(Some(3 << 20), 1, 1 << 20, None).unwrap();
        assert_eq!(said, "two checkpoints have 6 MiB, and 1 MiB are free");
    }
}
