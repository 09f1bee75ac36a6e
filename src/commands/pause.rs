//! `pause` and `resume`: trials save, keep their place in the queue, and wait there until they are wanted again.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use clap::Args;
use nemo_core::rundir::TrialDir;
use nix::sys::signal::Signal;

use super::App;
use super::control::{
    self, AfterSave, ArrayPart, Arrays, ControlArgs, ControlReport, TrialKey, Troubles,
};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::journal;
use crate::slurm::{JobControl, SlurmError};
use crate::status::{RequestedAction, State, Status};
use crate::store::{Stored, Target};

/// `pause`.
#[derive(Debug, Args)]
#[command(
    after_help = "A paused trial saves its checkpoint. Its job stays in the queue, held, and tasks that depend on it keep waiting. \
    A pause uses up none of the trial's restarts.\n\n\
    Examples:\n  nemo-slurm pause digits\n  nemo-slurm pause @/train/3\n  nemo-slurm pause @ --dry-run"
)]
pub struct PauseArgs {
    /// What to pause.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// `resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm resume digits\n  nemo-slurm resume @/train/3\n  nemo-slurm resume @ --dry-run"
)]
pub struct ResumeArgs {
    /// What to resume.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// How often it is looked again whether a trial started just before it was held.
const LOOKS: u32 = 3;

/// A mark and USR1: the harness saves, and has its job held. Without the mark USR1 would ask for a save only.
const AFTER_SAVE: AfterSave =
    AfterSave { mark: TrialDir::pause, without_mark: JobControl::requeue_held };

/// Pauses what the target means. First Slurm, then the request: the home's disk may be full.
pub(super) fn pause(app: &App, args: &PauseArgs) -> Result<ExitCode, CommandError> {
    let args = &args.control;
    let (target, stored) = found(app, args)?;
    let app = &app.on_cluster_of(&stored);
    let status = control::look_if_possible(app, &stored);
    let is_meant = |state: State| !state.is_final() && state != State::Paused;
    let mut trials = control::trials_in(status.as_ref(), &target, is_meant);
    let Arrays { known, unknown } = control::arrays(app, &stored, &stored.journal, &target);
    let mut troubles = Troubles::default();
    troubles.slurm.extend(unknown.into_iter().map(|(_, error)| error));
    trials.extend(not_paused(app, status.as_ref(), &target, &known, &mut troubles));
    if !args.dry_run && control::is_local(&stored) {
        control::request(&stored, &target, RequestedAction::Pause)?;
        if !trials.is_empty() {
            control::signal_orphans(&stored, &trials, Signal::SIGUSR1, Some(TrialDir::pause))?;
        }
    } else if !args.dry_run {
        pause_on_slurm(app, &stored, status.as_ref(), &known, &trials, &mut troubles);
        if let Err(error) = control::request(&stored, &target, RequestedAction::Pause) {
            troubles.unwritten.get_or_insert(error);
        }
    }
    let done = ControlReport {
        args,
        stored: &stored,
        action: "pause",
        what: if args.dry_run { "Would pause" } else { "Paused" },
        nothing: "it is paused or over already",
        trials: trials.len(),
        jobs: control::job_ids(&known, &trials),
    };
    done.finish(&troubles)
}

/// The trials that are in the queue, without those that are paused already.
fn not_paused(
    app: &App,
    status: Option<&Status>,
    target: &Target,
    arrays: &[ArrayPart<'_>],
    troubles: &mut Troubles,
) -> BTreeSet<TrialKey> {
    let paused = control::trials_in(status, target, |state| state == State::Paused);
    match control::queued(&app.slurm, arrays) {
        Ok(queued) => queued.alive.difference(&paused).cloned().collect(),
        Err(error) => {
            troubles.slurm.push(error);
            BTreeSet::new()
        }
    }
}

fn pause_on_slurm(
    app: &App,
    stored: &Stored,
    status: Option<&Status>,
    arrays: &[ArrayPart<'_>],
    trials: &BTreeSet<TrialKey>,
    troubles: &mut Troubles,
) {
    let slurm = match control::of(app, arrays) {
        Ok(slurm) => slurm,
        Err(error) => return troubles.slurm.push(error),
    };
    for part in arrays.iter().filter(|part| has_any(part, trials)) {
        match slurm.hold(&part.ids()) {
            // Some of them ended, or are about to: what runs on is told by the next look.
            Err(SlurmError::Refused { reason, .. }) if !reason.contains("ermission") => {}
            Err(error) => troubles.slurm.push(error),
            Ok(()) => {}
        }
    }
    let whole = Target::whole(stored.id.clone());
    let mut running = control::trials_in(status, &whole, |state| state == State::Running);
    running.retain(|key| trials.contains(key));
    let mut signalled = BTreeSet::new();
    for _ in 0..LOOKS {
        match control::queued(&app.slurm, arrays) {
            Ok(queued) => running.extend(queued.running),
            Err(error) => return troubles.slurm.push(error),
        }
        let not_signalled: BTreeSet<TrialKey> = running.difference(&signalled).cloned().collect();
        if not_signalled.is_empty() {
            return;
        }
        control::signal_running(app, stored, arrays, &not_signalled, AFTER_SAVE, troubles);
        signalled.extend(not_signalled);
    }
}

fn has_any(part: &ArrayPart<'_>, trials: &BTreeSet<TrialKey>) -> bool {
    trials.iter().any(|(task, trial)| part.runs(task, *trial))
}

/// Lets what the target means go on.
pub(super) fn resume(app: &App, args: &ResumeArgs) -> Result<ExitCode, CommandError> {
    let args = &args.control;
    let (target, stored) = found(app, args)?;
    let app = &app.on_cluster_of(&stored);
    let status = control::look_if_possible(app, &stored);
    let paused = control::trials_in(status.as_ref(), &target, |state| state == State::Paused);
    let mut trials = control::trials_in(status.as_ref(), &target, |state| !state.is_final());
    trials.retain(|key| paused.contains(key) || mark(&stored, key).exists());
    let Arrays { known, unknown } = control::arrays(app, &stored, &stored.journal, &target);
    let mut troubles = Troubles::default();
    troubles.slurm.extend(unknown.into_iter().map(|(_, error)| error));
    if !args.dry_run {
        for key in &trials {
            remove_mark(&stored, key)?;
        }
        // After the marks are gone: the local runner starts a trial again as soon as it sees the request.
        match control::request(&stored, &target, RequestedAction::Resume) {
            Err(error) if control::is_local(&stored) => return Err(error),
            written => troubles.unwritten = written.err(),
        }
        if control::is_local(&stored) && !trials.is_empty() {
            control::require_runner(&stored)?;
        }
        release(app, status.as_ref(), &known, &trials, &mut troubles);
    }
    let done = ControlReport {
        args,
        stored: &stored,
        action: "resume",
        what: if args.dry_run { "Would resume" } else { "Resumed" },
        nothing: "nothing is paused",
        trials: trials.len(),
        jobs: control::job_ids(&known, &trials),
    };
    done.finish(&troubles)
}

/// The target's experiment. One with chains must be submitted as a whole: their heads are held until then.
fn found(app: &App, args: &ControlArgs) -> Result<(Target, Stored), CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let has_chains = journal::planned_arrays(&stored.journal).any(|array| array.held);
    if has_chains && !journal::is_complete(&stored.journal) {
        let text = format!("experiment `{}` is not fully submitted yet", stored.id);
        let go_on = format!("`nemo-slurm submit --continue {}` continues it", stored.id);
        return Err(CommandError::new(ExitCode::Usage, text).hinted(go_on));
    }
    Ok((target, stored))
}

fn release(
    app: &App,
    status: Option<&Status>,
    arrays: &[ArrayPart<'_>],
    trials: &BTreeSet<TrialKey>,
    troubles: &mut Troubles,
) {
    let slurm = match control::of(app, arrays) {
        Ok(slurm) => slurm,
        Err(error) => return troubles.slurm.push(error),
    };
    for part in arrays.iter().filter(|part| has_any(part, trials)) {
        if let Err(error) = slurm.release(&part.ids()) {
            troubles.slurm.push(error);
        }
    }
    // Slurm's own wait after a requeue counts from then; those that were requeued long ago have it behind them.
    let ran = |(task, index): &&TrialKey| {
        let tasks = status
            .into_iter()
            .flat_map(|status| &status.tasks)
            .filter(|status| status.name == *task);
        let mut trials = tasks.flat_map(|task| &task.trials);
        trials.any(|trial| trial.index == *index && !trial.attempts.is_empty())
    };
    let again: BTreeSet<TrialKey> = trials.iter().filter(ran).cloned().collect();
    let again = control::job_ids(arrays, &again);
    match if again.is_empty() { Ok(()) } else { slurm.start_soon(&again) } {
        Ok(()) | Err(SlurmError::Refused { .. }) => {} // then they wait as long as Slurm has it
        Err(error) => troubles.slurm.push(error),
    }
}

fn mark(stored: &Stored, (task, trial): &TrialKey) -> std::path::PathBuf {
    stored.dir.task(task).trial(*trial).pause()
}

fn remove_mark(stored: &Stored, key: &TrialKey) -> Result<(), CommandError> {
    let path = mark(stored, key);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => Ok(removed.at("remove", &path)?),
    }
}
