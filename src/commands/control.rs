//! What `cancel`, `pause`, `resume` and `preempt` share: a target's part in each job array, the request in the
//! experiment's folder, the signals and the report.

mod report;
mod signals;

use std::collections::BTreeSet;

use clap::Args;
use nemo_core::scope::TrialSet;
use nemo_core::{checksum, durable};
use tracing::debug;

pub(super) use self::report::{ControlReport, Troubles};
pub(super) use self::signals::{AfterSave, signal_orphans, signal_running};
use super::App;
use super::status::look;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::local;
use crate::experiment::Executor;
use crate::journal::{self, ArrayRecord, Event};
use crate::plan::JobArray;
use crate::process;
use crate::report::say;
use crate::script;
use crate::slurm::{Client, JobControl, JobId, JobPhase, JobState, QueueRow, SlurmError};
use crate::status::{Request, RequestedAction, State, Status, meant};
use crate::store::{Stored, Target};

/// The arguments that these commands share.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    pub target: String,
    /// Show what would be done, do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A trial by its task and number.
pub(super) type TrialKey = (String, u32);

/// Seconds by which this machine's clock and Slurm's may differ.
const CLOCK_SLACK: i64 = 60;

/// What a target means of one job array that Slurm has.
#[derive(Clone, Debug)]
pub(super) struct ArrayPart<'a> {
    array: &'a JobArray,
    pub(super) token: String,
    job: JobId,
    trials: Option<&'a TrialSet>,
}

impl ArrayPart<'_> {
    /// The ids to name to Slurm: the whole array by its own, one for a thousand tasks.
    pub(super) fn ids(&self) -> Vec<String> {
        match self.trials {
            Some(_) => self.meant().map(|trial| self.task_id(trial)).collect(),
            None => vec![self.job.to_string()],
        }
    }

    /// The trials of the array that the target means.
    fn meant(&self) -> impl Iterator<Item = u32> + '_ {
        let is_meant = |trial: &u32| self.trials.is_none_or(|wanted| wanted.contains(*trial));
        self.array.trials.iter().filter(is_meant)
    }

    /// The id of the array task that runs a trial.
    pub(super) fn task_id(&self, trial: u32) -> String {
        format!("{}_{}", self.job, trial.saturating_sub(self.array.offset))
    }

    /// Whether it runs this trial.
    pub(super) fn runs(&self, task: &str, trial: u32) -> bool {
        self.array.task == task && self.array.trials.contains(trial)
    }

    /// The trials of the target that a row of `squeue` speaks for.
    fn trials<'r>(&'r self, row: &'r QueueRow) -> impl Iterator<Item = u32> + 'r {
        let has = |index| row.array_job == self.job && row.tasks.contains(index);
        self.meant().filter(move |trial| self.array.index_of(*trial).is_some_and(has))
    }
}

/// The job arrays of a target that Slurm has, and those that it may have.
pub(super) struct Arrays<'a> {
    pub(super) known: Vec<ArrayPart<'a>>,
    /// Slurm gave no answer when it was asked for these.
    pub(super) unknown: Vec<(String, SlurmError)>,
}

/// The arrays of a target, also those whose `sbatch` was never heard to answer: they are found by their names.
pub(super) fn arrays<'a>(
    app: &App,
    stored: &'a Stored,
    journal: &[Event],
    target: &'a Target,
) -> Arrays<'a> {
    let mut arrays = Arrays { known: Vec::new(), unknown: Vec::new() };
    let is_meant = |array: &&JobArray| {
        target.scope.covers_task(&array.task)
            && array.trials.iter().any(|trial| target.scope.covers_trial(trial))
    };
    for array in journal::planned_arrays(&stored.journal).filter(is_meant) {
        let token = script::token(stored.id.as_str(), &array.task, array.index);
        let trials = target.scope.trials.as_ref();
        let part = |job| ArrayPart { array, token: token.clone(), job, trials };
        let submitted = journal::submitted(journal).into_iter().filter(|(name, _)| *name == token);
        arrays.known.extend(submitted.map(|(_, job)| part(job)));
        let ArrayRecord::Intended(time) = journal::entry(journal, &token) else { continue };
        #[expect(clippy::cast_possible_truncation, reason = "unix seconds")]
        match app.slurm.find(&token, time as i64 - CLOCK_SLACK) {
            Ok(found) => arrays.known.extend(found.jobs.into_iter().map(part)),
            Err(error) => arrays.unknown.push((token, error)),
        }
    }
    arrays
}

/// What of a target is in the queue.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Trials that wait or run.
    pub(super) alive: BTreeSet<TrialKey>,
    /// Those that run.
    pub(super) running: BTreeSet<TrialKey>,
    /// The ids of the arrays, or array tasks, that have any of them.
    pub(super) ids: Vec<String>,
    /// Whether something is over, but not yet tidied up: it can still be requeued.
    pub(super) is_completing: bool,
}

/// Commands to the jobs of these arrays, which are asked about together, once.
pub(super) fn of(app: &App, arrays: &[ArrayPart<'_>]) -> Result<JobControl, SlurmError> {
    let control = app.slurm.control(arrays.iter().map(|part| part.token.clone()).collect());
    let jobs: Vec<String> = arrays.iter().map(|part| part.job.to_string()).collect();
    control.own(&jobs)?;
    Ok(control)
}

/// Looks into the queue: one `squeue`.
pub(super) fn queued(client: &Client, arrays: &[ArrayPart<'_>]) -> Result<Queued, SlurmError> {
    let mut queued = Queued::default();
    if arrays.is_empty() {
        return Ok(queued);
    }
    let names = arrays.iter().map(|part| part.token.clone()).collect();
    let jobs: Vec<JobId> = arrays.iter().map(|part| part.job).collect();
    let rows = client.for_names(names).queue(&jobs)?;
    if let Some(line) = rows.unread.first() {
        return Err(SlurmError::Unreadable { program: "squeue", output: line.text.clone() });
    }
    for part in arrays {
        let before = queued.alive.len();
        for row in &rows.rows {
            let mut keys = part.trials(row).map(|trial| (part.array.task.clone(), trial));
            match (row.state.phase_in_queue(), &row.state) {
                (JobPhase::Ended, _) => {}
                (JobPhase::Active, JobState::Completing) => {
                    queued.is_completing |= keys.next().is_some();
                }
                (JobPhase::Active, JobState::Running) => {
                    let keys: Vec<TrialKey> = keys.collect();
                    queued.running.extend(keys.iter().cloned());
                    queued.alive.extend(keys);
                }
                (JobPhase::Waiting | JobPhase::Active | JobPhase::Unknown, _) => {
                    queued.alive.extend(keys);
                }
            }
        }
        if queued.alive.len() > before {
            queued.ids.extend(part.ids());
        }
    }
    Ok(queued)
}

/// The trials of a target whose state is as wanted.
pub(super) fn trials_in(
    status: Option<&Status>,
    target: &Target,
    wanted: impl Fn(State) -> bool,
) -> BTreeSet<TrialKey> {
    let meant = status.into_iter().flat_map(|status| meant(status, &target.scope));
    meant
        .filter(|(_, trial)| wanted(trial.state))
        .map(|(task, trial)| (task.to_owned(), trial.index))
        .collect()
}

/// What is known of the target. Slurm is told even where the folder can't be read: then the queue alone says whom.
pub(super) fn look_if_possible(app: &App, stored: &Stored) -> Option<Status> {
    match look(app, stored) {
        Ok(status) => Some(status),
        Err(error) => {
            say(&format!("warning: {}", error.one_line()));
            None
        }
    }
}

/// Writes the request down, in a file of its own.
pub(super) fn request(
    stored: &Stored,
    target: &Target,
    action: RequestedAction,
) -> Result<(), CommandError> {
    let now = clock::now();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let time = now as u64;
    let request = Request { action, scope: target.scope.clone(), time };
    let this = process::ProcessId::current();
    let name = format!("{now:.6}-{}-{}.json", this.node, this.pid);
    let folder = stored.dir.requests();
    durable::create_dir_all(&folder).at("make", &folder)?;
    let text = checksum::to_vec(&request).map_err(std::io::Error::from).at("write", &folder)?;
    let path = folder.join(name);
    debug!("request: `{}`", path.display());
    Ok(durable::replace_file_durably(&path, &text).at("write", &path)?)
}

/// Whether its trials run on this machine, without Slurm.
pub(super) fn is_local(stored: &Stored) -> bool {
    let executors = &stored.experiment.executors;
    !stored
        .experiment
        .tasks
        .iter()
        .any(|task| matches!(executors.get(&task.executor), Some(Executor::Slurm(_))))
}

/// Fails where no runner would start a trial again.
pub(super) fn require_runner(stored: &Stored) -> Result<(), CommandError> {
    if local::is_running(&stored.dir).at("read", &stored.dir.runner_log())?.is_some() {
        return Ok(());
    }
    let text = format!("the local runner of `{}` is not running here", stored.id);
    let start = format!("`nemo-slurm submit --continue {}` starts it", stored.id);
    Err(CommandError::new(ExitCode::Failed, text).hinted(start))
}

/// The ids of the array tasks that run these trials.
pub(super) fn job_ids(arrays: &[ArrayPart<'_>], trials: &BTreeSet<TrialKey>) -> Vec<String> {
    arrays
        .iter()
        .flat_map(|part| {
            let own = trials.iter().filter(|(task, trial)| part.runs(task, *trial));
            own.map(|(_, trial)| part.task_id(*trial)).collect::<Vec<_>>()
        })
        .collect()
}
