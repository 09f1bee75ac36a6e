//! `show`: what an experiment is: its configuration, its code, its notes and generations, and where its files are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use nemo_core::lines;
use nemo_core::rundir::{Note, TrialLine, notes};
use serde_json::{Value, json};

use super::note::note_json;
use super::retry::changes::TrialConfigs;
use super::status::look_by;
use super::{App, notices};
use crate::annotations::{Annotations, NoteChange};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{ChangedKeys, Experiment, Outside, ResolvedConfig, Task};
use crate::git::GitState;
use crate::journal::{self, Event, Retry};
use crate::observe::Depth;
use crate::package::{self, UncommittedChanges};
use crate::plan::Plan;
use crate::query::SlurmSource;
use crate::report::{Page, Shown, ShownChange, ShownGeneration, out, out_json, say, show_text};
use crate::results::trial_config;
use crate::store::{ConfigFile, Stored, Target};
use crate::summary::{self, ExperimentRow};

/// `show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm show             # the newest\n  nemo-slurm show digits/train/3\n  \
    nemo-slurm show @ --json | jq '.config, .git'"
)]
pub struct ShowArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows what an experiment is.
pub(super) fn show(app: &App, args: &ShowArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let known = notes::read_all(&stored.dir).at("read", &stored.dir.notes())?;
    let mut warnings: Vec<String> = known
        .damaged
        .iter()
        .map(|path| format!("the note `{}` is damaged and ignored", path.display()))
        .collect();
    let config = ConfigFile::read(&stored.dir).unwrap_or_else(|error| {
        warnings.push(CommandError::from(error).one_line());
        ConfigFile::default()
    });
    let mut annotations = Annotations::of_file(&stored.experiment);
    let notes: Vec<(Note, NoteChange)> = known
        .whole
        .into_iter()
        .map(|(_, note)| {
            let change = annotations.apply(&note);
            (note, change)
        })
        .collect();
    warnings.extend(notices::failures(&stored)?);
    let row = row(app, &stored)?;
    let generations = generations(&stored);
    let configs = TrialConfigs::new(&stored, &config.resolved);
    let trials = trials(&stored, &target, &configs, &mut warnings);
    let package = package::of(&stored.dir);
    let (keys, is_shipped) = (&stored.experiment.package, package.is_some());
    let shown = Shown {
        row: &row,
        package: package.as_ref(),
        changes: UncommittedChanges::of(config.git.as_ref(), keys, is_shipped),
        config: &config,
        resolved: trials.common.as_ref().unwrap_or(&config.resolved),
        annotations: &annotations,
        notes: &notes,
        generations: &generations,
        trials: &trials.shown,
        dir: &stored.dir.0,
    };
    if args.json {
        let mut value = to_json(&shown, &warnings);
        value["parents"] = parents(&stored.experiment).collect();
        value["notifications"] = notices::sent_json(&stored)?;
        return out_json(&value);
    }
    out(&show_text(&shown, &Page::here(clock::now())))?;
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    Ok(ExitCode::Fine)
}

/// What the last look found. Only where nobody has looked yet the folders are read; Slurm is not asked.
fn row(app: &App, stored: &Stored) -> Result<ExperimentRow, CommandError> {
    match summary::read(&stored.dir) {
        Some(summary) => Ok(summary.row),
        None => {
            look_by(app, stored, SlurmSource::Nobody, Depth::Open).map(|(_, summary)| summary.row)
        }
    }
}

/// The trials that a target names.
#[derive(Debug, Default)]
struct NamedTrials {
    shown: Vec<Value>,
    /// The configuration that all of them run with.
    common: Option<ResolvedConfig>,
}

/// The trials that a target names, with their parameters, folders and configurations.
fn trials(
    stored: &Stored,
    target: &Target,
    configs: &TrialConfigs<'_>,
    warnings: &mut Vec<String>,
) -> NamedTrials {
    let (Some(task), Some(_)) = (&target.scope.task, &target.scope.trials) else {
        return NamedTrials::default();
    };
    let dir = stored.dir.task(task);
    let path = dir.trial_lines();
    let mut found: Vec<TrialLine> = Vec::new();
    let read = lines::each(&path, |line| {
        let line = nemo_core::checksum::from_slice::<TrialLine>(line.text).ok();
        found.extend(line.filter(|line| target.scope.covers_trial(line.trial)));
        Ok(())
    });
    if let Err(error) = read {
        warnings.push(format!("can't read `{}`: {error}", path.display()));
    }
    // Many trials run alike.
    let mut known: Vec<(Option<&ChangedKeys>, ResolvedConfig)> = Vec::new();
    let mut shown = Vec::new();
    for line in found {
        let set = configs.set(task, line.trial);
        let place = known.iter().position(|(keys, _)| *keys == set).unwrap_or_else(|| {
            let config = configs.of(task, line.trial).unwrap_or_else(|error| {
                warnings.push(error.one_line());
                Cow::Owned(ResolvedConfig::default())
            });
            known.push((set, config.into_owned()));
            known.len() - 1
        });
        shown.push(json!({
            "task": task,
            "trial": line.trial,
            "params": line.params,
            "generation": configs.generation(task, line.trial),
            "set": set.cloned().unwrap_or_default(),
            "config": trial_config(&known[place].1, task, Some(&line.params), Some(task)).config,
            "dir": dir.trial(line.trial).path().to_string_lossy(),
        }));
    }
    let common = if known.len() == 1 { known.pop() } else { None };
    let common = common.map(|(_, config)| config).filter(|config| !config.config.is_null());
    NamedTrials { shown, common }
}

/// The submissions of trials, the first one included.
fn generations(stored: &Stored) -> Vec<ShownGeneration> {
    let Stored { experiment, journal, .. } = stored;
    if stored.is_wrapped() {
        return wrapped_jobs(journal);
    }
    let mut generations: Vec<ShownGeneration> = Vec::new();
    let (mut first, mut begun) = (None, None);
    let refused = journal::refused_generations(journal);
    for (at, event) in journal.iter().enumerate() {
        match event {
            Event::Submitter { time, .. } => {
                first = first.or(Some(*time));
                begun = Some(*time);
            }
            Event::Planned { plan, retry } => {
                // On the local executor only what is retried is planned.
                if plan.generation > 0 && generations.is_empty() {
                    generations.push(ShownGeneration::new(0, first, experiment.n_trials()));
                }
                let planned = || plan.arrays.iter().map(|array| array.trials.count()).sum();
                let trials = retry.as_ref().map_or_else(planned, Retry::count);
                let mut shown = ShownGeneration::new(generations.len(), begun, trials);
                shown.refused = refused.contains(&plan.generation);
                if plan.generation > 0 {
                    shown.why = why_later(experiment, &journal[..at], plan);
                }
                if let Some(retry) = retry {
                    shown.why = "retry";
                    shown.user.clone_from(&retry.user);
                    shown.rules = rules(retry);
                    let changes = journal::setting_changes(journal, at).into_iter();
                    shown.changes = changes.map(ShownChange::from).collect();
                }
                generations.push(shown);
            }
            Event::Submitted { slurm_job, .. } => {
                if let Some(last) = generations.last_mut() {
                    last.jobs.push(slurm_job.to_string());
                }
            }
            _ => {}
        }
    }
    if generations.is_empty() {
        generations.push(ShownGeneration::new(0, begun, experiment.n_trials()));
    }
    generations
}

/// What a later generation is for that nobody has asked for. `before` is the journal until then.
fn why_later(experiment: &Experiment, before: &[Event], plan: &Plan) -> &'static str {
    let tasks = experiment.tasks.iter();
    let own: Vec<&Task> =
        tasks.filter(|task| plan.arrays.iter().any(|it| it.task == task.name)).collect();
    let is_new = |task: &&Task| {
        let new = journal::unplanned(before, task);
        let mut arrays = plan.arrays.iter().filter(|it| it.task == task.name);
        arrays.any(|it| it.trials.iter().any(|trial| new.contains(trial)))
    };
    if !own.iter().any(is_new) {
        "resubmit"
    } else if own.iter().any(|task| waited_elsewhere(experiment, before, task)) {
        "later"
    } else {
        "window"
    }
}

/// Whether a task waited for this machine, or its experiment for another one, before any of it was submitted.
fn waited_elsewhere(experiment: &Experiment, before: &[Event], task: &Task) -> bool {
    let waits_outside = task.after.is_empty() && !experiment.after.is_empty();
    let is_first = || journal::planned_arrays(before).all(|array| array.task != task.name);
    waits_elsewhere(experiment, task) || waits_outside && is_first()
}

/// Whether a task waits for one of this machine, however many others are between them.
fn waits_elsewhere(experiment: &Experiment, task: &Task) -> bool {
    let is_elsewhere = |name: &str| {
        let mut tasks = experiment.tasks.iter().filter(|it| it.name == name);
        tasks.any(|it| experiment.is_local(it) || waits_elsewhere(experiment, it))
    };
    task.after.iter().any(|dependency| is_elsewhere(&dependency.task))
}

/// The rules of the file by which trials are retried.
fn rules(retry: &Retry) -> Vec<String> {
    let groups = retry.trials.values().flatten();
    groups.filter_map(|group| group.rule.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The jobs of a wrapped script, each submitted by somebody: in one `--dir` one follows another.
fn wrapped_jobs(journal: &[Event]) -> Vec<ShownGeneration> {
    let jobs = journal::submitted_arrays(journal).into_iter().enumerate();
    jobs.map(|(number, array)| {
        let shown = ShownGeneration::new(number, Some(array.time), array.trials.count());
        ShownGeneration { jobs: vec![array.job.to_string()], ..shown }
    })
    .collect()
}

/// The ids of the experiments that it waits for.
fn parents(experiment: &Experiment) -> impl Iterator<Item = Value> + '_ {
    experiment.after.iter().filter_map(|dependency| match &dependency.of {
        Outside::Experiment(id) => Some(Value::from(id.as_str())),
        Outside::SlurmJob(_) => None,
    })
}

/// The state of the code, and what became of changes that were not committed; null where there were none.
fn git_json(git: &GitState, changes: Option<UncommittedChanges>) -> Value {
    let mut value = json!(git);
    value["changes"] = json!(changes);
    value
}

fn to_json(shown: &Shown<'_>, warnings: &[String]) -> Value {
    let Shown { row, config, package, annotations, notes, generations, trials, dir, .. } = shown;
    let path = |name: &str| Path::new(dir).join(name).to_string_lossy().into_owned();
    let notes: Vec<Value> = notes.iter().map(|(note, change)| note_json(note, change)).collect();
    let has_config = !config.resolved.config.is_null();
    json!({
        "schema": 1,
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "state": row.state,
        "created": row.created,
        "ended": row.ended,
        "as_of": row.as_of,
        "config": config.resolved.config,
        "origin": config.resolved.origin,
        "config_hash": has_config.then(|| config.resolved.hash()),
        "git": config.git.as_ref().map(|git| git_json(git, shown.changes)),
        "package": package.map(|own| json!({ "hash": own.hash, "bytes": own.bytes, "files": own.files, "dir": own.dir })),
        "tags": annotations.tags,
        "description": annotations.description,
        "metadata": annotations.metadata,
        "archived": annotations.archived,
        "notes": notes,
        "generations": generations,
        "trials": trials,
        "dir": dir.to_string_lossy(),
        "files": {
            "submitted": path("experiment.toml"),
            "resolved": path("config.json"),
            "journal": path("journal.jsonl"),
            "notes": path("notes"),
            "tasks": path("tasks"),
        },
        "warnings": warnings,
    })
}
