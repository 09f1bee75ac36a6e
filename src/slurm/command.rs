//! Runs Slurm's programs: with a time-out, and with both outputs read whole while they run. Several run side by side on
//! one thread.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge to Slurm: starts its programs, and measures how long they take"
)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, PipeWriter, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nemo_core::room;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

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
    /// Which of our environment variables it inherits.
    pub allow_env: &'a dyn Fn(&OsStr) -> bool,
    /// Variables that are set for it besides.
    pub set_env: &'a [(&'static str, &'static str)],
    /// How long it may take.
    pub timeout: Duration,
}

/// Carries out on this thread what waits for programs. It must not be called within itself.
///
/// A runtime for each question: it is made in microseconds, and a program that asks Slurm nothing has none.
pub(crate) fn block_on<T>(
    program: &'static str,
    work: impl Future<Output = Result<T, SlurmError>>,
) -> Result<T, SlurmError> {
    let make = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match room::until_room(make) {
        Ok(runtime) => runtime.block_on(work),
        Err(source) => Err(SlurmError::NotRun { program, source }),
    }
}

impl Call<'_> {
    /// Runs it and waits for its end, or kills its process group when the time is up.
    pub async fn run(&self) -> Result<Output, SlurmError> {
        let began = Instant::now();
        let answer = self.answer().await;
        trace::program(self.program, self.args, began.elapsed(), &answer);
        answer
    }

    async fn answer(&self) -> Result<Output, SlurmError> {
        let program = self.program;
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::NotFound => SlurmError::MissingProgram { program, path: self.searched() },
            _ => SlurmError::NotRun { program, source },
        };
        let file = which::which_in_global(program, Some(self.searched()))
            .ok()
            .and_then(|mut files| files.next())
            .ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        let mut running = self.started(&file).await.map_err(failed)?;
        let heard = timeout(self.timeout, running.read_until_end()).await;
        if !matches!(heard, Ok(Ok(_))) {
            running.end().await;
        }
        match heard {
            Ok(Ok(status)) => running.output(status).map_err(failed),
            Ok(Err(source)) => Err(SlurmError::NotRun { program, source }),
            Err(_) => Err(SlurmError::NoAnswer { program, waited: self.timeout }),
        }
    }

    /// The PATH that the program is looked up in.
    fn searched(&self) -> OsString {
        self.path.map(OsStr::to_owned).or_else(|| std::env::var_os("PATH")).unwrap_or_default()
    }

    /// Starts it. At the user's limit of processes there may be room for it in a moment.
    async fn started(&self, file: &Path) -> io::Result<SpawnedProgram> {
        for _ in 0..room::TRIES {
            match SpawnedProgram::start(|stdout, stderr| self.command(file, stdout, stderr)) {
                Err(error) if room::is_lacking(&error) => sleep(room::PAUSE).await,
                started => return started,
            }
        }
        SpawnedProgram::start(|stdout, stderr| self.command(file, stdout, stderr))
    }

    fn command(&self, file: &Path, stdout: PipeWriter, stderr: PipeWriter) -> Command {
        let mut command = Command::new(file);
        command.args(self.args).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // A group of its own: Ctrl-C at us must not tear an `sbatch` out of its work, and a time-out ends its children.
        command.process_group(0);
        command.env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| (self.allow_env)(name)));
        command.envs(self.set_env.iter().copied());
        if let Some(path) = self.path {
            command.env("PATH", path);
        }
        command
    }
}

/// A program that was started.
struct SpawnedProgram {
    child: Child,
    stdout: Outlet,
    stderr: Outlet,
}

impl SpawnedProgram {
    fn start(command: impl FnOnce(PipeWriter, PipeWriter) -> Command) -> io::Result<Self> {
        let (stdout, its_stdout) = Outlet::new()?;
        let (stderr, its_stderr) = Outlet::new()?;
        // The command, and with it our copies of its ends of the pipes, is gone at the end of the line.
        let child = tokio::process::Command::from(command(its_stdout, its_stderr)).spawn()?;
        Ok(Self { child, stdout, stderr })
    }

    /// Reads both outputs until the program has ended.
    async fn read_until_end(&mut self) -> io::Result<ExitStatus> {
        let Self { child, stdout, stderr } = self;
        let both = async { tokio::try_join!(stdout.read_to_end(), stderr.read_to_end()) };
        // A pipe that someone else keeps open must not hold us up once the program itself has ended.
        let ended = tokio::select! {
            status = child.wait() => Some(status?),
            read = both => read.map(|_| None)?,
        };
        match ended {
            Some(status) => Ok(status),
            None => child.wait().await,
        }
    }

    /// Kills whatever the program started, then the program, and takes it off the process table.
    async fn end(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have just ended by itself: then there is no such group, and nothing to do.
            let _gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _reaped = self.child.wait().await;
    }

    fn output(self, status: ExitStatus) -> io::Result<Output> {
        let (stdout, stderr) = (self.stdout.into_bytes()?, self.stderr.into_bytes()?);
        Ok(Output { stdout, stderr, code: status.code() })
    }
}

/// Our end of a pipe, and what came out of it.
struct Outlet {
    pipe: Receiver,
    bytes: Vec<u8>,
}

/// A pipe holds so much: more is never read at once.
const PIPE: usize = 64 * 1024;

impl Outlet {
    fn new() -> io::Result<(Self, PipeWriter)> {
        let (pipe, other) = io::pipe()?;
        let pipe = Receiver::from_owned_fd(pipe.into())?;
        Ok((Self { pipe, bytes: Vec::new() }, other))
    }

    async fn read_to_end(&mut self) -> io::Result<()> {
        loop {
            self.pipe.readable().await?;
            self.bytes.reserve(PIPE);
            match self.pipe.try_read_buf(&mut self.bytes) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// All that was read, and what is there still: the runtime may not have heard of it yet.
    fn into_bytes(self) -> io::Result<Vec<u8>> {
        let Self { pipe, mut bytes } = self;
        match File::from(pipe.into_nonblocking_fd()?).read_to_end(&mut bytes) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => Ok(bytes),
        }
    }
}
