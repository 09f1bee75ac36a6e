//! Whether the trial was cancelled by `nemo-slurm cancel`, which Slurm does not always show; and cancelling its job again.

use std::io;
use std::time::Duration;

use nemo_core::exit;
use nemo_core::rundir::{AttemptRecord, ExperimentDir, Next, Request, requests};

use super::run;
use crate::attempt::start_error::StartError;
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::job::trial::Trial;
use crate::os::log::log_stderr;
use crate::slurm;

/// How long a disk that hangs may delay the end of a job.
pub(crate) const DISK_LIMIT: Duration = Duration::from_secs(1);
/// How many seconds the clock of the machine that wrote a request may be behind.
const CLOCK_SKEW: f64 = 10.0;

/// Whether the trial was cancelled since this process began. A job that Slurm preempts does not show an `scancel`, but
/// `nemo-slurm cancel` writes a request first.
pub(crate) fn is_requested(harness: &Harness) -> bool {
    harness.records.ask(question(harness)).wait(DISK_LIMIT) == Some(true)
}

/// The same question as a closure for the thread that reads the disk.
pub(crate) fn question(harness: &Harness) -> impl FnOnce() -> bool + Send + 'static {
    let (trial, since) = (harness.trial.clone(), harness.began - CLOCK_SKEW);
    // A job that is being stopped can't wait for a disk. The next run asks again, with patience.
    let ask = move || has_cancel_request(&trial, since);
    move || ask().or_else(|_| ask()).unwrap_or(false)
}

/// Looks whether the trial was cancelled since this process began, if the experiment's folder holds another number of
/// requests than it did. Answers that number too; none where it could not be read, so that the next look reads again.
pub(crate) fn newly_requested(
    harness: &Harness,
    before: usize,
) -> impl FnOnce() -> (bool, Option<usize>) + Send + 'static {
    let (trial, since) = (harness.trial.clone(), harness.began - CLOCK_SKEW);
    move || {
        let count = ExperimentDir::of_task(&trial.task).map_or(Ok(0), |dir| requests::count(&dir));
        match count {
            Ok(count) if count == before => (false, Some(count)),
            Ok(count) => match has_cancel_request(&trial, since) {
                Ok(is_cancelled) => (is_cancelled, Some(count)),
                Err(_) => (false, None),
            },
            Err(_) => (false, None),
        }
    }
}

/// Whether there is a request to cancel the trial from this time or later.
fn has_cancel_request(trial: &Trial, since: f64) -> io::Result<bool> {
    let Some(experiment) = ExperimentDir::of_task(&trial.task) else { return Ok(false) };
    let requests = requests::read_for_good(&experiment)?;
    #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
    let is_new = |request: &&Request| request.time as f64 >= since.floor();
    let new: Vec<&Request> = requests.iter().filter(is_new).collect();
    Ok(requests::is_cancelled(new, &trial.spec.task, trial.index))
}

/// Whether the trial was cancelled in an earlier run of this job, or before it ever ran. Slurm starts a cancelled job again
/// if a requeue came just after the `scancel`, or if its node was lost while it ended.
pub(crate) fn was_requested(harness: &Harness, rows: &[AttemptRecord]) -> Result<bool, StartError> {
    let trial = &harness.trial;
    let folder = ExperimentDir::of_task(&trial.task).map(|dir| dir.requests());
    let folder = folder.as_deref().unwrap_or(trial.dir.path());
    let is_requested = |since| harness.read(folder, || has_cancel_request(trial, since));
    if rows.is_empty() {
        return is_requested(0.0);
    }
    let Some(own) = harness.context.slurm.as_ref().map(SlurmJob::id) else { return Ok(false) };
    let mut mine = rows.iter().filter_map(AttemptRecord::as_start);
    let first = mine.find(|start| start.slurm_job.as_deref() == Some(&*own));
    let Some(first) = first else { return Ok(false) };
    let end = rows.iter().rev().find_map(AttemptRecord::as_end);
    if end.is_some_and(|end| end.attempt >= first.attempt && end.next == Next::Cancelled) {
        return Ok(true);
    }
    is_requested(first.time)
}

/// Cancels the job again that Slurm started after it was cancelled.
pub(crate) fn cancel_again(harness: &Harness, job: &SlurmJob) -> u8 {
    log_stderr("Slurm started the cancelled job again; cancelling it again");
    run::run_or_log(harness, &slurm::cancel(&job.id()), "the job could not be cancelled");
    run::wait_for_term(harness, run::UNTIL_TERM);
    exit::CANCELLED
}
