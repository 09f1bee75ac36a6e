//! `nemo-harness run`: runs attempts in this job, one after the other, until one does not lead to another.

use std::os::fd::AsFd;
use std::time::Duration;

use nemo_core::exit;
use nemo_core::rundir::{AttemptRecord, Cause, Next};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::attempt::start_error::StartError;
use crate::attempt::{self, AttemptResult};
use crate::job::context::{JobContext, is_debug};
use crate::job::environment;
use crate::job::harness::Harness;
use crate::job::poll;
use crate::job::trial::{self, TaskSource, Trial};
use crate::monitor::alarms::Alarm;
use crate::os::clock::{Clock, unix_now};
use crate::os::log::{self, log_error, log_info, log_stderr};
use crate::os::patience::Patience;
use crate::os::serial_queue::SerialQueue;
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};
use crate::program::guard::{self, GuardRole};
use crate::slurm;
use crate::slurm::requeue::{self, Stopped};
use crate::slurm::{cancel, final_state, gate, sentinel};
use crate::supervise::StopCause;

/// How long Slurm may take to answer before the program starts.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait after a machine could not start a program.
const MOMENT: Duration = Duration::from_secs(2);
/// The longest time between two attempts.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

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

impl TrialSelector {
    /// The trial, in a job of this index in its array.
    pub(crate) fn index(self, array_index: u32) -> u32 {
        match self {
            Self::Trial(index) => index,
            Self::Offset(offset) => offset + array_index,
        }
    }
}

/// How to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Ignore the Slurm job around this process.
    pub(crate) local: bool,
    /// This process has the environment that the program inherits.
    pub(crate) in_environment: bool,
    /// What is known to be wrong before anything runs.
    pub(crate) at_start: Vec<Alarm>,
}

/// Runs a trial. Returns the exit code. An error means that nothing was run, and that nothing would be elsewhere.
pub(crate) fn run(source: &TaskSource, which: TrialSelector, mode: Mode) -> Result<u8, String> {
    let Mode { local, in_environment, at_start } = mode;
    let clock = Clock::start();
    let signals = signals::listen().map_err(|error| format!("signals: {error}"))?;
    let environment = if in_environment { Ok(()) } else { environment::enter(source, local) };
    let role = guard::split(&signals).map_err(|error| format!("a subreaper: {error}"))?;
    if let GuardRole::Guard(ended) = role {
        let looked = if local { None } else { look_after(ended.code(), source, which) };
        return Ok(looked.unwrap_or_else(|| ended.end_alike()));
    }
    let context = JobContext::read(local).map_err(|error| format!("/proc: {error}"))?;
    let index = which.index(context.array_index());
    let until = clock.now() + FIRST_PATIENCE;
    let patience = Patience { signals: &signals, clock, until };
    let trial = match Trial::open(source, index, patience) {
        Ok(trial) => trial,
        Err(why) => return not_started(why),
    };
    if context.debug || is_debug(trial.spec.env.get("NEMO_LOG").map(String::as_str)) {
        log::debug_to(&trial.dir.debug_log());
        log::debug(|| format!("{} on {}: {context:?}", env!("CARGO_PKG_VERSION"), context.node));
    }
    let segment_end = segment_end(&context, &trial, &clock);
    let began = unix_now();
    let mut harness = Harness {
        context,
        at_start,
        environment,
        trial,
        clock,
        signals,
        records: SerialQueue::start("records", None),
        sentinel: None,
        grace_end: None,
        run_start: None,
        began,
        segment_end,
    };
    start_sentinel(&mut harness);
    let result = attempts(&mut harness);
    sentinel::end(&mut harness);
    if !harness.records.drain(LAST_WORDS) {
        log_stderr("the disk does not answer; the last lines of the record are not written");
    }
    let JobEnd { code, by_itself } = match result {
        Ok(end) => end,
        Err(why) => return not_started(why),
    };
    if let Some(next) = by_itself
        && poll::at_end(&harness)
    {
        // A preemption may have begun meanwhile: Slurm would call the job preempted all the same.
        final_state::settle(&harness, next, false);
    }
    Ok(code)
}

/// What the guard does for the job whose harness ended with this code, or was killed. Returns the exit code that the harness
/// would have had then.
fn look_after(code: Option<u8>, source: &TaskSource, which: TrialSelector) -> Option<u8> {
    match code {
        None => poll::after_kill(source, which),
        Some(exit::NOT_STARTED) => {
            poll::after_lost_start(source);
            None
        }
        Some(_) => None,
    }
}

fn start_sentinel(harness: &mut Harness) {
    if !harness.trial.spec.sentinel || harness.context.slurm.is_none() {
        return;
    }
    match sentinel::start(harness) {
        Ok(sentinel) => harness.sentinel = Some(sentinel),
        Err(error) => log_stderr(&format!(
            "the sentinel could not be started, so a preemption may come without notice: srun: {error}"
        )),
    }
}

/// The end of a job that could not even write that it began.
fn not_started(why: StartError) -> Result<u8, String> {
    match why {
        StartError::Permanent(why) => Err(why),
        StartError::Node(why) => {
            log_error(&format!("the trial can't begin here now: {why}"));
            Ok(exit::NOT_STARTED)
        }
    }
}

/// How this job ends.
#[derive(Clone, Copy, Debug)]
struct JobEnd {
    code: u8,
    /// How the trial ended, if it did so by itself: nobody waits for the node, or will kill this process soon.
    by_itself: Option<Next>,
}

impl JobEnd {
    /// The end of a job that is being stopped, or has asked for its requeue.
    fn at_once(code: u8) -> Self {
        Self { code, by_itself: None }
    }
}

/// The exit code of a job that must not run an attempt.
fn leaves_at_once(harness: &Harness, rows: &[AttemptRecord]) -> Result<Option<u8>, StartError> {
    // Slurm may start a finished job again, by itself or on request.
    if matches!(rows.last(), Some(AttemptRecord::End(end)) if end.next == Next::Done) {
        log_info("the trial is done already; nothing is run again");
        final_state::settle(harness, Next::Done, true);
        return Ok(Some(exit::DONE));
    }
    let Some(job) = &harness.context.slurm else { return Ok(None) };
    if cancel::was_requested(harness, rows)? {
        return Ok(Some(cancel::cancel_again(harness, job)));
    }
    if has_run(rows) { Ok(None) } else { gate::refuses(harness, job) }
}

fn has_run(rows: &[AttemptRecord]) -> bool {
    rows.iter().any(|row| row.as_start().is_some())
}

fn attempts(harness: &mut Harness) -> Result<JobEnd, StartError> {
    let rows = harness.record(&harness.trial.dir.attempts())?;
    if let Some(code) = leaves_at_once(harness, &rows)? {
        return Ok(JobEnd::at_once(code));
    }
    if has_run(&rows) {
        poll::before_restart(harness);
    }
    if trial::is_paused(&harness.trial.dir) {
        return Ok(JobEnd::at_once(requeue_paused(harness)));
    }
    let mut delay = Duration::from_secs(1);
    loop {
        let (verdict, attempt, stopped, progress) = match attempt::run(harness)
            .map_err(StartError::Node)?
        {
            AttemptResult::Recorded { verdict, attempt, stopped, progress } => {
                (verdict, attempt, stopped, progress)
            }
            AttemptResult::Superseded => return Ok(JobEnd::at_once(exit::SUPERSEDED)),
            AttemptResult::Stale(holder) => {
                log_stderr(&format!(
                    "a later run of this job already works on this trial on {}; this one leaves",
                    holder.process.node
                ));
                return Ok(JobEnd::at_once(exit::SUPERSEDED));
            }
        };
        if !matches!(verdict.next, Next::Requeue | Next::Restart) {
            final_state::settle(harness, verdict.next, stopped.cause.is_some());
        }
        let is_left = stopped.cause.is_none_or(StopCause::leaves_node);
        let by_itself = is_left.then_some(verdict.next);
        let end = |code| Ok(JobEnd { code, by_itself });
        match verdict.next {
            Next::Done => return end(exit::DONE),
            Next::Failed => {
                log_error(&verdict.reason);
                let on_slurm = harness.context.slurm.is_some();
                return end(if on_slurm { exit::NEVER } else { exit::FAILED });
            }
            Next::Cancelled => return Ok(JobEnd::at_once(exit::CANCELLED)),
            Next::Timeout => return end(exit::TIMEOUT),
            Next::Requeue => {
                // Without Slurm there is no other node and no queue. The machine may recover in a moment.
                if harness.context.slurm.is_none() && verdict.cause == Cause::NodeFailure {
                    wait(harness, MOMENT);
                }
                return Ok(JobEnd::at_once(requeue::requeue(harness, attempt, stopped)));
            }
            Next::Restart if trial::is_paused(&harness.trial.dir) => {
                return Ok(JobEnd::at_once(requeue::requeue(harness, attempt, stopped)));
            }
            Next::Restart if verdict.cause == Cause::Restart && progress => {
                delay = Duration::from_secs(1);
            }
            Next::Restart => {
                wait(harness, delay);
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }
}

fn requeue_paused(harness: &Harness) -> u8 {
    log_info("the trial is paused: `nemo-slurm resume` lets it go on");
    let cause = Some(StopCause::Paused);
    let stopped = Stopped { cause, is_confirmed: false, deadline: None, is_by_hand: true };
    requeue::requeue(harness, 0, stopped)
}

/// Waits before the next attempt, unless a signal is pending. The next attempt will read it.
fn wait(harness: &Harness, delay: Duration) {
    let timeout = PollTimeout::try_from(delay).unwrap_or(PollTimeout::ZERO);
    nix::poll::poll(&mut [PollFd::new(harness.signals.as_fd(), PollFlags::POLLIN)], timeout).ok();
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
