//! Ends what waits of an experiment whose `timeout` is over: no harness runs for it that could. What runs is ended by its
//! own harness.
//!
//! The request is written before Slurm is told: `status` then says why the trials were ended, whoever is killed in between.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::rundir::requests;
use nemo_core::scope::{Scope, TrialSet};

use crate::clock;
use crate::commands::control;
use crate::error::CommandError;
use crate::journal;
use crate::slurm::{JobControl, SlurmError};
use crate::status::{self, RequestedAction, State, Status, TrialStatus};
use crate::store::{Stored, Target};

/// A harness that starts now would end its trial itself; its clock may be another one.
const SLACK: f64 = 30.0;

/// A trial that was ended.
pub(super) struct TimedOut {
    pub(super) task: String,
    pub(super) index: u32,
    pub(super) job: Option<String>,
}

/// Ends the waiting trials of a target whose time is over. The error is what Slurm said of their jobs.
pub(super) fn end_waiting(
    control: &JobControl,
    stored: &Stored,
    target: &Target,
    status: &Status,
) -> Result<Vec<TimedOut>, CommandError> {
    let mut over = over(stored, target, status);
    if over.is_empty() {
        return Ok(Vec::new());
    }
    for (task, trials) in unrequested(stored, &over)? {
        let scope = Scope { task: Some(task), trials: TrialSet::new(trials) };
        let part = Target { id: stored.id.clone(), scope };
        control::request(stored, &part, RequestedAction::Timeout)?;
    }
    let jobs: Vec<String> = over.iter().filter_map(|trial| trial.job.clone()).collect();
    match control.cancel(&jobs) {
        // One of them has just ended by itself.
        Ok(()) | Err(SlurmError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Nothing was sent to a job that `squeue` did not show now: the next `poll` ends it.
    let sent: BTreeSet<String> = control.own(&jobs)?.into_iter().collect();
    over.retain(|trial| trial.job.as_ref().is_none_or(|job| sent.contains(job)));
    Ok(over)
}

/// The trials on Slurm that wait, and whose time is over.
pub(super) fn over(stored: &Stored, target: &Target, status: &Status) -> Vec<TimedOut> {
    let Some(ends) = Deadlines::new(stored) else { return Vec::new() };
    let experiment = &stored.experiment;
    let is_local = |name: &str| {
        experiment.tasks.iter().any(|task| task.name == name && experiment.is_local(task))
    };
    let is_over = |task: &str, trial: &TrialStatus| {
        is_waiting(trial) && !is_local(task) && ends.of(task, trial.index) + SLACK < clock::now()
    };
    status::meant(status, &target.scope)
        .filter(|(task, trial)| is_over(task, trial))
        .map(|(task, trial)| TimedOut {
            task: task.to_owned(),
            index: trial.index,
            job: trial.slurm_job.clone(),
        })
        .collect()
}

fn is_waiting(trial: &TrialStatus) -> bool {
    match trial.state {
        State::Pending | State::Preempted | State::Paused => true,
        State::Running
        | State::Unknown
        | State::Completed
        | State::Failed
        | State::Timeout
        | State::Cancelled
        | State::Blocked => false,
    }
}

/// When trials must be over.
struct Deadlines {
    end: f64,
    /// Of those that were retried after that.
    retried: BTreeMap<(String, u32), f64>,
}

impl Deadlines {
    /// None where the experiment has all the time that it wants.
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    fn new(stored: &Stored) -> Option<Self> {
        let end = journal::began(&stored.journal)? + stored.experiment.timeout? as f64;
        let mut retried = BTreeMap::new();
        for task in &stored.experiment.tasks {
            for (trial, retry) in journal::last_retries(&stored.journal, &task.name) {
                let deadline = retry.changed.and_then(|changed| changed.deadline);
                let deadline = deadline.map(|at| ((task.name.clone(), trial), at as f64));
                retried.extend(deadline);
            }
        }
        Some(Self { end, retried })
    }

    fn of(&self, task: &str, trial: u32) -> f64 {
        self.retried.get(&(task.to_owned(), trial)).copied().unwrap_or(self.end).max(self.end)
    }
}

/// Those that nobody has ended yet, by task.
fn unrequested(
    stored: &Stored,
    over: &[TimedOut],
) -> Result<BTreeMap<String, BTreeSet<u32>>, CommandError> {
    let all = control::requests(stored)?;
    let mut new: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for trial in over.iter().filter(|it| !requests::is_cancelled(&all, &it.task, it.index)) {
        new.entry(trial.task.clone()).or_default().insert(trial.index);
    }
    Ok(new)
}
