//! `status`: where an experiment stands.

use std::mem::ManuallyDrop;

use clap::Args;
use nemo_core::rundir::notes;

use super::retry::automatic;
use super::{App, followers, note, notices, outside};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::journal;
use crate::observe::{self, Depth};
use crate::query::SlurmSource;
use crate::report::{Page, attempts_table, out, out_json, status_table};
use crate::status::{
    self, Certainty, QueryResult, State, Status, StatusInputs, TaskStatus, TrialStatus,
    TrialWarning, UnreportedMetrics, join, recount,
};
use crate::store::{ExperimentId, Stored, Target};
use crate::summary::{InputVersions, Look, Summary};
use crate::{clock, remembered, results, summary, trial_error};

/// `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm status            # the newest\n  nemo-slurm status digits/train --attempts\n  \
    nemo-slurm status @ --json | jq '.tasks[].counts'"
)]
pub struct StatusArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
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
    let depth = Depth::Shown(&target.scope);
    let (status, _) = look_by(app, &stored, SlurmSource::Slurm(&app.slurm), depth)?;
    // The process ends with it: nobody has to tidy up ten thousand trials.
    let mut status = ManuallyDrop::new(status);
    narrow(&mut status, &target);
    trial_error::set_errors(&mut status, &stored);
    trial_error::tell_vain_starts(&mut status, &stored);
    status.warnings.extend(notices::failures(&stored)?);
    if args.json {
        return out_json(&*status);
    }
    let page = Page::here(clock::now());
    out(&status_table(&status, &page))?;
    if args.attempts || target.scope.trials.is_some() {
        out(&attempts_table(&status, &page))?;
    }
    Ok(ExitCode::Fine)
}

/// Looks at the experiment, and remembers what was seen.
pub(super) fn look(app: &App, stored: &Stored) -> Result<Status, CommandError> {
    look_by(app, stored, SlurmSource::Slurm(&app.slurm), Depth::All).map(|(status, _)| status)
}

/// The same, with Slurm's answer from elsewhere; and what a list shows of it now.
pub(super) fn look_by(
    app: &App,
    stored: &Stored,
    source: SlurmSource<'_>,
    depth: Depth<'_>,
) -> Result<(Status, Summary), CommandError> {
    // Who asks for all experiments together asks the cluster of this machine.
    let is_elsewhere = stored.experiment.cluster().is_some();
    let source = match source {
        SlurmSource::Asked(_) if is_elsewhere => SlurmSource::Slurm(&app.slurm),
        source => source,
    };
    // Before anything is read: what comes meanwhile is then seen to be new.
    let mut from = InputVersions::of(&stored.dir);
    let earlier = summary::read(&stored.dir);
    let mut sources = sources(app, stored, source, depth)?;
    let mut status = join(&sources);
    status::set_params(&mut status, std::mem::take(&mut sources.params));
    let unreported = status.unreported.iter().flat_map(|own| unreported(stored, own, depth));
    status.warn_of_trials(unreported.collect::<Vec<_>>());
    if !app.is_read_only {
        remembered::keep(stored, &status);
    }
    let is_over = is_final(&sources, &status);
    if depth == Depth::Open && (is_over || contradicts_an_end(&sources, &status)) {
        // What is kept for good is about all of it, and so is what a rule decides by. Where Slurm still shows the job of a
        // trial that was over, the trial's folder decides, which was not read.
        return look_by(app, stored, source, Depth::All);
    }
    let whole = Target::whole(stored.id.clone());
    let is_final = is_over
        && !automatic::is_due(stored, &status, &whole)?
        && !notices::are_open(stored, &status)?;
    let slurm_answered = matches!(sources.queue, QueryResult::Rows(_) | QueryResult::Partly(..));
    let now = clock::now();
    from.slurm =
        if slurm_answered { Some(now) } else { earlier.as_ref().and_then(|it| it.from.slurm) };
    let first = || version(app, &stored.id);
    let version = earlier.as_ref().map_or_else(first, |it| Ok(it.row.version))?;
    let notes = &notes::read_all(&stored.dir).at("read", &stored.dir.notes())?;
    let look = Look { earlier: earlier.as_ref(), notes, is_final, version, now };
    let mut summary = summary::of(stored, &status, from, look);
    if depth == Depth::Open {
        summary.keep_best(stored, &status, earlier.as_ref().and_then(|it| it.row.best.clone()));
    }
    if !app.is_read_only {
        let earlier = earlier.as_ref();
        keep_summary(app, (stored, &summary), earlier, may_be_reopened(&sources, &status))?;
    }
    Ok((status, summary))
}

fn keep_summary(
    app: &App,
    (stored, summary): (&Stored, &Summary),
    earlier: Option<&Summary>,
    needs_secrets: bool,
) -> Result<(), CommandError> {
    let is_follower = followers::is_waiting(stored);
    if is_follower && earlier.is_some_and(|it| it.is_final) && !summary.is_final {
        // What blocked it was retried. The index says that it is over.
        let mark = format!("{}-reopened", note::stamp(clock::now()));
        summary::mark_as_noted(&app.home, &stored.id, &mark).at("write", &app.home.index())?;
    }
    summary::keep(&stored.dir, summary);
    if summary.is_final && !needs_secrets {
        // No trial can need them any more. Should they stay, the next look tries again.
        drop(std::fs::remove_file(stored.dir.secrets()));
    }
    Ok(())
}

/// Whether a retry of another experiment runs some of it, though all of it is over.
fn may_be_reopened(sources: &StatusInputs<'_>, status: &Status) -> bool {
    let Stored { experiment, journal, .. } = sources.stored;
    let is_blocked = |seen: &TaskStatus, trial: u32| {
        seen.trials.get(trial as usize).is_some_and(|it| it.state == State::Blocked)
    };
    let mut tasks = experiment.tasks.iter().zip(&status.tasks);
    sources.lost_outside.is_some()
        && tasks.any(|(task, seen)| {
            task.after.is_empty()
                && !experiment.is_local(task)
                && journal::unplanned(journal, task).iter().any(|trial| is_blocked(seen, trial))
        })
}

/// Everything that a status follows from, also what other experiments tell.
pub(super) fn sources<'a>(
    app: &App,
    stored: &'a Stored,
    source: SlurmSource<'_>,
    depth: Depth<'_>,
) -> Result<StatusInputs<'a>, CommandError> {
    let sources = observe::sources(stored, source, depth).at("read", &stored.dir.0)?;
    Ok(StatusInputs { lost_outside: outside::lost(app, stored), ..sources })
}

/// What is said of metrics that never came. Only where somebody may see it, a trial's own files are looked into.
fn unreported(stored: &Stored, own: &UnreportedMetrics, depth: Depth<'_>) -> Vec<TrialWarning> {
    let trial = stored.dir.task(&own.task).trial(own.trial);
    let warnings = own.warnings(|metric| match depth {
        Depth::Open => None,
        Depth::Shown(_) | Depth::All => results::files_with(&trial, metric),
    });
    warnings.into_iter().map(|words| TrialWarning::of_task(&own.task, words)).collect()
}

/// Which of the experiments of its name it is.
fn version(app: &App, id: &ExperimentId) -> Result<usize, CommandError> {
    let ids = app.home.ids()?;
    let older = ids.iter().take_while(|other| *other != id);
    Ok(older.filter(|other| other.name() == id.name()).count() + 1)
}

/// Whether a trial that was over for good is shown otherwise.
fn contradicts_an_end(sources: &StatusInputs<'_>, status: &Status) -> bool {
    let was_final = |task: &str, trial: u32| {
        let known = sources.earlier.get(task, trial);
        known.is_some_and(|known| known.certainty == Certainty::Final)
    };
    status.tasks.iter().any(|task| {
        task.trials.iter().any(|trial| !trial.is_final() && was_final(&task.name, trial.index))
    })
}

/// Whether nothing of it can change any more.
fn is_final(sources: &StatusInputs<'_>, status: &Status) -> bool {
    let is_damaged = sources.stored.damage.is_some() || sources.runner.damage.is_some();
    let mut trials = status.tasks.iter().flat_map(|task| &task.trials);
    !is_damaged && !status.experiment.stale && trials.all(TrialStatus::is_final)
}

/// Leaves out what the target does not mean.
pub(super) fn narrow(status: &mut Status, target: &Target) {
    status.keep_warnings_of(&target.scope);
    status.tasks.retain(|task| target.scope.covers_task(&task.name));
    for task in &mut status.tasks {
        task.trials.retain(|trial| target.scope.covers_trial(trial.index));
        recount(task);
    }
}
