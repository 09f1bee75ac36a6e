//! Prepares everything that an attempt's program needs, starts it, and hands it to the event loop.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nemo_core::durable;
use nemo_core::patterns::Patterns;
use nemo_core::profile;
use nemo_core::rundir::{Every as SaveEvery, TaskSpec};
use nemo_core::stop_times::DEFAULT_KILL_WAIT;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::attempt::history::{AttemptJournal, History};
use crate::attempt::lease::Lease;
use crate::attempt::outcome::AttemptReport;
use crate::attempt::own_paths;
use crate::attempt::start_error::StartError;
use crate::attempt::tier::{self, Tier};
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::checkpoint::saver::{self, Saver};
use crate::event_loop::{Checkpointer, EventLoop, StartedAttempt};
use crate::job::context::JobContext;
use crate::job::harness::Harness;
use crate::job::inputs;
use crate::job::trial::with_path;
use crate::monitor::alarms::{self, Alarms};
use crate::monitor::log_policy::Policies;
use crate::monitor::metrics::{self, CutAtFirstStep};
use crate::monitor::watchdog::Watchdog;
use crate::monitor::{Monitor, MonitorConfig};
use crate::os::log::Log;
use crate::os::serial_queue::SerialQueue;
use crate::program::command::{self, AttemptNames, Shells};
use crate::program::env;
use crate::program::guard;
use crate::program::scontrol_shim;
use crate::program::scratch::{self, Scratch};
use crate::program::trackers;
use crate::program::{self, Prepared};
use crate::protocol::{SavePeriod, Session, SessionConfig, Socket};
use crate::rank::srun;
use crate::supervise::{Policy, Supervisor};

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
    let mut report = run(harness, lease, log, resumed, history, journal, tier.as_ref())?;
    if let Some(tier) = tier {
        tier.close(harness, attempt, &mut report);
    }
    Ok(report)
}

fn run(
    harness: &mut Harness,
    lease: Lease,
    mut log: Log,
    resumed: Option<&VerifiedCheckpoint>,
    history: &History,
    journal: &AttemptJournal,
    tier: Option<&Tier>,
) -> Result<AttemptReport, StartError> {
    let trial = &harness.trial;
    let (dir, staging) = (&trial.dir, trial.dir.staging(lease.attempt));
    let wake = wake()?;
    let patience = harness.patience();
    let collector = own_paths::collector(harness, &lease, tier)?;
    let (collector, boot_id) = (collector.as_ref(), &harness.context.boot_id);
    let own = saver::SaverContext { wake: &wake, boot_id, collector };
    let saver = patience.with(|| Saver::begin(trial, &lease, history.steps.clone(), resumed, own));
    let nodes = own_paths::nodes(harness);
    let saver = saver.map_err(|error| unready(&staging, &error))?.with_multi_node(nodes > 1);
    if saver.is_blind() {
        log.warn(
            "the system has no inotify watch left: a folder is committed only when the program ends in order or reports it by message",
        );
    }
    patience
        .with(|| durable::create_dir_below(dir.path(), &dir.artifacts()))
        .map_err(|error| StartError::node(&dir.artifacts(), &error))?;
    let names = AttemptNames {
        checkpoint_dir: tier.map_or(&staging, |tier| &tier.folder).display().to_string(),
        resume_from: resumed.map_or_else(String::new, |own| own.from.display().to_string()),
        values: inputs::read(trial)?,
    };
    let command = command::build(trial, &names, shells(&harness.context))?;
    let (deadline, supervisor) = supervisor(harness);
    let (mut sources, is_read) = sources(harness, &lease, resumed, history, &mut log)?;
    let socket = sources.socket.as_ref().map(Socket::path);
    let bin = socket.as_deref().filter(|_| harness.context.slurm.is_some());
    let bin = bin.and_then(|socket| scontrol_shim::make(socket, &harness.context).ok());
    let (scratch, _held) = scratch(harness, &lease, &mut log);
    let (attempt, names) = (lease.attempt, &names);
    let own = env::AttemptEnv { attempt, resumed, deadline, socket, scratch, names, bin };
    let mut env = env::variables(trial, &harness.context, &own, &command)?;
    if history.leaves_own {
        sources.cut = Some(CutAtFirstStep { resumed: None });
    }
    let may_go_on = resumed.is_none() && sources.cut.is_some();
    trackers::prepare(harness, resumed, may_go_on, names, &mut env, &mut log);
    let checkpointer = checkpointer(harness, &env, names.clone(), staging);
    let prepared = Prepared { attempt, argv: command.argv, env, is_read };
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
        checkpointer,
        committed_steps: history.steps.clone(),
        disk_queue,
    };
    Ok(EventLoop::new(harness, parts).run())
}

/// The folder on the node, and what keeps it while the program runs. Of several processes each makes it on its own node. It
/// is the guard that removes it, or the next attempt: the job's requeue must not wait for that.
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

/// What takes the program's checkpoints in its stead.
fn checkpointer(
    harness: &Harness,
    env: &[(String, OsString)],
    names: AttemptNames,
    staging: PathBuf,
) -> Option<Checkpointer> {
    let checkpoint = &harness.trial.spec.checkpoint;
    checkpoint.command.as_ref()?;
    let limit = Duration::from_secs(checkpoint.lead.max(1));
    let (shells, workdir) = (shells(&harness.context), harness.trial.workdir());
    Some(Checkpointer::new(env.to_vec(), names, shells, workdir, staging, limit))
}

/// Which shells run a text here.
pub(crate) fn shells(context: &JobContext) -> Shells {
    let bash = std::env::split_paths(&context.path).any(|path| path.join("bash").exists());
    Shells { bash, functions: context.has_functions }
}

/// What ends a wait of the loop.
fn wake() -> Result<Arc<EventFd>, String> {
    let made = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
    made.map(Arc::new).map_err(|error| format!("eventfd: {error}"))
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

/// The monitor's configuration, and whether the program's output must be read.
fn sources(
    harness: &Harness,
    lease: &Lease,
    resumed: Option<&VerifiedCheckpoint>,
    history: &History,
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
    let resumed_step = resumed.map(VerifiedCheckpoint::reached);
    let is_uncut = match resumed {
        Some(resumed) => own_paths::is_counted_by_output(&harness.trial, resumed),
        None => own_paths::goes_on_by_itself(&harness.trial),
    };
    let cut = is_uncut.then_some(CutAtFirstStep { resumed: resumed_step });
    let every = match spec.checkpoint.every {
        Some(SaveEvery::Seconds(seconds)) => Some(Duration::from_secs(seconds)),
        Some(SaveEvery::Steps(_) | SaveEvery::Auto) | None => None,
    };
    let starts_over = resumed.is_none() && !is_uncut && !history.leaves_own && history.stuck > 0;
    let mut at_start = harness.at_start.clone();
    at_start.extend(starts_over.then(|| alarms::starts_over(history.stuck)));
    let reported = metrics::names_reported(&harness.trial.dir);
    let alarms = Alarms::new(resumed_step, every, now).telling(at_start).knowing(reported);
    let config =
        MonitorConfig { streams, patterns, policies, session, socket, watchdog, cut, alarms };
    Ok((config, is_read))
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
    settings.resumed = Some(resumed.reached());
    let validated = metrics::validated(&trial.dir.metrics(), settings.metric.as_ref());
    (settings.validated, settings.best) = validated.unwrap_or_default();
    settings
}
