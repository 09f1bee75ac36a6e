//! `submit`: writes an experiment down, then asks for it: safe to interrupt anywhere, and to go on with.

mod outcome;
mod runner;
mod script;

use std::io::IsTerminal;

use clap::Args;

pub(super) use self::outcome::Unsubmitted;
pub(super) use self::outcome::job_json;
use self::outcome::{announce, announce_nothing};
pub(super) use self::runner::start_runner;
use super::follow_output::View;
use super::slurm_scheduler::SlurmScheduler;
use super::status::look;
use super::{App, control, due, follow, followers, outside, prepare};
use crate::cli::FileArgs;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::executor::local;
use crate::executor::slurm::{self, Submission};
use crate::journal::{self, Journal, Record};
use crate::report::live::Stream;
use crate::report::say;
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
    let n_arrays = journal::submitted_arrays(&stored.journal).len();
    if args.resume.is_some() && is_done(app, &stored, args)? {
        drop(claim);
        followers::submit(app, &stored.dir);
        announce_nothing(args, &stored, "it was submitted completely before")?;
        return until_over(app, args, &stored);
    }
    // Before anything is asked for: whoever is killed from here on leaves what waits to those that it waits for.
    followers::enlist(app, &stored);
    carry_out(app, &stored, &claim, take_over(args))?;
    // Others may go on from here, however long this process looks on.
    drop(claim);
    let mut now = app.home.load(&stored.id)?;
    let follows = followers::is_waiting(&now);
    // It may wait only since there was no room.
    followers::enlist(app, &now);
    // What it waits for may have got its last jobs before anybody could know that this one waits.
    if args.resume.is_some() || follows || journal::may_fit_fewer(&now.journal) {
        submit_rest(app, &stored);
        now = app.home.load(&stored.id)?;
    }
    // It may have got its last jobs now.
    followers::submit(app, &stored.dir);
    let is_unchanged = n_arrays == journal::submitted_arrays(&now.journal).len();
    if is_unchanged && !stored.experiment.has_local() && Unsubmitted::of(&now)?.later == 0 {
        announce_nothing(args, &now, "what was not submitted is cancelled")?;
    } else {
        announce(args, &now)?;
    }
    until_over(app, args, &stored)
}

/// Waits where the user wants that.
fn until_over(app: &App, args: &SubmitArgs, stored: &Stored) -> Result<ExitCode, CommandError> {
    if args.follow && std::io::stderr().is_terminal() {
        say("Ctrl-C stops the display, not the experiment.");
    }
    if args.follow || args.wait {
        let view = if args.follow { View::Live(Stream::Err) } else { View::Silent };
        return follow::until_over(app, stored, view, None);
    }
    Ok(ExitCode::Fine)
}

/// Whether all is submitted, and a runner has what is left for this machine.
fn is_done(app: &App, stored: &Stored, args: &SubmitArgs) -> Result<bool, CommandError> {
    if !journal::is_complete(&stored.journal) || Unsubmitted::of(stored)?.later > 0 {
        return Ok(false);
    }
    if !stored.experiment.has_local() {
        return Ok(true);
    }
    let is_running = local::is_running(&stored.dir)?.is_some();
    if args.take_over || is_running {
        return Ok(!args.take_over);
    }
    let status = look(&app.on_cluster_of(stored), stored)?;
    Ok(!due::has_left_here(stored, &status))
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

/// Asks for everything that was not asked for yet.
pub(super) fn carry_out(
    app: &App,
    stored: &Stored,
    claim: &Claim,
    take_over: TakeOver,
) -> Result<(), CommandError> {
    if stored.experiment.has_slurm() {
        submit_arrays(app, stored, claim)?;
    }
    if stored.experiment.has_local() {
        start_runner(app, stored, claim, take_over)?;
    }
    Ok(())
}

/// Asks Slurm for everything of the experiment's plans that it was not asked for yet.
pub(super) fn submit_arrays(app: &App, stored: &Stored, claim: &Claim) -> Result<(), CommandError> {
    let app = &app.on_cluster_of(stored);
    let mut journal = Journal::open(&stored.dir.journal(), stored.journal.clone(), claim)?;
    if journal::plans(&stored.journal).next().is_none() {
        return Err(no_plan(stored));
    }
    let is_elsewhere = claim.taken_from.is_some();
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let damaged_since = stored.damage.as_ref().map(|_| stored.id.made_at() as f64);
    let refused = journal::refused_generations(&stored.journal);
    // What is new nobody can have cancelled.
    let requests = if claim.is_of_new { Vec::new() } else { control::requests(stored)? };
    let plans = journal::plans(&stored.journal);
    for plan in plans.filter(|plan| !refused.contains(&plan.generation)) {
        let (id, dir) = (stored.id.as_str(), &stored.dir);
        let (is_new, requests) = (claim.is_of_new, &*requests);
        let submission = Submission { id, dir, plan, damaged_since, is_new, requests };
        let mut slurm = SlurmScheduler {
            client: &app.slurm,
            submission,
            is_elsewhere,
            said: Vec::new(),
            submitted: Vec::new(),
        };
        let submitted = slurm::submit(submission, &mut slurm, &mut journal, &clock::now);
        submitted.map_err(|error| not_submitted(stored, error))?;
    }
    Ok(())
}

/// Submits what was left out, beside cancelled trials or since Slurm had no room for so many, and may run all the same. Where
/// that fails, `poll` does it.
pub(super) fn submit_rest(app: &App, before: &Stored) {
    let again = || {
        let stored = app.home.load(&before.id)?;
        if Unsubmitted::of(&stored)?.later == 0 {
            return Ok(());
        }
        let app = &app.on_cluster_of(&stored);
        let status = look(app, &stored)?;
        due::submit_due(app, &stored, &status).map(drop)
    };
    let again: Result<(), CommandError> = again();
    if let Err(error) = again {
        let hint = format!("`nemo-slurm poll {}` tries again", before.id);
        say(&format!("warning: {}; {hint}", error.one_line()));
    }
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
