//! A later generation of an experiment: some of its trials, planned and written down under its claim, before anything is
//! submitted. What `poll` and `retry` submit again goes this way.

use std::collections::BTreeMap;

use nemo_core::rundir::{PollSpec, TaskSpec};
use nemo_core::{checksum, durable, open};

use super::outside::Awaited;
use super::retry::changes;
use super::{App, cluster, outside, prepare};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{Dependency, Experiment, On, Task};
use crate::journal::{self, Changed, Event, Journal, Record, Retry, Submitted};
use crate::plan::{self, JobArray, Limits, Ongoing, OpenTrials, OutsideEdge, Plan, Selection};
use crate::script;
use crate::slurm::IndexSet;
use crate::status::{Remedy, State, Status, TaskStatus, TrialStatus};
use crate::store::claim::{self, ClaimKind};
use crate::store::{Claim, ClaimError, Stored, TakeOver};

/// Trials by task.
pub(super) type ChosenTrials = BTreeMap<String, IndexSet>;

/// The claim on the experiment, to submit some of it; none while another process works on it. Nothing is ever submitted for
/// a wrapped job.
pub(super) fn claim_unless_held(stored: &Stored) -> Result<Option<Claim>, CommandError> {
    if stored.is_wrapped() {
        return Ok(None);
    }
    let taken = claim::take(&stored.dir, ClaimKind::Submission, TakeOver::FromTheDead, &|_| ());
    match taken {
        Ok(claim) => Ok(Some(claim)),
        Err(ClaimError::Held { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the submission of a later generation was interrupted. The first submission is continued by a person, who knows of it.
pub(super) fn is_interrupted(journal: &[Event]) -> bool {
    let last = journal::plans(journal).map(|plan| plan.generation).max().unwrap_or(0);
    last > 0
        && journal::refusal(journal).is_none()
        && journal::is_generation_complete(journal, 0)
        && !journal::is_complete(journal)
}

/// These trials as the generation that comes next, with what a retry changes of them. What the experiment waits for outside
/// may have come meanwhile, may run again, or may have failed: then it is an error. None where Slurm can't be told of all of
/// that any more: without a part of it they would start too early.
pub(super) fn selection(
    app: &App,
    stored: &Stored,
    status: &Status,
    trials: ChosenTrials,
    retry: Option<&Retry>,
) -> Result<Option<Selection>, CommandError> {
    let Some(outside) = outside_of(app, stored, &trials)? else { return Ok(None) };
    Ok(Some(Selection {
        ongoing: ongoing(stored, status, &trials),
        open_parents: open_parents(stored, status, &trials),
        generation: next(stored),
        separate: separate(stored, &trials, retry),
        outside,
        trials,
        earlier_arrays: earlier_arrays(&stored.experiment, &stored.journal),
    }))
}

/// What others of the experiment may wait for: trials of earlier submissions that may still run.
fn open_parents(
    stored: &Stored,
    status: &Status,
    chosen: &ChosenTrials,
) -> BTreeMap<String, OpenTrials> {
    let is_parent = |name: &str| {
        let chosen = stored.experiment.tasks.iter().filter(|task| chosen.contains_key(&task.name));
        chosen.flat_map(|task| &task.after).any(|dependency| dependency.task == name)
    };
    let parents = status.tasks.iter().filter(|task| is_parent(&task.name));
    let of_task = |task: &TaskStatus| {
        let others = not_chosen(task, chosen);
        let jobs = ongoing_jobs(stored, &task.name, &others).jobs;
        let job = |it: &&TrialStatus| Some((it.index, it.slurm_job.clone()?));
        let by_trial = others.iter().filter(|it| may_run(it)).filter_map(job).collect();
        (!jobs.is_empty()).then(|| (task.name.clone(), OpenTrials { jobs, by_trial }))
    };
    parents.filter_map(of_task).collect()
}

fn not_chosen<'a>(task: &'a TaskStatus, chosen: &ChosenTrials) -> Vec<&'a TrialStatus> {
    task.trials.iter().filter(|trial| !is_chosen(task, trial.index, chosen)).collect()
}

/// Whether a trial is not over, and Slurm is not known to have forgotten its job. It may have none yet.
fn may_run(trial: &TrialStatus) -> bool {
    !trial.state.is_final() && !trial.remedy.is_some_and(Remedy::is_forgotten)
}

/// What the chosen trials must not run beside, where their task limits how many run at once: Slurm's own limit is one of each
/// array. A retry while others of the task still run would be above it.
fn ongoing(stored: &Stored, status: &Status, chosen: &ChosenTrials) -> BTreeMap<String, Ongoing> {
    let tasks = stored.experiment.tasks.iter().zip(&status.tasks);
    let limited = tasks.filter(|(task, _)| task.concurrent.is_some());
    let of_task = |(task, seen): (&Task, &TaskStatus)| {
        chosen.get(&task.name)?;
        let ongoing = ongoing_jobs(stored, &task.name, &not_chosen(seen, chosen));
        (ongoing.at_once > 0).then(|| (task.name.clone(), ongoing))
    };
    limited.filter_map(of_task).collect()
}

/// What may still run of these trials of a task.
fn ongoing_jobs(stored: &Stored, task: &str, trials: &[&TrialStatus]) -> Ongoing {
    let mut ongoing = Ongoing::default();
    let arrays = journal::submitted_arrays(&stored.journal);
    for array in arrays.iter().filter(|array| array.task == task) {
        add_ongoing(&mut ongoing, &stored.journal, array, trials);
    }
    ongoing
}

/// Adds those of an array that may still run. The whole array is waited for, unless it also has trials that may stay in the
/// queue for ever.
fn add_ongoing(
    ongoing: &mut Ongoing,
    journal: &[Event],
    array: &Submitted<'_>,
    trials: &[&TrialStatus],
) {
    let id = array.job.to_string();
    let in_array = |trial: &&&TrialStatus| {
        let job = trial.slurm_job.as_deref().and_then(|job| job.split('_').next());
        array.trials.contains(trial.index) && job == Some(id.as_str())
    };
    let own: Vec<&&TrialStatus> = trials.iter().filter(in_array).collect();
    let alive = own.iter().filter(|trial| may_run(trial));
    let alive: Vec<u32> = alive.map(|trial| trial.index).collect();
    if alive.is_empty() {
        return;
    }
    let throttle = journal::planned_array_of(journal, array.job).and_then(|array| array.throttle);
    let n_alive = u32::try_from(alive.len()).unwrap_or(u32::MAX);
    ongoing.at_once += throttle.map_or(n_alive, |throttle| throttle.get().min(n_alive));
    if own.iter().any(|trial| trial.state == State::Blocked) {
        let index = |trial: u32| trial.saturating_sub(array.offset);
        ongoing.jobs.extend(alive.into_iter().map(|trial| format!("{id}_{}", index(trial))));
    } else {
        ongoing.jobs.push(id);
    }
}

/// Only tasks without a parent wait for what is outside: where none of them is chosen, nobody is asked. None while some of what
/// they wait for has no job yet.
fn outside_of(
    app: &App,
    stored: &Stored,
    trials: &ChosenTrials,
) -> Result<Option<Vec<OutsideEdge>>, CommandError> {
    let mut roots = stored.experiment.tasks.iter().filter(|task| task.after.is_empty());
    if roots.any(|task| trials.contains_key(&task.name)) {
        let Awaited { edges, is_incomplete } = outside::resolve_again(app, stored)?;
        Ok((!is_incomplete).then_some(edges))
    } else {
        Ok(Some(Vec::new()))
    }
}

/// The trials that run in another way than they were submitted, by task.
fn separate(
    stored: &Stored,
    trials: &ChosenTrials,
    retry: Option<&Retry>,
) -> BTreeMap<String, Vec<IndexSet>> {
    let of_task = |(task, trials): (&String, &IndexSet)| {
        let earlier = journal::last_retries(&stored.journal, task);
        let mut sets: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for trial in trials.iter() {
            let changed = match retry {
                Some(retry) => retry.changed(task, trial),
                None => earlier.get(&trial).and_then(|retry| retry.changed),
            };
            if let Some(changed) = changed {
                sets.entry(&changed.spec).or_default().push(trial);
            }
        }
        (task.clone(), sets.into_values().map(|trials| trials.into_iter().collect()).collect())
    };
    trials.iter().map(of_task).collect()
}

/// The number of the generation that comes next.
pub(super) fn next(stored: &Stored) -> u32 {
    journal::last_generation(&stored.journal) + 1
}

/// Plans a generation on Slurm, and writes that down: from here on it is a submission like the first one. None if the
/// experiment is of a version that did not say which harness its jobs run.
pub(super) fn plan(
    app: &App,
    stored: &mut Stored,
    selected: &Selection,
    claim: &Claim,
    retry: Option<Retry>,
) -> Result<Option<Plan>, CommandError> {
    let plan = new_plan(app, stored, selected)?;
    for array in &plan.arrays {
        let changed = changed_in(stored, array, retry.as_ref());
        let Some(programs) = programs(stored, array, changed) else { return Ok(None) };
        write_script(stored, array, changed, &programs)?;
    }
    record(stored, claim, plan.clone(), retry)?;
    Ok(Some(plan))
}

/// The plan of a generation, checked. Nothing is written.
pub(super) fn new_plan(
    app: &App,
    stored: &Stored,
    selected: &Selection,
) -> Result<Plan, CommandError> {
    let facts = cluster::facts_or_similar(app, stored.experiment.cluster())?;
    let limits = Limits { max_array: facts.max_array };
    let plan = Plan::new(&stored.experiment, selected, limits)?;
    match plan::check(&stored.experiment, selected, &plan, limits).first() {
        None => Ok(plan),
        Some(note) => {
            let text = format!("the plan is not valid: {note}");
            Err(CommandError::new(ExitCode::Refused, text)
                .hinted("this is an error of nemo-slurm; nothing was submitted"))
        }
    }
}

/// Writes a plan into the journal, durably.
pub(super) fn record(
    stored: &mut Stored,
    claim: &Claim,
    plan: Plan,
    retry: Option<Retry>,
) -> Result<(), CommandError> {
    let path = stored.dir.journal();
    let events = std::mem::take(&mut stored.journal);
    let mut journal = Journal::open(&path, events, claim)?;
    journal.check_claim()?;
    journal.record(prepare::submitter())?;
    journal.record(Event::Planned { plan, retry })?;
    journal.sync()?;
    stored.journal = journal.events().to_vec();
    Ok(())
}

/// The trials of an array with the jobs that they got; none where Slurm did not take it.
pub(super) fn jobs_of(stored: &Stored, array: &JobArray, journal: &[Event]) -> Vec<(u32, String)> {
    let token = script::token(stored.id.as_str(), &array.task, array.index);
    let arrays = journal::submitted_arrays(journal);
    let accepted = arrays.iter().find(|accepted| accepted.token == token);
    let jobs = |own: &Submitted<'_>| array.trials.iter().map(|it| (it, own.job_of(it))).collect();
    accepted.map(jobs).unwrap_or_default()
}

/// What is changed of the trials of an array: of all of them the same.
fn changed_in<'a>(
    stored: &'a Stored,
    array: &JobArray,
    retry: Option<&'a Retry>,
) -> Option<&'a Changed> {
    let first = array.trials.first()?;
    match retry {
        Some(retry) => retry.changed(&array.task, first),
        None => journal::last_retries(&stored.journal, &array.task).get(&first)?.changed,
    }
}

/// The programs of an array's jobs; none if its task does not say which.
fn programs(stored: &Stored, array: &JobArray, changed: Option<&Changed>) -> Option<PollSpec> {
    let task = stored.dir.task(&array.task);
    let path = changed.map_or_else(|| task.spec(), |changed| task.0.join(&changed.spec));
    let spec: TaskSpec = checksum::from_slice(&open::read(&path).ok()?).ok()?;
    spec.poll
}

fn write_script(
    stored: &Stored,
    array: &JobArray,
    changed: Option<&Changed>,
    programs: &PollSpec,
) -> Result<(), CommandError> {
    let (task, set) = (&array.task, changed.map(|changed| &changed.set));
    let experiment = changes::changed_experiment(stored, task, set)?;
    let spec = changed.map(|changed| changed.spec.as_str());
    let (id, dir) = (stored.id.as_str(), &stored.dir);
    let text = prepare::array_script(&experiment, id, dir, array, (&programs.harness, spec));
    let path = stored.dir.task(&array.task).script(array.index);
    let text = text.unwrap_or_default();
    Ok(durable::replace_file_durably(&path, text.as_bytes()).at("write", &path)?)
}

/// Whether nothing that a trial waits for is still to come, but for what is submitted with it.
pub(super) fn is_free(
    task: &Task,
    trial: u32,
    tasks: &[TaskStatus],
    chosen: &ChosenTrials,
) -> bool {
    task.after.iter().all(|dependency| {
        let Some(parent) = parent_of(dependency, tasks) else { return false };
        let may_hold = dependency.on != On::Failed || may_have_failed(parent, chosen);
        let mut needed = needed(dependency, trial, parent, chosen);
        may_hold && needed.all(|it| is_enough(dependency.on, it))
    })
}

/// Whether a trial may still run in a job that Slurm has.
pub(super) fn is_in_slurm(trial: &TrialStatus) -> bool {
    may_run(trial) && trial.slurm_job.is_some()
}

/// Whether all that a trial waits for is done, is submitted with it, or may still run in jobs that Slurm has.
pub(super) fn is_linkable(
    task: &Task,
    trial: u32,
    tasks: &[TaskStatus],
    chosen: &ChosenTrials,
) -> bool {
    task.after.iter().all(|dependency| {
        let Some(parent) = parent_of(dependency, tasks) else { return false };
        // Slurm would drop it where those submitted now complete, though one that still runs may fail.
        let is_split = dependency.on == On::Failed && chosen.contains_key(&dependency.task);
        let may_come = |it: &TrialStatus| !is_split && is_in_slurm(it);
        let mut needed = needed(dependency, trial, parent, chosen);
        needed.all(|it| is_enough(dependency.on, it) || may_come(it))
    })
}

fn parent_of<'a>(dependency: &Dependency, tasks: &'a [TaskStatus]) -> Option<&'a TaskStatus> {
    tasks.iter().find(|parent| parent.name == dependency.task)
}

/// The parent's trials that a trial needs, but for those that are submitted with it.
fn needed<'a>(
    dependency: &Dependency,
    trial: u32,
    parent: &'a TaskStatus,
    chosen: &'a ChosenTrials,
) -> impl Iterator<Item = &'a TrialStatus> {
    let own = trial as usize;
    let trials = match dependency.on {
        On::Each => parent.trials.get(own..=own).unwrap_or_default(),
        On::Ok | On::Any | On::Failed => &parent.trials,
    };
    trials.iter().filter(move |it| !is_chosen(parent, it.index, chosen))
}

fn is_chosen(parent: &TaskStatus, trial: u32, chosen: &ChosenTrials) -> bool {
    chosen.get(&parent.name).is_some_and(|trials| trials.contains(trial))
}

/// Whether a trial has ended as what waits for it needs.
fn is_enough(on: On, parent: &TrialStatus) -> bool {
    match on {
        On::Ok | On::Each => parent.state == State::Completed,
        On::Any | On::Failed => parent.state.is_final(),
    }
}

/// Whether a trial of a task failed, or may yet, since it is submitted again.
fn may_have_failed(parent: &TaskStatus, chosen: &ChosenTrials) -> bool {
    let may_fail =
        |it: &TrialStatus| it.state != State::Completed || is_chosen(parent, it.index, chosen);
    parent.trials.iter().any(may_fail)
}

fn earlier_arrays(experiment: &Experiment, journal: &[Event]) -> BTreeMap<String, usize> {
    let count = |task: &Task| {
        let own = journal::planned_arrays(journal).filter(|array| array.task == task.name);
        (task.name.clone(), own.count())
    };
    experiment.tasks.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample_task as task_of_file;
    use crate::status::{Certainty, sample_task, sample_trial};

    #[track_caller]
    fn check(on: On, parents: &[State], chosen: &[u32], expected: bool) {
        let task = task_of_file("rescue", 1, 0, &[("train", on)]);
        let trial = |(index, state): (u32, &State)| TrialStatus {
            certainty: Certainty::Final,
            ..sample_trial(index, *state)
        };
        let trials = (0..).zip(parents).map(trial).collect();
        let chosen = match chosen {
            [] => ChosenTrials::new(),
            chosen => [("train".to_owned(), chosen.iter().copied().collect())].into(),
        };
        let seen = [sample_task("train", trials)];
        assert_eq!(is_free(&task, 0, &seen, &chosen), expected, "{on:?} {parents:?} {chosen:?}");
    }

    #[test]
    fn a_task_for_a_failure_is_free_once_there_is_one() {
        use State::{Completed, Failed, Timeout};
        check(On::Failed, &[Completed, Completed], &[], false);
        check(On::Failed, &[Completed, Failed], &[], true);
        check(On::Failed, &[Timeout, Completed], &[], true);
        check(On::Failed, &[Completed, Failed], &[1], true);
        check(On::Failed, &[Completed, Completed], &[1], true);
        check(On::Any, &[Completed, Completed], &[], true);
        check(On::Ok, &[Completed, Failed], &[], false);
    }
}
