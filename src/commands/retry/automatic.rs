//! `retry` of the file: failed trials are retried by themselves, as often as its rules say. `poll` carries it out, and so
//! do the jobs at their ends.

use std::collections::{BTreeMap, BTreeSet};

use nemo_core::rundir::requests;
use nemo_core::scope::Scope;

use super::advise::{FactSources, FailedTrial, by_rule, failed};
use super::changes::{self, WantedChanges};
use super::rule_use::{PastRetry, RuleUse, past_retries};
use super::{WantedRetry, begin, carry_out, choice};
use crate::clock;
use crate::commands::App;
use crate::commands::control::{self, TrialKey};
use crate::commands::generation::{self, ChosenTrials};
use crate::error::CommandError;
use crate::experiment::{ChangedKeys, RetryRule, Task, rule_for};
use crate::humanize;
use crate::journal::{self, RetriedTrials, Retry, Submitted};
use crate::status::{self, Request, State, Status, TrialStatus};
use crate::store::{Stored, Target};
use crate::trial_error;

/// A trial that was retried by itself.
pub(in crate::commands) struct RetriedByRule {
    pub(in crate::commands) task: String,
    pub(in crate::commands) index: u32,
    /// Its new job; none on this machine.
    pub(in crate::commands) job: Option<String>,
    pub(in crate::commands) why: String,
}

/// Retries what failed and whose rule is not used up, unless somebody has cancelled or paused it. The status must be of all
/// folders: what a trial failed of, and how many attempts it had, follows from its own.
pub(in crate::commands) fn retry_due(
    app: &App,
    stored: &Stored,
    target: &Target,
    status: &Status,
) -> Result<Vec<RetriedByRule>, CommandError> {
    let Some(status) = with_errors(stored, status) else { return Ok(Vec::new()) };
    if due_now(stored, &status, &target.scope, &control::requests(stored)?).is_empty() {
        return Ok(Vec::new());
    }
    let Some(claim) = generation::claim_unless_held(stored)? else { return Ok(Vec::new()) };
    // Another process may have written until now.
    let mut now = app.home.load(&stored.id)?;
    if now.journal.len() != stored.journal.len() || now.damage.is_some() {
        return Ok(Vec::new());
    }
    // So may somebody who wants no retry.
    let requests = control::requests(stored)?;
    let due = due_now(stored, &status, &target.scope, &requests);
    let wanted = wanted(app, stored, target, &status, &due, &requests)?;
    if wanted.choice.is_empty() {
        return Ok(Vec::new());
    }
    let generation = begin(app, &mut now, &claim, &status, &wanted)?;
    carry_out(app, &mut now, &claim).map_err(|error| with_next_try(app, stored, &due, error))?;
    let retried = due.iter().filter(|it| wanted.choice.is_wanted(it.0.0, it.0.1.index));
    let arrays = journal::submitted_arrays(&now.journal);
    let is_new =
        |array: &&Submitted<'_>| journal::generation_of(&now.journal, array.token) == generation;
    let new: Vec<&Submitted<'_>> = arrays.iter().filter(is_new).collect();
    Ok(retried.map(|it| reported(&new, it, &wanted.retry)).collect())
}

/// An error with what comes of the retry, if Slurm has refused it.
fn with_next_try(
    app: &App,
    stored: &Stored,
    due: &[DueTrial<'_>],
    error: CommandError,
) -> CommandError {
    let Ok(now) = app.home.load(&stored.id) else { return error };
    let last = journal::last_generation(&now.journal);
    if !journal::refused_generations(&now.journal).contains(&last) {
        return error;
    }
    let pause = |((task, trial, _), name, rule): &DueTrial<'_>| {
        let so_far = RuleUse::of(&past_retries(&now.journal, task), trial.index, name);
        so_far.is_left(rule).then(|| so_far.pause())
    };
    let pause = due.iter().filter_map(pause).reduce(f64::min);
    error.hinted(pause.map_or_else(
        || format!("it is not tried again, but by `nemo-slurm retry {}`", stored.id),
        |pause| format!("it is tried again in {}", humanize::duration(pause)),
    ))
}

/// What [`retry_due`] would retry.
pub(in crate::commands) fn dry_run(
    app: &App,
    stored: &Stored,
    target: &Target,
    status: &Status,
) -> Result<Vec<RetriedByRule>, CommandError> {
    let Some(status) = with_errors(stored, status) else { return Ok(Vec::new()) };
    let requests = control::requests(stored)?;
    let due = due_now(stored, &status, &target.scope, &requests);
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = wanted(app, stored, target, &status, &due, &requests)?;
    let retried = due.iter().filter(|it| wanted.choice.is_wanted(it.0.0, it.0.1.index));
    Ok(retried.map(|it| reported(&[], it, &wanted.retry)).collect())
}

/// Whether a failed trial is to be retried by itself, as soon as somebody looks after it, or resumes it: then nothing is
/// over of the target that means it, or what it has blocked.
pub(in crate::commands) fn is_due(
    stored: &Stored,
    status: &Status,
    target: &Target,
) -> Result<bool, CommandError> {
    let Some(seen) = with_errors(stored, status) else { return Ok(false) };
    let due = due(stored, &seen, &control::requests(stored)?, &|_| true);
    let parents = parents_of_blocked(stored, status, &target.scope);
    let mut trials = due.iter().map(|it| it.0);
    Ok(trials.any(|it| target.scope.covers(it.0, it.1.index) || parents.contains(it.0)))
}

/// The failed trials that are to be retried by themselves, now or once somebody resumes them: they are not over.
pub(in crate::commands) fn due_trials(
    stored: &Stored,
    status: &Status,
) -> Result<BTreeSet<TrialKey>, CommandError> {
    let Some(seen) = with_errors(stored, status) else { return Ok(BTreeSet::new()) };
    let due = due(stored, &seen, &control::requests(stored)?, &|_| true);
    Ok(due.iter().map(|it| (it.0.0.to_owned(), it.0.1.index)).collect())
}

/// The tasks whose retry would also run again something that the scope means.
fn parents_of_blocked<'a>(stored: &'a Stored, status: &Status, scope: &Scope) -> BTreeSet<&'a str> {
    let is_blocked = status::meant(status, scope).any(|(_, trial)| trial.state == State::Blocked);
    let mut parents = BTreeSet::new();
    // Each task comes after those that it waits for.
    for task in stored.experiment.tasks.iter().rev().filter(|_| is_blocked) {
        if scope.covers_task(&task.name) || parents.contains(&*task.name) {
            parents.extend(task.after.iter().map(|dependency| &*dependency.task));
        }
    }
    parents
}

/// Whether any failed trial has a rule that is not used up: only then it matters why it failed.
pub(in crate::commands) fn may_be_due(stored: &Stored, status: &Status) -> bool {
    let is_whole = stored.damage.is_none() && journal::is_complete(&stored.journal);
    is_whole && !changes::is_out_of_time(stored) && !candidates(stored, status).is_empty()
}

/// The failed trials for which a rule may be left.
fn candidates(stored: &Stored, status: &Status) -> BTreeSet<TrialKey> {
    let with_rules = stored.experiment.tasks.iter().filter(|task| !task.retry.is_empty());
    let mut candidates = BTreeSet::new();
    for task in with_rules {
        let retried = past_retries(&stored.journal, &task.name);
        let failed = failed(status, |name, trial| name == task.name && trial.is_final());
        // Nobody but a person gives an experiment more time than its file does.
        let has_time = |trial: &TrialStatus| {
            trial.state != State::Timeout || stored.experiment.timeout.is_none()
        };
        let open =
            failed.iter().filter(|it| has_time(it.1) && has_rule(task, &retried, it.1.index));
        candidates.extend(open.map(|it| (task.name.clone(), it.1.index)));
    }
    candidates
}

/// Whether a rule of the task is not used up by a trial.
fn has_rule(task: &Task, retried: &[PastRetry<'_>], trial: u32) -> bool {
    task.retry.iter().any(|(name, rule)| RuleUse::of(retried, trial, name).is_left(rule))
}

/// A failed trial, and the rule by which it is retried.
pub(super) type DueTrial<'a> = (FailedTrial<'a>, &'a str, &'a RetryRule);

/// The status with the errors of those trials for which a rule may be left, if there are any.
fn with_errors(stored: &Stored, status: &Status) -> Option<Status> {
    if !may_be_due(stored, status) {
        return None;
    }
    let candidates = candidates(stored, status);
    let mut status = status.clone();
    let is_candidate =
        |task: &str, trial: &TrialStatus| candidates.contains(&(task.to_owned(), trial.index));
    trial_error::set_errors_of(&mut status, stored, &is_candidate);
    Some(status)
}

/// The failed trials that their rules retry, but for those that somebody has cancelled. The status must tell their errors.
fn due<'a>(
    stored: &'a Stored,
    status: &'a Status,
    requests: &[Request],
    is_meant: &dyn Fn(RuleUse) -> bool,
) -> Vec<DueTrial<'a>> {
    let candidates = candidates(stored, status);
    let is_candidate = |task: &str, trial: &TrialStatus| {
        candidates.contains(&(task.to_owned(), trial.index))
            && !requests::is_cancelled(requests, task, trial.index)
    };
    let tasks = stored.experiment.tasks.iter().filter(|task| !task.retry.is_empty());
    let tasks: BTreeMap<&str, (&Task, Vec<PastRetry<'_>>)> = tasks
        .map(|task| (&*task.name, (task, past_retries(&stored.journal, &task.name))))
        .collect();
    let nothing = ChosenTrials::new();
    let of = |it: FailedTrial<'a>| {
        let (task, retried) = tasks.get(it.0)?;
        let (name, rule) = rule_for(&task.retry, it.2)?;
        let so_far = RuleUse::of(retried, it.1.index, name);
        let is_left = so_far.is_left(rule) && is_meant(so_far);
        let may_run = || choice::has_not_failed(task, &status.tasks, &nothing).is_none();
        (is_left && may_run()).then_some((it, name, rule))
    };
    failed(status, is_candidate).into_iter().filter_map(of).collect()
}

/// Those of a scope that nobody has paused, and that Slurm did not refuse a short while ago.
fn due_now<'a>(
    stored: &'a Stored,
    status: &'a Status,
    scope: &Scope,
    requests: &[Request],
) -> Vec<DueTrial<'a>> {
    let now = clock::now();
    let mut due = due(stored, status, requests, &|so_far| !so_far.is_resting(now));
    due.retain(|((task, trial, _), ..)| {
        let is_paused = requests::pause(requests, task, trial.index).is_some();
        scope.covers(task, trial.index) && !is_paused
    });
    due
}

/// The due trials, with what their rules change.
fn wanted(
    app: &App,
    stored: &Stored,
    target: &Target,
    status: &Status,
    due: &[DueTrial<'_>],
    requests: &[Request],
) -> Result<WantedRetry, CommandError> {
    let sources = FactSources::for_rules(app, stored, due)?;
    let mut each: BTreeMap<TrialKey, ChangedKeys> = BTreeMap::new();
    for (failure, _, rule) in due {
        let set = by_rule(&sources, *failure, rule)?;
        each.insert((failure.0.to_owned(), failure.1.index), set);
    }
    let refused = refused(status, &each, requests);
    let is_failed = [State::Failed, State::Timeout];
    let choice = choice::choose(&stored.experiment, &target.scope, &is_failed, &refused, status);
    let changes = WantedChanges { each, ..WantedChanges::default() };
    let generation = generation::next(stored);
    let retry = changes::assign(choice.retry(status), generation, stored, &choice, &changes);
    Ok(WantedRetry { retry: with_rules(retry, due), choice, advice: None })
}

/// The trials that are not retried: all that failed and are not due, and what somebody has cancelled.
fn refused(
    status: &Status,
    due: &BTreeMap<TrialKey, ChangedKeys>,
    requests: &[Request],
) -> BTreeMap<TrialKey, String> {
    let tasks = status.tasks.iter();
    let all = tasks.flat_map(|task| task.trials.iter().map(|trial| (&*task.name, trial)));
    let is_refused = |(task, trial): &(&str, &TrialStatus)| match trial.state {
        State::Failed | State::Timeout => !due.contains_key(&((*task).to_owned(), trial.index)),
        State::Blocked => requests::is_cancelled(requests, task, trial.index),
        // No rule is for it: `poll` submits it again by itself, once that is certain.
        State::Preempted => trial.is_dropped(),
        State::Running
        | State::Pending
        | State::Paused
        | State::Unknown
        | State::Completed
        | State::Cancelled => false,
    };
    let refused = all.filter(is_refused);
    refused.map(|(task, trial)| ((task.to_owned(), trial.index), String::new())).collect()
}

/// Says of each trial by which rule it is retried.
fn with_rules(retry: Retry, due: &[DueTrial<'_>]) -> Retry {
    let rules: BTreeMap<(&str, u32), &str> =
        due.iter().map(|it| ((it.0.0, it.0.1.index), it.1)).collect();
    let rule_of = |task: &str, trial: u32| rules.get(&(task, trial)).map(ToString::to_string);
    retry.divided(rule_of, |group, rule| RetriedTrials { rule, ..group })
}

fn reported(
    arrays: &[&Submitted<'_>],
    ((task, trial, class), ..): &DueTrial<'_>,
    retry: &Retry,
) -> RetriedByRule {
    let own = arrays.iter().find(|array| array.task == *task && array.trials.contains(trial.index));
    let job = own.map(|array| array.job_of(trial.index));
    let set = retry.changed(task, trial.index).map(|changed| &changed.set);
    let keys: Vec<String> =
        set.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    let with = if keys.is_empty() { String::new() } else { format!(", with {}", keys.join(" ")) };
    let why = format!("it failed: {}{with}", class.as_str());
    RetriedByRule { task: (*task).to_owned(), index: trial.index, job, why }
}
