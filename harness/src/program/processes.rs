//! Starts the program's processes in a group of their own, signals them, and ends them all.
#![expect(clippy::disallowed_methods, reason = "one of the places that start programs")]
#![expect(
    unsafe_code,
    reason = "a death signal is set between fork and exec; one thread is signalled"
)]

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{self, SigHandler, SigSet, Signal, kill, killpg};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use nemo_core::room::until_room;

use crate::attempt::start_error::StartError;
use crate::os::patience::may_pass;
use crate::os::proc_fs;
use crate::program::{guard, steps};

/// Everything that a process is started with.
#[derive(Debug)]
pub(crate) struct ProcessStart<'a> {
    pub(crate) argv: &'a [std::ffi::OsString],
    pub(crate) env: &'a [(String, std::ffi::OsString)],
    pub(crate) workdir: &'a Path,
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// The child's ends of three pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// Makes this process the parent of every orphan below it, so that it can find them all.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// How long a program file may be open for writing, and how often the start is tried again.
const BUSY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Starts the program. Returns its pid, which is also its group's id. An error says what is wrong with which file.
pub(crate) fn start(start: ProcessStart<'_>, path: &std::ffi::OsStr) -> Result<u32, StartError> {
    let Some((program, arguments)) = start.argv.split_first() else {
        return Err(StartError::Permanent("the command is empty".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(start.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(start.workdir).process_group(0);
    command.stdin(start.stdin).stdout(start.stdout).stderr(start.stderr);
    die_with_parent(&mut command);
    let mut tries = BUSY.as_millis() / LOOK.as_millis();
    loop {
        guard::stop_if_orphaned();
        match until_room(|| command.spawn()) {
            Ok(child) => return Ok(child.id()),
            // It is being copied or compiled, or a process that was just forked has it open.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries > 0 => {
                tries -= 1;
                std::thread::sleep(LOOK);
            }
            Err(error) => {
                let own = start.env.iter().rfind(|(name, _)| name == "PATH");
                let path = own.map_or(path, |(_, value)| value);
                let why = explain(Path::new(program), start.workdir, path, &error);
                // A disk that is not mounted on this node may be mounted on another.
                let is_here = may_pass(&error) || !start.workdir.is_dir();
                return Err(if is_here {
                    StartError::Node(why)
                } else {
                    StartError::Permanent(why)
                });
            }
        }
    }
}

/// Starts the `srun` of a program with several processes, without Slurm's variables that change its output.
pub(crate) fn start_srun(
    argv: &[std::ffi::OsString],
    env: &[(String, std::ffi::OsString)],
    pipes: Pipes,
) -> io::Result<u32> {
    let mut command = Command::new(argv.first().map_or("srun".as_ref(), |word| word.as_os_str()));
    command.args(argv.get(1..).unwrap_or_default());
    command.envs(env.iter().map(|(name, value)| (name, value))).process_group(0);
    for name in ["SLURM_LABELIO", "SLURM_UNBUFFEREDIO", "SLURM_DEBUG"] {
        command.env_remove(name);
    }
    command.stdin(pipes.stdin).stdout(pipes.stdout).stderr(pipes.stderr);
    die_with_parent(&mut command);
    guard::stop_if_orphaned();
    Ok(until_room(|| command.spawn())?.id())
}

/// Unblocks all signals of a child, and lets the kernel kill it when this process is killed: a killed harness must not
/// leave its program behind.
pub(crate) fn die_with_parent(command: &mut Command) {
    prepare(command, SigHandler::SigDfl);
}

/// Like above, for a child that TERM must not end: Slurm may send TERM to every process of a job just when an answer
/// matters. (To block it would not help: shells unblock all signals.)
pub(crate) fn outlive_term(command: &mut Command) {
    prepare(command, SigHandler::SigIgn);
}

fn prepare(command: &mut Command, on_term: SigHandler) {
    let parent = Pid::this();
    // SAFETY: between fork and exec only system calls are made: nothing allocates, locks or unwinds.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            signal::signal(Signal::SIGTERM, on_term)?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        });
    }
}

/// Explains why a program could not be started, for the person who must fix it.
fn explain(program: &Path, workdir: &Path, path: &std::ffi::OsStr, error: &io::Error) -> String {
    let name = program.display();
    if !workdir.is_dir() {
        return format!(
            "the folder `{}`, where the program must run, is not there",
            workdir.display()
        );
    }
    let has_slash = program.components().count() > 1 || program.is_absolute();
    let found = if has_slash {
        Some(workdir.join(program)).filter(|file| file.exists())
    } else {
        std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
    };
    let Some(file) = found else {
        if has_slash {
            return format!("`{name}` does not exist");
        }
        let here = workdir.join(program).is_file();
        let hint = if here {
            format!("; to run the one in the folder, write `./{name}`")
        } else {
            String::new()
        };
        return format!("`{name}` was not found in PATH{hint}");
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => not_allowed(&file),
        Some(Errno::ENOENT) => bad_interpreter(&file),
        Some(Errno::ENOEXEC) => {
            format!(
                "`{}` is no program: does its first line name an interpreter (`#!/bin/sh`)?",
                file.display()
            )
        }
        Some(Errno::E2BIG) => {
            "the command or its environment is too long for the system".to_owned()
        }
        _ => format!("`{}` could not be started: {error}", file.display()),
    }
}

/// Why a file may not be run: `chmod` helps where it lacks the permission, and nowhere on a disk without programs.
fn not_allowed(file: &Path) -> String {
    let name = file.display();
    if statvfs(file).is_ok_and(|disk| disk.flags().contains(FsFlags::ST_NOEXEC)) {
        return format!(
            "`{name}` is on a disk that is mounted `noexec`: no program is started from there; name its interpreter \
             in `run`, as in `run = \"bash {name}\"` or `run = \"python {name}\"`, or copy it to another disk"
        );
    }
    format!("`{name}` is not executable; `chmod +x {name}` makes it so")
}

fn bad_interpreter(file: &PathBuf) -> String {
    let mut first = Vec::new();
    if let Ok(file) = File::open(file) {
        let read = io::Read::read_to_end(&mut io::Read::take(file, 256), &mut first);
        if read.is_err() {
            first.clear();
        }
    }
    let line = first.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match String::from_utf8_lossy(line).strip_prefix("#!") {
        Some(interpreter) => {
            let interpreter = interpreter.trim_end_matches('\r').trim();
            format!("the interpreter `{interpreter}` of `{}` does not exist", file.display())
        }
        None => format!("`{}` needs a loader or library that is not on this node", file.display()),
    }
}

/// A process that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) pid: u32,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// Reaps every child that has ended: the program, the harness's own helpers, and adopted orphans.
pub(crate) fn reap() -> Vec<Reaped> {
    let reaped = reap_all();
    guard::stop_if_orphaned();
    reaped
}

/// Like [`reap`], also while everything is being killed.
pub(crate) fn reap_all() -> Vec<Reaped> {
    let mut reaped = Vec::new();
    loop {
        let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Some(code), None),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, None, Some(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return reaped,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return reaped,
        };
        reaped.push(Reaped { pid: pid.as_raw().unsigned_abs(), code, signal });
    }
}

/// Sends TERM or KILL to the program's group and to everything below `root`, and to the tasks of the program's own job
/// steps that run on this node.
pub(crate) fn end(root: u32, except: &[u32], group: Option<u32>, signal: Signal) {
    let mut below = proc_fs::descendants(root, except);
    let sruns: Vec<u32> = below.iter().copied().filter(|&pid| steps::is_srun(pid)).collect();
    let tasks = steps::tasks_of(&sruns);
    // TERM makes `srun` kill its tasks at once. Without it, it ends when they do.
    let spared = signal == Signal::SIGTERM && !tasks.is_empty() && steps::are_all_here(&tasks);
    if spared {
        below.retain(|&pid| !sruns.contains(&pid) && !is_child_of(pid, &sruns));
    } else if let Some(group) = group {
        killpg(raw(group), signal).ok(); // the group may be gone; the rest is signalled one by one
    }
    below.extend(tasks.iter().flat_map(|task| steps::processes(*task)));
    for pid in below {
        let has_heard = !spared && nix::unistd::getpgid(Some(raw(pid))).ok() == group.map(raw);
        if !has_heard {
            send(pid, signal);
        }
        if signal == Signal::SIGTERM {
            send(pid, Signal::SIGCONT); // a stopped process gets TERM only once it continues
        }
    }
}

fn is_child_of(pid: u32, parents: &[u32]) -> bool {
    proc_fs::stat(pid).is_ok_and(|stat| parents.contains(&stat.parent))
}

fn send(pid: u32, signal: Signal) -> bool {
    kill(raw(pid), signal).is_ok()
}

/// Sends a signal to one process that is known to be ours.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    send(pid, signal)
}

/// Sends a signal to a process group that is known to be ours.
pub(crate) fn signal_group(group: u32, signal: Signal) {
    killpg(raw(group), signal).ok(); // it may be gone
}

/// Sends a signal to one thread of a process.
pub(crate) fn signal_thread(pid: u32, thread: u32, signal: Signal) -> bool {
    let (pid, thread) = (pid.cast_signed(), thread.cast_signed());
    // SAFETY: it takes three numbers, and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, signal as i32) == 0 }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn without_files<'a>(argv: &'a [std::ffi::OsString], workdir: &'a Path) -> ProcessStart<'a> {
        let [stdin, stdout, stderr] = [(); 3].map(|()| Stdio::null());
        ProcessStart { argv, env: &[], workdir, stdin, stdout, stderr }
    }

    #[track_caller]
    fn check(folder: &Path, program: &str, expected: &str) {
        let argv = [program.into()];
        let error = start(without_files(&argv, folder), "/usr/bin:/bin".as_ref()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_program_that_is_still_being_written_is_started_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("busy");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let run = || {
            let argv = [path.clone().into_os_string()];
            start(without_files(&argv, folder.path()), "/bin".as_ref())
        };
        let writer = File::options().append(true).open(&path).unwrap();
        let Err(StartError::Node(why)) = run() else {
            panic!("it is busy for longer than is waited")
        };
        assert!(why.contains("Text file busy"), "{why}");
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300)); // while it is tried
            drop(writer);
        });
        run().unwrap();
        closing.join().unwrap();
    }

    #[test]
    fn a_program_that_cannot_be_started_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("plain.sh", "#!/bin/sh\n", 0o600);
        write("bad.sh", "#!/no/such/python3\n", 0o700);
        write("train.py", "#!/bin/sh\n", 0o700);
        check(folder.path(), "pyhton", "`pyhton` was not found in PATH");
        check(folder.path(), "train.py", "write `./train.py`");
        check(folder.path(), "./plain.sh", "is not executable");
        check(folder.path(), "./bad.sh", "the interpreter `/no/such/python3`");
        check(folder.path(), "./none", "`./none` does not exist");
        check(&folder.path().join("gone"), "true", "is not there");
    }

    #[test]
    fn a_disk_without_programs_is_told_from_a_file_without_permission() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path();
        let options = nix::mount::MsFlags::MS_NOEXEC;
        if nix::mount::mount(Some("none"), disk, Some("tmpfs"), options, None::<&str>).is_err() {
            eprintln!("skipped: only root can mount a disk without programs");
            return;
        }
        let path = disk.join("train.sh");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let told = std::panic::catch_unwind(|| check(disk, "./train.sh", "mounted `noexec`"));
        nix::mount::umount2(disk, nix::mount::MntFlags::MNT_DETACH).unwrap();
        told.unwrap();
    }
}
