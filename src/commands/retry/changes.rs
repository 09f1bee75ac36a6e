//! What a retry changes of its trials: keys of their executor, of `restart` and of `checkpoint`, and where they begin. Each
//! way to run has a file of its own beside `task.json`; the trials that were submitted before keep theirs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nemo_core::rundir::{PollSpec, RestartFrom, TaskSpec};
use nemo_core::{checksum, durable, open};

use super::choice::Choice;
use crate::clock;
use crate::commands::control::TrialKey;
use crate::commands::{App, cluster};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::spec::{SubmitContext, changed_spec};
use crate::experiment::{
    self, ChangedKeys, Executor, Experiment, Override, ResolvedConfig, RetryChange,
};
use crate::journal::{self, Changed, LastRetry, RetriedTrials, Retry};
use crate::status::{State, Status};
use crate::store::{self, ConfigFile, StoreError, Stored};

/// What is asked for on the command line.
#[derive(Debug, Default)]
pub(super) struct WantedChanges {
    /// Of all that is retried.
    pub(super) all: Vec<RetryChange>,
    /// Of single trials.
    pub(super) each: BTreeMap<TrialKey, ChangedKeys>,
    pub(super) start: Option<StartPoint>,
    /// The end of the experiment's time, where it begins anew.
    pub(super) deadline: Option<u64>,
}

/// Where the retried trials begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartPoint {
    Start,
    Step(u64),
}

impl StartPoint {
    pub(super) fn step(self) -> Option<u64> {
        match self {
            Self::Start => None,
            Self::Step(step) => Some(step),
        }
    }
}

/// Reads `--set KEY=VALUE`.
pub(super) fn parse(
    given: &[Override],
    experiment: &Experiment,
) -> Result<Vec<RetryChange>, CommandError> {
    let one = |given| {
        RetryChange::new(given, experiment).map_err(|error| {
            CommandError::new(ExitCode::Usage, error.to_string()).hinted(error.hint)
        })
    };
    given.iter().map(one).collect()
}

/// The retry with what changes of each of its trials. What an earlier retry has changed still holds.
pub(super) fn assign(
    retry: Retry,
    generation: u32,
    stored: &Stored,
    choice: &Choice,
    wanted: &WantedChanges,
) -> Retry {
    let of_task = |(name, groups): (String, Vec<RetriedTrials>)| {
        let earlier = journal::last_retries(&stored.journal, &name);
        let way = |trial: u32| {
            let changed = earlier.get(&trial).and_then(|retry| retry.changed);
            way(&name, (trial, changed), generation, stored, choice, wanted)
        };
        let groups = split(groups, generation, way);
        (name, groups)
    };
    Retry { trials: retry.trials.into_iter().map(of_task).collect(), ..retry }
}

/// How a trial runs: the changed keys, where it begins, and when it must be over.
type Way = (ChangedKeys, Option<RestartFrom>, Option<u64>);

/// The end of the experiment's time, begun anew, where it was over: what is retried would else end at once.
pub(super) fn new_deadline(stored: &Stored, status: &Status) -> Option<u64> {
    // A trial is ended a moment before that time.
    let mut trials = status.tasks.iter().flat_map(|task| &task.trials);
    let is_over = is_out_of_time(stored) || trials.any(|trial| trial.state == State::Timeout);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let now = clock::now() as u64;
    stored.experiment.timeout.filter(|_| is_over).map(|timeout| now + timeout)
}

/// Whether the time that the whole experiment may take is over.
#[expect(clippy::cast_precision_loss, reason = "unix seconds")]
pub(super) fn is_out_of_time(stored: &Stored) -> bool {
    let began = journal::began(&stored.journal);
    let end = began.zip(stored.experiment.timeout).map(|(began, timeout)| began + timeout as f64);
    end.is_some_and(|end| end <= clock::now())
}

/// How a trial runs that earlier retries have so changed.
fn way(
    name: &str,
    (trial, changed): (u32, Option<&Changed>),
    generation: u32,
    stored: &Stored,
    choice: &Choice,
    wanted: &WantedChanges,
) -> Way {
    let mut keys = changed.map(|changed| changed.set.clone()).unwrap_or_default();
    if !choice.is_wanted(name, trial) {
        return (keys, None, wanted.deadline);
    }
    if let Some(task) = stored.experiment.tasks.iter().find(|task| task.name == name) {
        // What a person asks for counts more than what is advised.
        keys.extend(wanted.each.get(&(name.to_owned(), trial)).cloned().unwrap_or_default());
        wanted.all.iter().filter(|it| it.covers(task)).for_each(|it| it.add_to(&mut keys));
    }
    let start = wanted.start.map(|start| RestartFrom { generation, step: start.step() });
    (keys, start, wanted.deadline)
}

/// Divides groups of trials further, by how they run.
fn split(
    groups: Vec<RetriedTrials>,
    generation: u32,
    way: impl Fn(u32) -> Way,
) -> Vec<RetriedTrials> {
    let mut known: Vec<Way> = Vec::new();
    let mut parts = Vec::new();
    for group in groups {
        let mut by_way: BTreeMap<Option<usize>, Vec<u32>> = BTreeMap::new();
        for trial in group.trials.iter() {
            let way = way(trial);
            let is_plain = way.0.is_empty() && way.1.is_none() && way.2.is_none();
            let place = known.iter().position(|other| *other == way);
            let place = (!is_plain).then(|| {
                place.unwrap_or_else(|| {
                    known.push(way);
                    known.len() - 1
                })
            });
            by_way.entry(place).or_default().push(trial);
        }
        for (place, trials) in by_way {
            let trials = trials.into_iter().collect();
            let changed = place.map(|place| changed(generation, place, &known[place]));
            parts.push(RetriedTrials { trials, changed, ..group.clone() });
        }
    }
    parts
}

fn changed(generation: u32, place: usize, (set, restart_from, deadline): &Way) -> Changed {
    let spec = format!("task.{generation}.{place}.json");
    Changed { spec, set: set.clone(), restart_from: *restart_from, deadline: *deadline }
}

/// The experiment as it is for the trials of a task with these changed keys.
pub(in crate::commands) fn changed_experiment<'a>(
    stored: &'a Stored,
    task: &str,
    set: Option<&ChangedKeys>,
) -> Result<Cow<'a, Experiment>, CommandError> {
    let Some(set) = set.filter(|set| !set.is_empty()) else {
        return Ok(Cow::Borrowed(&stored.experiment));
    };
    let config = ConfigFile::read(&stored.dir)?.resolved;
    Ok(Cow::Owned(experiment::changed(&stored.experiment, &config, task, set)?))
}

/// The configuration that trials run with: that of the submission, with what retries have changed of each.
#[derive(Debug)]
pub(in crate::commands) struct TrialConfigs<'a> {
    stored: &'a Stored,
    submitted: &'a ResolvedConfig,
    retries: BTreeMap<&'a str, BTreeMap<u32, LastRetry<'a>>>,
}

impl<'a> TrialConfigs<'a> {
    pub(in crate::commands) fn new(stored: &'a Stored, submitted: &'a ResolvedConfig) -> Self {
        let tasks = stored.experiment.tasks.iter().map(|task| task.name.as_str());
        let retries = tasks.map(|task| (task, journal::last_retries(&stored.journal, task)));
        Self { stored, submitted, retries: retries.collect() }
    }

    /// The generation that submitted a trial last.
    pub(in crate::commands) fn generation(&self, task: &str, trial: u32) -> u32 {
        self.retry(task, trial).map_or(0, |retry| retry.generation)
    }

    /// The keys that retries have changed of a trial.
    pub(in crate::commands) fn set(&self, task: &str, trial: u32) -> Option<&'a ChangedKeys> {
        let changed = self.retry(task, trial)?.changed?;
        Some(&changed.set).filter(|set| !set.is_empty())
    }

    /// The configuration of its last generation.
    pub(in crate::commands) fn of(
        &self,
        task: &str,
        trial: u32,
    ) -> Result<Cow<'a, ResolvedConfig>, CommandError> {
        let Some(set) = self.set(task, trial) else { return Ok(Cow::Borrowed(self.submitted)) };
        let experiment = &self.stored.experiment;
        Ok(Cow::Owned(experiment::changed_config(experiment, self.submitted, task, set)?))
    }

    fn retry(&self, task: &str, trial: u32) -> Option<&LastRetry<'a>> {
        self.retries.get(task)?.get(&trial)
    }
}

/// Fails where a changed key has a value that can't be.
pub(super) fn check(stored: &Stored, retry: &Retry) -> Result<(), CommandError> {
    for (task, changed) in all(retry) {
        changed_experiment(stored, task, Some(&changed.set))?;
    }
    Ok(())
}

/// Each way to run, once.
fn all(retry: &Retry) -> Vec<(&str, &Changed)> {
    let mut all = Vec::new();
    for (task, groups) in &retry.trials {
        for changed in groups.iter().filter_map(|group| group.changed.as_ref()) {
            if !all.contains(&(task.as_str(), changed)) {
                all.push((task.as_str(), changed));
            }
        }
    }
    all
}

/// Writes how the changed trials run. Nobody reads that before the journal names it.
pub(super) fn write(app: &App, stored: &Stored, retry: &Retry) -> Result<(), CommandError> {
    for (task, changed) in all(retry) {
        let dir = stored.dir.task(task);
        let spec = spec(app, stored, task, changed)?;
        let path = dir.0.join(&changed.spec);
        let text = checksum::to_vec_pretty(&spec)
            .map_err(|source| StoreError::NotJson { path: path.clone(), source })?;
        durable::replace_file_durably(&path, &text).at("write", &path)?;
    }
    Ok(())
}

fn spec(
    app: &App,
    stored: &Stored,
    name: &str,
    changed: &Changed,
) -> Result<TaskSpec, CommandError> {
    let path = stored.dir.task(name).spec();
    let text = open::read(&path).at("read", &path)?;
    let before: TaskSpec = checksum::from_slice(&text)
        .map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
    let experiment = changed_experiment(stored, name, Some(&changed.set))?;
    let Some(task) = experiment.tasks.iter().find(|task| task.name == name) else {
        return Ok(before);
    };
    let is_on_slurm = matches!(experiment.executors.get(&task.executor), Some(Executor::Slurm(_)));
    let cluster = is_on_slurm.then(|| cluster::facts_or_similar(app, experiment.cluster()));
    let cluster = cluster.transpose()?;
    let around = SubmitContext {
        id: stored.id.as_str(),
        dir: &stored.dir,
        experiment: &experiment,
        graph: experiment.graph(),
        now: 0,
        cluster: cluster.as_ref(),
        has_more: false,
        is_shipped: false,
        programs: None,
    };
    let mut spec = changed_spec(before, task, &around);
    spec.restart_from = changed.restart_from;
    spec.deadline = changed.deadline.or(spec.deadline);
    // The harness that the experiment was submitted with may know nothing of such a file. One that was submitted with this
    // very program does: a job's `poll` runs it from the home, where no other harness lies beside it.
    let is_this = |programs: &PollSpec| programs.program.file_name() == app.program.file_name();
    if let Some(programs) = spec.poll.as_mut().filter(|programs| !is_this(programs)) {
        programs.harness = store::install_program(&app.home, store::HARNESS_NAME, &app.harness()?)?;
    }
    Ok(spec)
}
