//! `submit`: writes an experiment down, then asks for it: safe to interrupt anywhere, and to go on with.

use std::io::IsTerminal;

use clap::Args;
use serde_json::json;

use super::slurm_scheduler::SlurmScheduler;
use super::{App, follow, prepare};
use crate::cli::FileArgs;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::slurm::Submission;
use crate::executor::{local, slurm};
use crate::humanize::count;
use crate::journal::{self, Event, Journal, Record};
use crate::report::{out, say};
use crate::slurm::JobId;
use crate::store::claim::{self, ClaimKind};
use crate::store::{self, Claim, ClaimError, ExperimentId, Stored, TakeOver};

/// `submit`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(after_help = "Examples:\n  nemo-slurm submit exp.toml --follow\n  \
    nemo-slurm submit exp.toml --executor cluster --set task.train.params.lr=0.1\n  \
    nemo-slurm submit --continue digits-3kz81q7m    # after a crash, or when Slurm did not answer")]
pub struct SubmitArgs {
    /// What to submit.
    #[command(flatten)]
    pub file: FileArgs,
    /// Continue an interrupted submission; no job array is submitted twice
    #[arg(long = "continue", value_name = "EXPERIMENT", conflicts_with_all = ["file", "set", "executor", "sequential", "dry_run"])]
    pub resume: Option<String>,
    /// With `--continue`: take the submission over from another process, which then stops
    #[arg(long, requires = "resume")]
    pub take_over: bool,
    /// Wait until the experiment is over; exit 0 only if everything completed
    #[arg(long)]
    pub wait: bool,
    /// Show live progress until the experiment is over; Ctrl-C stops the display, not the experiment
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
    // Also where nothing is installed: what was submitted before is run from there.
    store::require_safe(&app.home)?;
    let (stored, claim) = match &args.resume {
        Some(target) => resumed(app, target, args)?,
        None => prepare::create(app, args)?,
    };
    let jobs = carry_out(app, &stored, &claim, take_over(args))?;
    // Others may go on from here, however long this process looks on.
    drop(claim);
    announce(app, args, &stored, &jobs)?;
    if args.follow && std::io::stderr().is_terminal() {
        say("Ctrl-C stops the display, not the experiment.");
    }
    if args.follow || args.wait {
        let view = if args.follow { follow::View::Live } else { follow::View::Silent };
        return follow::until_over(app, &stored, view, None);
    }
    Ok(ExitCode::Fine)
}

/// Claims an interrupted submission and reads it back.
fn resumed(app: &App, target: &str, args: &SubmitArgs) -> Result<(Stored, Claim), CommandError> {
    let (_, stored) = app.find(target)?;
    let claim = claim::take(&stored.dir, ClaimKind::Submission, take_over(args), &|text| say(text));
    let claim = claim.map_err(|error| not_claimed(&stored.id, error))?;
    // Another process may have written until now.
    let mut stored = app.home.load(&stored.id)?;
    if let Some(reason) = journal::refusal(&stored.journal) {
        let text = format!("Slurm refused `{}`: {reason}", stored.id);
        let again =
            format!("change `{}` and submit it again", stored.dir.experiment_toml().display());
        return Err(CommandError::new(ExitCode::Refused, text).hinted(again));
    }
    if !journal::is_complete(&stored.journal) {
        let path = stored.dir.journal();
        let mut journal = Journal::open(&path, stored.journal, &claim).at("open", &path)?;
        journal.record(prepare::submitter()).at("write", &path)?;
        stored.journal = journal.events().to_vec();
    }
    Ok((stored, claim))
}

fn take_over(args: &SubmitArgs) -> TakeOver {
    if args.take_over { TakeOver::FromAnyone } else { TakeOver::FromTheDead }
}

fn not_claimed(id: &ExperimentId, error: ClaimError) -> CommandError {
    let is_held = matches!(error, ClaimError::Held { .. });
    let error = CommandError::from(error);
    if !is_held {
        return error;
    }
    error.hinted(format!("`nemo-slurm status {id}` shows how far it is")).hinted(format!(
        "`nemo-slurm submit --continue {id} --take-over` takes over, if that process is stuck"
    ))
}

/// Asks for everything that was not asked for yet. Returns the jobs of the plan's arrays.
fn carry_out(
    app: &App,
    stored: &Stored,
    claim: &Claim,
    take_over: TakeOver,
) -> Result<Vec<JobId>, CommandError> {
    let app = &app.on_cluster_of(stored);
    let path = stored.dir.journal();
    let mut journal = Journal::open(&path, stored.journal.clone(), claim).at("open", &path)?;
    if !prepare::is_on_slurm(&stored.experiment) {
        run_here(app, stored, &mut journal, take_over)?;
        return Ok(Vec::new());
    }
    if journal::plans(&stored.journal).next().is_none() {
        return Err(no_plan(stored));
    }
    let is_elsewhere = claim.taken_from.is_some();
    let mut jobs = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let damaged_since = stored.damage.as_ref().map(|_| stored.id.made_at() as f64);
    for plan in journal::plans(&stored.journal) {
        let (id, dir) = (stored.id.as_str(), &stored.dir);
        let submission = Submission { id, dir, plan, damaged_since };
        let mut slurm = SlurmScheduler {
            client: &app.slurm,
            submission,
            is_elsewhere,
            said: Vec::new(),
            submitted: Vec::new(),
        };
        let submitted = slurm::submit(submission, &mut slurm, &mut journal, &clock::now);
        jobs.extend(submitted.map_err(|error| not_submitted(stored, error))?);
    }
    Ok(jobs)
}

fn not_submitted(stored: &Stored, error: slurm::SubmitError) -> CommandError {
    use slurm::SubmitError;
    let id = &stored.id;
    let next = match error {
        SubmitError::Refused { .. } | SubmitError::Claim(_) => None,
        SubmitError::NotTakenBack { .. } => {
            Some(format!("`nemo-slurm cancel {id}` cancels the job arrays that Slurm accepted"))
        }
        SubmitError::NotAsked { .. }
        | SubmitError::Slurm { .. }
        | SubmitError::Held(_)
        | SubmitError::Journal(_) => {
            Some(format!("`nemo-slurm submit --continue {id}` continues it"))
        }
    };
    let error = CommandError::from(error);
    match next {
        Some(next) => error.hinted(next),
        None => error,
    }
}

/// A damaged plan is not replaced: its job arrays may be in Slurm already.
fn no_plan(stored: &Stored) -> CommandError {
    let path = stored.dir.journal();
    let text = format!("`{}` holds no readable plan", path.display());
    CommandError::new(ExitCode::Refused, text).hinted(format!(
        "cancel it with `nemo-slurm cancel {}`, and submit `{}` again",
        stored.id,
        stored.dir.experiment_toml().display()
    ))
}

/// Starts the runner of a local experiment, unless it has one.
fn run_here(
    app: &App,
    stored: &Stored,
    journal: &mut Journal<'_>,
    take_over: TakeOver,
) -> Result<(), CommandError> {
    let dir = &stored.dir;
    // Released at once: the runner that is started claims it for itself.
    match claim::take(dir, ClaimKind::Runner, take_over, &|text| say(text)).map(drop) {
        Ok(()) => {
            journal.check_claim()?;
            local::start_runner(&app.program, app.home.path(), stored.id.as_str(), dir)?;
        }
        Err(ClaimError::Held { holder: Some(holder) }) if holder.runs_here() => {}
        Err(error) => return Err(not_claimed(&stored.id, error)),
    }
    if !journal::is_complete(journal.events()) {
        let path = dir.journal();
        journal.record(Event::Complete { generation: 0, time: clock::now() }).at("write", &path)?;
        journal.sync().at("sync", &path)?;
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
    let trials = stored.experiment.n_trials();
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

/// `[{"task", "slurm_job", "first_trial", "trials", "set"}]`, one for each array that is in.
fn jobs_json(journal: &[Event]) -> Vec<serde_json::Value> {
    journal::submitted_arrays(journal).iter().map(job_json).collect()
}

fn job_json(array: &journal::Submitted<'_>) -> serde_json::Value {
    json!({
        "task": array.task,
        "slurm_job": array.job.to_string(),
        "first_trial": array.trials.first(),
        "trials": array.trials.count(),
        "set": array.trials,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn what_continue_could_not_do_is_refused() {
        let parse = |words: &[&str]| {
            Cli::try_parse_from([&["nemo-slurm", "submit", "--continue", "a"], words].concat())
                .map(drop)
        };
        parse(&[]).unwrap();
        parse(&["--wait"]).unwrap();
        for other in [&["--dry-run"][..], &["--sequential"], &["--executor", "it"]] {
            let error = parse(other).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{other:?}");
        }
    }
}
