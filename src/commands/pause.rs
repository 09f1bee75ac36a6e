//! `pause` and `resume`: trials save, keep their place in the queue, and wait there until they are wanted again.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IsTerminal};

use clap::Args;
use nemo_core::rundir::{TrialDir, requests};
use nix::sys::signal::Signal;

use super::control::{
    self, AfterSave, ArrayPart, Arrays, ControlArgs, ControlReport, TrialKey, Troubles,
};
use super::status::look;
use super::{App, archive, budget, due, followers};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::humanize::count;
use crate::journal;
use crate::report::say;
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
    let runs = control::trials_in(status.as_ref(), &target, |state| state == State::Running);
    let mut asked: BTreeSet<TrialKey> =
        control::local_part(&stored, &trials).intersection(&runs).cloned().collect();
    if !args.dry_run && stored.experiment.has_local() {
        control::request(&stored, &target, RequestedAction::Pause)?;
        let here = control::local_part(&stored, &trials);
        if !here.is_empty() {
            control::signal_orphans(&stored, &here, Signal::SIGUSR1, Some(TrialDir::pause))?;
        }
    }
    if !args.dry_run && stored.experiment.has_slurm() {
        let jobs = MeantJobs { app, status: status.as_ref(), arrays: &known, trials: &trials };
        asked.extend(jobs.pause(&stored, &mut troubles));
        if !stored.experiment.has_local()
            && let Err(error) = control::request(&stored, &target, RequestedAction::Pause)
        {
            troubles.unwritten.get_or_insert(error);
        }
        // What ran when it was looked, and has ended before it was asked, is not paused.
        trials.retain(|key| {
            (asked.contains(key) || !runs.contains(key)) && !troubles.unsure.contains(key)
        });
    }
    let done = ControlReport {
        args,
        stored: &stored,
        action: "pause",
        what: if args.dry_run { "Would pause" } else { "Paused" },
        nothing: "it is paused or over already",
        trials: trials.len(),
        asked: asked.len(),
        jobs: control::job_ids(&known, &trials),
    };
    done.finish(&troubles)
}

/// Has Slurm pause these trials; the request that says why is written already.
pub(super) fn pause_jobs(
    app: &App,
    stored: &Stored,
    status: &Status,
    target: &Target,
    trials: &BTreeSet<TrialKey>,
) -> Troubles {
    let Arrays { known, unknown } = control::arrays(app, stored, &stored.journal, target);
    let mut troubles = Troubles::default();
    troubles.slurm.extend(unknown.into_iter().map(|(_, error)| error));
    let jobs = MeantJobs { app, status: Some(status), arrays: &known, trials };
    jobs.pause(stored, &mut troubles);
    troubles
}

/// Why there is nothing to resume, and what else may have been meant.
fn nothing_paused(stored: &Stored, status: Option<&Status>, target: &Target) -> &'static str {
    let has_failed = |state| matches!(state, State::Failed | State::Timeout | State::Cancelled);
    if control::trials_in(status, target, has_failed).is_empty() {
        "nothing is paused"
    } else if stored.is_wrapped() {
        "nothing is paused; submit the script again to run what failed or was cancelled"
    } else {
        "nothing is paused; `nemo-slurm retry` runs again what failed or was cancelled"
    }
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

/// Lets what the target means go on.
pub(super) fn resume(app: &App, args: &ResumeArgs) -> Result<ExitCode, CommandError> {
    let args = &args.control;
    let (target, stored) = found(app, args)?;
    archive::refuse_archived(&stored)?;
    let app = &app.on_cluster_of(&stored);
    let status = control::look_if_possible(app, &stored);
    let paused = control::trials_in(status.as_ref(), &target, |state| state == State::Paused);
    let mut trials = control::trials_in(status.as_ref(), &target, |state| !state.is_final());
    let unknown = control::trials_in(status.as_ref(), &target, |state| state == State::Unknown);
    let requests = control::requests(&stored).unwrap_or_default();
    let may_be_paused = |(task, trial): &TrialKey| {
        unknown.contains(&(task.clone(), *trial))
            && requests::pause(&requests, task, *trial).is_some()
    };
    trials.retain(|key| paused.contains(key) || mark(&stored, key).exists() || may_be_paused(key));
    let Arrays { known, unknown } = control::arrays(app, &stored, &stored.journal, &target);
    let mut troubles = Troubles::default();
    troubles.slurm.extend(unknown.into_iter().map(|(_, error)| error));
    if !args.dry_run {
        for key in &trials {
            remove_mark(&stored, key)?;
        }
        // After the marks are gone: the local runner starts a trial again as soon as it sees the request.
        match ask_to_resume(&stored, status.as_ref(), &target) {
            Err(error) if stored.experiment.has_local() => return Err(error),
            written => troubles.unwritten = written.err(),
        }
        if stored.experiment.has_slurm() {
            resume_later(app, &stored);
        } else if !trials.is_empty() {
            control::require_runner(&stored)?;
        }
        let jobs = MeantJobs { app, status: status.as_ref(), arrays: &known, trials: &trials };
        jobs.release(&mut troubles);
        trials.retain(|key| !troubles.unsure.contains(key));
    }
    let done = ControlReport {
        args,
        stored: &stored,
        action: "resume",
        what: if args.dry_run { "Would resume" } else { "Resumed" },
        nothing: nothing_paused(&stored, status.as_ref(), &target),
        trials: trials.len(),
        asked: 0,
        jobs: control::job_ids(&known, &trials),
    };
    done.finish(&troubles)
}

/// Writes the request down, and how much each executor may spend from now on whose budget was spent.
fn ask_to_resume(
    stored: &Stored,
    status: Option<&Status>,
    target: &Target,
) -> Result<(), CommandError> {
    let renewed = status.map(|status| budget::renewed(stored, status, target)).transpose()?;
    let renewed = renewed.unwrap_or_default();
    if renewed.is_empty() {
        return control::request(stored, target, RequestedAction::Resume);
    }
    let ask = |own| control::request_for(stored, target, RequestedAction::Resume, Some(own));
    renewed.into_iter().try_for_each(ask)
}

/// What was not submitted yet may be now, and a runner that is gone is started again. Where that fails, `poll` does it.
fn resume_later(app: &App, stored: &Stored) {
    let again = || {
        let now = app.home.load(&stored.id)?;
        let status = look(app, &now)?;
        due::submit_due(app, &now, &status)?;
        followers::submit(app, &now.dir);
        due::start_runner(app, &now, &status)
    };
    if let Err(error) = again() {
        let hint = format!("`nemo-slurm poll {}` tries again", stored.id);
        say(&format!("warning: {}; {hint}", error.one_line()));
    }
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

/// What came of asking running trials to save.
#[derive(Debug, Default)]
struct Asked {
    /// The trials that were asked.
    trials: BTreeSet<TrialKey>,
    /// These, and those that Slurm says have ended.
    tried: BTreeSet<TrialKey>,
    /// What `squeue` showed waiting or running meanwhile.
    shown: BTreeSet<TrialKey>,
}

/// The jobs of the trials that are meant.
#[derive(Clone, Copy)]
struct MeantJobs<'a> {
    app: &'a App,
    status: Option<&'a Status>,
    arrays: &'a [ArrayPart<'a>],
    trials: &'a BTreeSet<TrialKey>,
}

impl MeantJobs<'_> {
    /// Returns the trials that run, and were asked to save and to stop: where Slurm is away, by their folders alone.
    fn pause(self, stored: &Stored, troubles: &mut Troubles) -> BTreeSet<TrialKey> {
        self.hold_and_ask(stored, troubles).unwrap_or_else(|error| {
            let running = if error.is_no_answer() { self.known_to_run() } else { BTreeSet::new() };
            let mark = AFTER_SAVE.mark;
            let asked = control::ask_by_marks(stored, &running, mark, &error, troubles);
            troubles.slurm.push(error);
            asked
        })
    }

    fn hold_and_ask(
        self,
        stored: &Stored,
        troubles: &mut Troubles,
    ) -> Result<BTreeSet<TrialKey>, SlurmError> {
        let slurm = control::of(self.app, self.arrays)?;
        let unheld = self.unreached(&slurm, |ids| match slurm.hold(ids) {
            // Some of them ended, or are about to: what runs on is told by the next look.
            Err(SlurmError::Refused { reason, .. }) if !reason.contains("ermission") => {}
            Err(error) => troubles.slurm.push(error),
            Ok(()) => {}
        });
        let asked = self.ask_to_save(stored, troubles)?;
        troubles.unsure.extend(self.unsure(&unheld, &asked));
        Ok(asked.trials)
    }

    /// Those of the trials that run in a job, as far as was known before.
    fn known_to_run(self) -> BTreeSet<TrialKey> {
        let is_running = |(task, index): &TrialKey| {
            let mut tasks = self.status.into_iter().flat_map(|status| &status.tasks);
            let trials = tasks.find(|status| status.name == *task).map(|status| &status.trials);
            let mut trials = trials.into_iter().flatten();
            trials.any(|trial| trial.index == *index && trial.state == State::Running)
        };
        let has_job = |(task, trial): &TrialKey| self.arrays.iter().any(|it| it.runs(task, *trial));
        self.trials.iter().filter(|key| has_job(key) && is_running(key)).cloned().collect()
    }

    /// Sends something to the jobs of each array. Returns the trials that it was not sent to: `squeue` does not show their
    /// jobs.
    fn unreached(self, slurm: &JobControl, mut send: impl FnMut(&[String])) -> BTreeSet<TrialKey> {
        control::unreached(self.arrays, self.trials, |part| {
            let ids = if self.has_any_of(part) { part.ids() } else { Vec::new() };
            send(&ids);
            slurm.own(&ids).is_ok_and(|own| !own.is_empty())
        })
    }

    /// The trials that Slurm has, and that neither wait held nor were asked to save, as far as `squeue` shows.
    fn unsure(self, unheld: &BTreeSet<TrialKey>, asked: &Asked) -> BTreeSet<TrialKey> {
        let without_a_job = control::without_a_job(self.status);
        let is_unsure = |key: &&TrialKey| {
            let is_held = asked.shown.contains(*key) && !unheld.contains(*key);
            let has_job = !without_a_job.contains(*key)
                && self.arrays.iter().any(|part| part.runs(&key.0, key.1));
            has_job && !is_held && !asked.tried.contains(*key)
        };
        self.trials.iter().filter(is_unsure).cloned().collect()
    }

    /// Asks those that run to save, and those that started just before they were held.
    fn ask_to_save(self, stored: &Stored, troubles: &mut Troubles) -> Result<Asked, SlurmError> {
        let mut running = self.known_to_run();
        let mut asked = Asked::default();
        for _ in 0..LOOKS {
            let queued = control::queued(&self.app.slurm, self.arrays)?;
            running.extend(queued.running);
            asked.shown.extend(queued.alive);
            let others: BTreeSet<TrialKey> = running.difference(&asked.tried).cloned().collect();
            if others.is_empty() {
                break;
            }
            if asked.tried.is_empty() && std::io::stderr().is_terminal() {
                say(&format!("Asking {} to save …", count(others.len(), "running trial")));
            }
            let (arrays, app) = (self.arrays, self.app);
            asked.trials.extend(control::signal_running(
                app,
                stored,
                arrays,
                &others,
                AFTER_SAVE,
                &BTreeSet::new(),
                troubles,
            ));
            asked.tried.extend(others);
        }
        Ok(asked)
    }

    fn release(self, troubles: &mut Troubles) {
        let Some(slurm) = self.control(troubles) else { return };
        let unreleased = self.unreached(&slurm, |ids| {
            if let Err(error) = slurm.release(ids) {
                troubles.slurm.push(error);
            }
        });
        let without_a_job = control::without_a_job(self.status);
        troubles.unsure.extend(unreleased.difference(&without_a_job).cloned());
        // Slurm's own wait after a requeue counts from then; those that were requeued long ago have it behind them.
        let again = self.trials.iter().filter(|key| self.has_run(key)).cloned().collect();
        let again = control::job_ids(self.arrays, &again);
        match if again.is_empty() { Ok(()) } else { slurm.start_soon(&again) } {
            Ok(()) | Err(SlurmError::Refused { .. }) => {} // then they wait as long as Slurm has it
            Err(error) => troubles.slurm.push(error),
        }
    }

    fn has_run(self, (task, index): &TrialKey) -> bool {
        let mut tasks = self.status.into_iter().flat_map(|status| &status.tasks);
        let task = tasks.find(|status| status.name == *task);
        let mut trials = task.into_iter().flat_map(|task| &task.trials);
        trials.any(|trial| trial.index == *index && !trial.attempts.is_empty())
    }

    fn control(self, troubles: &mut Troubles) -> Option<JobControl> {
        control::of(self.app, self.arrays).map_err(|error| troubles.slurm.push(error)).ok()
    }

    fn has_any_of(self, part: &ArrayPart<'_>) -> bool {
        self.trials.iter().any(|(task, trial)| part.runs(task, *trial))
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
