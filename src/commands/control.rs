//! What `cancel`, `pause`, `resume` and `preempt` share: a target's part in each job array, the request in the
//! experiment's folder, the signals and the report.

mod report;
mod signals;

use std::collections::BTreeSet;

use clap::Args;
use nemo_core::rundir::requests::{self, SpentBudget};
use nemo_core::scope::TrialSet;
use nemo_core::{checksum, durable};
use tracing::debug;

pub(super) use self::report::{ControlReport, Troubles};
pub(super) use self::signals::{
    AfterSave, ask_by_marks, mark_early, signal_orphans, signal_running, unmark,
};
use super::status::look;
use super::{App, outside};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::local;
use crate::journal::{self, ArrayRecord, Event, Submitted};
use crate::observe::{self, Depth};
use crate::plan::JobArray;
use crate::process;
use crate::query::SlurmSource;
use crate::report::say;
use crate::script;
use crate::slurm::{
    Client, JobControl, JobId, JobPhase, JobState, QueueRow, SlurmError, accounting_since,
};
use crate::status::{
    Certainty, Remedy, Request, RequestedAction, State, Status, TrialStatus, held_by_others, join,
    meant,
};
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
        let trials = self.array.trials.iter();
        trials.filter(|trial| self.trials.is_none_or(|wanted| wanted.contains(*trial)))
    }

    /// The id of the array task that runs a trial.
    pub(super) fn task_id(&self, trial: u32) -> String {
        if self.is_single() {
            return self.job.to_string();
        }
        format!("{}_{}", self.job, trial.saturating_sub(self.array.offset))
    }

    /// Whether it is a plain job, no array.
    fn is_single(&self) -> bool {
        self.array.wrapped.as_ref().is_some_and(|wrapped| !wrapped.is_array)
    }

    /// Whether it runs this trial.
    pub(super) fn runs(&self, task: &str, trial: u32) -> bool {
        self.array.task == task && self.array.trials.contains(trial)
    }

    /// The trials of the target that a row of `squeue` speaks for.
    fn trials<'r>(&'r self, row: &'r QueueRow) -> impl Iterator<Item = u32> + 'r {
        let has =
            |index| row.array_job == self.job && (row.tasks.contains(index) || self.is_single());
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
    stored: &Stored,
    journal: &'a [Event],
    target: &'a Target,
) -> Arrays<'a> {
    let mut arrays = Arrays { known: Vec::new(), unknown: Vec::new() };
    let submitted = journal::submitted_arrays(journal);
    for array in journal::planned_arrays(journal).filter(|array| is_meant(array, target)) {
        let own = || script::token(stored.id.as_str(), &array.task, array.index);
        let token = array.wrapped.as_ref().map_or_else(own, |wrapped| wrapped.name.clone());
        let trials = target.scope.trials.as_ref();
        let part = |job| ArrayPart { array, token: token.clone(), job, trials };
        // Several wrapped jobs may have one name, and each of their tasks has told of them.
        let is_own = |own: &&Submitted<'_>| own.token == token && *own.trials == array.trials;
        for own in submitted.iter().filter(is_own) {
            if !arrays.known.iter().any(|part| part.job == own.job) {
                arrays.known.push(part(own.job));
            }
        }
        let ArrayRecord::Intended(time) = journal::entry(journal, &token) else { continue };
        match app.slurm.find(&token, accounting_since(time)) {
            Ok(found) => arrays.known.extend(found.jobs.into_iter().map(part)),
            Err(error) => arrays.unknown.push((token, error)),
        }
    }
    arrays
}

fn is_meant(array: &JobArray, target: &Target) -> bool {
    target.scope.covers_task(&array.task)
        && array.trials.iter().any(|trial| target.scope.covers_trial(trial))
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

/// The trials that no command reached. `command` sends one to the jobs of an array, and returns whether Slurm has any of
/// these jobs. Of several jobs of a trial only the newest counts.
pub(super) fn unreached(
    arrays: &[ArrayPart<'_>],
    trials: &BTreeSet<TrialKey>,
    mut command: impl FnMut(&ArrayPart<'_>) -> bool,
) -> BTreeSet<TrialKey> {
    let mut unreached = BTreeSet::new();
    for part in arrays {
        let is_reached = command(part);
        for key in trials.iter().filter(|(task, trial)| part.runs(task, *trial)) {
            if is_reached {
                unreached.remove(key);
            } else {
                unreached.insert(key.clone());
            }
        }
    }
    unreached
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

/// The trials of a target that run in a job as far as is known without asking Slurm, and whose attempt has begun and not
/// ended.
pub(super) fn known_to_run(stored: &Stored, target: &Target) -> BTreeSet<TrialKey> {
    let sources = observe::sources(stored, SlurmSource::Nobody, Depth::All);
    let Ok(status) = sources.map(|sources| join(&sources)) else { return BTreeSet::new() };
    let is_open = |trial: &TrialStatus| {
        trial.state == State::Running
            && trial.attempts.last().is_some_and(|it| it.start.is_some() && it.cause.is_none())
    };
    let open = meant(&status, &target.scope).filter(|(_, trial)| is_open(trial));
    let open = open.map(|(task, trial)| (task.to_owned(), trial.index)).collect();
    let here = local_part(stored, &open);
    open.difference(&here).cloned().collect()
}

/// The trials of a target that wait for what can never be, and that may still be ended by a person.
pub(super) fn waiting_in_vain(status: Option<&Status>, target: &Target) -> BTreeSet<TrialKey> {
    blocked(status, target, |_, trial| !trial.is_final())
}

/// The trials of a target that are blocked for good, unless another experiment is retried: a cancel holds after that too.
pub(super) fn blocked_outside(
    app: &App,
    stored: &Stored,
    status: Option<&Status>,
    target: &Target,
) -> BTreeSet<TrialKey> {
    if outside::lost(app, stored).is_none() {
        return BTreeSet::new();
    }
    let held = held_by_others(stored);
    blocked(status, target, |task, trial| {
        let is_held = held.get(task).is_some_and(|trials| trials.contains(&trial.index));
        is_held && trial.is_final() && trial.slurm_job.is_none()
    })
}

fn blocked(
    status: Option<&Status>,
    target: &Target,
    wanted: impl Fn(&str, &TrialStatus) -> bool,
) -> BTreeSet<TrialKey> {
    let meant = status.into_iter().flat_map(|status| meant(status, &target.scope));
    meant
        .filter(|(task, trial)| trial.state == State::Blocked && wanted(task, trial))
        .map(|(task, trial)| (task.to_owned(), trial.index))
        .collect()
}

/// The trials that have no job now: none was submitted, it has ended as both of Slurm's tables say, or `poll` would bring it
/// back. A request alone decides what becomes of them.
pub(super) fn without_a_job(status: Option<&Status>) -> BTreeSet<TrialKey> {
    let has_none = |remedy: Remedy| match remedy {
        Remedy::Requeue
        | Remedy::PutBack
        | Remedy::Resubmit
        | Remedy::AskAgain
        | Remedy::StartRunner => true,
        Remedy::Release => false,
    };
    let tasks = status.into_iter().flat_map(|status| &status.tasks);
    let trials = tasks.flat_map(|task| task.trials.iter().map(|trial| (&task.name, trial)));
    trials
        .filter(|(_, trial)| {
            trial.slurm_job.is_none()
                || trial.certainty != Certainty::Open
                || trial.remedy.is_some_and(has_none)
        })
        .map(|(task, trial)| (task.clone(), trial.index))
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

/// Refuses what only a job script itself can do again: nothing else knows its directives and its setup.
pub(super) fn refuse_wrapped(stored: &Stored, command: &str) -> Result<(), CommandError> {
    if !stored.is_wrapped() {
        return Ok(());
    }
    let text = format!(
        "`{}` is a job script under `nemo-harness wrap`: `{command}` can't start it again",
        stored.id
    );
    let hint = "submit the script again; with `--dir` it goes on where it stopped";
    Err(CommandError::new(ExitCode::Refused, text).hinted(hint))
}

/// What somebody wants of the experiment, oldest first.
pub(super) fn requests(stored: &Stored) -> Result<Vec<Request>, CommandError> {
    let all = requests::read(&stored.dir).at("read", &stored.dir.requests())?;
    Ok(all.into_iter().map(|(_, request)| request).collect())
}

/// Writes the request down, in a file of its own.
pub(super) fn request(
    stored: &Stored,
    target: &Target,
    action: RequestedAction,
) -> Result<(), CommandError> {
    request_for(stored, target, action, None)
}

/// The same, for a budget that is spent.
pub(super) fn request_for(
    stored: &Stored,
    target: &Target,
    action: RequestedAction,
    budget: Option<SpentBudget>,
) -> Result<(), CommandError> {
    let now = clock::now();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let time = now as u64;
    let request = Request { action, scope: target.scope.clone(), time, budget };
    let this = process::ProcessId::current();
    let name = format!("{now:.6}-{}-{}.json", this.node, this.pid);
    let folder = stored.dir.requests();
    durable::create_dir_all(&folder).at("make", &folder)?;
    let text = checksum::to_vec(&request).map_err(std::io::Error::from).at("write", &folder)?;
    let path = folder.join(name);
    debug!("request: `{}`", path.display());
    Ok(durable::replace_file_durably(&path, &text).at("write", &path)?)
}

/// Those of the trials that run on this machine.
pub(super) fn local_part(stored: &Stored, trials: &BTreeSet<TrialKey>) -> BTreeSet<TrialKey> {
    let experiment = &stored.experiment;
    let is_local =
        |name: &str| experiment.tasks.iter().any(|it| it.name == name && experiment.is_local(it));
    trials.iter().filter(|(task, _)| is_local(task)).cloned().collect()
}

/// Fails where no runner would start a trial again.
pub(super) fn require_runner(stored: &Stored) -> Result<(), CommandError> {
    if local::is_running(&stored.dir)?.is_some() {
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
