//! One file a verb: load, a pure function, an effect, a rendering.

pub mod cancel;
mod check;
mod cluster;
pub mod completions;
pub mod control;
mod follow;
pub mod goodput;
pub mod init;
mod kept_environment;
pub mod list;
pub mod logs;
mod paths;
pub mod pause;
pub mod plan;
pub mod poll;
mod polling;
pub mod preempt;
pub mod prepare;
mod put_back;
pub mod rehearse;
mod run_local;
mod slurm_scheduler;
pub mod status;
pub mod submit;
pub mod wait;
mod warnings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nemo_core::environment::Variable;
use nemo_core::scope::TrialSet;
use tracing::debug;

use crate::cli::{Cli, Command};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::query::QueryCache;
use crate::report::say;
use crate::slurm::Client;
use crate::store::{Home, Stored, Target};
use crate::trace;

/// What every command may use: the home, Slurm, and where our programs are.
#[derive(Clone, Debug)]
pub struct App {
    /// Where experiments lie.
    pub home: Home,
    /// Slurm's programs.
    pub slurm: Client,
    /// What Slurm said last, for all who ask.
    pub shared: QueryCache,
    /// This program's own file.
    pub program: PathBuf,
    /// Where the harness is, if somebody said so.
    pub harness: Option<PathBuf>,
    /// The environment, which programs inherit.
    pub variables: Vec<Variable>,
    /// `SLURM_CONF`, which tells one cluster from another.
    pub slurm_conf: String,
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

/// Carries a command out.
pub fn run(cli: Cli, environment: Environment) -> Result<ExitCode, CommandError> {
    trace::start(cli.verbose, cli.log.as_deref())?;
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
        Command::List(args) => list::list(&app, &args),
        Command::Wait(args) => wait::wait(&app, &args),
        Command::Logs(args) => logs::logs(&app, &args),
        Command::Cancel(args) => cancel::cancel(&app, &args),
        Command::Pause(args) => pause::pause(&app, &args),
        Command::Resume(args) => pause::resume(&app, &args),
        Command::Preempt(args) => preempt::preempt(&app, &args),
        Command::Poll(args) => poll::poll(&app, &args),
        Command::RunLocal { id } => run_local::run_local(&app, &id),
        Command::Completions(_) | Command::Man(_) | Command::Init(_) | Command::Check(_) => {
            Ok(ExitCode::Fine)
        }
    }
}

fn app(cli: &Cli, environment: Environment) -> Result<App, CommandError> {
    let default = || environment.user_home.as_ref().map(|home| home.join(".nemo_slurm"));
    let home = cli.home.clone().or_else(default).ok_or_else(|| {
        CommandError::new(ExitCode::Usage, "no home folder is known")
            .hinted("set NEMO_SLURM_HOME to a folder that the compute nodes see")
    })?;
    let home = Home::new(std::path::absolute(&home).at("find", &home)?);
    debug!("home: `{}`", home.path().display());
    let timeout = cli.slurm_timeout.max(Duration::from_secs(1));
    Ok(App {
        shared: QueryCache::new(&home, &environment.slurm_conf, timeout),
        home,
        slurm: Client::new(timeout),
        program: std::env::current_exe().at("find", Path::new("/proc/self/exe"))?,
        harness: environment.harness,
        variables: environment.variables,
        slurm_conf: environment.slurm_conf,
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
        match target.scope.trials.as_ref().map(TrialSet::last) {
            Some(trial) if trial >= task.n_trials => {
                let text = format!("task `{wanted}` has no trial {trial}");
                let last = task.n_trials - 1;
                Err(CommandError::new(ExitCode::NotFound, text)
                    .hinted(format!("its trials are 0 to {last}")))
            }
            _ => Ok((target, stored)),
        }
    }
}

/// Reads a file of the user's, with a hint where it is not there.
fn read_file(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::IsADirectory => is_a_folder(path),
        kind => {
            let text = format!("can't read `{}`: {error}", path.display());
            if kind == std::io::ErrorKind::NotFound {
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
