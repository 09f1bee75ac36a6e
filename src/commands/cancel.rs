//! `cancel`: ends a target for good, and makes sure that it stays ended.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits on the real clock")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;

use super::control::{self, ArrayPart, ControlArgs, ControlReport, TrialKey, Troubles};
use super::status::look;
use super::{App, note};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::journal::{self, ArrayRecord, Event};
use crate::observe;
use crate::plan::JobArray;
use crate::process;
use crate::script;
use crate::slurm::SlurmError;
use crate::status::{RequestedAction, State};
use crate::store::{Stored, Target};
use crate::summary;

/// `cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "A running trial gets a signal, saves a checkpoint if there is time, and is not started again.\n\n\
    Examples:\n  nemo-slurm cancel digits\n  nemo-slurm cancel @/train/3\n  nemo-slurm cancel @ --dry-run"
)]
pub struct CancelArgs {
    /// What to cancel.
    #[command(flatten)]
    pub control: ControlArgs,
    /// The former name of `preempt`.
    #[arg(long, hide = true)]
    pub gentle: bool,
}

/// How long a job that ends is watched, since a requeue that was under way brings it back. A harness that reads the
/// request asks for none later.
const WATCHED: Duration = Duration::from_secs(2);
/// The same where the request could not be written: as long as Slurm gives a program to end.
const WATCHED_WITHOUT_REQUEST: Duration = Duration::from_secs(40);
/// How long a submission that is under way is waited for.
const SUBMITTING: Duration = Duration::from_mins(1);

/// Cancels what the target means. First Slurm, then the request: the home's disk may be full.
pub(super) fn cancel(app: &App, args: &CancelArgs) -> Result<ExitCode, CommandError> {
    if args.gentle {
        let now = format!(
            "`nemo-slurm preempt {}` makes running trials save and run again",
            args.control.target
        );
        return Err(CommandError::new(ExitCode::Usage, "there is no `cancel --gentle`").hinted(now));
    }
    let args = &args.control;
    let (target, stored) = app.find(&args.target)?;
    let app = &app.on_cluster_of(&stored);
    let status = control::look_if_possible(app, &stored);
    let mut trials = control::trials_in(status.as_ref(), &target, |state| !state.is_final());
    trials.extend(control::waiting_in_vain(status.as_ref(), &target));
    let blocked = control::blocked_outside(app, &stored, status.as_ref(), &target);
    trials.extend(blocked.iter().cloned());
    let arrays = control::arrays(app, &stored, &stored.journal, &target);
    let mut jobs = Vec::new();
    if let Ok(queued) = control::queued(&app.slurm, &arrays.known) {
        trials.extend(queued.alive);
        jobs = queued.ids;
    }
    let mut troubles = Troubles::default();
    if !args.dry_run {
        let unreached = control::unreached(&arrays.known, &trials, |part| cancel_array(app, part));
        match control::request(&stored, &target, RequestedAction::Cancel) {
            Err(error) if stored.experiment.has_local() => return Err(error),
            written => troubles.unwritten = written.err(),
        }
        let cancelled = settle(app, &stored, &target, &mut troubles);
        let ended = control::without_a_job(status.as_ref());
        let is_unsure = |key: &&TrialKey| !cancelled.contains(*key) && !ended.contains(*key);
        troubles.unsure = unreached.iter().filter(is_unsure).cloned().collect();
        let running = control::trials_in(status.as_ref(), &target, |it| it == State::Running);
        let here = control::local_part(&stored, &running);
        let unseen = running.iter().filter(|key| !cancelled.contains(*key) && !here.contains(*key));
        note_unsignalled(unseen, &mut troubles);
        trials.retain(|key| !troubles.unsure.contains(key));
        let here = control::local_part(&stored, &trials);
        if !here.is_empty() {
            control::signal_orphans(&stored, &here, Signal::SIGTERM, None)?;
        }
        if !blocked.is_empty() {
            look_again(app, &stored)?;
        }
    }
    let done = ControlReport {
        args,
        stored: &stored,
        action: "cancel",
        what: if args.dry_run { "Would cancel" } else { "Cancelled" },
        nothing: "it is over already",
        trials: trials.len(),
        jobs,
        asked: 0,
    };
    done.finish(&troubles)
}

/// What was over as blocked is over as cancelled now. Nobody else looks at it: the index says that it is over.
fn look_again(app: &App, stored: &Stored) -> Result<(), CommandError> {
    let mark = format!("{}-cancelled", note::stamp(clock::now()));
    summary::mark_as_noted(&app.home, &stored.id, &mark).at("write", &app.home.index())?;
    look(app, &app.home.load(&stored.id)?).map(drop)
}

/// Running trials that Slurm may not have told of the cancel read it from the experiment's folder.
fn note_unsignalled<'a>(running: impl Iterator<Item = &'a TrialKey>, troubles: &mut Troubles) {
    let silence =
        troubles.slurm.iter().find(|error| error.is_no_answer()).map(SlurmError::to_string);
    let Some(answer) = silence.filter(|_| troubles.unwritten.is_none()) else { return };
    for key in running {
        troubles.unsure.remove(key);
        troubles.unsignalled.insert(key.clone(), answer.clone());
    }
}

/// Cancels the jobs of an array. Returns whether Slurm was told: array tasks are named to it only if `squeue` shows their
/// array.
fn cancel_array(app: &App, part: &ArrayPart<'_>) -> bool {
    let (slurm, ids) = (app.slurm.control(vec![part.token.clone()]), part.ids());
    match slurm.cancel(&ids) {
        Err(error) if error.is_no_answer() => return false,
        // An array that is over answers with a refusal: what counts is what is in the queue afterwards.
        Ok(()) | Err(_) => {}
    }
    !ids.iter().any(|id| id.contains('_')) || slurm.own(&ids).is_ok_and(|own| !own.is_empty())
}

/// Looks into the queue again and again, and cancels what is there, until nothing is: what a requeue brought back,
/// and what a submission that is under way adds. Returns the trials that were there.
fn settle(
    app: &App,
    stored: &Stored,
    target: &Target,
    troubles: &mut Troubles,
) -> BTreeSet<TrialKey> {
    let mut cancelled = BTreeSet::new();
    let requested = troubles.unwritten.is_none();
    let patience = if requested { WATCHED } else { WATCHED_WITHOUT_REQUEST };
    let began = Instant::now();
    let mut pause = Duration::from_millis(25);
    let mut refused = None;
    loop {
        let journal =
            app.home.load(&stored.id).map_or_else(|_| stored.journal.clone(), |now| now.journal);
        let is_submitting =
            observe::is_submitting(&stored.dir, &journal) || left_an_sbatch(stored, &journal);
        let arrays = control::arrays(app, stored, &journal, target);
        let (queued, limit) = match control::queued(&app.slurm, &arrays.known) {
            Ok(queued) => (queued, if is_submitting { SUBMITTING } else { patience }),
            Err(error) => {
                troubles.slurm.push(error);
                return cancelled;
            }
        };
        cancelled.extend(queued.alive);
        let is_over = began.elapsed() >= limit;
        let ids: BTreeSet<String> = queued.ids.iter().cloned().collect();
        if ids.is_empty() && !is_submitting && (is_over || !queued.is_completing) {
            troubles.slurm.extend(arrays.unknown.into_iter().map(|(_, error)| error));
            return cancelled;
        }
        if is_over {
            troubles.slurm.push(not_cancelled(&ids, is_submitting, refused));
            return cancelled;
        }
        if !ids.is_empty() {
            let names = arrays.known.iter().map(|part| part.token.clone()).collect();
            let ids: Vec<String> = ids.into_iter().collect();
            refused = app.slurm.control(names).cancel(&ids).err();
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(400));
    }
}

/// Whether an `sbatch` still runs here that a killed submission left behind: its job may come into the queue only now.
fn left_an_sbatch(stored: &Stored, journal: &[Event]) -> bool {
    let is_unanswered = |array: &&JobArray| {
        let token = script::token(stored.id.as_str(), &array.task, array.index);
        matches!(journal::entry(journal, &token), ArrayRecord::Intended(_))
    };
    journal::planned_arrays(journal)
        .filter(is_unanswered)
        .any(|array| process::runs_with_argument(&stored.dir.task(&array.task).script(array.index)))
}

/// Why something is left.
fn not_cancelled(
    ids: &BTreeSet<String>,
    is_submitting: bool,
    refused: Option<SlurmError>,
) -> SlurmError {
    refused.unwrap_or_else(|| {
        let jobs = ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let reason = if is_submitting {
            "another process is still submitting it".to_owned()
        } else {
            format!("still in the queue: {jobs}")
        };
        SlurmError::Refused { program: "scancel", reason, code: Some(0) }
    })
}
