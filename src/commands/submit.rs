//! `submit`: writes an experiment down, then asks for it: safe to interrupt anywhere, and to go on with.

use std::io::IsTerminal;

use clap::Args;
use serde_json::json;

use super::on_slurm::OnSlurm;
use super::{App, follow, prepare};
use crate::cli::FileArgs;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::slurm::Submission;
use crate::executor::{local, slurm};
use crate::host;
use crate::journal::{self, Event, Journal, Record};
use crate::report::{out, say};
use crate::slurm::JobId;
use crate::store::Stored;
use crate::words::count;

/// `submit`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(after_help = "Examples:\n  nemo-slurm submit exp.toml --follow\n  \
    nemo-slurm submit exp.toml --executor cluster --set task.train.params.lr=0.1\n  \
    nemo-slurm submit --continue digits-3kz81q7m    # after a crash, or when Slurm was away")]
pub struct SubmitArgs {
    /// What to submit.
    #[command(flatten)]
    pub file: FileArgs,
    /// Go on with a submission that was interrupted: each job array is submitted once
    #[arg(long = "continue", value_name = "EXPERIMENT", conflicts_with_all = ["file", "set", "executor"])]
    pub resume: Option<String>,
    /// Wait until it is over, and exit 0 only if everything completed
    #[arg(long)]
    pub wait: bool,
    /// Show it live until it is over, as `--wait` does; Ctrl-C stops looking, not the experiment
    #[arg(long, conflicts_with = "wait")]
    pub follow: bool,
    /// Run at most one trial of a task at a time
    #[arg(long)]
    pub sequential: bool,
    /// Show the plan, submit nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Submits a file, or goes on with an interrupted submission.
pub(super) fn submit(app: &App, args: &SubmitArgs) -> Result<ExitCode, CommandError> {
    if args.dry_run {
        return super::plan::show(app, &args.file, false, args.sequential);
    }
    let stored = match &args.resume {
        Some(target) => resumed(app, target)?,
        None => prepare::create(app, args)?,
    };
    let jobs = carry_out(app, &stored)?;
    announce(app, args, &stored, &jobs)?;
    if args.follow && std::io::stderr().is_terminal() {
        say("Ctrl-C stops looking, not the experiment.");
    }
    if args.follow || args.wait {
        let view = if args.follow { follow::View::Live } else { follow::View::Silent };
        return follow::until_over(app, &stored, view, None);
    }
    Ok(ExitCode::Fine)
}

/// Reads an interrupted submission back, if nobody works on it.
fn resumed(app: &App, target: &str) -> Result<Stored, CommandError> {
    let (_, stored) = app.find(target)?;
    if let Some(reason) = journal::refusal(&stored.journal) {
        let text = format!("Slurm refused `{}`: {reason}", stored.id);
        let again =
            format!("change `{}` and submit it anew", stored.dir.experiment_toml().display());
        return Err(CommandError::new(ExitCode::Refused, text).hinted(again));
    }
    if crate::observe::is_submitting(&stored.journal) {
        let text = format!("`{}` is being submitted by another process", stored.id);
        return Err(CommandError::new(ExitCode::Refused, text)
            .hinted(format!("`nemo-slurm status {}` shows how far it is", stored.id)));
    }
    let mut stored = stored;
    if !journal::is_complete(&stored.journal) {
        let mut journal = Journal::open(&stored.dir.journal(), stored.journal)
            .at("write", &stored.dir.journal())?;
        journal.record(prepare::submitter()).at("write", &stored.dir.journal())?;
        stored.journal = journal.events().to_vec();
    }
    Ok(stored)
}

/// Asks for everything that was not asked for yet. Returns the jobs of the plan's arrays.
fn carry_out(app: &App, stored: &Stored) -> Result<Vec<JobId>, CommandError> {
    let mut journal = Journal::open(&stored.dir.journal(), stored.journal.clone())
        .at("write", &stored.dir.journal())?;
    let Some(plan) = journal::plan(&stored.journal) else {
        run_here(app, stored, &mut journal)?;
        return Ok(Vec::new());
    };
    let submission = Submission { id: stored.id.as_str(), dir: &stored.dir, plan };
    let mut slurm = OnSlurm { client: &app.slurm, submission };
    slurm::submit(submission, &mut slurm, &mut journal, &host::now).map_err(|error| {
        let is_refused = matches!(error, slurm::SubmitError::Refused { .. });
        let error = CommandError::from(error);
        let go_on = format!("`nemo-slurm submit --continue {}` goes on", stored.id);
        if is_refused { error } else { error.hinted(go_on) }
    })
}

/// Starts the runner of a local experiment, unless it has one.
fn run_here(app: &App, stored: &Stored, journal: &mut Journal) -> Result<(), CommandError> {
    if local::is_running(&stored.dir).at("read", &stored.dir.runner_log())?.is_none() {
        let home = app.home.path();
        local::start_runner(&app.program, home, stored.id.as_str(), &stored.dir)?;
    }
    if !journal::is_complete(journal.events()) {
        let complete = journal.record(Event::Complete { time: host::now() });
        complete.and_then(|()| journal.sync()).at("write", &stored.dir.journal())?;
    }
    Ok(())
}

fn announce(
    app: &App,
    args: &SubmitArgs,
    stored: &Stored,
    jobs: &[JobId],
) -> Result<(), CommandError> {
    let id = &stored.id;
    if args.file.json {
        let journal = app.home.load(id)?.journal;
        let value = json!({
            "schema": 1,
            "id": id,
            "dir": stored.dir.0,
            "jobs": jobs_json(&journal),
        });
        out(&value)?;
        return Ok(());
    }
    let trials: usize = stored.experiment.tasks.iter().map(|task| task.trials.len()).sum();
    let what = if jobs.is_empty() {
        "on this machine".to_owned()
    } else {
        format!("as {}", count(jobs.len(), "job array"))
    };
    say(&format!("Submitted {} {what}.", count(trials, "trial")));
    if !args.follow && std::io::stderr().is_terminal() {
        say(&format!(
            "\n  nemo-slurm status {id}\n  nemo-slurm logs {id} --follow\n  nemo-slurm wait {id}\n  nemo-slurm cancel {id}"
        ));
    }
    out(&id.to_string())?;
    Ok(())
}

/// `[{"task", "slurm_job", "trials"}]`, one for each array that is in.
fn jobs_json(journal: &[Event]) -> Vec<serde_json::Value> {
    let intended = |wanted: &str| {
        journal.iter().find_map(|event| match event {
            Event::Intended { token, task, offset, trials, .. } if token == wanted => {
                Some((task.clone(), *offset, *trials))
            }
            _ => None,
        })
    };
    let job = |event: &Event| match event {
        Event::Submitted { token, slurm_job, .. } => {
            let (task, offset, trials) = intended(token)?;
            Some(
                json!({ "task": task, "slurm_job": slurm_job.to_string(), "first_trial": offset, "trials": trials }),
            )
        }
        _ => None,
    };
    journal.iter().filter_map(job).collect()
}
