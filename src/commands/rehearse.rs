//! `rehearse`: interrupts a trial in every way before anything is submitted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nemo_core::rundir::ExperimentDir;

use super::{App, build, check, cluster, kept_environment, paths, prepare};
use crate::cli::FileArgs;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{Executor, Experiment, Loaded, LocalExecutor, Task};
use crate::humanize::{count, duration};
use crate::package;
use crate::rehearse::findings::is_safe;
use crate::rehearse::folder::RehearsalFolder;
use crate::rehearse::local::{Interrupt, RunContext, RunError, RunProgress};
use crate::rehearse::rehearser::{RehearsalOptions, RehearsalOutcome, RehearseError, Rehearser};
use crate::rehearse::scenarios::{RehearseOn, ScenarioKind};
use crate::report::{out, out_json, rehearsal_json, rehearsal_text, say};
use crate::store::Home;

/// `rehearse`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1: the program is not safe to interrupt. The report says what is wrong and what to change.\n\n\
    Examples:\n  nemo-slurm rehearse exp.toml train\n  \
    nemo-slurm rehearse exp.toml train --set task.train.params.steps=200 --time-limit 10m\n  \
    nemo-slurm rehearse exp.toml train --only killed --seed 7 --keep rehearsal\n  \
    nemo-slurm rehearse exp.toml train --executor cluster    # on Slurm"
)]
pub struct RehearseArgs {
    /// What to rehearse.
    #[command(flatten)]
    pub file: FileArgs,
    /// Task to rehearse; may be left out if the file has only one
    pub task: Option<String>,
    /// Index of the trial
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub trial: u32,
    /// Seed that decides when the interruptions happen
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How often the preempted run is interrupted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub interruptions: u32,
    /// Run only these scenarios; the undisturbed runs always run
    #[arg(long, value_name = "SCENARIO", value_enum, value_delimiter = ',')]
    pub only: Vec<ScenarioKind>,
    /// Time limit of the whole rehearsal, as in `10m`; scenarios that do not fit are skipped and listed
    #[arg(long, value_name = "TIME", value_parser = nemo_core::duration::option)]
    pub time_limit: Option<std::time::Duration>,
    /// Keep the files of every run in this folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}

/// Rehearses a trial of a task.
pub(super) fn rehearse(app: &App, args: &RehearseArgs) -> Result<ExitCode, CommandError> {
    let loaded = check::load(&args.file).map_err(|error| forgotten(error, args))?;
    let (toml, Loaded { mut experiment, params, .. }) = loaded;
    let name = task(&experiment, args)?.name.clone();
    let place = if args.file.executor.is_some() && prepare::is_on_slurm(&experiment) {
        RehearseOn::Slurm
    } else {
        RehearseOn::Local
    };
    cluster::choose(app, &mut experiment)?;
    paths::check_home(app, place == RehearseOn::Slurm)?;
    let environment = kept_environment::gather(app, &experiment)?;
    if place == RehearseOn::Local {
        run_here(&mut experiment);
    }
    kinds_fit(&args.only, place)?;
    let task = task(&experiment, args)?;
    let cluster = if place == RehearseOn::Slurm {
        Some(cluster::facts(app, experiment.cluster())?)
    } else {
        None
    };
    let ground = Workdir::new(app, args)?;
    let home = Home::new(ground.path.clone());
    let harness = build::install_harness(app, &home)?;
    let shipped = package::ship_for_rehearsal(&home, &experiment)?;
    if let Some(shipped) = &shipped {
        say(&format!("Each run has a working folder of its own: {}.", shipped.summary));
    }
    let folder = RehearsalFolder {
        home,
        harness,
        toml: &toml,
        experiment: &experiment,
        params: &params,
        task,
        trial: args.trial,
        cluster: cluster.as_ref(),
        environment,
        shipped,
    };
    let outcome = carry_out(app, args, &folder, place)?;
    let kept = args.keep.as_ref().map(|_| ground.path.display().to_string());
    if args.file.json {
        out_json(&rehearsal_json(&outcome, args.trial, args.seed, kept.as_deref()))?;
    } else {
        out(&rehearsal_text(&outcome))?;
        if let Some(kept) = kept {
            say(&format!("The runs of `{name}` are in {kept}/experiments"));
        }
    }
    Ok(if is_safe(&outcome.findings) { ExitCode::Fine } else { ExitCode::Failed })
}

fn carry_out(
    app: &App,
    args: &RehearseArgs,
    folder: &RehearsalFolder<'_>,
    place: RehearseOn,
) -> Result<RehearsalOutcome, CommandError> {
    let interrupt = Interrupt::listen().at("listen for signals in", Path::new("this process"))?;
    let screen = RehearsalProgress::new();
    let stage = RunContext {
        harness: &folder.harness,
        interrupt: &interrupt,
        deadline: args.time_limit.map(|limit| clock::now() + limit.as_secs_f64()),
        show: &|progress| screen.progress(progress),
    };
    let options = RehearsalOptions {
        seed: args.seed,
        interruptions: args.interruptions,
        only: args.only.clone(),
        place,
    };
    let announce = |name: &str, number, known, last| screen.announce(name, number, known, last);
    let slurm = app.slurm.on_cluster(folder.experiment.cluster());
    let slurm = (place == RehearseOn::Slurm).then_some(&slurm);
    let director =
        Rehearser { folder, stage: &stage, options: &options, announce: &announce, slurm };
    let outcome = director.rehearse();
    screen.clear();
    outcome.map_err(|error| rehearse_error(error, args))
}

fn rehearse_error(error: RehearseError, args: &RehearseArgs) -> CommandError {
    match error {
        RehearseError::Store(error) => error.into(),
        RehearseError::Run(RunError::Slurm(error)) => error.into(),
        RehearseError::Run(RunError::OutOfTime) => {
            let text = "the time limit ended before one undisturbed run did";
            CommandError::new(ExitCode::Failed, text)
                .hinted("make the training shorter with `--set`, or the limit longer")
        }
        error @ RehearseError::Upstream { .. } if args.keep.is_none() => {
            CommandError::from_error(ExitCode::Failed, error)
                .hinted("`--keep FOLDER` keeps its logs")
        }
        error => CommandError::from_error(ExitCode::Failed, error),
    }
}

/// Where the file was left out and a task stands in its place, what to type instead.
fn forgotten(error: CommandError, args: &RehearseArgs) -> CommandError {
    let (Some(name), None) = (args.file.file.to_str(), &args.task) else { return error };
    if args.file.file.exists() {
        return error;
    }
    let (set, executor) = (args.file.set.clone(), args.file.executor.clone());
    let file = FileArgs { file: PathBuf::from("exp.toml"), set, executor, json: false };
    let Ok((_, Loaded { experiment: meant, .. })) = check::load(&file) else { return error };
    if meant.tasks.iter().all(|task| task.name != name) {
        return error;
    }
    CommandError { hints: Vec::new(), ..error }
        .hinted(format!("`nemo-slurm rehearse exp.toml {name}`"))
}

/// The task that is meant.
fn task<'a>(experiment: &'a Experiment, args: &RehearseArgs) -> Result<&'a Task, CommandError> {
    let names: Vec<String> =
        experiment.tasks.iter().map(|task| format!("`{}`", task.name)).collect();
    let names = names.join(", ");
    let task = match (&args.task, experiment.tasks.as_slice()) {
        (None, [only]) => only,
        (None, _) => {
            let text = format!("the file has several tasks: {names}");
            let last = experiment.tasks.iter().max_by_key(|task| task.n_trials);
            let name = last.map_or("train", |task| task.name.as_str());
            return Err(CommandError::new(ExitCode::Usage, text)
                .hinted(format!("`nemo-slurm rehearse {} {name}`", args.file.file.display())));
        }
        (Some(wanted), tasks) => {
            tasks.iter().find(|task| task.name == *wanted).ok_or_else(|| {
                let text = format!("the experiment has no task `{wanted}`");
                CommandError::new(ExitCode::NotFound, text).hinted(format!("its tasks are {names}"))
            })?
        }
    };
    if args.trial < task.n_trials {
        return Ok(task);
    }
    let text = format!("task `{}` has no trial {}", task.name, args.trial);
    let last = task.n_trials - 1;
    Err(CommandError::new(ExitCode::NotFound, text).hinted(format!("its trials are 0 to {last}")))
}

/// What Slurm would run is run here, in the same environment.
fn run_here(experiment: &mut Experiment) {
    let executors: BTreeMap<String, Executor> =
        experiment.executors.iter().map(|(name, own)| (name.clone(), as_local(own))).collect();
    experiment.executors = executors;
}

/// The local executor with the environment of this one.
fn as_local(executor: &Executor) -> Executor {
    match executor {
        Executor::Local(local) => Executor::Local(local.clone()),
        Executor::Slurm(slurm) => Executor::Local(LocalExecutor {
            parallel: None,
            gpus_per_trial: None,
            time: None,
            budget: None,
            surroundings: slurm.surroundings.clone(),
        }),
    }
}

/// Not every disturbance is for every place.
fn kinds_fit(only: &[ScenarioKind], place: RehearseOn) -> Result<(), CommandError> {
    let Some(kind) = only.iter().find(|kind| !is_possible(**kind, place)) else { return Ok(()) };
    let (where_not, scenarios) = match place {
        RehearseOn::Local => {
            ("on this machine", "preempted, killed, time-limit, node-lost, terminated")
        }
        RehearseOn::Slurm => ("on Slurm", "preempted, requeued"),
    };
    let text = format!("`{}` can't be rehearsed {where_not}", kind.as_str());
    Err(CommandError::new(ExitCode::Usage, text)
        .hinted(format!("`--only` takes {scenarios} there")))
}

fn is_possible(kind: ScenarioKind, place: RehearseOn) -> bool {
    match kind {
        ScenarioKind::Preempted | ScenarioKind::Undisturbed | ScenarioKind::LongNotice => true,
        ScenarioKind::Requeued => place == RehearseOn::Slurm,
        ScenarioKind::Killed
        | ScenarioKind::TimeLimit
        | ScenarioKind::NodeLost
        | ScenarioKind::Terminated => place == RehearseOn::Local,
    }
}

/// Where the runs lie: removed at the end, unless it is to be kept.
struct Workdir {
    path: PathBuf,
    is_kept: bool,
}

impl Workdir {
    /// Beside the user's experiments, since there the disk is that of real runs, and compute nodes see it.
    fn new(app: &App, args: &RehearseArgs) -> Result<Self, CommandError> {
        if let Some(keep) = &args.keep {
            let path = std::path::absolute(keep).at("find", keep)?;
            if path.join("experiments").exists() {
                let text = format!("`{}` holds a rehearsal already", keep.display());
                return Err(CommandError::new(ExitCode::Refused, text)
                    .hinted("name another folder, or remove that one"));
            }
            return Ok(Self { path, is_kept: true });
        }
        let parent = app.home.path().join("rehearsals");
        nemo_core::durable::create_dir_all(&parent).at("make", &parent)?;
        let path = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&parent)
            .at("make a folder in", &parent)?
            .keep();
        Ok(Self { path, is_kept: false })
    }
}

impl Workdir {
    /// What is kept is looked at, not run again.
    fn forget_secrets(&self) {
        let experiments = std::fs::read_dir(self.path.join("experiments"));
        for folder in experiments.into_iter().flatten().flatten() {
            drop(std::fs::remove_file(ExperimentDir(folder.path()).secrets())); // most have none
        }
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        self.forget_secrets();
        if !self.is_kept {
            package::unprotect(&self.path);
        }
        if !self.is_kept && std::fs::remove_dir_all(&self.path).is_err() {
            say(&format!("warning: `{}` could not be removed", self.path.display()));
        }
        // Only when nobody else rehearses.
        if let Some(parent) = self.path.parent().filter(|_| !self.is_kept) {
            drop(std::fs::remove_dir(parent));
        }
    }
}

/// What is shown while it lasts: a line on a terminal, else a line for each run.
struct RehearsalProgress {
    bar: Option<ProgressBar>,
    current: RefCell<Current>,
}

#[derive(Default)]
struct Current {
    title: String,
    last: Option<u64>,
    /// Seconds of one run.
    usual: f64,
    runs_left: usize,
    began: f64,
}

impl RehearsalProgress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, current: RefCell::default() }
    }

    fn announce(&self, name: &str, number: usize, known: Option<(usize, f64)>, last: Option<u64>) {
        let title = match (number, known) {
            (0, _) => name.to_owned(),
            (number, None) => format!("{number} {name}"),
            (number, Some((of, _))) => format!("{number}/{of} {name}"),
        };
        if let (2, Some((of, usual))) = (number, known) {
            let more = count(of - 1, "run");
            self.say(&format!(
                "The undisturbed run took {}; {more} more, each interrupted and resumed: about {}.",
                duration(usual),
                duration(Self::estimate(of - 1, usual))
            ));
        }
        if self.bar.is_none() {
            say(&title);
        }
        let (runs, usual) = known.unwrap_or_default();
        let began = clock::now();
        let runs_left = (runs + 1).saturating_sub(number);
        *self.current.borrow_mut() = Current { title, last, usual, runs_left, began };
        self.draw(None);
    }

    /// Above the line, where there is one.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Interruptions and restarts cost about a second each, and some steps.
    #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
    fn estimate(runs: usize, usual: f64) -> f64 {
        runs as f64 * (usual * 1.1 + 1.0)
    }

    fn progress(&self, progress: RunProgress) {
        self.draw(Some(progress));
    }

    fn draw(&self, progress: Option<RunProgress>) {
        let Some(bar) = &self.bar else { return };
        let current = self.current.borrow();
        let mut text = current.title.clone();
        if let Some(RunProgress { attempt, step }) = progress {
            text = format!("{text}, attempt {attempt}");
            if let Some(step) = step {
                let of = current.last.map_or_else(String::new, |last| format!(" of {last}"));
                text = format!("{text}, step {step}{of}");
            }
        }
        if current.usual > 0.0 {
            let gone = clock::now() - current.began;
            let left = (Self::estimate(current.runs_left, current.usual) - gone).max(0.0);
            text = format!("{text} (about {} left)", duration(left));
        }
        bar.set_message(text);
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
