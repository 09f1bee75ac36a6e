//! Finds where an attempt resumes, and handles a stop before that is known.

use std::time::Duration;

use nemo_core::open;

use crate::attempt::history::History;
use crate::attempt::lease::Lease;
use crate::attempt::start_error::StartError;
use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::checkpoint::search::{self, SearchOutcome};
use crate::checkpoint::taken::CommitFinisher;
use crate::job::harness::Harness;
use crate::monitor::metrics;
use crate::os::clock::unix_now;
use crate::os::log::Log;
use crate::os::subprocess::{self, SubprocessResult};
use crate::slurm;
use crate::supervise::StopCause;

/// How long Slurm may take to say why it stops the job.
const ANSWER: Duration = Duration::from_secs(5);

/// Where an attempt begins.
#[derive(Debug)]
pub(crate) enum AttemptResume {
    Anew,
    From(VerifiedCheckpoint),
    /// The attempt was stopped before the checkpoint was known.
    Stopped,
}

/// The start of the attempt, and the save of an earlier attempt that was committed now: its step and size.
#[derive(Debug)]
pub(crate) struct ResumePoint {
    pub(crate) resume: AttemptResume,
    pub(crate) finished: Option<(u64, u64)>,
}

impl ResumePoint {
    /// The attempt was stopped before the checkpoint was known.
    pub(crate) fn stopped() -> Self {
        Self { resume: AttemptResume::Stopped, finished: None }
    }
}

impl AttemptResume {
    pub(crate) fn step(&self) -> Option<u64> {
        match self {
            Self::From(resumed) => Some(resumed.step),
            Self::Anew | Self::Stopped => None,
        }
    }
}

/// Finds the checkpoint to resume from, and cuts `metrics.jsonl` back to it.
pub(crate) fn find(
    harness: &Harness,
    lease: &Lease,
    history: &History,
    log: &mut Log,
) -> Result<ResumePoint, StartError> {
    let dir = &harness.trial.dir;
    let (signals, recorded) = (&harness.signals, history.recorded());
    let own = CommitFinisher {
        attempt: lease.attempt,
        lease: lease.nonce.clone(),
        boot_id: harness.context.boot_id.clone(),
        metrics: dir.metrics(),
        worked: history.worked,
    };
    let searched = search::find(signals, &dir.checkpoints(), &recorded, lease, &own)?;
    let (found, finished) = match searched {
        SearchOutcome::Found(found, finished) => (found, finished),
        SearchOutcome::Stopped => return Ok(ResumePoint::stopped()),
    };
    for note in finished.notes {
        log.note(&note);
    }
    for note in found.notes {
        log.warn(&note);
    }
    let resumed = found.resumed;
    if let Some(resumed) = &resumed {
        log.note(&format!("resuming from step {}, `{}`", resumed.step, resumed.from.display()));
    }
    let from = resumed.as_ref().map(|resumed| (resumed.step, resumed.metrics));
    open::refresh(&dir.metrics());
    harness
        .patience()
        .with(|| metrics::roll_back(&dir.metrics(), from))
        .map_err(|error| StartError::node(&dir.metrics(), &error))?;
    let resume = resumed.map_or(AttemptResume::Anew, AttemptResume::From);
    Ok(ResumePoint { resume, finished: finished.step })
}

/// The cause of the TERM, and whether Slurm confirmed it.
pub(crate) fn stop_cause(harness: &Harness) -> (StopCause, bool) {
    let Some(own) = &harness.context.slurm else { return (StopCause::Cancelled, true) };
    let outcome = subprocess::ask(&slurm::show_job(&own.id()), &harness.clock, ANSWER);
    let SubprocessResult::Ended { text, .. } = outcome else { return (StopCause::Unknown, false) };
    let Some(job) = slurm::parse(&text) else { return (StopCause::Unknown, false) };
    // If Slurm does not stop the job, somebody else sent TERM. That is no cancel.
    let cause = slurm::stop_cause(&job, &harness.own_run(), unix_now());
    cause.map_or((StopCause::Unknown, false), |cause| (cause, true))
}
