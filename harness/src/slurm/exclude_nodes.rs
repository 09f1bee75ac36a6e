//! Keeps a trial away from nodes that failed it, as long as others are left.

use nemo_core::lines;

use super::run;
use crate::attempt::nodes::{self, Exclusion};
use crate::attempt::start_error::StartError;
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::os::log::{log_info, log_stderr};
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm;

/// Whether this run must leave its node: the node failed the trial before, and others are left. When Slurm loses a node
/// it requeues the job by itself, and may choose the same node again. A trial leaves a node only once. If Slurm chooses
/// it even then, the trial runs there.
pub(crate) fn must_leave(harness: &Harness) -> Result<bool, StartError> {
    let Some(job) = &harness.context.slurm else { return Ok(false) };
    let rows = harness.record(&harness.trial.dir.attempts())?;
    let wanted = || wanted_exclusion(harness, job, &nodes::bad(&rows));
    Ok(nodes::must_leave(&rows, &harness.context.node)
        && matches!(wanted(), Some((_, Exclusion::Nodes(_)))))
}

/// The job as Slurm shows it, and the exclusion to request.
fn wanted_exclusion(
    harness: &Harness,
    job: &SlurmJob,
    bad: &[String],
) -> Option<(slurm::Job, Exclusion)> {
    let known = run::job_now(harness, job)?;
    let partition = slurm::show_partition(&known.partition);
    let SubprocessResult::Ended { text, .. } =
        subprocess::ask(&partition, &harness.clock, run::ANSWER_LIMIT)
    else {
        return None;
    };
    let total = slurm::total_nodes(&text)?;
    let needed = harness.trial.spec.launch.as_ref().map_or(1, |launch| launch.nodes as usize);
    let exclusion = nodes::exclusion(bad, &known.excluded, &known.required, needed, total)?;
    Some((known, exclusion))
}

/// Excludes nodes that failed this trial repeatedly, as long as others are left.
pub(crate) fn exclude(harness: &Harness, job: &SlurmJob) {
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
        run::run_or_log(harness, &words.each_ref().map(String::as_str), "no node is left out");
    }
}
