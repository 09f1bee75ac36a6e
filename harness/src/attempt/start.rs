//! Prepares everything that an attempt's program needs, starts it, and hands it to the event loop.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nemo_core::durable;
use nemo_core::profile;
use nemo_core::rundir::{Every as SaveEvery, TaskSpec};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::attempt::history::{AttemptJournal, History};
use crate::attempt::lease::Lease;
use crate::attempt::outcome::AttemptReport;
use crate::attempt::start_error::StartError;
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::checkpoint::saver::{self, Saver};
use crate::event_loop::{EventLoop, StartedAttempt};
use crate::job::context::JobContext;
use crate::job::harness::Harness;
use crate::job::trial::with_path;
use crate::monitor::log_policy::Policies;
use crate::monitor::metrics::{self, Patterns};
use crate::monitor::watchdog::Watchdog;
use crate::monitor::{Monitor, MonitorConfig};
use crate::os::log::Log;
use crate::os::serial_queue::SerialQueue;
use crate::program::command::{self, AttemptNames, Shells};
use crate::program::env;
use crate::program::guard;
use crate::program::scontrol_shim;
use crate::program::{self, Prepared};
use crate::protocol::{SavePeriod, Session, SessionConfig, Socket};
use crate::supervise::{Policy, Supervisor};

/// The default of Slurm's `KillWait`, for clusters that were not asked.
const KILL_WAIT: u64 = 30;

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
    let trial = &harness.trial;
    let dir = &trial.dir;
    let staging = dir.staging(lease.attempt);
    let step = resumed.map(|resumed| resumed.step);
    let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
    let wake = Arc::new(wake.map_err(|error| format!("eventfd: {error}"))?);
    let patience = harness.patience();
    let own = saver::SaverContext { wake: &wake, boot_id: &harness.context.boot_id };
    let saver = patience.with(|| Saver::begin(trial, &lease, history.steps.clone(), step, own));
    let nodes = trial.spec.launch.as_ref().map_or(1, |launch| launch.nodes);
    let saver = saver.map_err(|error| unready(&staging, &error))?.with_multi_node(nodes > 1);
    if saver.is_blind() {
        log.warn(
            "the system has no inotify watch left: a folder is committed only when the program ends in order or reports it by message",
        );
    }
    patience
        .with(|| durable::create_dir_all(&dir.artifacts()))
        .map_err(|error| StartError::node(&dir.artifacts(), &error))?;
    let from = resumed.map(|resumed| resumed.from.display().to_string());
    let names = AttemptNames {
        checkpoint_dir: staging.display().to_string(),
        resume_from: from.unwrap_or_default(),
    };
    let command = command::build(trial, &names, shells(&harness.context))?;
    let (deadline, supervisor) = supervisor(harness);
    let (mut sources, is_read) = sources(harness, &lease, resumed, &mut log)?;
    let socket = sources.socket.as_ref().map(Socket::path);
    let bin = socket.as_deref().filter(|_| harness.context.slurm.is_some());
    let bin = bin.and_then(|socket| scontrol_shim::make(socket, &harness.context).ok());
    let own = env::AttemptEnv { attempt: lease.attempt, resumed, deadline, socket, bin };
    let env = env::variables(trial, &harness.context, &own, &command);
    let prepared = Prepared { attempt: lease.attempt, argv: command.argv, env, is_read };
    let (program, streams) = program::start(harness, prepared)?;
    sources.streams = streams;
    let disk_queue = SerialQueue::start("questions", Some(&wake));
    let monitor = Monitor::new(dir.clone(), lease.attempt, sources, &harness.records);
    let parts = StartedAttempt {
        supervisor,
        program,
        saver,
        monitor,
        lease,
        log,
        journal,
        committed_steps: history.steps.clone(),
        disk_queue,
    };
    Ok(EventLoop::new(harness, parts).run())
}

fn shells(context: &JobContext) -> Shells {
    let bash = std::env::split_paths(&context.path).any(|path| path.join("bash").exists());
    Shells { bash, functions: context.has_functions }
}

/// The error of a folder that could not be prepared. If a rename would cross file systems, no node can do better.
fn unready(staging: &Path, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::CrossesDevices => with_path(staging, error).into(),
        _ => StartError::node(staging, error),
    }
}

/// The program's part of `KillWait`. A sixth is reserved for the last commit and the record.
pub(crate) fn kill_wait(spec: &TaskSpec) -> Duration {
    Duration::from_secs(spec.kill_wait.unwrap_or(KILL_WAIT)) * 5 / 6
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
        trains_on: profile::trains_on(spec.profile),
    };
    let segment_end = harness.segment_end.map(|at| harness.clock.at_unix(at));
    let deadline = experiment.into_iter().chain(harness.segment_end).reduce(f64::min);
    (deadline, Supervisor::new(policy, segment_end))
}

/// The monitor's configuration, and whether the program's output must be read.
fn sources(
    harness: &Harness,
    lease: &Lease,
    resumed: Option<&VerifiedCheckpoint>,
    log: &mut Log,
) -> Result<(MonitorConfig, bool), String> {
    let spec = &harness.trial.spec;
    let patterns = Patterns::new(&spec.metrics)?;
    let policies = Policies::new(&spec.log_policy)?;
    let is_read = !patterns.is_empty() || !policies.is_empty();
    let mark = guard::mark(&harness.context);
    let socket = match Socket::open(&std::env::temp_dir(), &mark, &lease.nonce) {
        Ok(socket) => Some(socket),
        Err(error) => {
            log.warn(&format!(
                "the program can't send messages; its socket could not be made: {error}"
            ));
            None
        }
    };
    let session = Session::new(settings(harness, resumed));
    let now = harness.clock.now();
    let watchdog = spec.restart.hang.map(|limit| Watchdog::new(Duration::from_secs(limit), now));
    let streams = Vec::new();
    Ok((MonitorConfig { streams, patterns, policies, session, socket, watchdog }, is_read))
}

/// The initial state of the conversation with the program.
fn settings(harness: &Harness, resumed: Option<&VerifiedCheckpoint>) -> SessionConfig {
    let trial = &harness.trial;
    let every = match trial.spec.checkpoint.every {
        Some(SaveEvery::Seconds(seconds)) => SavePeriod::Time(Duration::from_secs(seconds)),
        Some(SaveEvery::Steps(steps)) => SavePeriod::Steps(steps),
        Some(SaveEvery::Auto) | None => SavePeriod::Never,
    };
    let metric = trial.spec.metric.clone();
    let mut settings = SessionConfig { metric, every, ..SessionConfig::default() };
    let Some(resumed) = resumed else { return settings };
    settings.resumed = Some(resumed.step);
    let validated = metrics::validated(&trial.dir.metrics(), settings.metric.as_ref());
    (settings.validated, settings.best) = validated.unwrap_or_default();
    settings
}
