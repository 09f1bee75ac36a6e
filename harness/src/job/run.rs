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
/// Seconds of a segment that are enough to look after other trials: what is killed meanwhile is done by another one.
const TO_LOOK_AFTER: f64 = 10.0;
/// The shortest time between two attempts of which the first got nowhere.
const FIRST_DELAY: Duration = Duration::from_secs(1);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JobEnd {
    code: u8,
    /// How the trial ended, if nobody waits for the node or will kill this process in a moment.
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
    repeat_attempts(harness)
}

/// Runs attempts until one does not lead to another in this job.
fn repeat_attempts(harness: &mut Harness) -> Result<JobEnd, StartError> {
    let mut delay = FIRST_DELAY;
    loop {
        let Some(ended) = run_attempt(harness)? else {
            return Ok(JobEnd::at_once(exit::SUPERSEDED));
        };
        match after_attempt(ended.facts) {
            AfterAttempt::Exit(end) => {
                final_state::settle(harness, ended.facts.next, ended.stopped.cause.is_some());
                if ended.facts.next == Next::Failed {
                    log_error(&ended.reason);
                }
                return Ok(end);
            }
            AfterAttempt::Requeue { after } => {
                if let Some(pause) = after {
                    wait(harness, pause);
                }
                let code = requeue::requeue(harness, ended.attempt, ended.stopped);
                return Ok(JobEnd::at_once(code));
            }
            AfterAttempt::RestartNow => delay = FIRST_DELAY,
            AfterAttempt::RestartAfterDelay => {
                wait(harness, delay);
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }
}

/// An attempt that has ended, and whose record says how.
struct EndedAttempt {
    attempt: u32,
    stopped: Stopped,
    reason: String,
    facts: EndFacts,
}

/// Runs one attempt. None if a later one works on the trial.
fn run_attempt(harness: &mut Harness) -> Result<Option<EndedAttempt>, StartError> {
    let (verdict, attempt, stopped, has_progress) =
        match attempt::run(harness).map_err(StartError::Node)? {
            AttemptResult::Recorded { verdict, attempt, stopped, progress } => {
                (verdict, attempt, stopped, progress)
            }
            AttemptResult::Superseded => return Ok(None),
            AttemptResult::Stale(holder) => {
                log_stderr(&format!(
                    "a later run of this job already works on this trial on {}; this one leaves",
                    holder.process.node
                ));
                return Ok(None);
            }
        };
    let facts = EndFacts {
        next: verdict.next,
        cause: verdict.cause,
        stop: stopped.cause,
        has_progress,
        is_on_slurm: harness.context.slurm.is_some(),
        is_paused: verdict.next == Next::Restart && trial::is_paused(&harness.trial.dir),
        segment_left: harness.segment_end.map(|end| end - unix_now()),
    };
    Ok(Some(EndedAttempt { attempt, stopped, reason: verdict.reason, facts }))
}

/// What decides what follows an attempt.
#[derive(Clone, Copy, Debug)]
struct EndFacts {
    next: Next,
    cause: Cause,
    stop: Option<StopCause>,
    /// It committed a new checkpoint.
    has_progress: bool,
    is_on_slurm: bool,
    /// A person has paused the trial meanwhile. Only asked for before a restart.
    is_paused: bool,
    /// Seconds until the end of the segment, if it has one.
    segment_left: Option<f64>,
}

/// What a job does after one of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterAttempt {
    /// Nothing more.
    Exit(JobEnd),
    /// It has itself requeued, in some cases only after a pause.
    Requeue {
        after: Option<Duration>,
    },
    RestartNow,
    /// The delay doubles with each such attempt in a row.
    RestartAfterDelay,
}

/// Decides what follows. Pure.
fn after_attempt(facts: EndFacts) -> AfterAttempt {
    let leaves_node = match facts.stop {
        None => true,
        // It may be the last one that could retry it, or submit what waits for room.
        Some(StopCause::TimeLimit) => facts.segment_left.is_none_or(|left| left >= TO_LOOK_AFTER),
        Some(cause) => cause.leaves_node(),
    };
    let by_itself = leaves_node.then_some(facts.next);
    let end = |code| AfterAttempt::Exit(JobEnd { code, by_itself });
    match facts.next {
        Next::Done => end(exit::DONE),
        Next::Failed => end(if facts.is_on_slurm { exit::NEVER } else { exit::FAILED }),
        Next::Cancelled => AfterAttempt::Exit(JobEnd::at_once(exit::CANCELLED)),
        Next::Timeout => end(exit::TIMEOUT),
        Next::Requeue => {
            // Without Slurm there is no other node and no queue. The machine may recover in a moment.
            let is_same_node = !facts.is_on_slurm && facts.cause == Cause::NodeFailure;
            AfterAttempt::Requeue { after: is_same_node.then_some(MOMENT) }
        }
        Next::Restart if facts.is_paused => AfterAttempt::Requeue { after: None },
        Next::Restart if facts.cause == Cause::Restart && facts.has_progress => {
            AfterAttempt::RestartNow
        }
        Next::Restart => AfterAttempt::RestartAfterDelay,
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

#[cfg(test)]
mod tests {
    use super::*;
    use AfterAttempt::{Exit, Requeue, RestartAfterDelay, RestartNow};

    fn facts(next: Next, cause: Cause) -> EndFacts {
        let (has_progress, is_on_slurm, is_paused, segment_left) = (false, true, false, Some(9.0));
        EndFacts { next, cause, stop: None, has_progress, is_on_slurm, is_paused, segment_left }
    }

    #[test]
    fn a_trial_that_is_over_ends_its_job() {
        let ended = |code, next| Exit(JobEnd { code, by_itself: Some(next) });
        for (next, cause, expected) in [
            (Next::Done, Cause::Completed, ended(exit::DONE, Next::Done)),
            (Next::Failed, Cause::Failed, ended(exit::NEVER, Next::Failed)),
            (Next::Timeout, Cause::TimeLimit, ended(exit::TIMEOUT, Next::Timeout)),
            (Next::Cancelled, Cause::Cancelled, Exit(JobEnd::at_once(exit::CANCELLED))),
        ] {
            assert_eq!(after_attempt(facts(next, cause)), expected, "{next:?}");
        }
        let local = EndFacts { is_on_slurm: false, ..facts(Next::Failed, Cause::Failed) };
        assert_eq!(after_attempt(local), ended(exit::FAILED, Next::Failed));
        let done = facts(Next::Done, Cause::Completed);
        for (stop, by_itself) in [
            (StopCause::Preempted, None),
            (StopCause::TimeLimit, None),
            (StopCause::Hung, Some(Next::Done)),
            (StopCause::ProgramRequestedRequeue, Some(Next::Done)),
        ] {
            let stopped = EndFacts { stop: Some(stop), ..done };
            let expected = Exit(JobEnd { code: exit::DONE, by_itself });
            assert_eq!(after_attempt(stopped), expected, "{stop:?}");
        }
    }

    #[test]
    fn at_a_time_limit_others_are_looked_after_while_there_is_time() {
        let failed = facts(Next::Failed, Cause::TimeLimit);
        let stopped = EndFacts { stop: Some(StopCause::TimeLimit), ..failed };
        let ended = |by_itself| Exit(JobEnd { code: exit::NEVER, by_itself });
        assert_eq!(after_attempt(stopped), ended(None));
        let early = EndFacts { segment_left: Some(30.0), ..stopped };
        assert_eq!(after_attempt(early), ended(Some(Next::Failed)));
        let preempted = EndFacts { stop: Some(StopCause::Preempted), ..early };
        assert_eq!(after_attempt(preempted), ended(None), "somebody waits for the node");
    }

    #[test]
    fn a_trial_that_goes_on_is_requeued_or_restarted() {
        let crashed = facts(Next::Restart, Cause::Failed);
        let wished = facts(Next::Restart, Cause::Restart);
        let node_failed = facts(Next::Requeue, Cause::NodeFailure);
        for (facts, expected) in [
            (facts(Next::Requeue, Cause::Preempted), Requeue { after: None }),
            (node_failed, Requeue { after: None }),
            (EndFacts { is_on_slurm: false, ..node_failed }, Requeue { after: Some(MOMENT) }),
            (crashed, RestartAfterDelay),
            (EndFacts { has_progress: true, ..crashed }, RestartAfterDelay),
            (wished, RestartAfterDelay),
            (EndFacts { has_progress: true, ..wished }, RestartNow),
            (EndFacts { has_progress: true, is_paused: true, ..wished }, Requeue { after: None }),
        ] {
            assert_eq!(after_attempt(facts), expected, "{facts:?}");
        }
    }
}
