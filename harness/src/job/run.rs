//! `nemo-harness run`: runs attempts in this job, one after the other, until one does not lead to another.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nemo_core::exit;
use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, Cause, Next};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::attempt::{self, AttemptResult};
use crate::job::context::{JobContext, is_debug};
use crate::job::environment;
use crate::job::harness::Harness;
use crate::job::trial::Trial;
use crate::os::clock::{Clock, unix_now};
use crate::os::log::{self, log_error, log_info, log_stderr};
use crate::os::patience::Patience;
use crate::os::serial_queue::SerialQueue;
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};
use crate::program::guard::{self, Role};
use crate::slurm;
use crate::slurm::requeue::{self, Stopped};
use crate::slurm::{final_state, gate, sentinel};
use crate::supervise::StopCause;

/// How long Slurm may take to answer before the program starts.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait after a machine could not start a program.
const MOMENT: Duration = Duration::from_secs(2);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long to wait for a disk that hangs at the very end.
const LAST_WORDS: Duration = Duration::from_mins(5);

/// How long to wait for a disk that is full or fails before the trial is known.
const FIRST_PATIENCE: Duration = Duration::from_mins(2);

/// The trial to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrialSelector {
    Trial(u32),
    /// This plus the index in the job array.
    Offset(u32),
}

/// How to run it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Ignore the Slurm job around this process.
    pub(crate) local: bool,
    /// This process has the environment that the program inherits.
    pub(crate) in_environment: bool,
}

/// Runs a trial. Returns the exit code. An error means that nothing was run.
pub(crate) fn run(task_dir: &Path, which: TrialSelector, mode: Mode) -> Result<u8, String> {
    let Mode { local, in_environment } = mode;
    let clock = Clock::start();
    let signals = signals::listen().map_err(|error| format!("signals: {error}"))?;
    let environment = if in_environment { Ok(()) } else { environment::enter(task_dir, local) };
    let role = guard::split(&signals).map_err(|error| format!("a subreaper: {error}"))?;
    if let Role::Guard(code) = role {
        return Ok(code);
    }
    let context = JobContext::read(local).map_err(|error| format!("/proc: {error}"))?;
    let index = match which {
        TrialSelector::Trial(index) => index,
        TrialSelector::Offset(offset) => offset + context.array_index(),
    };
    let until = clock.now() + FIRST_PATIENCE;
    let patience = Patience { signals: &signals, clock, until };
    let trial = Trial::open(task_dir, index, patience)?;
    if context.debug || is_debug(trial.spec.env.get("NEMO_LOG").map(String::as_str)) {
        log::debug_to(&trial.dir.debug_log());
        log::debug(|| format!("{} on {}: {context:?}", env!("CARGO_PKG_VERSION"), context.node));
    }
    let segment_end = segment_end(&context, &trial, &clock);
    let began = unix_now();
    let mut harness = Harness {
        context,
        environment,
        trial,
        clock,
        signals,
        records: SerialQueue::start("records", None),
        sentinel: None,
        grace_end: None,
        began,
        segment_end,
    };
    if harness.trial.spec.sentinel && harness.context.slurm.is_some() {
        match sentinel::start(&harness) {
            Ok(pid) => harness.sentinel = Some(pid),
            Err(error) => log_stderr(&format!(
                "the sentinel could not be started, so a preemption may come without notice: srun: {error}"
            )),
        }
    }
    let result = attempts(&mut harness);
    sentinel::end(&mut harness);
    if !harness.records.drain(LAST_WORDS) {
        log_stderr("the disk does not answer; the last lines of the record are not written");
    }
    result
}

/// The exit code of a job that must not run an attempt.
fn leaves_at_once(harness: &Harness) -> Option<u8> {
    let rows = lines::read(&harness.trial.dir.attempts()).unwrap_or_default().rows;
    // Slurm may start a finished job again, by itself or on request.
    if matches!(rows.last(), Some(AttemptRecord::End(end)) if end.next == Next::Done) {
        log_info("the trial is done already; nothing is run again");
        final_state::settle(harness, Next::Done, true);
        return Some(exit::DONE);
    }
    let job = harness.context.slurm.as_ref()?;
    if requeue::was_cancelled(harness, &rows) {
        return Some(requeue::cancel_again(harness, job));
    }
    let has_run = rows.iter().any(|row| row.as_start().is_some());
    if has_run { None } else { gate::refuses(harness, job) }
}

fn attempts(harness: &mut Harness) -> Result<u8, String> {
    if let Some(code) = leaves_at_once(harness) {
        return Ok(code);
    }
    if requeue::is_paused(&harness.trial.dir) {
        log_info("the trial is paused: `nemo-slurm resume` lets it go on");
        let stopped =
            Stopped { cause: Some(StopCause::Paused), is_confirmed: false, deadline: None };
        return Ok(requeue::requeue(harness, 0, stopped));
    }
    let mut pause = Duration::from_secs(1);
    loop {
        let (verdict, attempt, stopped, progress) = match attempt::run(harness)? {
            AttemptResult::Recorded { verdict, attempt, stopped, progress } => {
                (verdict, attempt, stopped, progress)
            }
            AttemptResult::Superseded => return Ok(exit::SUPERSEDED),
            AttemptResult::Stale(holder) => {
                log_stderr(&format!(
                    "a later run of this job already works on this trial on {}; this one leaves",
                    holder.process.node
                ));
                return Ok(exit::SUPERSEDED);
            }
        };
        if !matches!(verdict.next, Next::Requeue | Next::Restart) {
            final_state::settle(harness, verdict.next, stopped.cause.is_some());
        }
        match verdict.next {
            Next::Done => return Ok(exit::DONE),
            Next::Failed => {
                log_error(&verdict.reason);
                return Ok(if harness.context.slurm.is_some() {
                    exit::NEVER
                } else {
                    exit::FAILED
                });
            }
            Next::Cancelled => return Ok(exit::CANCELLED),
            Next::Timeout => return Ok(exit::TIMEOUT),
            Next::Requeue => {
                // Without Slurm there is no other node and no queue. The machine may recover in a moment.
                if harness.context.slurm.is_none() && verdict.cause == Cause::NodeFailure {
                    wait(harness, MOMENT);
                }
                return Ok(requeue::requeue(harness, attempt, stopped));
            }
            Next::Restart if requeue::is_paused(&harness.trial.dir) => {
                return Ok(requeue::requeue(harness, attempt, stopped));
            }
            Next::Restart if verdict.cause == Cause::Restart && progress => {
                pause = Duration::from_secs(1);
            }
            Next::Restart => {
                wait(harness, pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Waits before the next attempt, unless a signal is pending. The next attempt will read it.
fn wait(harness: &Harness, pause: Duration) {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
    poll(&mut [PollFd::new(harness.signals.as_fd(), PollFlags::POLLIN)], timeout).ok();
}

/// When this segment ends.
fn segment_end(context: &JobContext, trial: &Trial, clock: &Clock) -> Option<f64> {
    let Some(job) = &context.slurm else {
        let limit = Duration::from_secs(trial.spec.time_limit?);
        return Some(unix_now() + limit.as_secs_f64());
    };
    job.end.or_else(|| {
        let outcome = subprocess::ask(&slurm::show_job(&job.id()), clock, ANSWER);
        let SubprocessResult::Ended { text, .. } = outcome else { return None };
        slurm::parse(&text)?.end
    })
}
