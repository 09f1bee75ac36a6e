//! Prepares everything that an attempt's program needs, starts it, and hands it to the event loop.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nemo_core::durable;
use nemo_core::profile;
use nemo_core::rundir::TaskSpec;
use nemo_core::stop_times::DEFAULT_KILL_WAIT;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::attempt::history::{AttemptJournal, History};
use crate::attempt::lease::Lease;
use crate::attempt::monitor_config::monitor_config;
use crate::attempt::outcome::AttemptReport;
use crate::attempt::own_paths;
use crate::attempt::start_error::StartError;
use crate::attempt::tier::{self, Tier};
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::checkpoint::saver::{self, Saver};
use crate::event_loop::{Checkpointer, EventLoop, StartedAttempt};
use crate::job::harness::Harness;
use crate::job::inputs;
use crate::job::trial::with_path;
use crate::monitor::Monitor;
use crate::os::log::Log;
use crate::os::serial_queue::SerialQueue;
use crate::program::command::{self, AttemptNames, Shells};
use crate::program::env::{self, AttemptEnv};
use crate::program::scontrol_shim;
use crate::program::scratch::{self, Scratch};
use crate::program::trackers;
use crate::program::{self, Prepared};
use crate::protocol::Socket;
use crate::rank::srun;
use crate::supervise::{Policy, Supervisor};

/// What an attempt goes on from.
#[derive(Clone, Copy)]
struct StartingPoint<'a> {
    /// The checkpoint that the program loads.
    resumed: Option<&'a VerifiedCheckpoint>,
    history: &'a History,
    /// The folder in memory to which the program saves.
    tier: Option<&'a Tier>,
}

/// Starts the program and supervises it to the end.
pub(crate) fn begin(
    harness: &mut Harness,
    lease: Lease,
    mut log: Log,
    resumed: Option<&VerifiedCheckpoint>,
    history: &History,
    journal: &AttemptJournal,
) -> Result<AttemptReport, StartError> {
    harness.environment.clone()?;
    let (attempt, tier) = (lease.attempt, tier::open(harness, &lease, history, &mut log));
    let from = StartingPoint { resumed, history, tier: tier.as_ref() };
    let mut report = run(harness, lease, log, from, journal)?;
    if let Some(tier) = tier {
        tier.close(harness, attempt, &mut report);
    }
    Ok(report)
}

fn run(
    harness: &mut Harness,
    lease: Lease,
    mut log: Log,
    from: StartingPoint<'_>,
    journal: &AttemptJournal,
) -> Result<AttemptReport, StartError> {
    let trial = &harness.trial;
    let (attempt, resumed) = (lease.attempt, from.resumed);
    let wake = wake()?;
    let saver = saver(harness, &lease, &wake, from, &mut log)?;
    create_artifacts(harness)?;
    let names = attempt_names(harness, attempt, from)?;
    let command = command::build(trial, &names, Shells::of(&harness.context))?;
    let (deadline, supervisor) = supervisor(harness);
    let (mut config, is_read) = monitor_config(harness, &lease, resumed, from.history, &mut log)?;
    let socket = config.socket.as_ref().map(Socket::path);
    let bin = scontrol_folder(harness, socket.as_deref());
    // As long as the lock is held no other attempt sweeps the folder.
    let (scratch, _scratch_lock) = scratch(harness, &lease, &mut log);
    let own = AttemptEnv { attempt, resumed, deadline, socket, scratch, names: &names, bin };
    let mut env = env::variables(trial, &harness.context, &own, &command)?;
    let may_go_on = resumed.is_none() && config.cut.is_some();
    trackers::prepare(harness, resumed, may_go_on, &names, &mut env, &mut log);
    let checkpointer = checkpointer(harness, &env, names, attempt);
    let prepared = Prepared { attempt, argv: command.argv, env, is_read };
    let (program, streams) = program::start(harness, prepared)?;
    config.streams = streams;
    let disk_queue = SerialQueue::start("questions", Some(&wake));
    let monitor = Monitor::new(trial.dir.clone(), attempt, config, &harness.records);
    let started = StartedAttempt {
        supervisor,
        program,
        saver,
        monitor,
        lease,
        log,
        journal,
        checkpointer,
        committed_steps: from.history.steps.clone(),
        disk_queue,
    };
    Ok(EventLoop::new(harness, started).run())
}

/// Prepares the folders for checkpoints, and what commits them.
fn saver(
    harness: &Harness,
    lease: &Lease,
    wake: &Arc<EventFd>,
    from: StartingPoint<'_>,
    log: &mut Log,
) -> Result<Saver, StartError> {
    let trial = &harness.trial;
    let collector = own_paths::collector(harness, lease, from.tier)?;
    let (collector, boot_id) = (collector.as_ref(), &harness.context.boot_id);
    let context = saver::SaverContext { wake, boot_id, collector };
    let begin = || Saver::begin(trial, lease, from.history.steps.clone(), from.resumed, context);
    let saver = harness.patience().with(begin);
    let saver = saver.map_err(|error| staging_error(&trial.dir.staging(lease.attempt), &error))?;
    if saver.is_blind() {
        log.warn(
            "the system has no inotify watch left: a folder is committed only when the program ends in order or reports it by message",
        );
    }
    Ok(saver.with_multi_node(own_paths::nodes(harness) > 1))
}

fn create_artifacts(harness: &Harness) -> Result<(), StartError> {
    let dir = &harness.trial.dir;
    let create = || durable::create_dir_below(dir.path(), &dir.artifacts());
    harness.patience().with(create).map_err(|error| StartError::node(&dir.artifacts(), &error))
}

/// What the placeholders of the command stand for in this attempt.
fn attempt_names(
    harness: &Harness,
    attempt: u32,
    from: StartingPoint<'_>,
) -> Result<AttemptNames, StartError> {
    let staging = harness.trial.dir.staging(attempt);
    let folder = from.tier.map_or(&staging, |tier| &tier.folder);
    let resumed = from.resumed.map(|checkpoint| checkpoint.from.display().to_string());
    Ok(AttemptNames {
        checkpoint_dir: folder.display().to_string(),
        resume_from: resumed.unwrap_or_default(),
        values: inputs::read(&harness.trial)?,
    })
}

/// A folder with a `scontrol` that tells the harness of a requeue; none outside of Slurm.
fn scontrol_folder(harness: &Harness, socket: Option<&Path>) -> Option<PathBuf> {
    let socket = socket.filter(|_| harness.context.slurm.is_some())?;
    scontrol_shim::make(socket, &harness.context).ok()
}

/// The program's folder on the node, and the lock that keeps others from sweeping it. Of several processes each makes it on
/// its own node. The guard process removes it, or the next attempt: the job's requeue must not wait for that.
fn scratch(harness: &Harness, lease: &Lease, log: &mut Log) -> (Option<PathBuf>, Option<Scratch>) {
    let path = scratch::path(&lease.nonce);
    let launch = harness.trial.spec.launch.as_ref().filter(|_| harness.context.slurm.is_some());
    if launch.is_some_and(|launch| srun::ranks(launch) > 1) {
        return (Some(path), None);
    }
    scratch::sweep_beside();
    match Scratch::open(&path) {
        Ok(held) => (Some(path), Some(held)),
        Err(error) => {
            let error = with_path(&path, &error);
            log.warn(&format!("the program has no {}: {error}", scratch::VARIABLE));
            (None, None)
        }
    }
}

/// Runs `checkpoint.command`, for a program that does not save by itself.
fn checkpointer(
    harness: &Harness,
    env: &[(String, OsString)],
    names: AttemptNames,
    attempt: u32,
) -> Option<Checkpointer> {
    let trial = &harness.trial;
    trial.spec.checkpoint.command.as_ref()?;
    let limit = Duration::from_secs(trial.spec.checkpoint.lead.max(1));
    let (shells, workdir) = (Shells::of(&harness.context), trial.workdir());
    let staging = trial.dir.staging(attempt);
    Some(Checkpointer::new(env.to_vec(), names, shells, workdir, staging, limit))
}

/// Other threads write to it to end a wait of the event loop.
fn wake() -> Result<Arc<EventFd>, String> {
    let created = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
    created.map(Arc::new).map_err(|error| format!("eventfd: {error}"))
}

/// The error of a staging folder that could not be prepared. If a rename would cross file systems, no node can do better.
fn staging_error(staging: &Path, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::CrossesDevices => with_path(staging, error).into(),
        _ => StartError::node(staging, error),
    }
}

/// The program's part of `KillWait`. A sixth is reserved for the last commit and the record.
pub(crate) fn kill_wait(spec: &TaskSpec) -> Duration {
    Duration::from_secs(spec.kill_wait.unwrap_or(DEFAULT_KILL_WAIT.into())) * 5 / 6
}

/// The program's deadline in unix seconds, and the supervisor that enforces it.
fn supervisor(harness: &Harness) -> (Option<f64>, Supervisor) {
    let spec = &harness.trial.spec;
    #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
    let experiment = spec.deadline.map(|at| at as f64);
    let policy = Policy {
        local: harness.context.slurm.is_none(),
        lead: Duration::from_secs(spec.checkpoint.lead),
        kill_wait: kill_wait(spec),
        experiment_end: experiment.map(|at| harness.clock.at_unix(at)),
        trains_on: profile::trains_on(spec.profile) || spec.checkpoint.command.is_some(),
        saves_by_itself: harness.trial.signal.is_none() && spec.checkpoint.command.is_none(),
    };
    let segment_end = harness.segment_end.map(|at| harness.clock.at_unix(at));
    let deadline = experiment.into_iter().chain(harness.segment_end).reduce(f64::min);
    (deadline, Supervisor::new(policy, segment_end))
}
