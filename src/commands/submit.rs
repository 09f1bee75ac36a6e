//! `submit`: writes an experiment down, then asks for it: safe to interrupt anywhere, and to go on with.

mod runner;
mod script;

use std::io::IsTerminal;

use clap::Args;
use serde_json::json;

pub(super) use self::runner::start_runner;
use super::follow_output::View;
use super::slurm_scheduler::SlurmScheduler;
use super::{App, control, follow, outside, prepare};
use crate::cli::FileArgs;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::executor::slurm::{self, Submission};
use crate::humanize::count;
use crate::journal::{self, Event, Journal, Record};
use crate::report::live::Stream;
use crate::report::{out, say};
use crate::slurm::JobId;
use crate::store::claim::{self, ClaimKind};
use crate::store::{self, Claim, ClaimError, ExperimentId, Stored, TakeOver};

/// `submit`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(after_help = "Examples:\n  nemo-slurm submit exp.toml --follow\n  \
    nemo-slurm submit exp.toml --executor cluster --set task.train.params.lr=0.1\n  \
    nemo-slurm submit --continue digits-3kz81q7m    # after a crash, or when Slurm did not answer\n  \
    nemo-slurm submit old.sbatch --sbatch '--array=1-3' -- arguments    # a job script, wrapped")]
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
    /// Run one trial at a time, and one task after the other
    #[arg(long)]
    pub sequential: bool,
    /// Show the plan, or the script that would be submitted; submit nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A job script that is submitted
    #[command(flatten)]
    pub script: ScriptArgs,
}

/// A job script in the place of an experiment's file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Job scripts")]
pub struct ScriptArgs {
    /// Options of `sbatch`, as in `--sbatch '--array=1-3 -p short'`
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub sbatch: Vec<String>,
    /// Options of `nemo-harness wrap`, as in `--wrap '--profile lightning --lead 5m'`
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub wrap: Vec<String>,
    /// Let the harness run the script as a whole, not its last command
    #[arg(long)]
    pub whole: bool,
    /// Arguments of the script
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

/// Submits a file, or goes on with an interrupted submission.
pub(super) fn submit(app: &App, args: &SubmitArgs) -> Result<ExitCode, CommandError> {
    if args.resume.is_none()
        && let Some(text) = script::read(&args.file.file)
    {
        return script::submit(app, args, &text);
    }
    script::require_none(&args.script)?;
    if args.dry_run {
        return super::plan::show(app, &args.file, false, args.sequential);
    }
    let before = newest(app);
    submit_now(app, args).map_err(|error| match newest(app) {
        // Who goes on with `@` must not mean what was submitted before.
        Some(still) if args.resume.is_none() && before.as_ref() == Some(&still) => {
            error.hinted(format!("nothing was submitted: `@` is still `{still}`"))
        }
        Some(_) | None => error,
    })
}

fn newest(app: &App) -> Option<ExperimentId> {
    store::resolve(&app.home, "@").ok().map(|target| target.id)
}

fn submit_now(app: &App, args: &SubmitArgs) -> Result<ExitCode, CommandError> {
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
        let view = if args.follow { View::Live(Stream::Err) } else { View::Silent };
        return follow::until_over(app, &stored, view, None);
    }
    Ok(ExitCode::Fine)
}

/// Claims an interrupted submission and reads it back.
fn resumed(app: &App, target: &str, args: &SubmitArgs) -> Result<(Stored, Claim), CommandError> {
    let (_, stored) = app.find(target)?;
    control::refuse_wrapped(&stored, "submit --continue")?;
    let claim = claim::take(&stored.dir, ClaimKind::Submission, take_over(args), &|text| say(text));
    let claim = claim.map_err(|error| not_claimed(&stored.id, error))?;
    // Another process may have written until now.
    let mut stored = app.home.load(&stored.id)?;
    if let Some(reason) = journal::refusal(&stored.journal) {
        let text = format!("Slurm refused `{}`: {reason}", stored.id);
        return Err(CommandError::new(ExitCode::Refused, text).hinted(submit_anew(&stored)));
    }
    if !journal::is_generation_complete(&stored.journal, 0) {
        // Jobs outside that Slurm has forgotten meanwhile may have failed.
        outside::resolve_again(app, &stored)?;
    }
    if !journal::is_complete(&stored.journal) {
        let mut journal = Journal::open(&stored.dir.journal(), stored.journal, &claim)?;
        journal.record(prepare::submitter())?;
        stored.journal = journal.events().to_vec();
    }
    Ok((stored, claim))
}

fn take_over(args: &SubmitArgs) -> TakeOver {
    if args.take_over { TakeOver::FromAnyone } else { TakeOver::FromTheDead }
}

pub(super) fn not_claimed(id: &ExperimentId, error: ClaimError) -> CommandError {
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
pub(super) fn carry_out(
    app: &App,
    stored: &Stored,
    claim: &Claim,
    take_over: TakeOver,
) -> Result<Vec<JobId>, CommandError> {
    let mut jobs = Vec::new();
    if stored.experiment.has_slurm() {
        jobs = submit_arrays(app, stored, claim)?;
    }
    if stored.experiment.has_local() {
        start_runner(app, stored, claim, take_over)?;
    }
    Ok(jobs)
}

/// Asks Slurm for everything of the experiment's plans that it was not asked for yet.
pub(super) fn submit_arrays(
    app: &App,
    stored: &Stored,
    claim: &Claim,
) -> Result<Vec<JobId>, CommandError> {
    let app = &app.on_cluster_of(stored);
    let mut journal = Journal::open(&stored.dir.journal(), stored.journal.clone(), claim)?;
    if journal::plans(&stored.journal).next().is_none() {
        return Err(no_plan(stored));
    }
    let is_elsewhere = claim.taken_from.is_some();
    let mut jobs = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let damaged_since = stored.damage.as_ref().map(|_| stored.id.made_at() as f64);
    let refused = journal::refused_generations(&stored.journal);
    let plans = journal::plans(&stored.journal);
    for plan in plans.filter(|plan| !refused.contains(&plan.generation)) {
        let (id, dir) = (stored.id.as_str(), &stored.dir);
        let submission = Submission { id, dir, plan, damaged_since, is_new: claim.is_of_new };
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

/// What to type where Slurm took nothing. The copy in the home is not what to submit: paths in it mean another folder.
pub(super) fn submit_anew(stored: &Stored) -> String {
    format!(
        "correct your file in `{}` and submit it again (what you submitted is kept as `{}`)",
        stored.experiment.workdir.display(),
        stored.dir.experiment_toml().display()
    )
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

fn announce(
    app: &App,
    args: &SubmitArgs,
    stored: &Stored,
    jobs: &[JobId],
) -> Result<(), CommandError> {
    let id = &stored.id;
    let now = app.home.load(id)?;
    let is_postponed = now.journal.iter().any(|event| matches!(event, Event::Postponed { .. }));
    if jobs.is_empty() && is_postponed {
        say(
            "warning: your job limit in Slurm is reached: nothing is submitted yet, and no job of this experiment can submit it later.",
        );
        say(&format!(
            "hint: `nemo-slurm poll {id}` tries again, and `nemo-slurm poll --install` has cron do it"
        ));
    }
    if args.file.json {
        let journal = now.journal;
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
    say(&format!("Submitted {}.", what_was_submitted(&now, trials, jobs.len())));
    if !args.follow && std::io::stderr().is_terminal() {
        say(&format!(
            "\n  nemo-slurm status {id}\n  nemo-slurm watch {id}\n  nemo-slurm logs {id} --follow\n  nemo-slurm wait {id}\n  nemo-slurm cancel {id}"
        ));
    }
    out(&id.to_string())?;
    Ok(())
}

/// How many trials run where, and how many come later.
fn what_was_submitted(stored: &Stored, n_trials: usize, n_arrays: usize) -> String {
    let experiment = &stored.experiment;
    let later: usize = experiment
        .tasks
        .iter()
        .filter(|task| !experiment.is_local(task))
        .map(|task| journal::unplanned(&stored.journal, task).count())
        .sum();
    let arrays = (n_arrays > 0).then(|| format!("as {}", count(n_arrays, "job array")));
    let here = experiment.has_local().then(|| "on this machine".to_owned());
    let places: Vec<String> = arrays.into_iter().chain(here).collect();
    let now = count(n_trials.saturating_sub(later), "trial");
    match later {
        0 => format!("{now} {}", places.join(" and ")),
        later => format!(
            "{now} {}; {} will be submitted later",
            places.join(" and "),
            count(later, "trial")
        ),
    }
}

/// `[{"task", "slurm_job", "first_trial", "trials", "set"}]`, one for each array that is in.
fn jobs_json(journal: &[Event]) -> Vec<serde_json::Value> {
    journal::submitted_arrays(journal).iter().map(job_json).collect()
}

pub(super) fn job_json(array: &journal::Submitted<'_>) -> serde_json::Value {
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
