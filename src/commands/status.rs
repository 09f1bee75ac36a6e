//! `status`: where an experiment stands.

use clap::Args;

use super::App;
use crate::error::{CommandError, ExitCode};
use crate::report::{Page, attempts_table, out, status_table};
use crate::status::{Status, join, json, recount};
use crate::store::{Stored, Target};
use crate::{host, observe, observed};

/// `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm status            # the newest\n  nemo-slurm status digits/train --attempts\n  \
    nemo-slurm status @ --json | jq '.tasks[].counts'"
)]
pub struct StatusArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Show every attempt of every trial
    #[arg(long)]
    pub attempts: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows an experiment, a task or a trial.
pub(super) fn status(app: &App, args: &StatusArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find_silently(&args.target)?;
    let mut status = look(app, &stored)?;
    narrow(&mut status, &target);
    if args.json {
        return out(&json(&status));
    }
    let page = Page::here(host::now());
    out(&status_table(&status, &page))?;
    if args.attempts || target.trial.is_some() {
        out(&attempts_table(&status, &page))?;
    }
    Ok(ExitCode::Fine)
}

/// Looks at the experiment, and remembers what was seen.
pub(super) fn look(app: &App, stored: &Stored) -> Result<Status, CommandError> {
    let status = join(&observe::sources(stored, &app.slurm)?);
    observed::keep(&stored.dir, &status);
    Ok(status)
}

/// Leaves out what the target does not mean.
fn narrow(status: &mut Status, target: &Target) {
    status.tasks.retain(|task| target.task.as_ref().is_none_or(|wanted| *wanted == task.name));
    for task in &mut status.tasks {
        task.trials.retain(|trial| target.trial.is_none_or(|wanted| wanted == trial.index));
        recount(task);
    }
}
