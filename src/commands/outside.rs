//! What an experiment waits for outside of itself, resolved whenever trials of it are submitted: from our own records, and for
//! jobs of others from what Slurm knows now. What is done needs no dependency; what Slurm may have forgotten is never named to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use nemo_core::lines;
use nemo_core::rundir::AttemptRecord;

use super::retry::automatic;
use super::status::look;
use super::{App, followers, prepare};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{Experiment, On, Outside, OutsideDependency, Task};
use crate::journal;
use crate::observe::{self, Depth};
use crate::plan::{OutsideEdge, Relation, TrialsByTask};
use crate::query::SlurmSource;
use crate::remembered;
use crate::slurm::{Client, JobId, JobPhase, JobState, SlurmError};
use crate::status::{
    Certainty, RememberedState, RememberedStates, State, Status, TaskStatus, TrialStatus, join,
    was_not_needed,
};
use crate::store::{self, Stored, Target};

/// What an experiment waits for outside of itself.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// What Slurm is told.
    pub(super) edges: Vec<OutsideEdge>,
    /// Whether it also waits for trials that have no job yet, and may get one: Slurm can't be told of these.
    pub(super) is_incomplete: bool,
}

/// The jobs of another experiment that are still to be waited for.
enum OpenJobs {
    All(Vec<String>),
    /// Some trials wait for room, or for this machine, before they get a job.
    Incomplete,
}

/// Finds what a new experiment waits for. Names of experiments become ids, so that a later one of the same name is not meant.
pub(super) fn resolve(app: &App, experiment: &mut Experiment) -> Result<Awaited, CommandError> {
    awaited(app, experiment, None)
}

/// What an experiment that was submitted before still waits for. A job of others that was known then may be forgotten now.
pub(super) fn resolve_again(app: &App, stored: &Stored) -> Result<Awaited, CommandError> {
    awaited(app, &mut stored.experiment.clone(), Some(stored))
}

/// Whether tasks without a parent that are among these must wait until Slurm can be told of all that they wait for.
pub(super) fn holds_roots(
    app: &App,
    stored: &Stored,
    trials: &TrialsByTask,
) -> Result<bool, CommandError> {
    let mut roots = stored.experiment.tasks.iter().filter(|task| task.after.is_empty());
    if stored.experiment.after.is_empty() || !roots.any(|task| trials.contains_key(&task.name)) {
        return Ok(false);
    }
    Ok(resolve_again(app, stored)?.is_incomplete)
}

/// Why an experiment that waits to be submitted can't be, as long as nothing is retried: by what the last look at those that it
/// waits for has told. Slurm is not asked.
pub(super) fn lost(app: &App, stored: &Stored) -> Option<String> {
    if !followers::is_waiting(stored) {
        return None;
    }
    stored.experiment.after.iter().find_map(|dependency| lost_experiment(app, dependency))
}

fn lost_experiment(app: &App, dependency: &OutsideDependency) -> Option<String> {
    let Outside::Experiment(name) = &dependency.of else { return None };
    let id = name.parse().ok()?;
    let what = format!("experiment `{id}`, which it waits for,");
    let metadata = app.home.experiment(&id).0.symlink_metadata();
    if metadata.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Some(format!("{what} was deleted"));
    }
    let other = app.home.load(&id).ok().filter(|_| dependency.on == On::Ok)?;
    let state = lost_state(&other).filter(|_| !is_retried_by_itself(&other))?.as_str();
    Some(format!("{what} has a trial that is {state}"))
}

/// The state of a trial that will not complete, as it was certain at the last look.
fn lost_state(stored: &Stored) -> Option<State> {
    let known = remembered::read(stored);
    stored.experiment.tasks.iter().find_map(|task| {
        let is_lost = |it: &&RememberedState| {
            let is_certain = it.certainty == Certainty::Final && it.state.is_final();
            let is_spared = || it.state == State::Blocked && is_spared(stored, task, &known);
            is_certain && it.state != State::Completed && !is_spared()
        };
        known_states(stored, task, &known).into_iter().find(is_lost).map(|it| it.state)
    })
}

/// Whether a rule of its file retries what failed: then that is not lost yet.
fn is_retried_by_itself(stored: &Stored) -> bool {
    if stored.experiment.tasks.iter().all(|task| task.retry.is_empty()) {
        return false;
    }
    let whole = Target::whole(stored.id.clone());
    let sources = observe::sources(stored, SlurmSource::Nobody, Depth::All);
    sources.is_ok_and(|it| automatic::is_due(stored, &join(&it), &whole).unwrap_or(false))
}

/// Whether a task is for the case of a failure that did not come: nothing of it is a loss.
fn is_spared(stored: &Stored, task: &Task, known: &RememberedStates) -> bool {
    let is_done = |parent: &Task| {
        let states = known_states(stored, parent, known);
        states.len() == parent.n_trials as usize
            && states.iter().all(|it| it.state == State::Completed)
    };
    task.after.iter().filter(|it| it.on == On::Failed).any(|dependency| {
        let mut tasks = stored.experiment.tasks.iter();
        tasks.any(|parent| parent.name == dependency.task && is_done(parent))
    })
}

fn known_states<'a>(
    stored: &Stored,
    task: &Task,
    known: &'a RememberedStates,
) -> Vec<&'a RememberedState> {
    let trials = journal::trials(&stored.journal, task);
    trials.iter().filter_map(|trial| known.get(&task.name, trial)).collect()
}

fn awaited(
    app: &App,
    experiment: &mut Experiment,
    before: Option<&Stored>,
) -> Result<Awaited, CommandError> {
    let mut awaited = Awaited::default();
    let cluster = experiment.cluster().map(str::to_owned);
    let slurm = app.slurm.on_cluster(cluster.as_deref());
    let has_local_root =
        experiment.tasks.iter().any(|task| task.after.is_empty() && experiment.is_local(task));
    for dependency in &mut experiment.after {
        let open = match &mut dependency.of {
            Outside::Experiment(name) => {
                let id = store::resolve_experiment(&app.home, name)?;
                let (target, stored) = app.find(id.as_str())?;
                *name = target.id.to_string();
                if stored.experiment.cluster() != cluster.as_deref() {
                    return Err(refused(format!("`{name}` is on another cluster"), None));
                }
                of_experiment(app, &stored, dependency.on, before.is_some())?
            }
            Outside::SlurmJob(job) => {
                OpenJobs::All(of_job(&slurm, JobId(*job), dependency.on, before)?)
            }
        };
        let is_over = matches!(&open, OpenJobs::All(jobs) if jobs.is_empty());
        if has_local_root && !is_over {
            let text = format!("on this machine nothing can wait for {}", dependency.what());
            return Err(refused(text, Some("submit it again once that is over".to_owned())));
        }
        let on = if dependency.on == On::Any { Relation::AfterAny } else { Relation::AfterOk };
        match open {
            OpenJobs::All(jobs) => {
                awaited.edges.extend(jobs.into_iter().map(|job| OutsideEdge { on, job }));
            }
            OpenJobs::Incomplete => awaited.is_incomplete = true,
        }
    }
    Ok(awaited)
}

fn refused(text: String, hint: Option<String>) -> CommandError {
    let error = CommandError::new(ExitCode::Usage, text);
    match hint {
        Some(hint) => error.hinted(hint),
        None => error,
    }
}

/// What of another experiment is still to be waited for. Where nobody looks on (`is_careful`), an end that may be an odd answer
/// of Slurm's submits nothing, and refuses nothing.
fn of_experiment(
    app: &App,
    stored: &Stored,
    on: On,
    is_careful: bool,
) -> Result<OpenJobs, CommandError> {
    let status = look(app, stored)?;
    let is_over = |trial: &TrialStatus| is_over(trial, is_careful);
    let trials = needed_trials(stored, &status);
    let is_lost = |trial: &TrialStatus| is_over(trial) && trial.state != State::Completed;
    // What is retried by itself is neither over nor lost, nor is what it has blocked.
    if automatic::is_due(stored, &status, &Target::whole(stored.id.clone()))? {
        return require_jobs(stored).map(|()| OpenJobs::Incomplete);
    }
    if on == On::Ok
        && let Some(lost) = trials.iter().find(|trial| is_lost(trial))
    {
        return Err(lost_trial(stored, lost));
    }
    if status.experiment.stale && !trials.iter().all(|trial| trial.is_final()) {
        return Err(no_answer(stored));
    }
    if trials.iter().all(|trial| is_over(trial)) {
        return Ok(OpenJobs::All(Vec::new()));
    }
    require_jobs(stored)?;
    let is_doubtful = |trial: &&TrialStatus| {
        trial.state.is_final() && !is_over(trial) && !trial.is_brought_back()
    };
    if !journal::is_complete(&stored.journal) || trials.iter().any(is_doubtful) {
        return Ok(OpenJobs::Incomplete);
    }
    Ok(open_jobs(stored, &trials))
}

/// Whether a trial is not waited for any more. One that `poll` brings back is not over.
fn is_over(trial: &TrialStatus, is_careful: bool) -> bool {
    let is_certain = trial.is_final() || !is_careful;
    trial.state.is_final() && is_certain && !trial.is_brought_back()
}

/// The trials of an experiment, but for tasks for the case of a failure that did not come.
fn needed_trials<'a>(stored: &Stored, status: &'a Status) -> Vec<&'a TrialStatus> {
    let tasks = stored.experiment.tasks.iter().zip(&status.tasks);
    let is_needed =
        |(task, seen): &(&Task, &TaskStatus)| !was_not_needed(task, seen, &status.tasks);
    tasks.filter(is_needed).flat_map(|(_, seen)| &seen.trials).collect()
}

fn lost_trial(stored: &Stored, lost: &TrialStatus) -> CommandError {
    let (id, state) = (&stored.id, lost.state.as_str());
    let text = format!("experiment `{id}`, which this one waits for, has a trial that is {state}");
    let hint = format!("`nemo-slurm retry {id}` runs it again; or wait for it with on = \"any\"");
    refused(text, Some(hint))
}

fn no_answer(stored: &Stored) -> CommandError {
    let id = &stored.id;
    let text = format!("Slurm gave no answer about experiment `{id}`, which this one waits for");
    CommandError::new(ExitCode::NoAnswer, text)
}

/// Fails for an experiment that is not over and has no jobs that Slurm could wait for.
fn require_jobs(stored: &Stored) -> Result<(), CommandError> {
    let is_submitted = journal::is_generation_complete(&stored.journal, 0);
    if prepare::is_on_slurm(&stored.experiment) && is_submitted {
        return Ok(());
    }
    let id = &stored.id;
    let text = format!("experiment `{id}` has no jobs that Slurm could wait for, and is not over");
    Err(refused(text, Some(format!("`nemo-slurm wait {id}` waits for it"))))
}

/// The jobs of trials that are not over: whole arrays, where each of their trials is of them still.
fn open_jobs(stored: &Stored, trials: &[&TrialStatus]) -> OpenJobs {
    let mut jobs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let is_open = |trial: &&&TrialStatus| !trial.state.is_final() || trial.is_brought_back();
    for trial in trials.iter().filter(is_open) {
        let Some(job) = &trial.slurm_job else { return OpenJobs::Incomplete };
        let array = job.split('_').next().unwrap_or(job).to_owned();
        jobs.entry(array).or_default().insert(job.clone());
    }
    let arrays = journal::submitted_arrays(&stored.journal);
    let is_whole = |array: &str, open: &BTreeSet<String>| {
        let own = arrays.iter().find(|own| own.job.to_string() == array);
        own.is_some_and(|own| own.trials.count() == open.len())
    };
    let named = jobs.into_iter().flat_map(|(array, open)| {
        if is_whole(&array, &open) { vec![array] } else { open.into_iter().collect() }
    });
    OpenJobs::All(named.collect())
}

/// A job that somebody else submitted, if it is still to be waited for.
fn of_job(
    slurm: &Client,
    job: JobId,
    on: On,
    before: Option<&Stored>,
) -> Result<Vec<String>, CommandError> {
    let known = slurm.show(&job.to_string())?;
    let mut states: Vec<JobState> = known.rows.iter().map(|row| row.state.clone()).collect();
    if states.is_empty() {
        states = accounted(slurm, job)?;
    }
    if states.is_empty() {
        return forgotten(job, on, before).map(|()| Vec::new());
    }
    if states.iter().any(|state| state.phase() != JobPhase::Ended) {
        return Ok(vec![job.to_string()]);
    }
    match states.iter().find(|state| **state != JobState::Completed) {
        Some(state) if on == On::Ok => {
            let text = format!("job {job}, which this experiment waits for, ended as {state}");
            let hint = format!("wait for its end alone: {{ slurm_job = {job}, on = \"any\" }}");
            Err(refused(text, Some(hint)))
        }
        _ => Ok(Vec::new()),
    }
}

/// A job that nobody knows. Before the first submission that is a slip. Later it is over for sure; how it ended may be known
/// from what has run since.
fn forgotten(job: JobId, on: On, before: Option<&Stored>) -> Result<(), CommandError> {
    let Some(stored) = before else {
        let text = format!("Slurm knows no job {job}, which this experiment waits for");
        let hint = "correct `slurm_job`, or take it out if that job was over long ago".to_owned();
        return Err(refused(text, Some(hint)));
    };
    if on == On::Any || had_completed(stored, job)? {
        return Ok(());
    }
    let text = format!(
        "Slurm no longer knows job {job}, which experiment `{}` waits for: whether it completed is not known",
        stored.id
    );
    let path = stored.dir.experiment_toml();
    let hint = format!(
        "if it did, take it out of `{}`, and submit that as a new experiment",
        path.display()
    );
    Err(refused(text, Some(hint)))
}

/// Whether a job had completed for sure: at an earlier submission it was not to be waited for any more, or what waited for
/// it has run.
fn had_completed(stored: &Stored, job: JobId) -> Result<bool, CommandError> {
    let job = job.to_string();
    let roots = || stored.experiment.tasks.iter().filter(|task| task.after.is_empty());
    let is_root = |name: &str| roots().any(|task| task.name == name);
    let mut arrays = journal::planned_arrays(&stored.journal).filter(|array| is_root(&array.task));
    if arrays.any(|array| array.outside.iter().all(|edge| edge.job != job)) {
        return Ok(true);
    }
    for task in roots() {
        for trial in 0..task.n_trials {
            let path = stored.dir.task(&task.name).trial(trial).attempts();
            let records: Vec<AttemptRecord> = lines::read(&path).at("read", &path)?.rows;
            if records.iter().any(|record| record.as_start().is_some()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The last states of a job and its array tasks in the accounts.
fn accounted(slurm: &Client, job: JobId) -> Result<Vec<JobState>, CommandError> {
    let rows = match slurm.accounting(&[job], 0) {
        Err(SlurmError::AccountingOff) => return Ok(Vec::new()),
        rows => rows?.rows,
    };
    let mut last: BTreeMap<String, JobState> = BTreeMap::new();
    for row in rows {
        last.insert(format!("{:?}", row.tasks), row.state);
    }
    Ok(last.into_values().collect())
}
