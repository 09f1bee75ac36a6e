//! Runs a trial on this machine, and disturbs it as its scenario says.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use nemo_core::log_line;
use nemo_core::proc_fs;
use nemo_core::rundir::{NO_SIGNAL, TaskDir, TaskSpec, TrialDir};
use nemo_core::{checksum, exit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::run_record::{Injected, RehearsedRun, RunEnd};
use super::scenarios::{Fault, Injection, InjectionTime, Scenario};
use super::watch::TrialWatcher;
use crate::clock;
use crate::executor::local;
use crate::file_error::{FileError, IoResultExt};
use crate::process;

/// How often is looked: moments are met to within so much.
const LOOK: Duration = Duration::from_millis(5);

/// Why a run was not seen to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file or process.
    #[error(transparent)]
    File(#[from] FileError),
    /// Ctrl-C, or the terminal is gone.
    #[error("interrupted; nothing of the rehearsal runs any more")]
    Interrupted,
    /// The time for the whole rehearsal is over.
    #[error("the time limit is over")]
    OutOfTime,
    /// Slurm.
    #[error(transparent)]
    Slurm(#[from] crate::slurm::SlurmError),
}

/// Ctrl-C and its like are heard here, so that nothing stays behind.
#[derive(Debug)]
pub struct Interrupt(SignalFd);

impl Interrupt {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Waits a while, or until somebody interrupts.
    pub fn wait(&self, time: Duration) -> Result<(), RunError> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout).ok();
        match self.0.read_signal() {
            Ok(Some(_)) => Err(RunError::Interrupted),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// How far a run is, for those who watch.
#[derive(Clone, Copy, Debug)]
pub struct RunProgress {
    /// The attempt, from 0.
    pub attempt: u32,
    /// The last step that it reported.
    pub step: Option<u64>,
}

/// What all runs of a rehearsal have in common.
pub struct RunContext<'a> {
    /// The program that supervises.
    pub harness: &'a Path,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// When the whole rehearsal must be over, in unix seconds.
    pub deadline: Option<f64>,
    /// Shows how far a run is.
    pub show: &'a dyn Fn(RunProgress),
}

/// A trial that runs here.
struct LocalTrial<'a> {
    stage: &'a RunContext<'a>,
    task: &'a TaskDir,
    trial: u32,
    injections: &'a [Injection],
    watch: TrialWatcher,
    /// It saves to files of its own, of which nothing is ever committed.
    is_on_its_own: bool,
    began: f64,
    /// Seconds after which it counts as stuck.
    patience: Option<f64>,
}

/// Runs a trial as a scenario says. After `patience` seconds it is given up.
pub(super) fn run(
    stage: &RunContext<'_>,
    task: &TaskDir,
    trial: u32,
    scenario: &Scenario,
    patience: Option<f64>,
) -> Result<RehearsedRun, RunError> {
    let dir = task.trial(trial);
    let spec = read_spec(task).at("read", &task.spec())?;
    let mut local = LocalTrial {
        stage,
        task,
        trial,
        injections: &scenario.injections,
        watch: TrialWatcher::new(dir.clone(), &spec.metrics).at("watch", dir.path())?,
        is_on_its_own: spec.checkpoint.signal == NO_SIGNAL && spec.checkpoint.from.is_empty(),
        began: clock::now(),
        patience,
    };
    let end = local.carry_out()?;
    local.watch.look().at("read", dir.path())?;
    if let Some(Injection { fault: fault @ Fault::TimeLimit { .. }, .. }) =
        scenario.injections.first()
    {
        local.watch.segment_ended(*fault);
    }
    let seconds = clock::now() - local.began;
    Ok(gather(&local.watch, &dir, scenario, end, seconds).at("read", dir.path())?)
}

/// What is there in the end.
pub(super) fn gather(
    watch: &TrialWatcher,
    dir: &TrialDir,
    scenario: &Scenario,
    end: RunEnd,
    seconds: f64,
) -> io::Result<RehearsedRun> {
    let mut checkpoints = Vec::new();
    if let Ok(entries) = std::fs::read_dir(dir.checkpoints()) {
        for entry in entries {
            let name = entry?.file_name();
            checkpoints.extend(
                name.to_str().and_then(|name| name.strip_prefix("step-")?.parse::<u64>().ok()),
            );
        }
    }
    checkpoints.sort_unstable();
    let lines = watch.record()?;
    let attempts = watch.attempts();
    let planned = scenario.injections.len();
    Ok(RehearsedRun { kind: scenario.kind, seconds, end, attempts, lines, checkpoints, planned })
}

impl LocalTrial<'_> {
    /// One harness after the other, until the trial is over.
    fn carry_out(&mut self) -> Result<RunEnd, RunError> {
        loop {
            let child = local::start_harness(
                self.stage.harness,
                self.task,
                self.trial,
                local::HarnessOptions::default(),
            )?;
            let (code, signal) = self.attend(child)?;
            self.watch.look().at("read", &self.task.0)?;
            let is_cancelled = code == Some(i32::from(exit::CANCELLED));
            let is_requeued = code == Some(i32::from(exit::REQUEUE));
            if self.is_late() {
                return Ok(RunEnd::Stuck);
            }
            match code {
                Some(0) => return Ok(RunEnd::Completed),
                _ if is_requeued || (is_cancelled && self.was_disturbed()) => {
                    self.end_segments().at("write", &self.task.spec())?;
                }
                None if self.was_disturbed() => {}
                _ => return Ok(RunEnd::Failed(self.reason(code, signal))),
            }
        }
    }

    /// Watches a harness until it is gone. Its exit code, or the signal that killed it.
    fn attend(&mut self, mut child: Child) -> Result<(Option<i32>, Option<i32>), RunError> {
        loop {
            if child.try_wait().at("wait for", self.stage.harness)?.is_some() {
                return Ok(local::wait(child));
            }
            let waited = self.stage.interrupt.wait(LOOK);
            let now = clock::now();
            let is_over = self.stage.deadline.is_some_and(|deadline| now > deadline);
            if waited.is_err() || is_over || self.is_late() {
                end_all(child.id());
                let ended = local::wait(child);
                waited?;
                return if is_over { Err(RunError::OutOfTime) } else { Ok(ended) };
            }
            self.watch.look().at("read", &self.task.0)?;
            if let Some((attempt, _)) = self.watch.attempt() {
                (self.stage.show)(RunProgress { attempt, step: self.watch.step(attempt) });
            }
            self.disturb(child.id(), now);
        }
    }

    fn is_late(&self) -> bool {
        self.patience.is_some_and(|patience| clock::now() - self.began > patience)
    }

    /// Does what is due.
    fn disturb(&mut self, harness: u32, now: f64) {
        let Some((attempt, start)) = self.watch.attempt() else { return };
        let Some(injection) = self.injections.get(attempt as usize).copied() else { return };
        let is_done = self.watch.injected.iter().any(|(done, _)| *done == attempt);
        let step = self.watch.step(attempt);
        let needs_checkpoint = matches!(injection.fault, Fault::KillProgram | Fault::KillHarness);
        let is_due = match injection.moment {
            InjectionTime::Step(wanted) => step.is_some_and(|step| step >= wanted),
            InjectionTime::Seconds(seconds) => now - start >= seconds,
            // The harness sees to its segments' ends itself.
            InjectionTime::Begin => false,
        };
        let is_ready = !needs_checkpoint || self.watch.has_checkpoint() || self.is_on_its_own;
        if is_done || !is_due || !is_ready || self.watch.is_over() {
            return;
        }
        self.watch.injected.push((attempt, Injected { fault: injection.fault, time: now, step }));
        self.watch.withstanding.extend(withstands_term(harness).map(|own| (attempt, own)));
        match injection.fault {
            Fault::Preempt { .. } => signal(harness, Signal::SIGUSR1),
            Fault::Terminate { .. } => signal(harness, Signal::SIGTERM),
            Fault::KillProgram => {
                for pid in program_processes(harness) {
                    signal(pid, Signal::SIGKILL);
                }
            }
            Fault::KillHarness => signal(harness, Signal::SIGKILL),
            Fault::TimeLimit { .. } | Fault::Requeue => {}
        }
    }

    /// Whether the newest attempt was disturbed.
    fn was_disturbed(&self) -> bool {
        let attempt = self.watch.attempt().map(|(attempt, _)| attempt);
        self.watch.injected.last().map(|(attempt, _)| *attempt) == attempt
    }

    /// Later segments are long enough.
    fn end_segments(&self) -> io::Result<()> {
        let mut spec = read_spec(self.task)?;
        if spec.time_limit.take().is_none() {
            return Ok(());
        }
        let text = checksum::to_vec_pretty(&spec)?;
        nemo_core::durable::replace_file_durably(&self.task.spec(), &text)
    }

    fn reason(&self, code: Option<i32>, signal: Option<i32>) -> String {
        let attempts = self.watch.attempts();
        let own = attempts.last().and_then(|attempt| attempt.end.as_ref()?.reason.clone());
        own.unwrap_or_else(|| {
            let log = self.task.slurm_output().join(format!("local_{}.out", self.trial));
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let said = text.lines().last().unwrap_or("it printed nothing");
            let said = log_line::text(said).unwrap_or(said);
            format!("the harness ended (code {code:?}, signal {signal:?}): {said}")
        })
    }
}

pub(super) fn read_spec(task: &TaskDir) -> io::Result<TaskSpec> {
    let text = std::fs::read(task.spec()).named("read", &task.spec())?;
    Ok(checksum::from_slice(&text)?)
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        kill(Pid::from_raw(pid), signal).ok(); // one that is gone needs none
    }
}

/// The processes below a harness that are not its own.
fn program_processes(harness: u32) -> Vec<u32> {
    let own = proc_fs::exe(harness);
    let below = process::descendants(harness, &[]).into_iter();
    below.filter(|pid| proc_fs::exe(*pid).is_some_and(|exe| Some(exe) != own)).collect()
}

/// Whether a process of a harness's program catches or ignores SIGTERM. One that is still starting tells nothing.
fn withstands_term(harness: u32) -> Option<bool> {
    let processes = program_processes(harness).into_iter();
    let texts =
        processes.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let ready = texts.filter(|status| {
        let signals = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM];
        signals.iter().any(|signal| is_handled(status, *signal))
    });
    ready.map(|status| is_handled(&status, Signal::SIGTERM)).reduce(|one, other| one || other)
}

/// What `/proc/PID/status` says of a signal.
fn is_handled(status: &str, signal: Signal) -> bool {
    let masks = status.lines().filter_map(|line| {
        let mask = line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) >> (signal as u32 - 1) & 1 == 1
}

/// Kills a harness and everything below it.
fn end_all(harness: u32) {
    let below = process::descendants(harness, &[]);
    for pid in std::iter::once(harness).chain(below) {
        signal(pid, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_and_being_ignored_are_told_from_neither() {
        let check = |caught, ignored, expected| {
            let status = format!("Name:\tx\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
            assert_eq!(is_handled(&status, Signal::SIGTERM), expected, "{status}");
        };
        check("0000000000004200", "0000000001001000", true);
        check("0000000000000200", "0000000001005000", true);
        check("0000000000000200", "0000000001001000", false);
    }
}
