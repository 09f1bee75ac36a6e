//! One file a verb: load, a pure function, an effect, a rendering.

pub mod archive;
mod budget;
pub mod build;
pub mod cancel;
mod check;
mod cluster;
pub mod compare;
mod complete;
pub mod completions;
pub mod control;
pub mod debug;
pub mod doctor;
mod due;
pub mod explain;
pub mod filter_args;
mod follow;
mod follow_output;
mod followers;
mod generation;
pub mod goodput;
pub mod init;
mod kept_environment;
pub mod list;
mod listing;
pub mod logs;
pub mod metrics;
pub mod note;
mod notices;
mod output_format;
mod outside;
mod paths;
pub mod pause;
pub mod plan;
pub mod plot;
pub mod poll;
mod polling;
pub mod preempt;
pub mod prepare;
pub mod rehearse;
pub mod resources;
pub mod results;
pub mod retry;
mod run_local;
pub mod search;
mod shipped_code;
pub mod show;
mod slurm_scheduler;
pub mod status;
pub mod submit;
pub mod wait;
mod warnings;
pub mod watch;
mod windows;

use std::ffi::OsStr;
use std::io;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nemo_core::environment::Variable;
use nemo_core::open;
use nemo_core::scope::TrialSet;
use tracing::debug;

use crate::cli::{Cli, Command};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::journal;
use crate::query::QueryCache;
use crate::report::{own_commands, say};
use crate::slurm::{Client, IndexSet};
use crate::store::{Home, Stored, Target};
use crate::trace;

/// What every command may use: the home, Slurm, and where our programs are.
#[derive(Clone, Debug)]
pub struct App {
    /// Where experiments lie.
    pub home: Home,
    /// Slurm's programs.
    pub slurm: Client,
    /// The last answers of Slurm, shared with other processes.
    pub query_cache: QueryCache,
    /// This program's own file.
    pub program: PathBuf,
    /// Where the harness is, if somebody said so.
    pub harness: Option<PathBuf>,
    /// The environment, which programs inherit.
    pub variables: Vec<Variable>,
    /// `SLURM_CONF`, which tells one cluster from another.
    pub slurm_conf: String,
    /// Whether nothing is written into the home, not even what a look has found out.
    pub is_read_only: bool,
}

impl App {
    /// The same for a command that writes nothing.
    fn read_only(&self) -> Self {
        Self { is_read_only: true, query_cache: self.query_cache.read_only(), ..self.clone() }
    }

    /// A variable of the environment that is not empty.
    fn variable(&self, wanted: &str) -> Option<&OsStr> {
        let found = self.variables.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }
}

/// What is read of the environment, once, by `main`.
#[derive(Debug)]
pub struct Environment {
    /// The user's home folder.
    pub user_home: Option<PathBuf>,
    /// `NEMO_HARNESS`: another harness than the one beside this program.
    pub harness: Option<PathBuf>,
    /// All variables.
    pub variables: Vec<Variable>,
    /// `SLURM_CONF`; empty where it is not set.
    pub slurm_conf: String,
}

impl Environment {
    /// The home where nobody names one.
    fn default_home(&self) -> Option<PathBuf> {
        self.user_home.as_ref().map(|home| home.join(".nemo_slurm"))
    }
}

/// Carries a command out.
pub fn run(cli: Cli, environment: Environment) -> Result<ExitCode, CommandError> {
    trace::start(cli.verbose, cli.log.as_deref())?;
    name_home(&cli, &environment);
    match cli.command {
        Command::Completions(args) => return completions::completions(&args),
        Command::Man(args) => return completions::man(&args),
        Command::Init(args) => return init::init(&args),
        Command::Check(args) => return check::check(&args),
        _ => {}
    }
    let app = app(&cli, environment)?;
    match cli.command {
        Command::Plan(args) => plan::plan(&app, &args),
        Command::Rehearse(args) => rehearse::rehearse(&app, &args),
        Command::Submit(args) => submit::submit(&app, &args),
        Command::Status(args) => status::status(&app, &args),
        Command::Goodput(args) => goodput::goodput(&app, &args),
        Command::Explain(args) => explain::explain(&app, &args),
        Command::List(args) => list::list(&app, &args),
        Command::Search(args) => search::search(&app, &args),
        Command::Compare(args) => compare::compare_targets(&app, &args),
        Command::Metrics(args) => metrics::metrics(&app, &args),
        Command::Plot(args) => plot::plot(&app, &args),
        Command::Resources(args) => resources::resources(&app, &args),
        Command::Results(args) => results::results(&app, &args),
        Command::Show(args) => show::show(&app, &args),
        Command::Note(args) => note::note(&app, &args),
        Command::Archive(args) => archive::archive(&app, &args),
        Command::Restore(args) => archive::restore(&app, &args),
        Command::Wait(args) => wait::wait(&app, &args),
        Command::Watch(args) => watch::watch(&app, &args),
        Command::Logs(args) => logs::logs(&app, &args),
        Command::Cancel(args) => cancel::cancel(&app, &args),
        Command::Pause(args) => pause::pause(&app, &args),
        Command::Resume(args) => pause::resume(&app, &args),
        Command::Retry(args) => retry::retry(&app, &args),
        Command::Debug(args) => debug::debug(&app, &args),
        Command::Preempt(args) => preempt::preempt(&app, &args),
        Command::Poll(args) => poll::poll(&app, &args),
        Command::Doctor(args) => doctor::doctor(&app, &args),
        Command::RunLocal { id } => run_local::run_local(&app, &id),
        Command::Completions(_) | Command::Man(_) | Command::Init(_) | Command::Check(_) => {
            Ok(ExitCode::Fine)
        }
    }
}

/// Has the commands that are shown name the home, where they would mean another one without it.
fn name_home(cli: &Cli, environment: &Environment) {
    let set = environment.variables.iter().find(|(name, _)| name == "NEMO_SLURM_HOME");
    let set = set.filter(|(_, value)| !value.is_empty()).map(|(_, value)| PathBuf::from(value));
    let by_itself = set.or_else(|| environment.default_home());
    let full = |home: &PathBuf| std::path::absolute(home).unwrap_or_else(|_| home.clone());
    let given = cli.home.as_ref().map(full);
    if let Some(home) = given.filter(|given| by_itself.as_ref().map(full).as_ref() != Some(given)) {
        own_commands::name_home(&home);
    }
}

fn app(cli: &Cli, environment: Environment) -> Result<App, CommandError> {
    let default = || environment.default_home();
    let home = cli.home.clone().or_else(default).ok_or_else(|| {
        CommandError::new(ExitCode::Usage, "no home folder is known")
            .hinted("set NEMO_SLURM_HOME to a folder that the compute nodes see")
    })?;
    let home = Home::new(std::path::absolute(&home).at("find", &home)?);
    debug!("home: `{}`", home.path().display());
    let timeout = cli.slurm_timeout.max(Duration::from_secs(1));
    Ok(App {
        query_cache: QueryCache::new(&home, &environment.slurm_conf, timeout),
        home,
        slurm: Client::new(timeout),
        program: std::env::current_exe().at("find", Path::new("/proc/self/exe"))?,
        harness: environment.harness,
        variables: environment.variables,
        slurm_conf: environment.slurm_conf,
        is_read_only: false,
    })
}

impl App {
    /// The same, with Slurm's programs asking the cluster that has an experiment's jobs.
    fn on_cluster_of(&self, stored: &Stored) -> Self {
        Self { slurm: self.slurm.on_cluster(stored.experiment.cluster()), ..self.clone() }
    }

    /// The harness that is submitted: the one beside this program unless another is named.
    fn harness(&self) -> Result<PathBuf, CommandError> {
        let beside = self.program.with_file_name("nemo-harness");
        let harness = self.harness.clone().unwrap_or(beside);
        if harness.is_file() {
            return Ok(harness);
        }
        let text = format!("the harness is missing: `{}`", harness.display());
        Err(CommandError::new(ExitCode::Usage, text)
            .hinted("install `nemo-harness` beside `nemo-slurm`, or set NEMO_HARNESS to its path"))
    }

    /// Finds a target and reads its experiment; its task and trial exist. Damage to the journal is told.
    fn find(&self, text: &str) -> Result<(Target, Stored), CommandError> {
        let (target, stored) = self.find_silently(text)?;
        if let Some(damage) = &stored.damage {
            say(&format!("warning: {damage}"));
        }
        Ok((target, stored))
    }

    /// The same for a command that shows the damage itself.
    fn find_silently(&self, text: &str) -> Result<(Target, Stored), CommandError> {
        let target = crate::store::resolve(&self.home, text)?;
        let stored = self.home.load(&target.id)?;
        let Some(wanted) = &target.scope.task else { return Ok((target, stored)) };
        let names = || stored.experiment.tasks.iter().map(|task| format!("`{}`", task.name));
        let Some(task) = stored.experiment.tasks.iter().find(|task| task.name == *wanted) else {
            let text = format!("experiment `{}` has no task `{wanted}`", target.id);
            let tasks = names().collect::<Vec<_>>().join(", ");
            return Err(CommandError::new(ExitCode::NotFound, text)
                .hinted(format!("its tasks are {tasks}")));
        };
        let there = journal::trials(&stored.journal, task);
        let Some(trial) = target.scope.trials.as_ref().and_then(|it| missing(it, &there)) else {
            return Ok((target, stored));
        };
        let text = format!("task `{}` has no trial {trial}", task.name);
        Err(CommandError::new(ExitCode::NotFound, text).hinted(format!("its trials are {there}")))
    }
}

/// One of the trials that are not there, the last before others.
fn missing(wanted: &TrialSet, there: &IndexSet) -> Option<u32> {
    once(wanted.last()).chain(wanted.iter()).find(|trial| !there.contains(*trial))
}

/// The most that a file of the user's may have, in bytes.
const LONGEST_FILE: u64 = 64 << 20;

/// Reads a file of the user's, with a hint where it is not there.
fn read_file(path: &Path) -> Result<String, CommandError> {
    let text = open::read_named(path, LONGEST_FILE).and_then(|text| {
        String::from_utf8(text)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8"))
    });
    text.map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => is_a_folder(path),
        kind => {
            let text = format!("can't read `{}`: {error}", path.display());
            if kind == io::ErrorKind::NotFound {
                CommandError::new(ExitCode::NotFound, text)
                    .hinted("`nemo-slurm init` writes a file to start from")
            } else {
                CommandError::new(ExitCode::Usage, text)
            }
        }
    })
}

/// What to type instead of a folder.
fn is_a_folder(path: &Path) -> CommandError {
    let text = format!("`{}` is a folder, not an experiment's file", path.display());
    let file = path.join("exp.toml");
    let hint = if file.is_file() {
        format!("name the file in it: `{}`", file.display())
    } else {
        format!("`nemo-slurm init {}` writes a file to start from there", path.display())
    };
    CommandError::new(ExitCode::Usage, text).hinted(hint)
}
