//! `explain`: why trials wait, when Slurm expects them to start, and what would start them sooner.

mod changes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use self::changes::KeyChange;
use super::App;
use super::retry::changes::changed_experiment;
use super::status::sources;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::experiment::{Executor, SlurmExecutor, Task};
use crate::journal;
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::remembered;
use crate::report::{Explained, Page, Sooner, explain_text, out, out_json, say};
use crate::slurm::parse::forecast::ForecastRow;
use crate::slurm::{JobId, JobPhase, QueueRow, ShownId, SlurmError, Tasks, UnixTime};
use crate::status::{State, Status, TrialStatus, join};
use crate::store::{Stored, Target};

/// How many times `sbatch --test-only` is asked at most: each is a question to the scheduler itself.
const MAX_QUESTIONS: usize = 10;

/// `explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Slurm is asked when it expects the trials to start, and with `sbatch --test-only`, at most 10 times, when they \
    would start on another partition, with a shorter time or on fewer nodes. Nothing is submitted or changed.\n\n\
    Examples:\n  nemo-slurm explain            # the newest\n  nemo-slurm explain digits/train/3"
)]
pub struct ExplainArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Trials of a task that wait in the same array for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WaitingKey {
    task: String,
    state: State,
    job: Option<JobId>,
    /// Slurm's word.
    reason: Option<String>,
    meaning: String,
    start: Option<UnixTime>,
}

/// The trials of each group, with Slurm's ids.
type WaitingGroups = BTreeMap<WaitingKey, Vec<(u32, Option<String>)>>;

/// Explains what waits.
pub(super) fn explain(app: &App, args: &ExplainArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find_silently(&args.target)?;
    let app = &app.on_cluster_of(&stored);
    let sources = sources(app, &stored, SlurmSource::Slurm(&app.slurm), Depth::All)?;
    let status = join(&sources);
    remembered::keep(&stored, &status);
    for warning in &status.warnings {
        say(&format!("warning: {warning}"));
    }
    let slurm = SlurmWords::new(sources.queue.rows(), &forecasts(app, sources.queue.rows()));
    let mut groups = WaitingGroups::new();
    let tasks = stored.experiment.tasks.iter().zip(&status.tasks);
    for (task, its) in tasks.filter(|(task, _)| target.scope.covers_task(&task.name)) {
        let is_meant = |trial: &&TrialStatus| target.scope.covers_trial(trial.index);
        for trial in its.trials.iter().filter(is_meant).filter(|trial| waits(trial.state)) {
            let key = key(task, trial, &status, &slurm);
            groups.entry(key).or_default().push((trial.index, trial.slurm_job.clone()));
        }
    }
    let sooner = sooner(app, &stored, &groups);
    if args.json {
        return out_json(&to_json(&groups, &sooner));
    }
    if groups.is_empty() {
        return out(&format!("Nothing of {} waits.", target_text(&target)));
    }
    let groups: Vec<Explained> =
        groups.into_iter().zip(sooner).map(|(group, sooner)| explained(group, sooner)).collect();
    out(&explain_text(&groups, &Page::here(clock::now())))
}

fn target_text(target: &Target) -> String {
    format!("{}{}", target.id, target.scope)
}

/// Whether a trial in this state waits for something.
fn waits(state: State) -> bool {
    match state {
        State::Pending | State::Preempted | State::Paused | State::Blocked => true,
        State::Running
        | State::Unknown
        | State::Completed
        | State::Failed
        | State::Timeout
        | State::Cancelled => false,
    }
}

/// The expected starts of the jobs that wait; none if Slurm does not answer.
fn forecasts(app: &App, queue: &[QueueRow]) -> Vec<ForecastRow> {
    let jobs = waiting_jobs(queue);
    if jobs.is_empty() {
        return Vec::new();
    }
    app.slurm.forecasts(&jobs).map_or_else(
        |error| {
            say(&format!("warning: Slurm did not say when the jobs may start: {error}"));
            Vec::new()
        },
        |forecasts| forecasts.rows,
    )
}

/// The jobs that wait. For one job that Slurm no longer knows it would refuse the whole question.
fn waiting_jobs(queue: &[QueueRow]) -> Vec<JobId> {
    let waiting = queue.iter().filter(|row| row.state.phase_in_queue() == JobPhase::Waiting);
    waiting.map(|row| row.array_job).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What Slurm says of each task of an array.
struct SlurmWords {
    reasons: HashMap<(JobId, u32), Arc<str>>,
    starts: HashMap<(JobId, u32), UnixTime>,
}

impl SlurmWords {
    fn new(queue: &[QueueRow], forecasts: &[ForecastRow]) -> Self {
        let (mut reasons, mut starts) = (HashMap::new(), HashMap::new());
        for row in queue.iter().filter(|row| &*row.reason != "None") {
            let places = row.tasks.indices().map(|index| (row.array_job, index));
            reasons.extend(places.map(|place| (place, Arc::clone(&row.reason))));
        }
        for row in forecasts {
            let places = row.tasks.indices().map(|index| (row.array_job, index));
            starts.extend(places.filter_map(|place| Some((place, row.start?))));
        }
        Self { reasons, starts }
    }
}

/// Why a trial waits, and until when.
fn key(task: &Task, trial: &TrialStatus, status: &Status, slurm: &SlurmWords) -> WaitingKey {
    let place = trial.slurm_job.as_deref().and_then(array_task);
    let reason = place.and_then(|place| slurm.reasons.get(&place)).map(ToString::to_string);
    let start = place.and_then(|place| slurm.starts.get(&place)).copied();
    let start = start.filter(|_| is_in_line(trial.state));
    let meaning =
        trial.reason.clone().unwrap_or_else(|| unexplained(task, place.is_some(), status));
    let task = task.name.clone();
    let (state, job) = (trial.state, place.map(|(job, _)| job));
    WaitingKey { task, state, job, reason, meaning, start }
}

/// Whether Slurm will start it without a person's doing.
fn is_in_line(state: State) -> bool {
    matches!(state, State::Pending | State::Preempted)
}

/// What is known where neither Slurm nor a request gives a reason.
fn unexplained(task: &Task, is_on_slurm: bool, status: &Status) -> String {
    if is_on_slurm {
        return "Slurm has not said yet what it waits for; it looks at new jobs within a minute"
            .to_owned();
    }
    let is_open =
        |name: &str| status.tasks.iter().any(|it| it.name == name && !it.state.is_final());
    let parents = task.after.iter().map(|parent| parent.task.as_str());
    let open: Vec<String> =
        parents.filter(|name| is_open(name)).map(|name| format!("`{name}`")).collect();
    if open.is_empty() {
        "waits until the runner has room for it (`parallel` of its executor)".to_owned()
    } else {
        format!("waits for {}", open.join(", "))
    }
}

fn array_task(shown: &str) -> Option<(JobId, u32)> {
    let ShownId { job, tasks, .. } = shown.parse().ok()?;
    match tasks {
        Tasks::One(index) => Some((job, index)),
        Tasks::NotAnArray | Tasks::Set(_) | Tasks::Component(_) => None,
    }
}

/// What would start each group sooner, as far as the questions reach.
fn sooner(app: &App, stored: &Stored, groups: &WaitingGroups) -> Vec<Vec<Sooner>> {
    let mut left = MAX_QUESTIONS;
    let mut partitions = None;
    let of_group = |(key, trials): (&WaitingKey, &Vec<(u32, Option<String>)>)| {
        let first = trials.first().map_or(0, |(trial, _)| *trial);
        let Some((name, executor)) = slurm_executor(stored, key, first).filter(|_| left > 0) else {
            return Vec::new();
        };
        let known = partitions.get_or_insert_with(|| app.slurm.partitions().unwrap_or_default());
        let changes = changes::of((&name, &executor), known);
        try_out(app, stored, key, changes, &mut left)
    };
    groups.iter().map(of_group).collect()
}

/// The executor of a group that other resources could start sooner, as the last retry of its trials has changed it.
fn slurm_executor(
    stored: &Stored,
    key: &WaitingKey,
    trial: u32,
) -> Option<(String, SlurmExecutor)> {
    key.job.filter(|_| is_in_line(key.state))?;
    key.reason.as_deref().filter(|reason| waits_for_resources(reason))?;
    let retries = journal::last_retries(&stored.journal, &key.task);
    let set = retries.get(&trial).and_then(|retry| retry.changed).map(|changed| &changed.set);
    let experiment = changed_experiment(stored, &key.task, set).ok()?;
    let name = &experiment.tasks.iter().find(|task| task.name == key.task)?.executor;
    match experiment.executors.get(name)? {
        Executor::Slurm(executor) => Some((name.clone(), executor.clone())),
        Executor::Local(_) => None,
    }
}

/// Whether Slurm's reason is one that other resources may change. The others wait for a task, a person or a time.
fn waits_for_resources(reason: &str) -> bool {
    let others = ["Dependency", "DependencyNeverSatisfied", "BeginTime", "JobArrayTaskLimit"];
    !others.contains(&reason) && !reason.starts_with("JobHe") && !reason.contains("launch failed")
}

/// Asks when the group's script would start with each change. What Slurm refuses is left out.
fn try_out(
    app: &App,
    stored: &Stored,
    key: &WaitingKey,
    changes: Vec<KeyChange>,
    left: &mut usize,
) -> Vec<Sooner> {
    let arrays = journal::submitted_arrays(&stored.journal);
    let of_group = |array: &&journal::Submitted<'_>| Some(array.job) == key.job;
    let number = arrays.iter().find(of_group).and_then(|array| array.token.rsplit('.').next());
    let Some(number) = number.and_then(|number| number.parse().ok()) else { return Vec::new() };
    let script = stored.dir.task(&key.task).script(number);
    let one = "--array=0".to_owned(); // a single trial: the next to start
    let mut found = Vec::new();
    for change in changes {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let options: Vec<String> = change.options.iter().chain([&one]).cloned().collect();
        match app.slurm.test_only(&script, &options) {
            Ok(Some(start)) => {
                let KeyChange { text, update, warning, .. } = change;
                found.push(Sooner { change: text, update, start, warning });
            }
            Ok(None) | Err(SlurmError::Refused { .. }) => {}
            Err(error) => {
                say(&format!("warning: Slurm was not asked further: {error}"));
                *left = 0;
            }
        }
    }
    found
}

fn explained(
    (key, trials): (WaitingKey, Vec<(u32, Option<String>)>),
    sooner: Vec<Sooner>,
) -> Explained {
    let WaitingKey { task, state, job, reason, meaning, start } = key;
    let index = |(_, shown): &(u32, Option<String>)| Some(array_task(shown.as_deref()?)?.1);
    let indices: Vec<u32> = trials.iter().filter_map(index).collect();
    let trials = trials.into_iter().map(|(trial, _)| trial).collect();
    let is_in_line = is_in_line(state);
    Explained { task, trials, job, indices, is_in_line, reason, meaning, start, sooner }
}

fn to_json(groups: &WaitingGroups, sooner: &[Vec<Sooner>]) -> Value {
    let mut rows: Vec<(&str, u32, Value)> = Vec::new();
    for ((key, trials), sooner) in groups.iter().zip(sooner) {
        let tries: Vec<Value> = sooner
            .iter()
            .map(|it| json!({ "change": it.change, "expected_start": it.start.seconds(), "warning": it.warning }))
            .collect();
        for (trial, job) in trials {
            let row = json!({
                "task": key.task, "trial": trial, "slurm_job": job, "reason": key.reason,
                "meaning": key.meaning, "expected_start": key.start.map(UnixTime::seconds), "try": tries,
            });
            rows.push((&key.task, *trial, row));
        }
    }
    rows.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let trials: Vec<Value> = rows.into_iter().map(|(.., row)| row).collect();
    json!({ "schema": 1, "trials": trials })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::parse::queue;

    #[test]
    fn slurm_is_asked_for_starts_of_what_waits_alone() {
        let rows = queue::parse(
            b"7_[3-9]\x1fPENDING\x1f1700000000\x1f0\x1fResources\x1f\n7_1\x1fRUNNING\x1f1700000000\x1f0\x1fNone\x1f\n\
            8_0\x1fCOMPLETED\x1f1700000000\x1f0\x1fNone\x1f\n9\x1fPENDING\x1f1700000000\x1f0\x1fPriority\x1f\n",
        );
        assert_eq!(rows.rows.len(), 4, "{:?}", rows.unread);
        assert_eq!(waiting_jobs(&rows.rows), [JobId(7), JobId(9)]);
    }
}
