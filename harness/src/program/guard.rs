//! The guard: the parent of the harness. It ends what a killed harness leaves behind, since nobody else may.
//!
//! `nemo-harness run` is two processes. The first, which Slurm or the local runner knows, only passes signals on and waits;
//! the second is the harness. The kernel hands the orphans of the second to the first, wherever they went and whatever
//! their environment says. If the first is killed instead, the second ends all that is below it, and itself.
#![expect(unsafe_code, reason = "a process becomes two by `fork`, and one ends as the other did")]

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use nemo_core::process_id::ProcessId;
use nemo_core::room::until_room;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{ForkResult, fork};
use std::os::fd::AsFd;

use crate::job::context::JobContext;
use crate::os::log::log_stderr;
use crate::os::proc_fs;
use crate::os::signals;
use crate::program::processes::{self, Reaped};
use crate::program::{jobs, scratch};
use crate::protocol;

/// The environment variable that marks the processes of a harness.
pub(crate) const VARIABLE: &str = "NEMO_GUARD";
/// How many rounds of KILL there are: a process may fork in between.
const ROUNDS: u32 = 200;
/// The stack of the thread that waits for the guard's end.
const STACK: usize = 128 * 1024;

/// The guard has ended, and every process below this one is being killed. Their ends say nothing about the program.
static ORPHANED: AtomicBool = AtomicBool::new(false);

/// Where the harness tells its guard what to sweep.
static TO_GUARD: OnceLock<PipeWriter> = OnceLock::new();

/// The role of this process.
#[derive(Debug)]
pub(crate) enum GuardRole {
    Harness,
    /// The harness has ended, and so has all that it started.
    Guard(HarnessEnd),
}

/// How the harness ended.
#[derive(Debug)]
pub(crate) struct HarnessEnd(Reaped);

impl HarnessEnd {
    /// Its exit code; none where a signal ended it.
    pub(crate) fn code(&self) -> Option<u8> {
        self.0.code.map(|code| u8::try_from(code).unwrap_or(nemo_core::exit::FAILED))
    }

    /// Ends this process in the same way, or returns the exit code to end with.
    pub(crate) fn end_alike(&self) -> u8 {
        end_like(self.0)
    }
}

/// Forks. Returns at once in the harness, and in the guard after the harness's end. If the system is out of processes,
/// the harness runs without a guard.
///
/// Signals must be blocked already, so that none is lost in between.
pub(crate) fn split(signals: &SignalFd) -> io::Result<GuardRole> {
    processes::adopt_orphans()?;
    let (read, write) = io::pipe()?;
    let (told, tell) = io::pipe()?;
    // Neither waits for the other: a process that can't be killed may hold an end, and a job may have very many attempts.
    fcntl(told.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(tell.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: this process has only one thread.
    match until_room(|| Ok(unsafe { fork() }?)) {
        Ok(ForkResult::Child) => {
            drop((write, told));
            watch_guard(read)?;
            TO_GUARD.get_or_init(|| tell);
            processes::adopt_orphans()?;
            Ok(GuardRole::Harness)
        }
        Ok(ForkResult::Parent { child }) => {
            drop((read, tell));
            Ok(GuardRole::Guard(guard(child.as_raw().unsigned_abs(), signals, &write, told)))
        }
        Err(error) => {
            log_stderr(&format!(
                "the guard could not be started: {error}. If this harness is killed, processes of its program may live on"
            ));
            Ok(GuardRole::Harness)
        }
    }
}

/// Has the guard look in a further place for scratch folders that are left over.
pub(crate) fn sweep_too(place: &Path) {
    let text = [place.as_os_str().as_bytes(), b"\0"].concat();
    // Without a guard, or room in the pipe, the next attempt on the node does it.
    TO_GUARD.get().map(|mut guard| guard.write_all(&text).ok());
}

/// What the harness has told by [`sweep_too`].
fn told_places(mut told: PipeReader) -> Vec<PathBuf> {
    let mut text = Vec::new();
    told.read_to_end(&mut text).ok(); // what came before an error counts
    let places = text.split(|byte| *byte == 0).filter(|place| !place.is_empty());
    places.map(|place| OsString::from_vec(place.to_vec()).into()).collect()
}

/// The value of [`VARIABLE`] in the programs of this harness.
pub(crate) fn mark(context: &JobContext) -> String {
    mark_of(context.pid, context.start_ticks)
}

fn mark_of(pid: u32, start_ticks: u64) -> String {
    format!("{pid}.{start_ticks}")
}

/// Whether another harness has no guard: its parent is not this very program.
pub(crate) fn is_lost_by(harness: u32) -> bool {
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let parent = proc_fs::stat(harness).map(|stat| exe(stat.parent));
    parent.is_ok_and(|parent| parent.is_none() || parent != exe(std::process::id()))
}

/// Must be called where a child's end becomes known and where a child is started: without its guard this process must
/// not do anything more.
pub(crate) fn stop_if_orphaned() {
    while ORPHANED.load(Ordering::SeqCst) {
        sleep(Duration::from_mins(1)); // the thread that set it ends the process
    }
}

/// Passes signals on until the harness ends, and kills what it left behind.
fn guard(harness: u32, signals: &SignalFd, _open: &PipeWriter, told: PipeReader) -> HarnessEnd {
    // Nobody else can reap it, so its pid stays valid until then.
    let mark = mark_of(harness, ProcessId::of(harness).start_ticks);
    let ended = loop {
        poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).ok();
        for signal in signals::read(signals) {
            if signal != Signal::SIGCHLD {
                processes::signal(harness, signal);
            }
        }
        if let Some(ended) = processes::reap().into_iter().find(|reaped| reaped.pid == harness) {
            break ended;
        }
    };
    end_below(std::process::id(), &mark);
    if ended.code.is_none() {
        remove_folders(&mark);
    }
    scratch::sweep();
    for place in told_places(told) {
        scratch::sweep_in(&place);
    }
    HarnessEnd(ended)
}

fn end_like(ended: Reaped) -> u8 {
    if let Some(code) = ended.code {
        return u8::try_from(code).unwrap_or(nemo_core::exit::FAILED);
    }
    if let Some(Ok(cause)) = ended.signal.map(Signal::try_from) {
        // SAFETY: no handler is installed, so nothing can run in a signal's context.
        unsafe { signal(cause, SigHandler::SigDfl) }.ok();
        SigSet::empty().thread_set_mask().ok();
        raise(cause).ok();
    }
    nemo_core::exit::FAILED
}

/// Starts a thread that waits for the guard's end. If none can be started, the kernel kills this process with the guard.
fn watch_guard(pipe: PipeReader) -> io::Result<()> {
    let thread = thread::Builder::new().stack_size(STACK);
    if thread.spawn(move || end_with_guard(pipe)).is_err() {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
    }
    Ok(())
}

/// Waits until the guard closes the pipe by its end, then kills everything below this process, and this process.
fn end_with_guard(mut pipe: PipeReader) {
    if pipe.read(&mut [0]).is_err() {
        return;
    }
    ORPHANED.store(true, Ordering::SeqCst);
    let own = std::process::id();
    let mark = mark_of(own, ProcessId::of(own).start_ticks);
    end_below(own, &mark);
    remove_folders(&mark);
    processes::signal(own, Signal::SIGKILL);
}

/// Kills all processes below this one, and all that carry the mark: Slurm starts the tasks of a step elsewhere. A job that
/// the program submitted carries it too, and is none of them.
fn end_below(root: u32, mark: &str) {
    for _ in 0..ROUNDS {
        let mut left = proc_fs::descendants(root, &[]);
        left.extend(marked(mark));
        if left.is_empty() {
            return;
        }
        for pid in left {
            processes::signal(pid, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10));
        processes::reap_all();
    }
}

/// Removes the folders that a killed harness could not.
fn remove_folders(mark: &str) {
    let prefix = protocol::prefix(mark);
    for folder in [std::env::temp_dir(), "/tmp".into()] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path()).ok(); // it may be gone since
            }
        }
    }
}

fn marked(mark: &str) -> Vec<u32> {
    let is_marked = |pid: &u32| {
        proc_fs::stat(*pid).is_ok_and(|stat| !stat.is_zombie)
            && proc_fs::variable(*pid, VARIABLE).is_some_and(|value| value == mark.as_bytes())
            && !jobs::is_foreign(*pid)
    };
    proc_fs::pids().into_iter().filter(is_marked).collect()
}
