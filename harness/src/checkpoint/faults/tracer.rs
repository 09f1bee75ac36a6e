//! Runs a function in a child process and does something to it at its n-th system call.
#![expect(unsafe_code, reason = "fork and _exit, in a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// What is done to the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// SIGKILL before the call.
    Kill,
    /// The call does nothing, and fails.
    Fail(CountedCalls, i32),
    /// The call is carried out, and its answer is an error: it got lost on the way.
    Lose(CountedCalls, i32),
    /// A write or a read does half of what it was asked for.
    Short,
}

/// Which calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountedCalls {
    /// All that touch files.
    Files,
    Syncs,
    Closes,
    Renames,
}

const SYNCS: [i64; 3] = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs];
const RENAMES: [i64; 3] = [libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];
const TRANSFERS: [i64; 4] =
    [libc::SYS_read, libc::SYS_pread64, libc::SYS_write, libc::SYS_pwrite64];
const OTHERS: [i64; 20] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_link,
    libc::SYS_linkat,
];

impl CountedCalls {
    fn contain(self, call: i64) -> bool {
        match self {
            Self::Syncs => SYNCS.contains(&call),
            Self::Closes => call == libc::SYS_close,
            Self::Renames => RENAMES.contains(&call),
            Self::Files => {
                let more = TRANSFERS.contains(&call) || OTHERS.contains(&call);
                more || Self::Syncs.contain(call) || Self::Renames.contain(call)
            }
        }
    }
}

impl InjectedFault {
    fn concerns(self, call: i64) -> bool {
        match self {
            Self::Kill => true,
            Self::Fail(calls, _) | Self::Lose(calls, _) => calls.contain(call),
            Self::Short => TRANSFERS.contains(&call),
        }
    }
}

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChildEnd {
    /// None: it was killed.
    pub(super) code: Option<i32>,
    /// The call was reached.
    pub(super) is_injected: bool,
}

/// Set in a child that `run` made.
static IS_CHILD: AtomicBool = AtomicBool::new(false);
static SILENCE: Once = Once::new();

/// The standard library panics where a folder can't be closed: a crash like any other, without words in a child. It
/// can't be the child that says so: another thread may have panicked, and held the hook's lock, when it was forked.
fn silence_children() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !IS_CHILD.load(Ordering::Relaxed) {
            others(panic);
        }
    }));
}

/// Runs `work` with the fault at the `at`-th call that it concerns, from 1.
pub(super) fn run(work: impl FnOnce() -> i32, fault: InjectedFault, at: u32) -> ChildEnd {
    SILENCE.call_once(silence_children);
    // SAFETY: the child has one thread, and leaves by _exit. The C library's allocator survives a fork.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            IS_CHILD.store(true, Ordering::Relaxed);
            ptrace::traceme().ok();
            raise(Signal::SIGSTOP).ok();
            let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
            // SAFETY: it ends the process, and runs nothing else.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => trace(child, fault, at),
    }
}

fn trace(child: Pid, fault: InjectedFault, at: u32) -> ChildEnd {
    // Other tests may wait for children of their own in other threads.
    let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    waitpid(child, Some(own)).unwrap();
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child, options).unwrap();
    ptrace::syscall(child, None).unwrap();
    let mut seen = 0;
    // A thread stops when it enters a call, and when it leaves it.
    let mut inside: BTreeSet<Pid> = BTreeSet::new();
    let mut answers: BTreeMap<Pid, i32> = BTreeMap::new();
    loop {
        let (thread, signal) = match waitpid(None, Some(own)).unwrap() {
            WaitStatus::Exited(pid, code) if pid == child => {
                return ChildEnd { code: Some(code), is_injected: seen >= at };
            }
            WaitStatus::Signaled(pid, _, _) if pid == child => {
                return ChildEnd { code: None, is_injected: seen >= at };
            }
            WaitStatus::PtraceSyscall(thread) => {
                if !inside.remove(&thread) {
                    inside.insert(thread);
                    let call = ptrace::getregs(thread).map_or(-1, |own| own.orig_rax.cast_signed());
                    seen += u32::from(fault.concerns(call));
                    if seen == at && fault.concerns(call) {
                        enter(child, thread, fault, &mut answers);
                    }
                } else if let Some(code) = answers.remove(&thread) {
                    answer(thread, code);
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => {
                (thread, Some(signal).filter(|&signal| signal != Signal::SIGSTOP))
            }
            WaitStatus::PtraceEvent(thread, _, _) => (thread, None),
            _ => continue,
        };
        ptrace::syscall(thread, signal).ok(); // it may have been killed meanwhile
    }
}

/// A thread is about to make the call.
fn enter(child: Pid, thread: Pid, fault: InjectedFault, answers: &mut BTreeMap<Pid, i32>) {
    let mut registers = match ptrace::getregs(thread) {
        Ok(registers) if fault != InjectedFault::Kill => registers,
        _ => return kill(child, Signal::SIGKILL).unwrap(),
    };
    match fault {
        InjectedFault::Kill => {}
        InjectedFault::Fail(_, code) => {
            registers.orig_rax = u64::MAX;
            answers.insert(thread, code);
        }
        InjectedFault::Lose(_, code) => {
            answers.insert(thread, code);
        }
        InjectedFault::Short => registers.rdx = registers.rdx.div_ceil(2),
    }
    ptrace::setregs(thread, registers).unwrap();
}

/// The call is over: this is what it answered.
fn answer(thread: Pid, code: i32) {
    if let Ok(mut registers) = ptrace::getregs(thread) {
        registers.rax = i64::from(-code).cast_unsigned();
        ptrace::setregs(thread, registers).unwrap();
    }
}
