//! The program of an attempt: a child of this process, or several processes on other nodes.

pub(crate) mod ask;
pub(crate) mod command;
pub(crate) mod env;
pub(crate) mod guard;
pub(crate) mod input;
pub(crate) mod jobs;
pub(crate) mod output;
pub(crate) mod output_times;
pub(crate) mod processes;
pub(crate) mod scontrol_shim;
pub(crate) mod scratch;
pub(crate) mod shells;
pub(crate) mod steps;
pub(crate) mod trackers;
pub(crate) mod usage;

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::attempt::start_error::StartError;
use crate::attempt::verdict::Exit;
use crate::job::harness::Harness;
use crate::job::trial::with_path;
use crate::monitor::watchdog;
use crate::os::clock::Time;
use crate::os::log::Log;
use crate::os::patience::may_pass;
use crate::program::ask::SaveSignal;
use crate::program::output::ProgramOutput;
use crate::program::output_times::OutputClock;
use crate::program::processes::{ProcessStart, Reaped};
use crate::program::usage::UsageSampler;
use crate::rank::ExecOptions;
use crate::rank::failed_rank::FailedRank;
use crate::rank::identity::Rank;
use crate::rank::multi_rank::{MultiRankProgram, RankNews};
use crate::rank::relay::{Relay, Relayed};
use crate::rank::srun;

/// A program, by the place of its processes.
#[derive(Debug)]
pub(crate) enum RunningProgram {
    /// On this node, a child of this process.
    Local { pid: u32, _times: OutputClock, _usage: UsageSampler },
    /// Each process below a shim that `srun` started.
    Launched(Box<MultiRankProgram>),
}

/// Everything that is needed to start a program.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) attempt: u32,
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(String, OsString)>,
    /// The lines of its output must be read.
    pub(crate) is_read: bool,
}

/// Starts the program of an attempt. Returns its output streams if the harness must read them.
pub(crate) fn start(
    harness: &Harness,
    prepared: Prepared,
) -> Result<(RunningProgram, Vec<ProgramOutput>), StartError> {
    let Prepared { attempt, argv, mut env, is_read } = prepared;
    let workdir = harness.trial.workdir();
    let (spec, context) = (&harness.trial.spec, &harness.context);
    let launch = spec.launch.as_ref().filter(|_| context.slurm.is_some());
    if let Some(launch) = launch.filter(|launch| srun::ranks(launch) > 1) {
        let options = ExecOptions {
            dir: harness.trial.dir.clone(),
            attempt,
            workdir,
            port: free_port(harness, attempt),
            lines: is_read,
            devices: launch.gpus_per_task,
            workers: srun::workers(launch),
            program: argv,
        };
        let argv = srun::srun(launch, context.cpus_per_task.as_deref(), &context.exe, &options);
        let socket = env.iter().find(|(name, _)| name == "NEMO_SOCKET");
        let relay = socket.map(|(_, path)| Relay::new(path.into()));
        let launched =
            MultiRankProgram::start(srun::ranks(launch), launch.gpus_per_task, &argv, &env, relay);
        let launched = launched.map_err(|error| {
            let why = format!("`srun` could not be started: {error}");
            if may_pass(&error) { StartError::Node(why) } else { StartError::Permanent(why) }
        })?;
        return Ok((RunningProgram::Launched(Box::new(launched)), Vec::new()));
    }
    let workers = spec.launch.as_ref().and_then(srun::workers);
    if spec.launch.is_some() {
        let own = Rank::alone().of_all(free_port(harness, attempt), workers);
        for (name, value) in own {
            if !env.iter().any(|(other, _)| *other == name) {
                env.push((name, value));
            }
        }
    }
    let (streams, [stdout, stderr]) = outputs(harness, attempt, is_read)?;
    let stdin = input::of_attempt()
        .map_err(|error| StartError::Node(format!("the program's standard input: {error}")))?;
    let start = ProcessStart { argv: &argv, env: &env, workdir: &workdir, stdin, stdout, stderr };
    let pid = processes::start(start, &context.path)?;
    let dir = &harness.trial.dir;
    let outputs = [dir.stdout(attempt), dir.stderr(attempt)];
    let times = OutputClock::start(outputs, &harness.records);
    let (path, allotment) = (dir.usage(attempt, 0), context.allotment());
    let usage = UsageSampler::start(path, attempt, allotment, &harness.records);
    Ok((RunningProgram::Local { pid, _times: times, _usage: usage }, streams))
}

/// Opens the output files. The program writes them itself unless its lines must be read.
fn outputs(
    harness: &Harness,
    attempt: u32,
    is_read: bool,
) -> Result<(Vec<ProgramOutput>, [Stdio; 2]), String> {
    let dir = &harness.trial.dir;
    let mut streams = Vec::new();
    let mut ends = Vec::new();
    for path in [dir.stdout(attempt), dir.stderr(attempt)] {
        let log = output::open_log(&path);
        if is_read {
            let stream = ProgramOutput::new(log.ok(), &harness.records);
            let (stream, end) = stream.map_err(|error| with_path(&path, &error))?;
            streams.push(stream);
            ends.push(end);
        } else {
            ends.push(log.map_or_else(|_| Stdio::null(), Stdio::from));
        }
    }
    let ends = ends.try_into().map_err(|_| "a program has two outputs".to_owned())?;
    Ok((streams, ends))
}

/// A port on the job's first node that nobody listens on now.
fn free_port(harness: &Harness, attempt: u32) -> u16 {
    let job = harness.context.slurm.as_ref().and_then(|job| job.raw.parse().ok());
    let job = job.unwrap_or(u64::from(harness.context.pid));
    let mut ports = (0..1000).map(|nth| srun::port(job, attempt, nth));
    ports.find(|port| is_free(*port)).unwrap_or(srun::port(job, attempt, 0))
}

fn is_free(port: u16) -> bool {
    // An address is used because the resolver of a static C library is large.
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

impl RunningProgram {
    /// The child whose end is the program's end.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Local { pid, .. } => *pid,
            Self::Launched(launched) => launched.srun,
        }
    }

    /// Asks the program to save. Returns whether a process caught it, or none if the answer comes later.
    pub(crate) fn ask(
        &mut self,
        asking: &SaveSignal<'_>,
        running: bool,
        now: Time,
    ) -> Option<bool> {
        match self {
            Self::Local { pid, .. } => Some(asking.send(running.then_some(*pid))),
            Self::Launched(launched) => {
                launched.ask(asking.signal, now);
                None
            }
        }
    }

    /// Sends TERM or KILL to all processes.
    pub(crate) fn end(&mut self, root: u32, except: &[u32], is_running: bool, signal: Signal) {
        match self {
            Self::Launched(launched) if is_running => launched.end(signal),
            Self::Local { .. } | Self::Launched(_) => {
                processes::end(root, except, is_running.then_some(self.pid()), signal);
            }
        }
    }

    /// Delivers a message to the harness's socket, as if its sender were on this node.
    pub(crate) fn deliver(&mut self, message: &Relayed) {
        match self {
            Self::Local { .. } => {}
            Self::Launched(launched) => launched.deliver(message),
        }
    }

    /// Writes the state of its processes to a file.
    pub(crate) fn keep_evidence(&mut self, except: &[u32], path: PathBuf, harness: &Harness) {
        match self {
            Self::Local { .. } => {
                let text = watchdog::evidence(harness.context.pid, except, &harness.clock);
                harness.records.add(text.len(), move || watchdog::keep_evidence(&path, &text));
            }
            Self::Launched(launched) => launched.keep_evidence(),
        }
    }

    /// The file descriptors to poll.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        match self {
            Self::Local { .. } => None,
            Self::Launched(launched) => Some(launched.descriptors()),
        }
        .into_iter()
        .flatten()
    }

    /// When [`RunningProgram::look`] is due.
    pub(crate) fn next_look(&self) -> Option<Time> {
        match self {
            Self::Local { .. } => None,
            Self::Launched(launched) => launched.next_step_at(),
        }
    }

    /// Reads the news, and does what is due.
    pub(crate) fn look(&mut self, now: Time, log: &mut Log) -> Vec<RankNews> {
        match self {
            Self::Local { .. } => Vec::new(),
            Self::Launched(launched) => launched.read_news(now, log),
        }
    }

    /// The program's exit once the child is reaped, and the rank that decided it if there are several.
    pub(crate) fn ended(
        &mut self,
        reaped: Reaped,
        harness: &Harness,
        log: &mut Log,
    ) -> (Exit, Option<FailedRank>) {
        match self {
            Self::Local { .. } => (Exit::of(reaped), None),
            Self::Launched(launched) => launched.ended(harness, log),
        }
    }
}
