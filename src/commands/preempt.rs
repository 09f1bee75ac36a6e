//! `preempt`: has running trials save, stop, and run again.

use std::collections::BTreeSet;

use clap::Args;
use nemo_core::rundir::TrialDir;

use super::App;
use super::control::{
    self, AfterSave, ArrayPart, Arrays, ControlArgs, ControlReport, TrialKey, Troubles,
};
use crate::error::{CommandError, ExitCode};
use crate::slurm::JobControl;
use crate::status::{RequestedAction, State};
use crate::store::{Stored, Target};

/// `preempt`.
#[derive(Debug, Args)]
#[command(
    after_help = "A running trial saves its checkpoint, goes back into the queue, and runs again from there. \
    Waiting trials are not changed.\n\n\
    Examples:\n  nemo-slurm preempt digits\n  nemo-slurm preempt @/train/3\n  nemo-slurm preempt @ --dry-run"
)]
pub struct PreemptArgs {
    /// What to preempt.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// A mark and USR1: the harness saves and requeues. Without the mark USR1 would ask for a save only.
const AFTER_SAVE: AfterSave =
    AfterSave { mark: TrialDir::preempt, without_mark: JobControl::requeue };

/// Preempts the running trials of the target.
///
/// Trials that are known to run are marked before Slurm is asked: their harnesses read the marks by themselves, and Slurm
/// may be down. Marks that can't be written, because the home's disk is full, stop nothing.
pub(super) fn preempt(app: &App, args: &PreemptArgs) -> Result<ExitCode, CommandError> {
    let args = &args.control;
    let (target, stored) = app.find(&args.target)?;
    let app = &app.on_cluster_of(&stored);
    let mut troubles = Troubles::default();
    let (marked, unwritten) =
        if args.dry_run { (BTreeSet::new(), None) } else { ask_early(&stored, &target) };
    let status = control::look_if_possible(app, &stored);
    let mut running = control::trials_in(status.as_ref(), &target, |state| state == State::Running);
    let Arrays { known: arrays, unknown } = control::arrays(app, &stored, &stored.journal, &target);
    match control::queued(&app.slurm, &arrays) {
        Ok(queued) => {
            running.extend(queued.running);
            // These may run, but `squeue` does not show them either.
            let unknown = control::trials_in(status.as_ref(), &target, |it| it == State::Unknown);
            let unshown = unknown.difference(&queued.alive).filter(|_| !args.dry_run);
            troubles.unsure.extend(unshown.cloned());
            control::unmark(&stored, marked.difference(&running), AFTER_SAVE.mark);
        }
        Err(error) => troubles.slurm.push(error),
    }
    troubles.slurm.extend(unknown.into_iter().map(|(_, error)| error));
    let signalled = if args.dry_run {
        running
    } else {
        ask(app, (&stored, &target), &arrays, running, &marked, &mut troubles)?
    };
    // The reason why a mark can't be written is the more precise one.
    troubles.unwritten = troubles.unwritten.or(unwritten);
    let done = ControlReport {
        args,
        stored: &stored,
        action: "preempt",
        what: if args.dry_run { "Would preempt" } else { "Asked to save and run again:" },
        nothing: "no trial is running",
        jobs: control::job_ids(&arrays, &signalled),
        trials: signalled.len(),
        asked: 0,
    };
    done.finish(&troubles)
}

/// Asks running trials to save and run again: those on Slurm by signals, those on this machine through their runner. Returns
/// the trials that were asked.
fn ask(
    app: &App,
    (stored, target): (&Stored, &Target),
    arrays: &[ArrayPart<'_>],
    mut running: BTreeSet<TrialKey>,
    marked: &BTreeSet<TrialKey>,
    troubles: &mut Troubles,
) -> Result<BTreeSet<TrialKey>, CommandError> {
    let here = control::local_part(stored, &running);
    if !here.is_empty() {
        // Nobody is asked where one would not run again.
        control::require_runner(stored)
            .inspect_err(|_| control::unmark(stored, marked.iter(), AFTER_SAVE.mark))?;
    }
    let mut asked = running.clone();
    if stored.experiment.has_slurm() {
        running.retain(|key| !here.contains(key));
        asked =
            control::signal_running(app, stored, arrays, &running, AFTER_SAVE, marked, troubles);
        asked.extend(here.iter().cloned());
    }
    if stored.experiment.has_local() {
        match control::request(stored, target, RequestedAction::Preempt) {
            Err(error) if !here.is_empty() => return Err(error),
            Err(error) => drop(troubles.unwritten.get_or_insert(error)),
            Ok(()) => {}
        }
    }
    Ok(asked)
}

/// Writes the request, and marks what is known to run in jobs. A local runner would obey the request at once, before it is
/// known whether it runs: there it comes later.
fn ask_early(stored: &Stored, target: &Target) -> (BTreeSet<TrialKey>, Option<CommandError>) {
    let request = || control::request(stored, target, RequestedAction::Preempt).err();
    let unwritten = if stored.experiment.has_local() { None } else { request() };
    let running = control::known_to_run(stored, target);
    (control::mark_early(stored, &running, AFTER_SAVE.mark), unwritten)
}
