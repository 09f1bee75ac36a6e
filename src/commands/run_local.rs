//! `run-local`: the local executor's runner, started by `submit`.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nemo_core::environment;

use super::notices::{self, Sender};
use super::retry::automatic;
use super::status::look_by;
use super::{App, budget, due, followers};
use crate::error::{CommandError, ExitCode};
use crate::executor::local::{self, OtherTasks};
use crate::gpus;
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::report::say;
use crate::status::Status;
use crate::store::claim::{self, ClaimKind};
use crate::store::{self, ExperimentId, Stored, TakeOver, Target};

/// Between two looks for something to tell while it runs.
const LOOK: Duration = Duration::from_secs(10);

/// The tasks of an experiment that run on Slurm.
struct SlurmTasks<'a> {
    app: &'a App,
    id: &'a ExperimentId,
    /// What was seen, for who tells of it: Slurm is asked once for both.
    seen: mpsc::Sender<Seen>,
}

/// An experiment, and where it stands.
type Seen = (Stored, Status);

impl OtherTasks for SlurmTasks<'_> {
    fn look(&mut self) -> Result<(Status, bool), String> {
        let look = || {
            let stored = self.app.home.load(self.id)?;
            let source = SlurmSource::Slurm(&self.app.slurm);
            let (status, _) = look_by(self.app, &stored, source, Depth::All)?;
            let due = due::submit_due(self.app, &stored, &status)?;
            if !due.submitted.is_empty() {
                followers::submit(self.app, &stored.dir);
            }
            if is_watched(&stored) {
                self.seen.send((stored, status.clone())).ok(); // nobody tells any more
            }
            Ok((status, due.is_open))
        };
        look().map_err(|error: CommandError| error.one_line())
    }
}

/// The GPUs for its trials, as the shell that submitted saw them. Nobody is asked where none has any for itself.
fn gpus_of(stored: &Stored) -> Vec<String> {
    if stored.experiment.gpus_per_trial().is_none() {
        return Vec::new();
    }
    let kept = std::fs::read(stored.dir.environment()).unwrap_or_default();
    gpus::visible(&environment::from_file(&kept).unwrap_or_default())
}

/// Carries a local experiment out, in a session of its own: its terminal may close.
pub(super) fn run_local(app: &App, id: &str) -> Result<ExitCode, CommandError> {
    // Fails where a person runs it by hand as the leader of a group; then the terminal is theirs to keep.
    nix::unistd::setsid().ok();
    let (_, stored) = app.find(id)?;
    let children = local::Children::new()?;
    let claim =
        claim::take(&stored.dir, ClaimKind::Runner, TakeOver::FromTheDead, &|text| say(text))?;
    let harness = store::install_program(&app.home, store::HARNESS_NAME, &app.harness()?)?;
    let app = &app.on_cluster_of(&stored);
    let (id, gpus) = (&stored.id, gpus_of(&stored));
    let on_slurm = stored.experiment.has_slurm();
    std::thread::scope(|scope| {
        // Who tells ends when nobody can send what was seen.
        let (sender, seen) = channel();
        let mut others = SlurmTasks { app, id, seen: sender };
        if is_watched(&stored) {
            scope.spawn(move || watch_meanwhile(app, id, &seen, on_slurm));
        }
        let others: Option<&mut dyn OtherTasks> = if on_slurm { Some(&mut others) } else { None };
        local::run(&stored, &harness, &claim, children, gpus, others)
    })?;
    // Nobody else looks after them here. Whoever retries starts the next runner.
    drop(claim);
    let (stored, status) = look(app, &stored.id)?;
    let retried = automatic::retry_due(app, &stored, &Target::whole(stored.id.clone()), &status);
    // Where that fails, what else there is to do at the end is done all the same.
    followers::submit(app, &stored.dir);
    let sent = send_notices(app, &stored, &status);
    retried?;
    sent.map(|()| ExitCode::Fine)
}

fn look(app: &App, id: &ExperimentId) -> Result<Seen, CommandError> {
    let stored = app.home.load(id)?;
    let on_slurm = stored.experiment.has_slurm();
    let source = if on_slurm { SlurmSource::Slurm(&app.slurm) } else { SlurmSource::Nobody };
    let (status, _) = look_by(app, &stored, source, Depth::All)?;
    Ok((stored, status))
}

/// Whether somebody must look at it while it runs: to tell of ends, or to see what it has spent.
fn is_watched(stored: &Stored) -> bool {
    stored.experiment.notify.is_some() || stored.experiment.has_budget()
}

/// Tells what is over while other trials run, and pauses what has spent its budget: by what the runner saw where it asks
/// Slurm, else by a look of its own.
fn watch_meanwhile(app: &App, id: &ExperimentId, seen: &Receiver<Seen>, on_slurm: bool) {
    loop {
        let found = match seen.recv_timeout(LOOK) {
            Ok(first) => Ok(seen.try_iter().last().unwrap_or(first)),
            Err(RecvTimeoutError::Timeout) if on_slurm => continue,
            Err(RecvTimeoutError::Timeout) => look(app, id),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let done = found.and_then(|(stored, status)| {
            budget::say_paused(&stored, &budget::enforce(app, &stored, &status)?);
            send_notices(app, &stored, &status)
        });
        if let Err(error) = done {
            say(&error.one_line());
        }
    }
}

fn send_notices(app: &App, stored: &Stored, status: &Status) -> Result<(), CommandError> {
    for failure in
        notices::send_due(&app.home, stored, status, (Sender::Frequent, notices::deadline()))?
            .iter()
            .flat_map(|it| &it.failed)
    {
        say(failure);
    }
    Ok(())
}
