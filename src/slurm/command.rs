//! Runs one of Slurm's programs: with a time-out, and with both outputs read whole while it runs.
//!
//! No threads and no runtime: one `poll` loop over the two pipes.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge to Slurm: starts its programs, and measures how long they take"
)]

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::SlurmError;
use crate::trace;

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// All of stdout, as it is.
    pub stdout: Vec<u8>,
    /// All of stderr, as it is.
    pub stderr: Vec<u8>,
    /// The exit code; nothing if a signal ended it.
    pub code: Option<i32>,
}

/// A program to run.
pub struct Call<'a> {
    /// Its name, looked up in PATH.
    pub program: &'static str,
    /// Its arguments.
    pub args: &'a [OsString],
    /// PATH, if it isn't ours.
    pub path: Option<&'a OsStr>,
    /// Which of our variables it may see.
    pub sees: &'a dyn Fn(&OsStr) -> bool,
    /// What is set for it beside them.
    pub set: &'a [(&'static str, &'static str)],
    /// How long it may take.
    pub timeout: Duration,
}

/// How often we look whether the program has ended while something else still holds its pipes.
const LOOK: Duration = Duration::from_millis(50);

impl Call<'_> {
    /// Runs it and waits for its end, or kills its process group when the time is up.
    pub fn run(&self) -> Result<Output, SlurmError> {
        let began = Instant::now();
        let answer = self.answer();
        trace::program(self.program, self.args, began.elapsed(), &answer);
        answer
    }

    fn answer(&self) -> Result<Output, SlurmError> {
        let program = self.program;
        let failed = |source: std::io::Error| match source.kind() {
            ErrorKind::NotFound => SlurmError::MissingProgram { program, path: self.searched() },
            _ => SlurmError::NotRun { program, source },
        };
        let file = which::which_in_global(program, Some(self.searched()))
            .ok()
            .and_then(|mut files| files.next())
            .ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        let mut child = self.command(&file).spawn().map_err(failed)?;
        let deadline = Instant::now() + self.timeout;
        let read = collect(&mut child, deadline);
        if !matches!(read, Ok(Some(_))) {
            end(&mut child);
        }
        match read {
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(SlurmError::NoAnswer { program, waited: self.timeout }),
            Err(source) => Err(SlurmError::NotRun { program, source }),
        }
    }

    /// The PATH that the program is looked up in.
    fn searched(&self) -> OsString {
        self.path.map(OsStr::to_owned).or_else(|| std::env::var_os("PATH")).unwrap_or_default()
    }

    fn command(&self, file: &Path) -> Command {
        let mut command = Command::new(file);
        command.args(self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C at us must not tear an `sbatch` out of its work, and a time-out ends its children.
        command.process_group(0);
        command.env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| (self.sees)(name)));
        command.envs(self.set.iter().copied());
        if let Some(path) = self.path {
            command.env("PATH", path);
        }
        command
    }
}

/// Kills whatever the program started, then the program, and takes it off the process table.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have just ended by itself: then there is no such group, and nothing to do.
        let _gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _reaped = child.wait();
}

/// Reads both outputs until the program has ended; nothing if the time is up before.
fn collect(child: &mut Child, deadline: Instant) -> std::io::Result<Option<Output>> {
    let mut stdout = Pipe::new(child.stdout.take())?;
    let mut stderr = Pipe::new(child.stderr.take())?;
    let mut pause = Duration::from_micros(20);
    loop {
        stdout.read_available()?;
        stderr.read_available()?;
        // A pipe that someone else keeps open must not hold us up once the program itself has ended.
        let silent = stdout.source.is_none() && stderr.source.is_none();
        if let Some(status) = child.try_wait()? {
            stdout.read_available()?;
            stderr.read_available()?;
            return Ok(Some(output(stdout, stderr, status)));
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Ok(None);
        };
        if silent {
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK);
        } else {
            wait_for_bytes(&stdout, &stderr, left.min(LOOK))?;
        }
    }
}

fn output(stdout: Pipe<impl Read>, stderr: Pipe<impl Read>, status: ExitStatus) -> Output {
    Output { stdout: stdout.bytes, stderr: stderr.bytes, code: status.code() }
}

/// One end of a pipe, and what came out of it.
struct Pipe<R> {
    source: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Pipe<R> {
    fn new(source: Option<R>) -> std::io::Result<Self> {
        if let Some(source) = &source {
            let flags = OFlag::from_bits_retain(fcntl(source, FcntlArg::F_GETFL)?);
            fcntl(source, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Self { source, bytes: Vec::new() })
    }

    /// Reads until there is nothing more for now.
    fn read_available(&mut self) -> std::io::Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        match source.read_to_end(&mut self.bytes) {
            Ok(_) => self.source = None, // the end of the file
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }
}

fn wait_for_bytes<O, E>(stdout: &Pipe<O>, stderr: &Pipe<E>, time: Duration) -> std::io::Result<()>
where
    O: Read + AsFd,
    E: Read + AsFd,
{
    let open = [stdout.fd(), stderr.fd()].into_iter().flatten();
    let mut fds: Vec<PollFd<'_>> = open.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
