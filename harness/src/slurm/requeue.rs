//! Requeues the job of an attempt that must continue in another run, exactly once.
//!
//! A job that was cancelled or is in the queue already is left alone. Otherwise `scontrol requeue Incomplete` is tried until the
//! deadline. If it fails, the harness writes a durable mark into the trial's folder, which `nemo-slurm poll` honours. If
//! Slurm gave no answer but requeues by an exit code, the harness exits with that code. In a grace period it then waits
//! to be killed: Slurm requeues a preempted job by itself.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use nemo_core::exit;
use nemo_core::rundir::{
    AttemptRecord, ExperimentDir, Next, Request, RequestedAction, TrialDir, requests,
};
use nemo_core::{durable, lines, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::attempt::nodes::{self, Exclusion};
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::job::trial::Trial;
use crate::os::clock::{Time, unix_now};
use crate::os::log::{log_info, log_stderr};
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm::{self, OwnRun, Requeued};
use crate::supervise::StopCause;

pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// How long a disk that hangs may delay the requeue.
const DISK: Duration = Duration::from_secs(1);
/// How long a requeue is tried if no deadline is known.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long Slurm's TERM may take after a requeue.
pub(crate) const UNTIL_TERM: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The facts of the stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped {
    pub(crate) cause: Option<StopCause>,
    /// Slurm's answer about it came after every other event.
    pub(crate) is_confirmed: bool,
    pub(crate) deadline: Option<Time>,
}

/// Requeues the job. Returns the exit code.
pub(crate) fn requeue(harness: &Harness, attempt: u32, stopped: Stopped) -> u8 {
    let Some(job) = &harness.context.slurm else { return exit::REQUEUE };
    if stopped.cause == Some(StopCause::Requeued) && !is_taken_for_the_next(harness, job) {
        return requeued_by_others(harness, job);
    }
    let until = stopped.deadline.unwrap_or_else(|| harness.clock.now() + PATIENCE);
    // A requeue would undo an `scancel`. Slurm's last answer holds until a signal comes: each cancel sends TERM.
    let mut sure = stopped.is_confirmed && signals::read(&harness.signals).is_empty();
    let mut pause = Duration::from_millis(500);
    let (why, refused) = loop {
        let wished = is_cancelled(harness).then_some(StopCause::Cancelled);
        match wished.or_else(|| if sure { None } else { stop_cause_now(harness, job) }) {
            Some(StopCause::Cancelled) => {
                log_info("the job was cancelled; not requeueing it");
                return exit::CANCELLED;
            }
            Some(StopCause::Requeued) if !is_taken_for_the_next(harness, job) => {
                return requeued_by_others(harness, job);
            }
            _ => sure = false,
        }
        let dir = harness.trial.dir.clone();
        let paused = harness.records.ask(move || is_paused(&dir)).wait(DISK) == Some(true);
        let (why, again) = match put_back(harness, job, paused) {
            Requeued::Yes if is_cancelled(harness) => return cancel_again(harness, job),
            Requeued::Yes => {
                exclude_nodes(harness, job);
                return wait_for_term(harness, UNTIL_TERM);
            }
            Requeued::Cancelled => {
                log_info("the job was cancelled a moment before its requeue, which Slurm ignored");
                wait_for_term(harness, UNTIL_TERM);
                return exit::CANCELLED;
            }
            Requeued::Refused(why) => (why, false),
            Requeued::Failed(why) => (why, true),
        };
        if !again || harness.clock.now() + pause > until {
            break (why, !again);
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    write_requeue_mark(harness, attempt, &why);
    if let Some(code) = harness.trial.spec.requeue_exit.filter(|_| !refused) {
        return code; // Slurm requeues the job when it sees this code
    }
    // A preemption by `nemo-slurm` has no grace: Slurm does not know of it.
    let in_grace = stopped.cause == Some(StopCause::Preempted)
        && job_now(harness, job).is_none_or(|now| now.preempt.is_some());
    if let Some(rest) = until.checked_sub(harness.clock.now()).filter(|_| in_grace) {
        wait_for_term(harness, rest + UNTIL_TERM);
    }
    exit::NEVER
}

/// Requeues the job unless it was cancelled. Slurm ignores the requeue of a job that has ended, so no `scancel` is undone,
/// however late it came. A job that ended otherwise, by its time limit say, is requeued all the same: it can't be cancelled
/// any more.
fn put_back(harness: &Harness, job: &SlurmJob, paused: bool) -> Requeued {
    let answer = ask(harness, &slurm::requeue(&job.id(), paused));
    if answer != Requeued::Yes || (!paused && start_soon(harness, job)) {
        return answer;
    }
    let Some(now) = job_now(harness, job) else {
        return Requeued::Failed("Slurm does not tell what became of the job".to_owned());
    };
    match slurm::stop_cause(&now, &own_run(harness), unix_now()) {
        Some(StopCause::Cancelled) => Requeued::Cancelled,
        Some(StopCause::Requeued) | None => Requeued::Yes,
        Some(_) if !now.has_ended() => Requeued::Yes,
        Some(_) => {
            let answer = ask(harness, &slurm::requeue_ended(&job.id(), paused));
            if answer == Requeued::Yes && !paused {
                start_soon(harness, job);
            }
            answer
        }
    }
}

/// Asks for a requeue.
pub(crate) fn ask(harness: &Harness, words: &[&str]) -> Requeued {
    match subprocess::ask(words, &harness.clock, ANSWER) {
        SubprocessResult::Ended { code, text } => slurm::requeued(code, &text),
        SubprocessResult::NoAnswer(why) => Requeued::Failed(why),
    }
}

/// The job as Slurm shows it now.
pub(crate) fn job_now(harness: &Harness, job: &SlurmJob) -> Option<slurm::Job> {
    match subprocess::ask(&slurm::show_job(&job.id()), &harness.clock, ANSWER) {
        SubprocessResult::Ended { text, .. } => slurm::parse(&text),
        SubprocessResult::NoAnswer(_) => None,
    }
}

fn stop_cause_now(harness: &Harness, job: &SlurmJob) -> Option<StopCause> {
    slurm::stop_cause(&job_now(harness, job)?, &own_run(harness), unix_now())
}

fn own_run(harness: &Harness) -> OwnRun {
    OwnRun { lead: 0.0, ..harness.own_run() }
}

fn is_taken_for_the_next(harness: &Harness, job: &SlurmJob) -> bool {
    let node = &harness.context.node;
    job_now(harness, job).is_some_and(|now| now.takes_for_its_later_run(job.restarts, node))
}

/// How many seconds the clock of the machine that wrote a request may be behind.
const CLOCKS: f64 = 10.0;

/// Whether the trial was cancelled since this process began. A job that Slurm preempts does not show an `scancel`, but
/// `nemo-slurm cancel` writes a request first.
pub(crate) fn is_cancelled(harness: &Harness) -> bool {
    harness.records.ask(cancel_question(harness)).wait(DISK) == Some(true)
}

/// The same question as a closure for the thread that reads the disk.
pub(crate) fn cancel_question(harness: &Harness) -> impl FnOnce() -> bool + Send + 'static {
    let (trial, since) = (harness.trial.clone(), harness.began - CLOCKS);
    move || has_cancel_request(&trial, since)
}

/// Whether there is a request to cancel the trial from this time or later.
fn has_cancel_request(trial: &Trial, since: f64) -> bool {
    let Some(experiment) = ExperimentDir::of_task(&trial.task) else { return false };
    let wishes = requests::read(&experiment).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
    let is_new = |wish: &Request| wish.time as f64 >= since.floor();
    wishes.iter().any(|(_, wish)| {
        wish.action == RequestedAction::Cancel
            && wish.covers(&trial.spec.task, trial.index)
            && is_new(wish)
    })
}

/// Whether the trial was cancelled in an earlier run of this job, or before it ever ran. Slurm starts a cancelled job again
/// if a requeue came just after the `scancel`, or if its node was lost while it ended.
pub(crate) fn was_cancelled(harness: &Harness, rows: &[AttemptRecord]) -> bool {
    if rows.is_empty() {
        return has_cancel_request(&harness.trial, 0.0);
    }
    let Some(own) = harness.context.slurm.as_ref().map(SlurmJob::id) else { return false };
    let mut mine = rows.iter().filter_map(AttemptRecord::as_start);
    let first = mine.find(|start| start.slurm_job.as_deref() == Some(&*own));
    let Some(first) = first else { return false };
    let end = rows.iter().rev().find_map(AttemptRecord::as_end);
    end.is_some_and(|end| end.attempt >= first.attempt && end.next == Next::Cancelled)
        || has_cancel_request(&harness.trial, first.time)
}

/// Cancels the job again that Slurm started after it was cancelled.
pub(crate) fn cancel_again(harness: &Harness, job: &SlurmJob) -> u8 {
    log_stderr("Slurm started the cancelled job again; cancelling it again");
    run_or_log(harness, &slurm::cancel(&job.id()), "the job could not be cancelled");
    wait_for_term(harness, UNTIL_TERM);
    exit::CANCELLED
}

/// Whether the trial is paused.
pub(crate) fn is_paused(dir: &TrialDir) -> bool {
    // This node may remember for half a minute that a file of a shared disk was not there.
    open::refresh(dir.path());
    dir.pause().exists()
}

/// Handles a job that Slurm or somebody else has requeued. Slurm ignores this run's exit code then.
fn requeued_by_others(harness: &Harness, job: &SlurmJob) -> u8 {
    if is_paused(&harness.trial.dir) {
        run_or_log(harness, &slurm::hold(&job.id()), "the job is not held, and will start again");
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
    run_or_log(harness, &words, "the job's start time could not be set; Slurm may delay it")
}

/// Whether this run must leave its node: the node failed the trial before, and others are left. When Slurm loses a node
/// it requeues the job by itself, and may choose the same node again. A trial leaves a node only once. If Slurm chooses
/// it even then, the trial runs there.
pub(crate) fn must_leave(harness: &Harness) -> bool {
    let Some(job) = &harness.context.slurm else { return false };
    let rows = lines::read(&harness.trial.dir.attempts()).unwrap_or_default().rows;
    nodes::must_leave(&rows, &harness.context.node)
        && matches!(
            wanted_exclusion(harness, job, &nodes::bad(&rows)),
            Some((_, Exclusion::Nodes(_)))
        )
}

/// The job as Slurm shows it, and the exclusion to request.
fn wanted_exclusion(
    harness: &Harness,
    job: &SlurmJob,
    bad: &[String],
) -> Option<(slurm::Job, Exclusion)> {
    let known = job_now(harness, job)?;
    let partition = slurm::show_partition(&known.partition);
    let SubprocessResult::Ended { text, .. } = subprocess::ask(&partition, &harness.clock, ANSWER)
    else {
        return None;
    };
    let total = slurm::total_nodes(&text)?;
    let needed = harness.trial.spec.launch.as_ref().map_or(1, |launch| launch.nodes as usize);
    let exclusion = nodes::exclusion(bad, &known.excluded, &known.required, needed, total)?;
    Some((known, exclusion))
}

/// Excludes nodes that failed this trial repeatedly, as long as others are left.
fn exclude_nodes(harness: &Harness, job: &SlurmJob) {
    let rows = lines::read(&harness.trial.dir.attempts()).unwrap_or_default().rows;
    let bad = nodes::bad(&rows);
    if bad.is_empty() {
        return;
    }
    let Some((known, exclusion)) = wanted_exclusion(harness, job, &bad) else { return };
    let list = match exclusion {
        Exclusion::Nodes(list) => {
            log_stderr(&format!(
                "this trial does not run on `{}` any more: it failed there",
                bad.join(",")
            ));
            list
        }
        Exclusion::Relaxed(list) => {
            log_info(
                "too few nodes are left without those that failed this trial; all are allowed again",
            );
            list
        }
    };
    if list != known.excluded {
        let words = slurm::exclude(&job.id(), &list);
        run_or_log(harness, &words.each_ref().map(String::as_str), "no node is left out");
    }
}

/// Runs a Slurm command that is not essential. Logs a failure, and returns whether it succeeded.
pub(crate) fn run_or_log(harness: &Harness, words: &[&str], else_what: &str) -> bool {
    let why = match subprocess::ask(words, &harness.clock, ANSWER) {
        SubprocessResult::Ended { code: Some(0), .. } => return true,
        SubprocessResult::Ended { text, .. } => text,
        SubprocessResult::NoAnswer(why) => why,
    };
    log_stderr(&format!("{else_what}: {why}"));
    false
}

/// Waits until Slurm ends this run of the requeued job.
pub(crate) fn wait_for_term(harness: &Harness, limit: Duration) -> u8 {
    let until = harness.clock.now() + limit;
    loop {
        let heard = signals::read(&harness.signals);
        let now = harness.clock.now();
        if heard.contains(&Signal::SIGTERM) || now >= until {
            return exit::DONE;
        }
        let timeout = PollTimeout::try_from(until.saturating_sub(now)).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(harness.signals.as_fd(), PollFlags::POLLIN)], timeout).ok();
    }
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
