//! `cancel`: ends a target, or has it save and run again.

use clap::Args;
use nemo_core::durable;
use serde_json::json;

use super::App;
use super::status::look;
use crate::error::{CommandError, ExitCode};
use crate::executor::local;
use crate::host;
use crate::journal;
use crate::report::{out, say};
use crate::slurm::{JobId, Recipient};
use crate::status::{Action, Request, State, Status};
use crate::store::{Stored, Target};
use crate::words::count;

/// `cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "A running trial is told, saves its checkpoint if there is time, and stays cancelled.\n\n\
    Examples:\n  nemo-slurm cancel digits\n  nemo-slurm cancel @/train/3\n  nemo-slurm cancel @/train --gentle    # save, stop, run again from the checkpoint"
)]
pub struct CancelArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    pub target: String,
    /// Preempt instead: running trials save, stop, and run again from their checkpoints
    #[arg(long)]
    pub gentle: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Cancels what the target means.
pub(super) fn cancel(app: &App, args: &CancelArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let status = look(app, &stored)?;
    let action = if args.gentle { Action::Preempt } else { Action::Cancel };
    // First the wish, durably: a status that sees the end must know that it was wanted.
    request(&stored, &target, action)?;
    let trials = affected(&status, &target, args.gentle);
    let jobs: Vec<String> = trials.iter().filter_map(|(_, job)| job.clone()).collect();
    for (token, job) in journal::submitted(&stored.journal) {
        let own = of_array(job, &jobs);
        let slurm = app.slurm.for_names(vec![token]);
        match args.gentle {
            _ if own.is_empty() => {}
            // The whole array by its own id: one for a thousand tasks.
            false if target.trial.is_none() => slurm.cancel(&[job.to_string()])?,
            false => slurm.cancel(&own)?,
            true => {
                mark(&stored, &status, &own)?;
                slurm.signal(&own, "USR1", Recipient::Batch)?;
            }
        }
    }
    if !trials.is_empty() {
        warn_of_a_dead_runner(&stored)?;
    }
    if trials.is_empty() && !args.json {
        let why = if args.gentle { "none of it runs now" } else { "all of it is over" };
        say(&format!("Nothing to do: {why}."));
        return Ok(ExitCode::Fine);
    }
    let done = if args.gentle { "Asked to save and run again:" } else { "Cancelled" };
    if args.json {
        return out(&json!({ "schema": 1, "id": stored.id, "trials": trials.len() }));
    }
    say(&format!("{done} {} of {}", count(trials.len(), "trial"), stored.id));
    Ok(ExitCode::Fine)
}

/// Leaves word in the folders of running trials: the signal alone asks for a save only.
fn mark(stored: &Stored, status: &Status, jobs: &[String]) -> Result<(), CommandError> {
    for task in &status.tasks {
        let dir = stored.dir.task(&task.name);
        let is_meant = |job: &Option<String>| job.as_ref().is_some_and(|job| jobs.contains(job));
        for trial in task.trials.iter().filter(|trial| is_meant(&trial.slurm_job)) {
            durable::create_dir_all(dir.trial(trial.index).path())?;
            durable::replace_file_durably(&dir.trial(trial.index).preempt(), b"{}\n")?;
        }
    }
    Ok(())
}

/// A wish about local trials is carried out by the runner alone.
pub(super) fn warn_of_a_dead_runner(stored: &Stored) -> Result<(), CommandError> {
    let is_local = journal::submitted(&stored.journal).is_empty();
    if is_local && local::is_running(&stored.dir)?.is_none() {
        say("warning: its local runner is gone; the wish holds when it goes on");
    }
    Ok(())
}

/// Writes the wish down, in a file of its own.
pub(super) fn request(
    stored: &Stored,
    target: &Target,
    action: Action,
) -> Result<(), CommandError> {
    let now = host::now();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let time = now as u64;
    let request = Request { action, task: target.task.clone(), trial: target.trial, time };
    let name = format!("{now:.6}-{}.json", std::process::id());
    durable::create_dir_all(&stored.dir.requests())?;
    let text = serde_json::to_vec(&request).map_err(std::io::Error::from)?;
    Ok(durable::replace_file_durably(&stored.dir.requests().join(name), &text)?)
}

/// The trials that the wish is about, with their jobs on Slurm.
fn affected(status: &Status, target: &Target, gentle: bool) -> Vec<(u32, Option<String>)> {
    let is_meant = |state: State| if gentle { state == State::Running } else { !state.is_final() };
    status
        .tasks
        .iter()
        .filter(|task| target.task.as_ref().is_none_or(|wanted| *wanted == task.name))
        .flat_map(|task| &task.trials)
        .filter(|trial| target.trial.is_none_or(|wanted| wanted == trial.index))
        .filter(|trial| is_meant(trial.state))
        .map(|trial| (trial.index, trial.slurm_job.clone()))
        .collect()
}

/// The ids of an array's tasks.
pub(super) fn of_array(job: JobId, ids: &[String]) -> Vec<String> {
    let array = job.to_string();
    let is_own = |id: &&String| id.split('_').next() == Some(array.as_str());
    ids.iter().filter(is_own).cloned().collect()
}
