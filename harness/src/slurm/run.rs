//! Runs Slurm's programs for the harness's own job, each with a limit, and waits for what Slurm does then.

use std::os::fd::AsFd;
use std::time::Duration;

use nemo_core::{exit, slurm_words};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::os::log::log_stderr;
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm;

/// How long one of Slurm's programs may take.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long Slurm's TERM may take after a requeue or a cancel.
pub(crate) const UNTIL_TERM: Duration = Duration::from_mins(1);

/// The job as Slurm shows it now.
pub(crate) fn job_now(harness: &Harness, job: &SlurmJob) -> Option<slurm::Job> {
    match subprocess::ask(&slurm::show_job(&job.id()), &harness.clock, ANSWER_LIMIT) {
        SubprocessResult::Ended { text, .. } => slurm::parse(&text),
        SubprocessResult::NoAnswer(_) => None,
    }
}

/// Runs a Slurm command that is not essential. Logs a failure, but for that of a job that has ended: there is nothing left to
/// do then. Returns whether it succeeded.
pub(crate) fn run_or_log(harness: &Harness, words: &[&str], else_what: &str) -> bool {
    let why = match subprocess::ask(words, &harness.clock, ANSWER_LIMIT) {
        SubprocessResult::Ended { code: Some(0), .. } => return true,
        SubprocessResult::Ended { text, .. } if slurm_words::has_ended(&text) => return false,
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
