//! `debug`: runs a failed trial here, in the foreground, from a copy of its checkpoint. The experiment is only read.
#![expect(
    clippy::disallowed_methods,
    reason = "an edge: the program is started here, and a copy made"
)]

mod foreground;
mod own_place;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use nemo_core::rundir::{AttemptRecord, CommandSpec, ExperimentDir, TaskSpec, TrialDir};
use nemo_core::{checksum, durable, environment, lines, open};

use self::foreground::Signals;
use self::own_place::OwnPlace;
use super::status::sources;
use super::{App, control, kept_environment, shipped_code};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::spec;
use crate::experiment::Task;
use crate::journal;
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::report::say;
use crate::status::{State, join};
use crate::store::{StoreError, Stored, Target};

/// `debug`.
#[derive(Debug, Args)]
#[command(
    after_help = "The program gets the trial's parameters, environment and working folder. What it saves goes into a temporary \
    folder, which is removed at its end. Nothing of the experiment is changed.\n\n\
    Examples:\n  nemo-slurm debug digits                     # the only trial that failed\n  \
    nemo-slurm debug digits/train/3 --step 4000\n  \
    nemo-slurm debug digits/train/3 -- python -m pdb train.py --lr {lr}\n  nemo-slurm debug digits/train/3 -- bash"
)]
pub struct DebugArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    pub target: String,
    /// Begin from the checkpoint of this step, not from the newest
    #[arg(long, value_name = "STEP")]
    pub step: Option<u64>,
    /// Keep the temporary folder
    #[arg(long)]
    pub keep: bool,
    /// Run this instead of the task's command; placeholders such as {lr} are filled in
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs a trial here.
pub(super) fn debug(app: &App, args: &DebugArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    control::refuse_wrapped(&stored, "debug")?;
    let (task, trial) = one_trial(app, &stored, &target)?;
    let records = records(&stored, task, trial)?;
    let signals = Signals::listen().at("listen for signals in", Path::new("this process"))?;
    let scratch = tempfile::Builder::new().prefix("nemo-slurm-debug-").tempdir();
    let scratch = scratch.at("make", &std::env::temp_dir())?;
    let dir = ExperimentDir(scratch.path().to_owned());
    let copy = ScratchCopy { stored: &stored, task, trial, dir, signals: &signals };
    let place = copy.write(app, args)?;
    let step = copy.checkpoint(&records, args.step)?;
    let from = match (step, &place) {
        (Some(step), Some(place)) if args.step.is_some() => {
            let from = stored.dir.task(&task.name).trial(trial).checkpoint(step);
            return Err(own_place::refused(place, step, &from));
        }
        (_, Some(place)) => own_place::description(place),
        (Some(step), None) => format!("from a copy of step {step}"),
        (None, None) => "from the start".to_owned(),
    };
    say(&format!(
        "Running {}/{}/{trial} here, {from}, in `{}`.",
        stored.id,
        task.name,
        scratch.path().display()
    ));
    if let Some(text) = shipped_code::description(app, &stored) {
        say(&text);
    }
    let attempt = records.iter().map(AttemptRecord::attempt).max().unwrap_or(0);
    let code = copy.run(&app.harness()?, attempt)?;
    if args.keep {
        say(&format!("What it saved is in `{}`.", scratch.keep().display()));
    }
    if code == Some(0) {
        return Ok(ExitCode::Fine);
    }
    say(&code
        .map_or("It was ended by a signal.".to_owned(), |code| format!("It exited with {code}.")));
    Ok(ExitCode::Failed)
}

/// The trial that a target names, or the only one of it that failed, as far as it is known without asking Slurm.
fn one_trial<'a>(
    app: &App,
    stored: &'a Stored,
    target: &Target,
) -> Result<(&'a Task, u32), CommandError> {
    let named: Vec<(&Task, u32)> = stored
        .experiment
        .tasks
        .iter()
        .flat_map(|task| (0..task.n_trials).map(move |trial| (task, trial)))
        .filter(|(task, trial)| target.scope.covers(&task.name, *trial))
        .collect();
    if let [only] = named.as_slice() {
        return Ok(*only);
    }
    let status = join(&sources(app, stored, SlurmSource::Nobody, Depth::Shown(&target.scope))?);
    let has_failed = |task: &Task, trial: u32| {
        let seen = status.tasks.iter().find(|seen| seen.name == task.name);
        let seen = seen.and_then(|seen| seen.trials.iter().find(|it| it.index == trial));
        seen.is_some_and(|it| matches!(it.state, State::Failed | State::Timeout))
    };
    let failed: Vec<(&Task, u32)> =
        named.into_iter().filter(|(task, trial)| has_failed(task, *trial)).collect();
    match failed.as_slice() {
        [only] => Ok(*only),
        [] => {
            let text = format!("no trial of `{target}` has failed");
            let hint = format!("name one: `nemo-slurm debug {}/TASK/TRIAL`", stored.id);
            Err(CommandError::new(ExitCode::Usage, text).hinted(hint))
        }
        [(task, trial), ..] => {
            let text = format!("{} trials of `{target}` have failed", failed.len());
            let hint = format!("name one: `nemo-slurm debug {}/{}/{trial}`", stored.id, task.name);
            Err(CommandError::new(ExitCode::Usage, text).hinted(hint))
        }
    }
}

fn records(stored: &Stored, task: &Task, trial: u32) -> Result<Vec<AttemptRecord>, CommandError> {
    let path = stored.dir.task(&task.name).trial(trial).attempts();
    Ok(lines::read(&path).at("read", &path)?.rows)
}

/// What a trial needs, copied into a folder of its own.
struct ScratchCopy<'a> {
    stored: &'a Stored,
    task: &'a Task,
    trial: u32,
    /// As the folder of an experiment.
    dir: ExperimentDir,
    signals: &'a Signals,
}

impl ScratchCopy<'_> {
    fn trial_dir(&self) -> TrialDir {
        self.dir.task(&self.task.name).trial(self.trial)
    }

    /// Writes the task as the harness reads it, and what its program inherits. Returns where the program looks for its
    /// checkpoint, if that is not in the copy.
    fn write(&self, app: &App, args: &DebugArgs) -> Result<Option<OwnPlace>, CommandError> {
        let (own, task) = (self.stored.dir.task(&self.task.name), self.dir.task(&self.task.name));
        let folder = self.trial_dir().checkpoints();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).at("make", &folder)?;
        let mut spec = self.spec()?;
        if !args.command.is_empty() {
            spec.command = CommandSpec::Exec(args.command.clone());
            // It may name other tasks than the task's own command does.
            let (experiment, dir) = (&self.stored.experiment, &self.stored.dir);
            spec.inputs = spec::inputs(&spec, &experiment.graph(), dir);
        }
        if spec.launch.take().is_some() {
            say("The trial has several processes; this is one of them alone.");
        }
        let place = OwnPlace::of(&spec);
        let path = task.spec();
        let text = checksum::to_vec(&spec)
            .map_err(|source| StoreError::NotJson { path: path.clone(), source })?;
        durable::write_synced(&path, &text).at("write", &path)?;
        copy_file(&own.trial_lines(), &task.trial_lines())?;
        copy_file(&self.stored.dir.environment(), &self.dir.environment())?;
        let secrets = self.stored.dir.secrets();
        if secrets.exists() {
            copy_file(&secrets, &self.dir.secrets())?;
            return Ok(place);
        }
        // They were removed once the experiment was over: they are those of this shell now.
        let kept = kept_environment::gather(app, &self.stored.experiment)?.secrets;
        let path = self.dir.secrets();
        durable::replace_file_durably(&path, &environment::to_file(&kept)).at("write", &path)?;
        Ok(place)
    }

    /// The task as the trial ran last, with what a retry has changed.
    fn spec(&self) -> Result<TaskSpec, CommandError> {
        let task = self.stored.dir.task(&self.task.name);
        let retries = journal::last_retries(&self.stored.journal, &self.task.name);
        let changed = retries.get(&self.trial).and_then(|retry| retry.changed);
        let path = changed.map_or_else(|| task.spec(), |changed| task.0.join(&changed.spec));
        let text = open::read(&path).at("read", &path)?;
        Ok(checksum::from_slice(&text).map_err(|source| StoreError::Damaged { path, source })?)
    }

    /// Copies the checkpoint of a step, or the newest one that was recorded and is there. Returns its step.
    fn checkpoint(
        &self,
        records: &[AttemptRecord],
        wanted: Option<u64>,
    ) -> Result<Option<u64>, CommandError> {
        let own = self.stored.dir.task(&self.task.name).trial(self.trial);
        let committed = records.iter().filter_map(|record| match record {
            AttemptRecord::Checkpoint { step, .. } => Some(*step),
            _ => None,
        });
        let there = committed.filter(|step| own.checkpoint(*step).is_dir());
        let mut steps: Vec<u64> = there.collect();
        steps.sort_unstable();
        steps.dedup();
        let step = match wanted {
            None => steps.last().copied(),
            Some(step) if steps.contains(&step) => Some(step),
            Some(step) => {
                let has: Vec<String> = steps.iter().map(u64::to_string).collect();
                let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
                let text = format!("the trial has no checkpoint of step {step}");
                return Err(
                    CommandError::new(ExitCode::Usage, text).hinted(format!("it has {has}"))
                );
            }
        };
        if let Some(step) = step {
            self.copy_tree(&own.checkpoint(step), &self.trial_dir().checkpoint(step))?;
        }
        Ok(step)
    }

    /// Runs it, and waits. The harness removes the copy of the secrets as soon as it has read them.
    fn run(&self, harness: &Path, attempt: u32) -> Result<Option<i32>, CommandError> {
        self.require_no_signal()?;
        let mut command = Command::new(harness);
        command.arg("debug").arg("--task-dir").arg(&self.dir.task(&self.task.name).0);
        command.args(["--trial", &self.trial.to_string(), "--attempt", &attempt.to_string()]);
        command.arg("--remove-secrets");
        Ok(foreground::run(&mut command, self.signals).at("run", harness)?.code())
    }

    fn require_no_signal(&self) -> Result<(), CommandError> {
        match self.signals.interrupted() {
            None => Ok(()),
            Some(signal) => {
                let text =
                    format!("interrupted by {signal}; nothing was run, and the copy is removed");
                Err(CommandError::new(ExitCode::Failed, text))
            }
        }
    }

    /// Copies a folder with all that is in it.
    fn copy_tree(&self, from: &Path, to: &Path) -> Result<(), CommandError> {
        let mut open: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
        while let Some((from, to)) = open.pop() {
            let kind = fs::symlink_metadata(&from).at("read", &from)?.file_type();
            if kind.is_dir() {
                fs::DirBuilder::new().mode(0o700).create(&to).at("make", &to)?;
                for entry in fs::read_dir(&from).at("read", &from)? {
                    let name = entry.at("read", &from)?.file_name();
                    open.push((from.join(&name), to.join(&name)));
                }
            } else if kind.is_symlink() {
                let target = fs::read_link(&from).at("read", &from)?;
                std::os::unix::fs::symlink(target, &to).at("make", &to)?;
            } else {
                self.copy_large_file(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Copies a file piece by piece, so that a signal is heard in between.
    fn copy_large_file(&self, from: &Path, to: &Path) -> Result<(), CommandError> {
        let mut source = open::to_read(from).at("read", from)?;
        let mut target = fs::File::create(to).at("make", to)?;
        loop {
            self.require_no_signal()?;
            if io::copy(&mut (&mut source).take(PIECE), &mut target).at("copy", from)? == 0 {
                break;
            }
        }
        let mode = source.metadata().at("read", from)?.permissions();
        Ok(target.set_permissions(mode).at("copy", from)?)
    }
}

/// How many bytes are copied before signals are read.
const PIECE: u64 = 64 << 20;

fn copy_file(from: &Path, to: &Path) -> Result<(), CommandError> {
    fs::copy(from, to).at("copy", from)?;
    Ok(())
}
