//! Decides before a trial's first attempt whether its parents' records let it run.
//!
//! Slurm may count a dependency as met that is not (see `final_state`), and a shared disk may show a record late.

use std::os::fd::AsFd;
use std::time::Duration;

use nemo_core::rundir::{AttemptRecord, ParentSpec};
use nemo_core::{durable, exit};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::attempt::start_error::StartError;
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::job::parents::{self, FinalEnd, KnownEnds, ParentReadiness};
use crate::job::poll;
use crate::os::log::{log_info, log_stderr};
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm::run::{self, ANSWER_LIMIT, UNTIL_TERM};
use crate::slurm::{self, RequeueAnswer, cancel, requeue};

/// How long a record may take to appear on this node.
const UNTIL_SEEN: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_secs(2);
/// How many parent trials Slurm is asked about at most.
const QUESTIONS: usize = 16;
/// How many seconds the job waits in the queue for parents that run again.
const IN_THE_QUEUE: u32 = 60;

/// The exit code of the job, if the trial must not run.
pub(crate) fn refuses(harness: &Harness, job: &SlurmJob) -> Result<Option<u8>, StartError> {
    let (mut known, mut has_polled) = (KnownEnds::new(), false);
    let until = harness.clock.now() + UNTIL_SEEN;
    loop {
        let open = match parents::readiness(harness, &known)? {
            ParentReadiness::Ready => return Ok(None),
            ParentReadiness::Never { why, of_all } => {
                return Ok(Some(block(harness, job, &why, of_all)));
            }
            ParentReadiness::Abandoned(why) if has_polled => {
                return Ok(Some(wait_for_poll(harness, job, &why)));
            }
            ParentReadiness::Abandoned(_) => {
                // Nobody else may look after them before this trial's turn is over.
                poll::before_start(harness);
                has_polled = true;
                known.keys().cloned().collect()
            }
            ParentReadiness::Open(open) => open,
        };
        if known.is_empty() {
            let (task, trial) = &open[0];
            log_stderr(&format!("`{task}` trial {trial} has no final record yet; looking again"));
        }
        match ask_slurm(harness, &open)? {
            ParentJobs::Runs(ids) => return Ok(Some(wait_in_queue(harness, job, &ids))),
            ParentJobs::Nothing if harness.clock.now() < until => {
                if has_signal(harness) {
                    return Ok(Some(wait_in_queue(harness, job, &[])));
                }
            }
            ParentJobs::Nothing => {
                known.extend(open.into_iter().map(|trial| (trial, FinalEnd::Abandoned)));
            }
        }
    }
}

/// Slurm's answer about the parents without a final record.
enum ParentJobs {
    /// Some run or will run, with these job ids.
    Runs(Vec<String>),
    Nothing,
}

fn ask_slurm(harness: &Harness, open: &[(String, u32)]) -> Result<ParentJobs, StartError> {
    let mut running = Vec::new();
    for (task, trial) in open.iter().take(QUESTIONS) {
        let parent = harness.trial.spec.after.iter().find(|parent| parent.task == *task);
        let Some(parent) = parent else { continue };
        let Some(id) = last_job(harness, parent, *trial)? else { continue };
        let outcome = subprocess::ask(&slurm::show_job(&id), &harness.clock, ANSWER_LIMIT);
        let SubprocessResult::Ended { text, .. } = outcome else { continue };
        if slurm::parse(&text).is_some_and(|job| !job.is_over()) {
            running.push(id);
        }
    }
    Ok(if running.is_empty() { ParentJobs::Nothing } else { ParentJobs::Runs(running) })
}

/// The job of a trial's last attempt.
fn last_job(
    harness: &Harness,
    parent: &ParentSpec,
    trial: u32,
) -> Result<Option<String>, StartError> {
    let rows = parents::records(harness, parent, trial)?;
    let last = rows.iter().rev().find_map(AttemptRecord::as_start);
    Ok(last.and_then(|start| start.slurm_job.clone()))
}

/// Waits a moment or until a signal comes.
fn has_signal(harness: &Harness) -> bool {
    let timeout = PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO);
    nix::poll::poll(&mut [PollFd::new(harness.signals.as_fd(), PollFlags::POLLIN)], timeout)
        .is_ok_and(|ready| ready > 0)
}

/// Cancels the job, as Slurm does if a dependency can never be satisfied.
fn block(harness: &Harness, job: &SlurmJob, why: &str, of_all: bool) -> u8 {
    log_stderr(&format!("this trial can't run: {why}"));
    let whole = job.array.as_ref().filter(|_| of_all).map(|(array, _)| array.clone());
    let id = whole.unwrap_or_else(|| job.id());
    run::run_or_log(harness, &slurm::cancel(&id), "the job could not be cancelled");
    run::wait_for_term(harness, UNTIL_TERM);
    exit::CANCELLED
}

/// Leaves the job to `nemo-slurm poll`: the trial before it may run again, and nobody knows yet how it ends.
fn wait_for_poll(harness: &Harness, job: &SlurmJob, why: &str) -> u8 {
    record_wait(harness, job);
    requeue::write_requeue_mark(harness, 0, why);
    exit::NEVER
}

/// Writes down that this start only waited, for `nemo-slurm poll` not to count it as one that failed.
fn record_wait(harness: &Harness, job: &SlurmJob) {
    let path = harness.trial.dir.waited();
    let text = serde_json::json!({ "restarts": job.restarts }).to_string();
    if let Err(error) = durable::replace_file_durably(&path, text.as_bytes()) {
        log_stderr(&crate::job::trial::with_path(&path, &error));
    }
}

/// Requeues the job, to wait for these jobs.
fn wait_in_queue(harness: &Harness, job: &SlurmJob, ids: &[String]) -> u8 {
    let id = job.id();
    if ids.is_empty() {
        log_info("stopped while waiting for a parent's record; requeueing the job");
    } else {
        log_info(&format!("job {} runs again; this job waits for it", ids.join(", ")));
    }
    if cancel::is_requested(harness) {
        return exit::CANCELLED;
    }
    record_wait(harness, job);
    let answer = requeue::ask_requeue(harness, &id, &slurm::requeue(&id, false));
    if let RequeueAnswer::Refused(why) | RequeueAnswer::Failed(why) = answer {
        log_stderr(&format!("the job could not be requeued: {why}"));
        return exit::NEVER;
    }
    let later = slurm::start_later(&id, IN_THE_QUEUE);
    let mut changes = vec![later.to_vec()];
    if !ids.is_empty() {
        let dependency = format!("afterany:{}", ids.join(":"));
        changes = vec![slurm::dependency::wait_for(&id, &dependency).to_vec()];
    }
    for words in changes {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run::run_or_log(harness, &words, "the job could not be delayed; it may start too early");
    }
    run::wait_for_term(harness, UNTIL_TERM)
}
