//! Finds where an attempt resumes, and handles a stop before that is known.

use std::time::Duration;

use nemo_core::open;

use crate::attempt::history::History;
use crate::attempt::lease::Lease;
use crate::attempt::own_paths;
use crate::attempt::start_error::StartError;
use crate::checkpoint::resume::{SetAside, VerifiedCheckpoint};
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
    From(Box<VerifiedCheckpoint>),
    /// The attempt was stopped before the checkpoint was known.
    Stopped,
}

/// The start of the attempt, and the save of an earlier attempt that was committed now: its step and size.
#[derive(Debug)]
pub(crate) struct ResumePoint {
    pub(crate) resume: AttemptResume,
    pub(crate) finished: Option<(u64, u64)>,
    /// The checkpoints that were set aside before that.
    pub(crate) set_aside: Option<SetAside>,
    /// The program goes on from a file of its own, of which nothing was ever committed.
    pub(crate) leaves_own: bool,
    /// What lay at the program's own paths before its first attempt, and does no more.
    pub(crate) begins_without: Option<String>,
}

impl ResumePoint {
    /// The attempt was stopped before the checkpoint was known.
    pub(crate) fn stopped() -> Self {
        Self {
            resume: AttemptResume::Stopped,
            finished: None,
            set_aside: None,
            leaves_own: false,
            begins_without: None,
        }
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

/// Finds the checkpoint to resume from, and cuts `metrics.jsonl` back to it as far as its step is certain.
pub(crate) fn find(
    harness: &Harness,
    lease: &Lease,
    history: &History,
    log: &mut Log,
) -> Result<ResumePoint, StartError> {
    let (found, finished) = match search(harness, lease, history)? {
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
    // Somebody may have meant the program to go on from what lay there before the trial.
    let is_first = resumed.is_none() && lease.attempt == 0;
    for note in &found.restored {
        if is_first { log.warn(note) } else { log.note(note) }
    }
    let begins_without = found.restored.into_iter().next().filter(|_| is_first);
    if let Some(resumed) = &resumed {
        log.note(&format!("resuming from step {}, `{}`", resumed.step, resumed.from.display()));
    }
    if !found.leaves_own {
        roll_metrics_back(harness, resumed.as_ref())?;
    }
    let resume = resumed.map_or(AttemptResume::Anew, |own| AttemptResume::From(Box::new(own)));
    let (set_aside, leaves_own) = (found.set_aside, found.leaves_own);
    Ok(ResumePoint { resume, finished: finished.step, set_aside, leaves_own, begins_without })
}

fn search(
    harness: &Harness,
    lease: &Lease,
    history: &History,
) -> Result<SearchOutcome, StartError> {
    let dir = &harness.trial.dir;
    let own = CommitFinisher {
        attempt: lease.attempt,
        lease: lease.nonce.clone(),
        boot_id: harness.context.boot_id.clone(),
        metrics: dir.metrics(),
        worked: history.worked,
    };
    let recorded = history.recorded(harness.trial.spec.restart_from);
    let has_committed = !history.steps.is_empty() || recorded.restart_from.is_some();
    let restore = own_paths::restore_plan(&harness.trial, &lease.nonce, has_committed)?;
    search::find(&harness.signals, &dir.checkpoints(), &recorded, lease, &own, restore.as_ref())
}

/// What was reported after the checkpoint will be reported again.
fn roll_metrics_back(
    harness: &Harness,
    resumed: Option<&VerifiedCheckpoint>,
) -> Result<(), StartError> {
    // A retry from the start empties the record all the same.
    let starts_anew = harness.trial.spec.restart_from.is_some();
    if resumed.is_none() && own_paths::goes_on_by_itself(&harness.trial) && !starts_anew {
        return Ok(());
    }
    let path = harness.trial.dir.metrics();
    let from = resumed.map(|resumed| (resumed.reached(), resumed.metrics));
    let is_uncut = resumed.is_some_and(|own| own_paths::is_counted_by_output(&harness.trial, own));
    open::refresh(&path);
    let rolled_back = harness.patience().with(|| match from.filter(|_| is_uncut) {
        Some(from) => metrics::roll_back_all_but_steps(&path, from),
        None => metrics::roll_back(&path, from),
    });
    rolled_back.map_err(|error| StartError::node(&path, &error))
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
