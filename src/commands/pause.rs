//! `pause` and `resume`: trials save, keep their place in the queue, and wait there until they are wanted again.

use std::collections::BTreeSet;

use clap::Args;
use nemo_core::durable;
use nemo_core::rundir::TrialDir;
use serde_json::json;

use super::App;
use super::cancel::{of_array, request, warn_of_a_dead_runner};
use super::status::look;
use crate::error::{CommandError, ExitCode};
use crate::journal;
use crate::report::{out, say};
use crate::slurm::{Recipient, SlurmError};
use crate::status::{Action, State, Status, TrialStatus};
use crate::store::{Stored, Target};
use crate::words::count;

/// `pause` and `resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "A paused trial saves its checkpoint and keeps its job, which waits held in the queue; what waits for it goes on \
    waiting, and none of its budgets is touched.\n\n\
    Examples:\n  nemo-slurm pause digits\n  nemo-slurm pause @/train/3\n  nemo-slurm resume @/train/3"
)]
pub struct PauseArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How often it is looked again whether a trial started just before it was held.
const LOOKS: u32 = 3;

/// Pauses what the target means.
pub(super) fn pause(app: &App, args: &PauseArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = found(app, args)?;
    // First the wish, durably: the local runner reads it, and a status that sees the end must know that it was wanted.
    request(&stored, &target, Action::Pause)?;
    let status = look(app, &stored)?;
    let is_meant = |state: State| !state.is_final() && state != State::Paused;
    let trials = meant(&stored, &status, &target, is_meant);
    hold(app, &stored, &target, &trials)?;
    let mut told = BTreeSet::new();
    tell(app, &stored, &trials, &mut told)?;
    for _ in 1..LOOKS {
        let seen = look(app, &stored)?;
        let running = meant(&stored, &seen, &target, |state| state == State::Running);
        if !tell(app, &stored, &running, &mut told)? {
            break;
        }
    }
    if trials.is_empty() && !args.json {
        say("Nothing to do: all of it is paused or over.");
        return Ok(ExitCode::Fine);
    }
    done(args, &stored, "Paused", trials.len())
}

/// Lets what the target means go on.
pub(super) fn resume(app: &App, args: &PauseArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = found(app, args)?;
    let status = look(app, &stored)?;
    let trials = meant(&stored, &status, &target, |state| !state.is_final());
    let is_wanted =
        |trial: &Meant<'_>| trial.status.state == State::Paused || trial.dir.pause().exists();
    let trials: Vec<Meant<'_>> = trials.into_iter().filter(is_wanted).collect();
    for trial in &trials {
        remove(&trial.dir)?;
    }
    // After the marks are gone: the local runner starts a trial again as soon as it sees the wish.
    request(&stored, &target, Action::Resume)?;
    release(app, &stored, &target, &trials)?;
    if trials.is_empty() && !args.json {
        say("Nothing to do: none of it is paused.");
        return Ok(ExitCode::Fine);
    }
    done(args, &stored, "Resumed", trials.len())
}

/// The target's experiment, which must be submitted as a whole: the heads of its chains are held until then.
fn found(app: &App, args: &PauseArgs) -> Result<(Target, Stored), CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let on_slurm = !journal::submitted(&stored.journal).is_empty();
    if on_slurm && !journal::is_complete(&stored.journal) {
        let text = format!("experiment `{}` is not yet submitted as a whole", stored.id);
        let go_on = format!("`nemo-slurm submit --continue {}` goes on", stored.id);
        return Err(CommandError::new(ExitCode::Usage, text).hinted(go_on));
    }
    Ok((target, stored))
}

/// A trial that the target means.
struct Meant<'a> {
    status: &'a TrialStatus,
    dir: TrialDir,
}

fn meant<'a>(
    stored: &Stored,
    status: &'a Status,
    target: &Target,
    is_meant: impl Fn(State) -> bool,
) -> Vec<Meant<'a>> {
    let tasks = status.tasks.iter();
    let tasks = tasks.filter(|task| target.task.as_ref().is_none_or(|wanted| *wanted == task.name));
    let trials = tasks.flat_map(|task| {
        let folder = stored.dir.task(&task.name);
        task.trials.iter().map(move |status| Meant { status, dir: folder.trial(status.index) })
    });
    let wanted = |trial: &Meant<'_>| {
        target.trial.is_none_or(|wanted| wanted == trial.status.index)
            && is_meant(trial.status.state)
    };
    trials.filter(wanted).collect()
}

/// Keeps all of them from starting: a whole array by its own id, one request for a thousand tasks.
fn hold(
    app: &App,
    stored: &Stored,
    target: &Target,
    trials: &[Meant<'_>],
) -> Result<(), CommandError> {
    for (token, ids) in by_array(stored, target, trials) {
        match app.slurm.for_names(vec![token]).hold(&ids) {
            // Some of them ended, or are about to: what runs on is told by the next look.
            Ok(()) | Err(SlurmError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Marks the running ones and has them told; says whether there was one that was not told before.
fn tell(
    app: &App,
    stored: &Stored,
    trials: &[Meant<'_>],
    told: &mut BTreeSet<String>,
) -> Result<bool, CommandError> {
    let mut jobs = Vec::new();
    for trial in trials.iter().filter(|trial| trial.status.state == State::Running) {
        if let Some(job) = trial.status.slurm_job.clone().filter(|job| told.insert(job.clone())) {
            durable::create_dir_all(trial.dir.path())?;
            durable::replace_file_durably(&trial.dir.pause(), b"{}\n")?;
            jobs.push(job);
        }
    }
    for (token, job) in journal::submitted(&stored.journal) {
        let own = of_array(job, &jobs);
        if !own.is_empty() {
            app.slurm.for_names(vec![token]).signal(&own, "USR1", Recipient::Batch)?;
        }
    }
    Ok(!jobs.is_empty())
}

fn release(
    app: &App,
    stored: &Stored,
    target: &Target,
    trials: &[Meant<'_>],
) -> Result<(), CommandError> {
    for (token, ids) in by_array(stored, target, trials) {
        app.slurm.for_names(vec![token]).release(&ids)?;
    }
    // Slurm's own wait after a requeue counts from then; those that were requeued long ago have it behind them.
    let again = trials.iter().filter(|trial| !trial.status.attempts.is_empty());
    let again: Vec<String> = again.filter_map(|trial| trial.status.slurm_job.clone()).collect();
    if again.is_empty() {
        return Ok(());
    }
    match app.slurm.start_soon(&again) {
        Ok(()) | Err(SlurmError::Refused { .. }) => Ok(()), // then they wait as long as Slurm has it
        Err(error) => Err(error.into()),
    }
}

/// The trials' ids, array by array with its name: its own id where all of it is meant.
fn by_array(stored: &Stored, target: &Target, trials: &[Meant<'_>]) -> Vec<(String, Vec<String>)> {
    let jobs: Vec<String> =
        trials.iter().filter_map(|trial| trial.status.slurm_job.clone()).collect();
    let arrays = journal::submitted(&stored.journal).into_iter();
    let ids = |(token, job)| {
        let own = of_array(job, &jobs);
        let whole = target.trial.is_none() && !own.is_empty();
        (token, if whole { vec![job.to_string()] } else { own })
    };
    arrays.map(ids).filter(|(_, ids)| !ids.is_empty()).collect()
}

fn remove(dir: &TrialDir) -> Result<(), CommandError> {
    match std::fs::remove_file(dir.pause()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn done(
    args: &PauseArgs,
    stored: &Stored,
    what: &str,
    trials: usize,
) -> Result<ExitCode, CommandError> {
    if args.json {
        return out(&json!({ "schema": 1, "id": stored.id, "trials": trials }));
    }
    warn_of_a_dead_runner(stored)?;
    say(&format!("{what} {} of {}", count(trials, "trial"), stored.id));
    Ok(ExitCode::Fine)
}
