//! `retry`: runs trials again that are over and not done, as a new generation of the experiment: from their checkpoints,
//! with the tasks that were blocked by them.
//!
//! What is retried is in the journal before anything is submitted, so that the repeat of a killed `retry`, `poll` or
//! `submit --continue` goes on with the very same.

mod advice;
mod advise;
pub(super) mod automatic;
pub(super) mod changes;
mod choice;
mod intact;
mod print;
mod rule_use;
mod start_point;

use std::collections::BTreeSet;

use clap::Args;
use clap::builder::PossibleValue;
use nemo_core::scope::{Scope, TrialSet};
use nemo_core::{durable, environment};

use self::advise::AdviceRow;
use self::changes::{StartPoint, WantedChanges};
use self::choice::Choice;
use super::control::{self, TrialKey};
use super::note::{stamp, user};
use super::status::look;
use super::{
    App, archive, due, followers, generation, kept_environment, prepare, shipped_code, submit,
};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::Override;
use crate::journal::{self, Retry};
use crate::plan::Plan;
use crate::report::say;
use crate::slurm::IndexSet;
use crate::status::{RequestedAction, State, Status};
use crate::store::claim::{self, ClaimKind};
use crate::store::{self, Claim, Stored, TakeOver, Target};
use crate::{summary, trial_error};

/// `retry`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(
    after_help = "A trial goes on from its newest checkpoint. Its parameters stay as they are, and the limits in \
    `restart` count from zero again. What `--set` changes holds for later retries too. Tasks that were blocked by it wait for it again. \
    What another experiment blocked (`after` at the top) is retried here after that one was retried.\n\n\
    Examples:\n  nemo-slurm retry digits\n  nemo-slurm retry digits/train --state failed --trials 3,17\n  \
    nemo-slurm retry digits --set executor.mem=64G --set restart.crashes=3\n  \
    nemo-slurm retry digits --advise --dry-run\n  \
    nemo-slurm retry digits/train/3 --from-step 4000\n  \
    nemo-slurm retry @ --dry-run"
)]
pub struct RetryArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    pub target: String,
    /// Retry only trials in these states
    #[arg(
        long,
        value_name = "STATES",
        value_delimiter = ',',
        default_value = "failed,timeout,cancelled"
    )]
    pub state: Vec<RetryState>,
    /// Retry only these trials, such as 3,17,40-49
    #[arg(long, value_name = "TRIALS", value_parser = trial_set)]
    pub trials: Option<TrialSet>,
    /// Begin again from the start; the checkpoints are set aside
    #[arg(long, conflicts_with = "from_step")]
    pub from_start: bool,
    /// Begin from the checkpoint of this step; later ones are set aside
    #[arg(long, value_name = "STEP")]
    pub from_step: Option<u64>,
    /// Change a key of the executor, of `restart` or of `checkpoint`, as in `--set executor.mem=64G`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = change)]
    pub set: Vec<Override>,
    /// Change resources according to why each trial failed; do not retry what would fail again
    #[arg(long)]
    pub advise: bool,
    /// Show what would be retried, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A state in which a trial can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryState(State);

impl clap::ValueEnum for RetryState {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(State::Failed), Self(State::Timeout), Self(State::Cancelled)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()))
    }
}

fn change(text: &str) -> Result<Override, String> {
    text.parse::<Override>()
        .map_err(|why| format!("{why} (here for example --set executor.mem=64G)"))
}

fn trial_set(text: &str) -> Result<TrialSet, String> {
    text.parse().map_err(|_| "write trials as in --trials 3,17,40-49".to_owned())
}

/// Retries what the target means.
pub(super) fn retry(app: &App, args: &RetryArgs) -> Result<ExitCode, CommandError> {
    let target = target(app, args)?;
    let stored = app.home.load(&target.id)?;
    let app = &app.on_cluster_of(&stored);
    control::refuse_wrapped(&stored, "retry")?;
    archive::refuse_archived(&stored)?;
    require_whole(&stored)?;
    if args.dry_run {
        let status = look(app, &stored)?;
        let wanted = choose(app, args, &stored, &target, status.clone())?;
        say_code(app, &stored, &wanted);
        return print::would_retry(app, args, &stored, &status, &target, &wanted);
    }
    // What was submitted before is run from there.
    store::require_safe(&app.home)?;
    let claim =
        claim::take(&stored.dir, ClaimKind::Submission, TakeOver::FromTheDead, &|text| say(text));
    let claim = claim.map_err(|error| submit::not_claimed(&stored.id, error))?;
    // Another process may have written until now.
    let mut stored = app.home.load(&stored.id)?;
    require_whole(&stored)?;
    let mut generation = None;
    if !journal::is_complete(&stored.journal) {
        generation = Some(journal::last_generation(&stored.journal));
        say("An earlier `retry` was interrupted: going on with it.");
        carry_out(app, &mut stored, &claim)?;
    }
    let status = look(app, &stored)?;
    let wanted = choose(app, args, &stored, &target, status.clone())?;
    let n_events = stored.journal.len();
    if !wanted.choice.is_empty() {
        generation = Some(begin(app, &mut stored, &claim, &status, &wanted)?);
        carry_out(app, &mut stored, &claim)?;
    }
    drop(claim);
    if journal::may_fit_fewer(stored.journal.get(n_events..).unwrap_or_default()) {
        submit::submit_rest(app, &stored);
        stored = app.home.load(&stored.id)?;
    }
    // Those that wait for it may be submitted, once all of it has jobs again.
    followers::submit(app, &stored.dir);
    // What a list shows is then as new.
    look(app, &stored)?;
    say_code(app, &stored, &wanted);
    print::announce(args, &stored, &target, &wanted, generation)
}

/// Says which code runs: one may have corrected the files, and expect that.
fn say_code(app: &App, stored: &Stored, wanted: &WantedRetry) {
    let code =
        (!wanted.choice.is_empty()).then(|| shipped_code::description(app, stored)).flatten();
    if let Some(code) = code {
        say(&code);
    }
}

/// The target, with the trials of `--trials`.
fn target(app: &App, args: &RetryArgs) -> Result<Target, CommandError> {
    let (mut target, stored) = app.find(&args.target)?;
    let Some(trials) = &args.trials else { return Ok(target) };
    if target.scope.trials.is_some() {
        let text = format!("`{target}` names trials, and so does `--trials`");
        return Err(CommandError::new(ExitCode::Usage, text).hinted("name them once"));
    }
    let only = match stored.experiment.tasks.as_slice() {
        [task] => Some(task.name.clone()),
        _ => None,
    };
    let Some(task) = target.scope.task.take().or(only) else {
        let text = format!("`{}` has several tasks: `--trials` needs one", target.id);
        let hint = format!("`nemo-slurm retry {}/TASK --trials {trials}`", target.id);
        return Err(CommandError::new(ExitCode::Usage, text).hinted(hint));
    };
    Ok(app.find(&format!("{}/{task}/{trials}", target.id))?.0)
}

/// Fails where it is not known what was submitted, or where that is not done yet.
fn require_whole(stored: &Stored) -> Result<(), CommandError> {
    let id = &stored.id;
    if let Some(damage) = &stored.damage {
        let text = format!("{damage}: what was submitted is not known for sure");
        let hint =
            format!("submit `{}` as a new experiment", stored.dir.experiment_toml().display());
        return Err(CommandError::new(ExitCode::Refused, text).hinted(hint));
    }
    if let Some(reason) = journal::refusal(&stored.journal) {
        let text = format!("Slurm refused `{id}`: {reason}");
        return Err(CommandError::new(ExitCode::Refused, text).hinted(submit::submit_anew(stored)));
    }
    if !journal::is_generation_complete(&stored.journal, 0) {
        let text = format!("experiment `{id}` is not fully submitted yet");
        return Err(CommandError::new(ExitCode::Usage, text)
            .hinted(format!("`nemo-slurm submit --continue {id}` continues it")));
    }
    Ok(())
}

/// What is retried, and how.
#[derive(Debug)]
struct WantedRetry {
    choice: Choice,
    retry: Retry,
    /// What `--advise` says of failed trials.
    advice: Option<Vec<AdviceRow>>,
}

fn choose(
    app: &App,
    args: &RetryArgs,
    stored: &Stored,
    target: &Target,
    mut status: Status,
) -> Result<WantedRetry, CommandError> {
    let in_states: Vec<State> = args.state.iter().map(|state| state.0).collect();
    let from_step = args.from_step.map(StartPoint::Step);
    let start = from_step.or(args.from_start.then_some(StartPoint::Start));
    let mut refused = start_point::refused(stored, &status, start)?;
    let deadline = changes::new_deadline(stored, &status);
    let mut changes = WantedChanges { start, deadline, ..WantedChanges::default() };
    let mut advice = None;
    if args.advise {
        trial_error::set_errors(&mut status, stored);
        let advised = advise::advise(app, stored, &status, &target.scope, &in_states)?;
        refused.extend(advised.refused);
        changes.each = advised.each;
        advice = Some(advised.rows);
    }
    let choice = choice::choose(&stored.experiment, &target.scope, &in_states, &refused, &status);
    if let Some(start) = start.filter(|_| choice.is_empty()) {
        start_point::require_any(&choice.left, stored, start)?;
    }
    intact::require(stored, &choice.trials())?;
    changes.all = changes::parse(&args.set, &stored.experiment)?;
    let generation = generation::next(stored);
    let retry = changes::assign(choice.retry(&status), generation, stored, &choice, &changes);
    changes::check(stored, &retry)?;
    let mut retry = advise::with_advice(retry, advice.as_deref());
    retry.user = Some(user(app));
    Ok(WantedRetry { choice, retry, advice })
}

/// Writes down what is retried: from here on it is a submission like the first one. Returns the generation.
fn begin(
    app: &App,
    stored: &mut Stored,
    claim: &Claim,
    status: &Status,
    wanted: &WantedRetry,
) -> Result<u32, CommandError> {
    let WantedRetry { choice, retry, .. } = wanted;
    let trials = choice.trials();
    let generation = generation::next(stored);
    let on_slurm = prepare::is_on_slurm(&stored.experiment);
    // Before anything changes: what it waits for outside may have failed.
    let selected = on_slurm
        .then(|| {
            // What waits for this machine, or is retried with what does, is submitted later.
            let now = due::submittable_now(stored, status, &trials, app)?;
            let selected = generation::selection(app, stored, status, now.trials, Some(retry))?;
            selected.ok_or_else(|| has_changed(stored))
        })
        .transpose()?;
    restore_secrets(app, stored)?;
    cancel_leftovers(app, stored, status, choice)?;
    // Whoever finds this does not believe the index, in which the experiment is over.
    let mark = format!("{}-retry{generation}", stamp(clock::now()));
    summary::mark_as_noted(&app.home, &stored.id, &mark).at("write", &app.home.index())?;
    for (task, trials) in &trials {
        ask_for(stored, task, trials)?;
        for trial in trials.iter() {
            remove_pause(stored, task, trial)?;
        }
    }
    changes::write(app, stored, retry)?;
    let retry = Some(retry.clone());
    let Some(selected) = selected else {
        let plan = Plan { generation, arrays: Vec::new() };
        generation::record(stored, claim, plan, retry)?;
        return Ok(generation);
    };
    if generation::plan(app, stored, &selected, claim, retry)?.is_none() {
        let text = format!("`{}` was submitted by a version that knew no `retry`", stored.id);
        let again =
            format!("submit `{}` as a new experiment", stored.dir.experiment_toml().display());
        return Err(CommandError::new(ExitCode::Refused, text).hinted(again));
    }
    Ok(generation)
}

/// What was to be waited for had jobs a moment ago, and has none now.
fn has_changed(stored: &Stored) -> CommandError {
    let text = format!("what `{}` waits for is being submitted just now", stored.id);
    CommandError::new(ExitCode::Refused, text).hinted("nothing was changed: try again")
}

/// Asks Slurm, or the local runner, for all that is in the journal.
fn carry_out(app: &App, stored: &mut Stored, claim: &Claim) -> Result<(), CommandError> {
    // Before anything is asked for: whoever is killed from here on leaves what waits to those that it waits for.
    followers::enlist(app, stored);
    submit::carry_out(app, stored, claim, TakeOver::FromTheDead)?;
    *stored = app.home.load(&stored.id)?;
    // It may wait only since there was no room.
    followers::enlist(app, stored);
    Ok(())
}

/// Once an experiment was over, its secrets were removed: they are those of this shell now.
fn restore_secrets(app: &App, stored: &Stored) -> Result<(), CommandError> {
    let path = stored.dir.secrets();
    if path.exists() {
        return Ok(());
    }
    let secrets = kept_environment::gather(app, &stored.experiment)?.secrets;
    if !secrets.is_empty() {
        durable::replace_file_durably(&path, &environment::to_file(&secrets)).at("write", &path)?;
    }
    Ok(())
}

/// Cancels earlier jobs of the chosen trials that Slurm may still have: those that wait for what can never be, and those
/// of which it is not certain that they are over.
fn cancel_leftovers(
    app: &App,
    stored: &Stored,
    status: &Status,
    choice: &Choice,
) -> Result<(), CommandError> {
    let open: BTreeSet<TrialKey> = choice.open(status);
    if open.is_empty() || !prepare::is_on_slurm(&stored.experiment) {
        return Ok(());
    }
    for (task, trials) in choice.trials() {
        let meant = trials.iter().filter(|trial| open.contains(&(task.clone(), *trial)));
        let Some(trials) = TrialSet::new(meant) else { continue };
        let scope = Scope { task: Some(task), trials: Some(trials) };
        let target = Target { id: stored.id.clone(), scope };
        let control::Arrays { known, unknown } =
            control::arrays(app, stored, &stored.journal, &target);
        if let Some((_, error)) = unknown.into_iter().next() {
            return Err(error.into());
        }
        let alive = control::queued(&app.slurm, &known)?.alive;
        let ids = control::job_ids(&known, &alive);
        if !ids.is_empty() {
            let names = known.iter().map(|part| part.token.clone()).collect();
            app.slurm.control(names).cancel(&ids)?;
        }
    }
    Ok(())
}

/// Writes the request down, so that an earlier cancellation or pause holds no more.
fn ask_for(stored: &Stored, task: &str, trials: &IndexSet) -> Result<(), CommandError> {
    let scope = Scope { task: Some(task.to_owned()), trials: TrialSet::new(trials.iter()) };
    let target = Target { id: stored.id.clone(), scope };
    control::request(stored, &target, RequestedAction::Retry)
}

fn remove_pause(stored: &Stored, task: &str, trial: u32) -> Result<(), CommandError> {
    let path = stored.dir.task(task).trial(trial).pause();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed.at("remove", &path)?),
    }
}
