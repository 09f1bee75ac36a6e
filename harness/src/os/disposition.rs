//! What a signal would do to a process, from `/proc`: run a handler, wake a waiting thread, stay pending, or end it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::Duration;

use nix::libc::SYS_rt_sigtimedwait;
use nix::sys::signal::Signal;

/// How long a blocked signal must stay blocked to count: libraries block all of them for a moment around a fork.
const STEADY: Duration = Duration::from_millis(20);

/// The recipient to which a signal can be sent without ending the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalTarget {
    Process,
    /// Only this thread waits for it. Sent to the process, another thread might let it end the process.
    Thread(u32),
}

/// How one thread receives the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reception {
    /// It waits in `sigwait`, `sigwaitinfo` or `sigtimedwait` for it.
    Waits,
    /// It blocks the signal.
    Blocks,
    /// The same, in the middle of a system call that can't be interrupted, as the parent of a `vfork` is.
    BlocksForNow,
    /// It would receive the signal.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    id: u32,
    reception: Reception,
}

/// The recipient of a signal, if the process catches it or waits for it while it is blocked.
pub(crate) fn target(pid: u32, signal: Signal) -> Option<SignalTarget> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if has(&status, "SigCgt:", signal) {
        return Some(SignalTarget::Process);
    }
    let first = threads(pid, signal);
    if let Some(target) = awaited(&first) {
        return Some(target);
    }
    if has(&status, "SigIgn:", signal) || !all_block(&first) {
        return None;
    }
    if has_signalfd(pid, signal) {
        return Some(SignalTarget::Process);
    }
    sleep(STEADY);
    // The process may fetch the signal between two pieces of work. Until then it is pending and does nothing.
    let is_steady = is_at_rest(&first) && is_at_rest(&threads(pid, signal));
    is_steady.then_some(SignalTarget::Process)
}

fn is_at_rest(threads: &[Thread]) -> bool {
    all_block(threads) && threads.iter().all(|one| one.reception == Reception::Blocks)
}

/// Whether a process would catch a signal and not die of it.
pub(crate) fn hears(pid: u32, signal: Signal) -> bool {
    target(pid, signal).is_some()
}

/// Whether a process has a handler for a signal.
pub(crate) fn catches(pid: u32, signal: Signal) -> bool {
    shows(pid, "SigCgt:", signal)
}

/// Whether a process ignores a signal.
pub(crate) fn ignores(pid: u32, signal: Signal) -> bool {
    shows(pid, "SigIgn:", signal)
}

fn shows(pid: u32, name: &str, signal: Signal) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| has(&status, name, signal))
}

/// Whether a process catches or ignores a signal, as by a `trap`.
pub(crate) fn survives(pid: u32, signal: Signal) -> bool {
    catches(pid, signal) || ignores(pid, signal)
}

/// The process, if the kernel can only choose a waiting thread. Otherwise that thread.
fn awaited(threads: &[Thread]) -> Option<SignalTarget> {
    let waiting = threads.iter().find(|one| one.reception == Reception::Waits)?;
    let is_safe = threads.iter().all(|one| one.reception != Reception::Open);
    Some(if is_safe { SignalTarget::Process } else { SignalTarget::Thread(waiting.id) })
}

fn all_block(threads: &[Thread]) -> bool {
    !threads.is_empty() && threads.iter().all(|one| one.reception != Reception::Open)
}

fn threads(pid: u32, signal: Signal) -> Vec<Thread> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id| Some(Thread { id, reception: reception(pid, id, signal)? })).collect()
}

/// A thread that waits shows what it waits for as not blocked, since the kernel unblocks that meanwhile.
fn reception(pid: u32, thread: u32, signal: Signal) -> Option<Reception> {
    let folder = format!("/proc/{pid}/task/{thread}");
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"))?;
    Some(if has(&status, "SigBlk:", signal) {
        match state.trim_start().as_bytes().first() {
            Some(b'D') => Reception::BlocksForNow,
            _ => Reception::Blocks,
        }
    } else if waits(pid, &folder, signal) == Some(true) {
        Reception::Waits
    } else {
        Reception::Open
    })
}

/// Whether a thread sleeps in the system call behind `sigwait`, with the signal in the set that it gave.
fn waits(pid: u32, folder: &str, signal: Signal) -> Option<bool> {
    let call = fs::read_to_string(format!("{folder}/syscall")).ok()?;
    let mut words = call.split_whitespace();
    if words.next()?.parse() != Ok(SYS_rt_sigtimedwait) {
        return Some(false);
    }
    let address = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let mut set = [0; size_of::<u64>()];
    File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut set, address).ok()?;
    Some(contains(u64::from_ne_bytes(set), signal))
}

/// Whether a process has a `signalfd` for the signal open.
fn has_signalfd(pid: u32, signal: Signal) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    entries.flatten().any(|entry| {
        fs::read_to_string(entry.path()).is_ok_and(|text| has(&text, "sigmask:", signal))
    })
}

/// Whether a mask that stands behind `name` holds the signal.
fn has(text: &str, name: &str, signal: Signal) -> bool {
    let mask = text.lines().find_map(|line| line.strip_prefix(name));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| contains(mask, signal))
}

fn contains(mask: u64, signal: Signal) -> bool {
    mask >> (signal as i32 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigCgt:\t0000000000000200\n";
        assert!(has(status, "SigCgt:", Signal::SIGUSR1));
        assert!(!has(status, "SigCgt:", Signal::SIGUSR2));
        assert!(!has(status, "SigBlk:", Signal::SIGUSR1));
        assert!(!hears(std::process::id(), Signal::SIGUSR2), "nobody here waits for it");
    }

    #[track_caller]
    fn check(receptions: &[Reception], expected: Option<SignalTarget>) {
        let thread = |(id, &reception)| Thread { id, reception };
        let threads: Vec<_> = (1..).zip(receptions).map(thread).collect();
        assert_eq!(awaited(&threads), expected, "{receptions:?}");
    }

    #[test]
    fn a_signal_goes_to_the_thread_that_waits_where_another_would_die_of_it() {
        use Reception::{Blocks, BlocksForNow, Open, Waits};
        check(&[Blocks, Waits, BlocksForNow], Some(SignalTarget::Process));
        check(&[Blocks, Open, Waits], Some(SignalTarget::Thread(3)));
        check(&[Blocks, Blocks], None);
        check(&[Open], None);
    }

    #[test]
    fn all_threads_must_block() {
        let thread = |reception| Thread { id: 1, reception };
        assert!(all_block(&[thread(Reception::Blocks)]));
        assert!(!all_block(&[thread(Reception::Blocks), thread(Reception::Open)]));
        assert!(!all_block(&[]), "a process without threads is gone");
    }
}
