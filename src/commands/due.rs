//! Submits trials later than the rest: once what they wait for on this machine is done, or there is room for their jobs. As a
//! generation of its own, whose plan is in the journal first: never twice, whoever sees to it. That is the local runner, the
//! job that ends, or `poll`.

use std::collections::BTreeSet;

use nemo_core::rundir::requests;

use super::archive::is_archived;
use super::control::TrialKey;
use super::windows::{self, JobRoom};
use super::{App, cluster, control, generation, outside, submit};
use crate::clock;
use crate::error::CommandError;
use crate::executor::local;
use crate::experiment::{Experiment, On, Task};
use crate::journal;
use crate::plan::{JobArray, SubmitLimits, Submittable, TrialsByTask, submittable};
use crate::process::ProcessId;
use crate::slurm::IndexSet;
use crate::status::{Request, State, Status, TaskStatus, TrialStatus};
use crate::store::{self, Stored, TakeOver};

/// A trial that was submitted later.
pub(super) struct SubmittedLater {
    pub(super) task: String,
    pub(super) index: u32,
    pub(super) job: String,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Due {
    pub(super) submitted: Vec<SubmittedLater>,
    /// Whether something still waits to be submitted that this machine must see to: not for room alone.
    pub(super) is_open: bool,
}

/// Whether what was submitted is whole: nothing is added to what is damaged, half done or refused.
fn may_submit_more(stored: &Stored) -> bool {
    stored.damage.is_none()
        && journal::is_complete(&stored.journal)
        && journal::refusal(&stored.journal).is_none()
}

/// Submits what may run now. The status must be of this journal, and of all trials.
pub(super) fn submit_due(app: &App, stored: &Stored, status: &Status) -> Result<Due, CommandError> {
    let mut due = submit_once(app, stored, status)?;
    let mut n_events = stored.journal.len();
    while due.submitted.is_empty() {
        let now = app.home.load(&stored.id)?;
        // What is not submitted is as it was: only the journal has grown.
        let since = now.journal.get(n_events..).unwrap_or_default();
        if !journal::may_fit_fewer(since) {
            break;
        }
        n_events = now.journal.len();
        due = submit_once(app, &now, status)?;
    }
    Ok(due)
}

/// Submits as many of them as there may be room for.
fn submit_once(app: &App, stored: &Stored, status: &Status) -> Result<Due, CommandError> {
    let mut due = Due::default();
    if generation::is_interrupted(&stored.journal) {
        due.is_open = true;
        go_on(app, stored)?;
        return Ok(due);
    }
    let waiting = waiting(stored, status);
    // What somebody has put away is not begun behind their back.
    if !waiting.is_empty() && is_archived(stored)? {
        return Ok(due);
    }
    if waiting.is_empty() || !may_submit_more(stored) {
        due.is_open = !waiting.is_empty();
        return Ok(due);
    }
    let requests = control::requests(stored)?;
    if choose(stored, status, &waiting, &requests, SubmitLimits::default()).is_empty() {
        due.is_open = true;
        return Ok(due);
    }
    // There is no room, and nothing says that there is more by now.
    if is_resting(&stored.journal, status, clock::now()) {
        return Ok(due);
    }
    let holds_roots = outside::holds_roots(app, stored, &waiting)?;
    let limits = SubmitLimits { room: room(app, stored), holds_roots };
    let chosen = choose(stored, status, &waiting, &control::requests(stored)?, limits);
    due.is_open = !chosen.is_limited;
    if chosen.is_empty() {
        return Ok(due);
    }
    let Some(claim) = generation::claim_unless_held(stored)? else { return Ok(due) };
    // Another process may have written until now, and somebody may want it no more.
    let mut now = app.home.load(&stored.id)?;
    let is_same = now.journal.len() == stored.journal.len() && now.damage.is_none();
    if !is_same || choose(stored, status, &waiting, &control::requests(stored)?, limits) != chosen {
        return Ok(due);
    }
    let n_waiting: usize = waiting.values().map(IndexSet::count).sum();
    due.is_open &= n_waiting > chosen.count();
    let selected = generation::selection(app, &now, status, chosen.trials, None)?;
    let Some(selected) = selected else { return Ok(due) };
    let Some(plan) = generation::plan(app, &mut now, &selected, &claim, None)? else {
        return Ok(due);
    };
    submit::submit_arrays(app, &now, &claim)?;
    let journal = app.home.load(&stored.id)?.journal;
    due.submitted.extend(plan.arrays.iter().flat_map(|array| submitted(stored, array, &journal)));
    Ok(due)
}

/// The trials that [`submit_due`] would submit, but for those that something else is done about.
pub(super) fn dry_run(
    app: &App,
    stored: &Stored,
    status: &Status,
    others: &BTreeSet<TrialKey>,
) -> Result<TrialsByTask, CommandError> {
    let mut waiting = waiting(stored, status);
    for (task, trials) in &mut waiting {
        let is_other = |trial: &u32| others.contains(&(task.clone(), *trial));
        *trials = trials.iter().filter(|trial| !is_other(trial)).collect();
    }
    let requests = control::requests(stored)?;
    let may_any = !choose(stored, status, &waiting, &requests, SubmitLimits::default()).is_empty()
        && !is_archived(stored)?;
    if !may_submit_more(stored) || !may_any || is_resting(&stored.journal, status, clock::now()) {
        return Ok(TrialsByTask::new());
    }
    let holds_roots = outside::holds_roots(app, stored, &waiting)?;
    let limits = SubmitLimits { room: room(app, stored), holds_roots };
    let chosen = choose(stored, status, &waiting, &requests, limits).trials;
    // What it waits for outside may have failed.
    let selected = generation::selection(app, stored, status, chosen, None)?;
    Ok(selected.map(|it| it.trials).unwrap_or_default())
}

/// Goes on with a later generation whose submission was interrupted, unless another process does.
fn go_on(app: &App, stored: &Stored) -> Result<(), CommandError> {
    let Some(claim) = generation::claim_unless_held(stored)? else { return Ok(()) };
    let now = app.home.load(&stored.id)?;
    if generation::is_interrupted(&now.journal) && now.damage.is_none() {
        submit::submit_arrays(app, &now, &claim)?;
    }
    Ok(())
}

/// Starts the runner again where trials of this machine are left and it is gone. Nothing is started inside a job: what it
/// runs would end with the job.
pub(super) fn start_runner(
    app: &App,
    stored: &Stored,
    status: &Status,
) -> Result<bool, CommandError> {
    if !lacks_runner(app, stored, status)? {
        return Ok(false);
    }
    let Some(claim) = generation::claim_unless_held(stored)? else { return Ok(false) };
    store::require_safe(&app.home)?;
    submit::start_runner(app, stored, &claim, TakeOver::FromTheDead)?;
    Ok(true)
}

/// Whether the runner is gone, and is to be started again from here.
pub(super) fn lacks_runner(
    app: &App,
    stored: &Stored,
    status: &Status,
) -> Result<bool, CommandError> {
    let experiment = &stored.experiment;
    let has_slurm_left = waiting(stored, status).values().any(|trials| trials.count() > 0);
    let is_left = has_left_here(stored, status);
    let is_here = || {
        journal::submitter(&stored.journal)
            .is_some_and(|process| process.node == ProcessId::current().node)
    };
    Ok((is_left || (experiment.has_local() && has_slurm_left))
        && app.variable("SLURM_JOB_ID").is_none()
        && journal::is_complete(&stored.journal)
        && local::is_running(&stored.dir)?.is_none()
        && is_here())
}

/// Whether a runner would go on with any trial of this machine.
pub(super) fn has_left_here(stored: &Stored, status: &Status) -> bool {
    let experiment = &stored.experiment;
    let mut tasks = experiment.tasks.iter().zip(&status.tasks);
    tasks.any(|(task, seen)| experiment.is_local(task) && seen.trials.iter().any(may_go_on))
}

/// Whether a runner would go on with a trial. One that it has given up may not be certain.
fn may_go_on(trial: &TrialStatus) -> bool {
    trial.is_brought_back() || !trial.state.is_final()
}

/// The trials of an array with their jobs.
fn submitted(stored: &Stored, array: &JobArray, journal: &[journal::Event]) -> Vec<SubmittedLater> {
    let one = |(index, job)| SubmittedLater { task: array.task.clone(), index, job };
    generation::jobs_of(stored, array, journal).into_iter().map(one).collect()
}

/// The trials on Slurm that were not submitted and are not over.
fn waiting(stored: &Stored, status: &Status) -> TrialsByTask {
    let experiment = &stored.experiment;
    let mut waiting = TrialsByTask::new();
    for (task, seen) in experiment.tasks.iter().zip(&status.tasks) {
        if experiment.is_local(task) {
            continue;
        }
        let is_open = |trial: &u32| {
            seen.trials.get(*trial as usize).is_some_and(|trial| !trial.state.is_final())
        };
        let open: IndexSet =
            journal::unplanned(&stored.journal, task).iter().filter(is_open).collect();
        if open.count() > 0 {
            waiting.insert(task.name.clone(), open);
        }
    }
    waiting
}

/// Those that may run now. Pure.
fn choose(
    stored: &Stored,
    status: &Status,
    waiting: &TrialsByTask,
    requests: &[Request],
    limits: SubmitLimits,
) -> Submittable {
    let experiment = &stored.experiment;
    let mut wanted = TrialsByTask::new();
    for (name, trials) in waiting {
        let Some(seen) = status.tasks.iter().find(|task| task.name == *name) else { continue };
        if has_others(experiment, seen, trials) {
            continue;
        }
        let is_wanted = |trial: &u32| {
            !requests::is_cancelled(requests, name, *trial)
                && requests::pause(requests, name, *trial).is_none()
        };
        wanted.insert(name.clone(), trials.iter().filter(is_wanted).collect());
    }
    submittable(experiment, &wanted, limits, &|task, trial, on| is_met(status, task, trial, on))
}

/// Whether Slurm had no room a while ago and no job of the experiment has ended since: each try would be one more
/// generation.
fn is_resting(journal: &[journal::Event], status: &Status, now: f64) -> bool {
    let Some((last, until)) = journal::pause(journal) else { return false };
    let attempts = status.tasks.iter().flat_map(|task| &task.trials).flat_map(|it| &it.attempts);
    let has_ended = attempts.filter_map(|attempt| attempt.end).any(|end| end > last);
    // A clock that went backwards keeps nobody waiting.
    (last..until).contains(&now) && !has_ended
}

/// How many trials may be submitted now, as far as anybody knows.
fn room(app: &App, stored: &Stored) -> Option<usize> {
    let cluster = cluster::facts_or_similar(app, stored.experiment.cluster()).ok();
    let known = cluster.and_then(|cluster| windows::room(app, &stored.experiment, &cluster));
    known.map(JobRoom::worth_a_try).into_iter().chain(journal::window(&stored.journal)).min()
}

/// Those of the trials that are retried which Slurm can be asked for at once.
pub(super) fn submittable_now(
    stored: &Stored,
    status: &Status,
    trials: &TrialsByTask,
    app: &App,
) -> Result<Submittable, CommandError> {
    let is_met =
        |task: &str, trial, on| is_met(status, task, trial, on) || is_in_slurm(status, task, trial);
    let holds_roots = outside::holds_roots(app, stored, trials)?;
    let limits = SubmitLimits { room: room(app, stored), holds_roots };
    Ok(submittable(&stored.experiment, trials, limits, &is_met))
}

/// Whether other trials of a task are on their way whose number is limited: each generation has a limit of its own.
fn has_others(experiment: &Experiment, seen: &TaskStatus, waiting: &IndexSet) -> bool {
    let is_limited = |task: &&Task| task.name == seen.name && task.concurrent.is_some();
    experiment.tasks.iter().any(|task| is_limited(&task))
        && seen.trials.iter().any(|it| !waiting.contains(it.index) && !it.state.is_final())
}

/// Whether a trial is over as it must be, for good.
fn is_met(status: &Status, task: &str, trial: u32, on: On) -> bool {
    let task = status.tasks.iter().find(|seen| seen.name == task);
    let trial = task.and_then(|task| task.trials.get(trial as usize));
    trial.is_some_and(|trial| match on {
        On::Ok | On::Each => TrialStatus::is_final(trial) && trial.state == State::Completed,
        On::Any | On::Failed => trial.is_final() && trial.state.is_final(),
    })
}

/// Whether a trial may still run in a job that Slurm has, which what follows it can wait for.
fn is_in_slurm(status: &Status, task: &str, trial: u32) -> bool {
    let task = status.tasks.iter().find(|seen| seen.name == task);
    let trial = task.and_then(|task| task.trials.get(trial as usize));
    trial.is_some_and(generation::is_in_slurm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Event;
    use crate::status::{AttemptStatus, sample_attempt, sample_status, sample_task, sample_trial};

    #[test]
    fn a_try_in_vain_rests_until_a_job_of_the_experiment_ends() {
        let postponed = Event::Postponed {
            token: "x.train.0".to_owned(),
            task: "train".to_owned(),
            array: 0,
            trials: 1,
            reason: Some("AssocMaxSubmitJobLimit".to_owned()),
            time: 100.0,
        };
        let with_end = |end| {
            let mut trial = sample_trial(0, State::Completed);
            trial.attempts = vec![AttemptStatus { end, ..sample_attempt(1) }];
            sample_status(State::Running, vec![sample_task("train", vec![trial])])
        };
        let check = |end, now, expected| {
            let journal = std::slice::from_ref(&postponed);
            assert_eq!(is_resting(journal, &with_end(end), now), expected, "{end:?} {now}");
        };
        check(None, 110.0, true);
        check(Some(90.0), 110.0, true);
        check(Some(105.0), 110.0, false);
        check(None, 221.0, false);
        check(None, 50.0, false);
    }
}
