//! Corrects Slurm at a final end, if its state of the job would differ from the record.
//!
//! Since 24.05 a job whose preemption once began, and that Slurm did not requeue by itself, ends as PREEMPTED, whatever
//! its exit code, and is started once more where preemption requeues. A job in which a process was killed for memory
//! ends as `OUT_OF_MEMORY`. So Slurm is asked not to start it again, and the jobs that depend on its success are changed
//! to depend on its end: they read the record themselves (`gate`).

use std::thread::sleep;
use std::time::Duration;

use nemo_core::rundir::Next;
use nemo_core::slurm_words;

use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::os::log::log_stderr;
use crate::os::proc_fs;
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm::dependency::{self, Parent};
use crate::slurm::{self, run};

/// How long Slurm is asked again if it gives no answer.
const PATIENCE: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(500);
/// How many times the waiting jobs are checked after a change.
const LOOKS: u32 = 5;

/// Corrects Slurm after a final end. `was_stopped`: something other than the program began the end.
pub(crate) fn settle(harness: &Harness, next: Next, was_stopped: bool) {
    let Some(job) = &harness.context.slurm else { return };
    let was_killed = proc_fs::oom_kills().is_some_and(|kills| kills > 0);
    // Slurm no longer shows the preemption of an earlier run, but it still changes the final state.
    let was_preempted =
        job.restarts > 0 || run::job_now(harness, job).is_some_and(|now| now.was_preempted());
    if was_preempted {
        let words = slurm::never_again(&job.id());
        insist(harness, &words, "Slurm may start this job once more");
    }
    if next == Next::Done && (was_preempted || was_killed || was_stopped) {
        free_children(harness, job);
    }
}

/// Makes the jobs that depend on this one's success depend on its end.
fn free_children(harness: &Harness, job: &SlurmJob) {
    let (id, index) = match &job.array {
        Some((array, index)) => (array, Some(*index)),
        None => (&job.raw, None),
    };
    let parent = Parent { job: id, index, experiment: &harness.trial.spec.experiment };
    for _ in 0..LOOKS {
        let else_what = "Slurm may cancel the tasks that wait for this one";
        let Some(text) = insist(harness, &dependency::show_waiting(), else_what) else { return };
        let changes = dependency::replaced(&text, parent);
        if changes.is_empty() {
            return;
        }
        for (waiting, new) in changes {
            log_stderr(&format!(
                "job {waiting} waits for `{new}` from now on: Slurm may not call this trial done"
            ));
            insist(harness, &dependency::wait_for(&waiting, &new), else_what);
        }
        // Another parent may have overwritten it at the same moment.
        sleep(PAUSE);
    }
}

/// Asks until there is an answer.
fn insist(harness: &Harness, words: &[String], else_what: &str) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let until = harness.clock.now() + PATIENCE;
    loop {
        let why = match subprocess::ask(&words, &harness.clock, run::ANSWER_LIMIT) {
            SubprocessResult::Ended { code: Some(0), text } => return Some(text),
            // Slurm does nothing more with a job that has ended, as is wished.
            SubprocessResult::Ended { text, .. } if slurm_words::has_ended(&text) => return None,
            SubprocessResult::Ended { text, .. } if !slurm_words::is_away(&text) => {
                log_stderr(&format!("{else_what}: {text}"));
                return None;
            }
            SubprocessResult::Ended { text, .. } => text,
            SubprocessResult::NoAnswer(why) => why,
        };
        if harness.clock.now() + PAUSE > until {
            log_stderr(&format!("{else_what}: {why}"));
            return None;
        }
        sleep(PAUSE);
    }
}
