//! Requeues the job of an attempt that must continue in another run, exactly once.
//!
//! A job that was cancelled or is in the queue already is left alone. Otherwise `scontrol requeue Incomplete` is tried until the
//! deadline. If it fails, the harness writes a durable mark into the trial's folder, which `nemo-slurm poll` honours. If
//! Slurm gave no answer but requeues by an exit code, the harness exits with that code. In a grace period it then waits
//! to be killed: Slurm requeues a preempted job by itself.

use std::thread::sleep;
use std::time::Duration;

use nemo_core::durable;
use nemo_core::exit;

use super::{cancel, exclude_nodes, run};
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::job::trial::is_paused;
use crate::os::clock::{Time, unix_now};
use crate::os::log::{log_info, log_stderr};
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm::{self, OwnRun, RequeueAnswer};
use crate::supervise::StopCause;

/// How long a requeue is tried if no deadline is known.
const PATIENCE: Duration = Duration::from_mins(5);
/// The longest time between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// The facts of the stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped {
    pub(crate) cause: Option<StopCause>,
    /// Slurm's answer about it came after every other event.
    pub(crate) is_confirmed: bool,
    pub(crate) deadline: Option<Time>,
    /// A person asked for it. The deadline is then ours, so that Slurm ends nothing when it is over.
    pub(crate) is_by_hand: bool,
}

/// Why a job is not requeued.
struct NotRequeued {
    why: String,
    /// Slurm does not want it, so that another try is in vain.
    is_refused: bool,
}

/// Requeues the job. Returns the exit code.
pub(crate) fn requeue(harness: &Harness, attempt: u32, stopped: Stopped) -> u8 {
    let Some(job) = &harness.context.slurm else { return exit::REQUEUE };
    if stopped.cause == Some(StopCause::Requeued) && !is_taken_for_the_next(harness, job) {
        return requeued_by_others(harness, job);
    }
    let until = stopped.deadline.unwrap_or_else(|| harness.clock.now() + PATIENCE);
    match requeue_until(harness, job, until, stopped.is_confirmed) {
        Ok(code) => code,
        Err(failed) => {
            write_requeue_mark(harness, attempt, &failed.why);
            let code = go_on_trying(harness, job, stopped, &failed);
            code.unwrap_or_else(|| leave_to_others(harness, job, stopped, until, &failed))
        }
    }
}

/// Tries on after the deadline of a stop that Slurm does not know of: the program had to save until then, but the job may stay.
/// The mark is on the disk by now, for the case that it may not. Returns the exit code if the requeue is settled.
fn go_on_trying(
    harness: &Harness,
    job: &SlurmJob,
    stopped: Stopped,
    failed: &NotRequeued,
) -> Option<u8> {
    let is_by_exit = harness.trial.spec.requeue_exit.is_some();
    if !stopped.is_by_hand || failed.is_refused || is_by_exit {
        return None;
    }
    log_info("the job may stay for now: trying on to requeue it");
    let until = harness.clock.now() + PATIENCE;
    let code = requeue_until(harness, job, until, false).ok()?;
    std::fs::remove_file(harness.trial.dir.requeue_wanted()).ok();
    Some(code)
}

/// Tries until the deadline. `is_confirmed`: Slurm's answer about the stop is its last word so far.
fn requeue_until(
    harness: &Harness,
    job: &SlurmJob,
    until: Time,
    is_confirmed: bool,
) -> Result<u8, NotRequeued> {
    // A requeue would undo an `scancel`. Slurm's last answer holds until a signal comes: each cancel sends TERM.
    let mut is_known = is_confirmed && signals::read(&harness.signals).is_empty();
    let mut delay = Duration::from_millis(500);
    loop {
        if let Some(code) = settled_meanwhile(harness, job, is_known) {
            return Ok(code);
        }
        is_known = false;
        let failed = match requeue_once(harness, job) {
            Ok(code) => return Ok(code),
            Err(failed) => failed,
        };
        if failed.is_refused || harness.clock.now() + delay > until {
            return Err(failed);
        }
        sleep(delay);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// The exit code where the job was cancelled, or somebody else has requeued it. `is_known`: Slurm need not be asked.
fn settled_meanwhile(harness: &Harness, job: &SlurmJob, is_known: bool) -> Option<u8> {
    let wished = cancel::is_requested(harness).then_some(StopCause::Cancelled);
    match wished.or_else(|| if is_known { None } else { stop_cause_now(harness, job) })? {
        StopCause::Cancelled => {
            log_info("the job was cancelled; not requeueing it");
            Some(exit::CANCELLED)
        }
        StopCause::Requeued if !is_taken_for_the_next(harness, job) => {
            Some(requeued_by_others(harness, job))
        }
        _ => None,
    }
}

fn requeue_once(harness: &Harness, job: &SlurmJob) -> Result<u8, NotRequeued> {
    let dir = harness.trial.dir.clone();
    let paused =
        harness.records.ask(move || is_paused(&dir)).wait(cancel::DISK_LIMIT) == Some(true);
    match put_back(harness, job, paused) {
        RequeueAnswer::Accepted if cancel::is_requested(harness) => {
            Ok(cancel::cancel_again(harness, job))
        }
        RequeueAnswer::Accepted => {
            exclude_nodes::exclude(harness, job);
            Ok(run::wait_for_term(harness, run::UNTIL_TERM))
        }
        RequeueAnswer::Cancelled => {
            log_info("the job was cancelled a moment before its requeue, which Slurm ignored");
            run::wait_for_term(harness, run::UNTIL_TERM);
            Ok(exit::CANCELLED)
        }
        RequeueAnswer::Refused(why) => Err(NotRequeued { why, is_refused: true }),
        RequeueAnswer::Failed(why) => Err(NotRequeued { why, is_refused: false }),
    }
}

/// Ends so that Slurm requeues the job by itself, if it does that; else `nemo-slurm poll` finds the mark.
fn leave_to_others(
    harness: &Harness,
    job: &SlurmJob,
    stopped: Stopped,
    until: Time,
    failed: &NotRequeued,
) -> u8 {
    if let Some(code) = harness.trial.spec.requeue_exit.filter(|_| !failed.is_refused) {
        return code; // Slurm requeues the job when it sees this code
    }
    // A preemption by `nemo-slurm` has no grace: Slurm does not know of it.
    let in_grace = stopped.cause == Some(StopCause::Preempted)
        && run::job_now(harness, job).is_none_or(|now| now.preempt.is_some());
    if let Some(rest) = until.checked_sub(harness.clock.now()).filter(|_| in_grace) {
        run::wait_for_term(harness, rest + run::UNTIL_TERM);
    }
    exit::NEVER
}

/// Requeues the job unless it was cancelled. Slurm ignores the requeue of a job that has ended, so no `scancel` is undone,
/// however late it came. A job that ended otherwise, by its time limit say, is requeued all the same: it can't be cancelled
/// any more.
fn put_back(harness: &Harness, job: &SlurmJob, paused: bool) -> RequeueAnswer {
    let id = job.id();
    let answer = ask_requeue(harness, &id, &slurm::requeue(&id, paused));
    if answer != RequeueAnswer::Accepted || (!paused && start_soon(harness, job)) {
        return answer;
    }
    let Some(now) = run::job_now(harness, job) else {
        return RequeueAnswer::Failed("Slurm does not tell what became of the job".to_owned());
    };
    match slurm::stop_cause(&now, &own_run(harness), unix_now()) {
        Some(StopCause::Cancelled) => RequeueAnswer::Cancelled,
        Some(StopCause::Requeued) | None => RequeueAnswer::Accepted,
        Some(_) if !now.has_ended() => RequeueAnswer::Accepted,
        Some(_) => {
            let answer = ask_requeue(harness, &id, &slurm::requeue_ended(&id, paused));
            if answer == RequeueAnswer::Accepted && !paused {
                start_soon(harness, job);
            }
            answer
        }
    }
}

/// Asks for a requeue. A site's script for submissions, or somebody, may have told Slurm not to requeue the job: then it is told
/// otherwise first.
pub(crate) fn ask_requeue(harness: &Harness, id: &str, words: &[&str]) -> RequeueAnswer {
    let answer = ask_once(harness, words);
    if !answer.is_disabled() {
        return answer;
    }
    let update = slurm::allow_requeue(id);
    let update = update.each_ref().map(String::as_str);
    match subprocess::ask(&update, &harness.clock, run::ANSWER_LIMIT) {
        SubprocessResult::Ended { code: Some(0), .. } => ask_once(harness, words),
        SubprocessResult::Ended { .. } => answer,
        SubprocessResult::NoAnswer(why) => RequeueAnswer::Failed(why),
    }
}

fn ask_once(harness: &Harness, words: &[&str]) -> RequeueAnswer {
    match subprocess::ask(words, &harness.clock, run::ANSWER_LIMIT) {
        SubprocessResult::Ended { code, text } => slurm::requeued(code, &text),
        SubprocessResult::NoAnswer(why) => RequeueAnswer::Failed(why),
    }
}

fn stop_cause_now(harness: &Harness, job: &SlurmJob) -> Option<StopCause> {
    slurm::stop_cause(&run::job_now(harness, job)?, &own_run(harness), unix_now())
}

fn own_run(harness: &Harness) -> OwnRun {
    OwnRun { lead: 0.0, ..harness.own_run() }
}

fn is_taken_for_the_next(harness: &Harness, job: &SlurmJob) -> bool {
    let node = &harness.context.node;
    run::job_now(harness, job).is_some_and(|now| now.takes_for_its_later_run(job.restarts, node))
}

/// Handles a job that Slurm or somebody else has requeued. Slurm ignores this run's exit code then.
fn requeued_by_others(harness: &Harness, job: &SlurmJob) -> u8 {
    if is_paused(&harness.trial.dir) {
        run::run_or_log(
            harness,
            &slurm::hold(&job.id()),
            "the job is not held, and will start again",
        );
    } else {
        start_soon(harness, job);
    }
    exit::DONE
}

/// Asks Slurm to start the requeued job soon. If that fails, or this node is not free by then, the job only waits
/// Slurm's own two minutes. Returns whether Slurm accepted it: it does not for a job that has ended.
fn start_soon(harness: &Harness, job: &SlurmJob) -> bool {
    let words = slurm::start_soon(&job.id());
    let words = words.each_ref().map(String::as_str);
    run::run_or_log(harness, &words, "the job's start time could not be set; Slurm may delay it")
}

pub(crate) fn write_requeue_mark(harness: &Harness, attempt: u32, why: &str) {
    let job = harness.context.slurm.as_ref().map(SlurmJob::id);
    log_stderr(&format!("the job could not be requeued: {why}; `nemo-slurm poll` will requeue it"));
    let mark_text = serde_json::json!({
        "slurm_job": job, "attempt": attempt, "time": unix_now(), "reason": why,
    });
    let path = harness.trial.dir.requeue_wanted();
    if let Err(error) = durable::replace_file_durably(&path, mark_text.to_string().as_bytes()) {
        log_stderr(&crate::job::trial::with_path(&path, &error));
    }
}

/// Removes the marks and requests of earlier attempts.
pub(crate) fn remove_marks(harness: &Harness) {
    let dir = &harness.trial.dir;
    for mark in [dir.requeue_wanted(), dir.preempt()] {
        std::fs::remove_file(mark).ok();
    }
}
