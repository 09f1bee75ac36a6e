//! What `poll` does about the trials of one experiment, step by step.

use std::collections::BTreeSet;

use super::outcome::PollResult;
use super::{PollPass, may_be_due, put_back, requeue, resubmit, timeouts};
use crate::commands::retry::automatic;
use crate::commands::status::look_by;
use crate::commands::{App, budget, due};
use crate::error::{CommandError, ExitCode};
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::report::say;
use crate::slurm::{JobControl, SlurmError};
use crate::status::{Remedy, Status, TaskStatus};
use crate::store::{Stored, Target};

impl PollPass<'_> {
    /// Ends what still waits when the time of the experiment is over. Says whether anything was.
    pub(super) fn end_waiting(
        &mut self,
        control: &JobControl,
        stored: &Stored,
        target: &Target,
        status: &Status,
    ) -> Result<bool, CommandError> {
        let timed_out = timeouts::end_waiting(control, stored, target, status)?;
        for trial in &timed_out {
            let place = (&stored.id, &*trial.task, trial.index);
            self.report(&place, trial.job.as_deref(), PollResult::TimedOut, None);
        }
        Ok(!timed_out.is_empty())
    }

    /// Pauses what has spent its budget. Says whether anything was.
    pub(super) fn pause_spent(
        &mut self,
        app: &App,
        stored: &Stored,
        target: &Target,
        source: SlurmSource<'_>,
    ) -> Result<bool, CommandError> {
        if !stored.experiment.has_budget() || target.scope.task.is_some() {
            return Ok(false);
        }
        let (status, _) = look_by(app, stored, source, Depth::All)?;
        let paused = match budget::enforce(app, stored, &status) {
            Err(error) if error.code == ExitCode::NoAnswer => return Err(error),
            Err(error) => {
                self.is_well = false;
                say(&format!("warning: `{}` is not paused: {}", stored.id, error.one_line()));
                return Ok(true);
            }
            Ok(paused) => paused,
        };
        for trial in &paused {
            let place = (&stored.id, &*trial.task, trial.index);
            self.report(&place, trial.job.as_deref(), PollResult::Paused, Some(&trial.why));
        }
        Ok(!paused.is_empty())
    }

    /// Submits what had to wait for this machine or for room, and starts the runner again if that is gone.
    pub(super) fn submit_due(
        &mut self,
        app: &App,
        stored: &Stored,
        source: SlurmSource<'_>,
    ) -> Result<(), CommandError> {
        if !may_be_due(stored) {
            return Ok(());
        }
        // What was retried or submitted again meanwhile is in the journal.
        let stored = &self.app.home.load(&stored.id)?;
        let (status, _) = look_by(app, stored, source, Depth::All)?;
        match due::submit_due(app, stored, &status) {
            Err(error) if error.code == ExitCode::NoAnswer => return Err(error),
            Err(error) => {
                self.is_well = false;
                say(&format!("warning: `{}`: {}", stored.id, error.one_line()));
            }
            Ok(due) => {
                for trial in due.submitted {
                    let place = (&stored.id, &*trial.task, trial.index);
                    self.report(&place, Some(&trial.job), PollResult::Submitted, None);
                }
            }
        }
        self.start_runner(app, stored, &status)
    }

    /// Retries what failed, as its file says.
    pub(super) fn retry(
        &mut self,
        app: &App,
        stored: &Stored,
        target: &Target,
        status: &Status,
    ) -> Result<(), CommandError> {
        let retried = match automatic::retry_due(app, stored, target, status) {
            Err(error) if error.code == ExitCode::NoAnswer => return Err(error),
            // Slurm refuses it, or what it waits for outside has failed: what else there is to do is done all the same.
            Err(error) => {
                self.is_well = false;
                say(&format!("warning: `{}` is not retried: {}", stored.id, error.error));
                error.hints.iter().for_each(|hint| say(&format!("hint: {hint}")));
                return Ok(());
            }
            Ok(retried) => retried,
        };
        for trial in retried {
            let place = (&stored.id, &*trial.task, trial.index);
            self.report(&place, trial.job.as_deref(), PollResult::Retried, Some(&trial.why));
        }
        Ok(())
    }

    /// Requeues what is to run again. Returns the trials that can't be.
    pub(super) fn requeue(
        &mut self,
        app: &App,
        control: &JobControl,
        stored: &Stored,
        target: &Target,
        status: &Status,
    ) -> Result<BTreeSet<(String, u32)>, CommandError> {
        let mut hopeless = BTreeSet::new();
        let ended = self.args.ended_run.as_ref();
        for wanted in requeue::candidates(stored, target, status, ended) {
            match requeue::honour(app, control, &wanted) {
                Ok(Some((job, done, why))) => {
                    if !done.is_well() {
                        hopeless.insert((wanted.task.clone(), wanted.index));
                    }
                    self.report(&wanted.place(), Some(&job), done, why.as_deref());
                }
                Ok(None) => {}
                Err(error) if error.code == ExitCode::NoAnswer => return Err(error),
                Err(error) => {
                    self.is_well = false;
                    let (id, task, index) = wanted.place();
                    say(&format!("warning: {id}/{task}/{index}: {}", error.error));
                }
            }
        }
        Ok(hopeless)
    }

    /// Submits again what Slurm has forgotten. Returns the trials whose jobs nothing may wait for.
    pub(super) fn resubmit(
        &mut self,
        app: &App,
        stored: &Stored,
        target: &Target,
        status: &Status,
    ) -> Result<BTreeSet<(String, u32)>, CommandError> {
        for trial in resubmit::resubmit(app, stored, target, status)? {
            let place = (&stored.id, trial.task.as_str(), trial.index);
            self.report(&place, Some(&trial.job), trial.done, trial.why.as_deref());
        }
        let of_task = |task: &TaskStatus| {
            let name = task.name.clone();
            let trials = task.trials.iter();
            let trials = trials.filter(|it| it.remedy.is_some_and(Remedy::is_forgotten));
            let all: Vec<(String, u32)> = trials.map(|it| (name.clone(), it.index)).collect();
            all
        };
        Ok(status.tasks.iter().flat_map(of_task).collect())
    }

    pub(super) fn put_back(
        &mut self,
        control: &JobControl,
        stored: &Stored,
        target: &Target,
        status: &Status,
        hopeless: BTreeSet<(String, u32)>,
    ) -> Result<(), CommandError> {
        for taken in put_back::taken_out(stored, target, status, hopeless) {
            let (done, why) = match put_back::put_back(control, &taken) {
                Ok(()) => (PollResult::PutBack, None),
                Err(SlurmError::Refused { reason, .. }) => (PollResult::Refused, Some(reason)),
                Err(error) => return Err(error.into()),
            };
            for (trial, job) in taken.each() {
                let place = (&stored.id, &*taken.task, trial);
                self.report(&place, Some(&job), done, why.as_deref());
            }
        }
        Ok(())
    }
}
