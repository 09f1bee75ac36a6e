//! Ends what an earlier attempt of this trial left running on this node, since a trial has one writer.

use std::thread::sleep;
use std::time::Duration;

use nemo_core::process_id::ProcessId;
use nix::sys::signal::Signal;

use crate::attempt::lease::PreviousClaim;
use crate::job::harness::Harness;
use crate::os::log::Log;
use crate::os::proc_fs;
use crate::program::processes;
use crate::program::{guard, jobs};

/// How long an earlier harness may take to exit by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the harness that held the lease before, if it runs on this node, and then every process of this trial that is
/// not below this one. Returns whether there was such a harness: it can't write its own end any more.
pub(crate) fn end_remnants(
    harness: &Harness,
    before: Option<&PreviousClaim>,
    log: &mut Log,
) -> bool {
    let was_alive = end_harness(harness, before.map(|before| &before.holder.process), log);
    end_strays(harness, log);
    was_alive
}

fn end_harness(harness: &Harness, before: Option<&ProcessId>, log: &mut Log) -> bool {
    let context = &harness.context;
    let here = before.filter(|it| it.boot_id == context.boot_id && it.pid != context.pid);
    let Some(before) = here.filter(|before| before.is_alive_on_this_node()) else {
        return false;
    };
    if guard::is_lost_by(before.pid) && is_gone_soon(before) {
        return false;
    }
    log.warn(&format!(
        "an earlier attempt still runs on this node as process {}; ending it",
        before.pid
    ));
    processes::signal(before.pid, Signal::SIGTERM);
    let until = harness.clock.now() + PATIENCE;
    while before.is_alive_on_this_node() {
        let now = harness.clock.now();
        if now > until {
            processes::signal(before.pid, Signal::SIGKILL);
        }
        if now > until + PATIENCE * 5 {
            log.warn("the process can't be killed (the kernel holds it); it can't commit any more");
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// Waits for a harness whose guard was killed: it is about to end, with all processes below it.
fn is_gone_soon(before: &ProcessId) -> bool {
    (0..100).any(|_| {
        sleep(Duration::from_millis(20));
        !before.is_alive_on_this_node()
    })
}

fn end_strays(harness: &Harness, log: &mut Log) {
    for _ in 0..100 {
        let strays = strays(harness);
        if strays.is_empty() {
            return;
        }
        for pid in strays {
            processes::signal(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(20));
    }
    log.warn("processes of an earlier attempt could not be ended");
}

/// The processes whose environment names this trial, wherever they are in the process tree. Those of a job that an earlier
/// attempt submitted inherited it, and are not the trial's.
fn strays(harness: &Harness) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;
    let dir = harness.trial.dir.path().as_os_str().as_bytes();
    let mut own = proc_fs::ancestors(harness.context.pid);
    own.push(harness.context.pid);
    let others = proc_fs::pids().into_iter().filter(|pid| !own.contains(pid));
    let strays = others.filter(|&pid| {
        proc_fs::stat(pid).is_ok_and(|stat| !stat.is_zombie)
            && proc_fs::variable(pid, "NEMO_DIR").is_some_and(|value| value == dir)
            && !jobs::is_foreign(pid)
    });
    strays.collect()
}
