//! `poll --dry-run`: what `poll` would do now, by the same rules. Nothing is written, and Slurm is only asked.
//!
//! It does not tell what follows from what was done: which job a trial gets, whether Slurm refuses it, and what is told of it.

use std::collections::BTreeSet;

use super::outcome::PollResult;
use super::{PollPass, may_be_due, put_back, requeue, resubmit, timeouts, tokens};
use crate::commands::control::TrialKey;
use crate::commands::retry::automatic;
use crate::commands::status::look_by;
use crate::commands::{App, budget, due};
use crate::error::{CommandError, ExitCode};
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::slurm::JobControl;
use crate::status::{Remedy, Status};
use crate::store::{Stored, Target};

/// One experiment, as it is now.
#[derive(Clone, Copy)]
struct SeenExperiment<'a> {
    app: &'a App,
    stored: &'a Stored,
    target: &'a Target,
    status: &'a Status,
}

impl PollPass<'_> {
    /// Tells what would be done about an experiment.
    pub(super) fn dry_run(
        &mut self,
        stored: &Stored,
        target: &Target,
        source: SlurmSource<'_>,
    ) -> Result<(), CommandError> {
        let app = &self.app.on_cluster_of(stored);
        // What is asked for all at once is asked of this machine's cluster.
        let elsewhere = stored.experiment.cluster().is_some();
        let source = if elsewhere { SlurmSource::Slurm(&app.slurm) } else { source };
        let (status, _) = look_by(app, stored, source, Depth::All)?;
        let seen = SeenExperiment { app, stored, target, status: &status };
        if !stored.experiment.has_slurm() {
            let paused = self.dry_run_pauses(seen)?;
            self.dry_run_retries(seen, &paused)?;
            self.will_tell(stored, target, &status);
            return self.start_runner(app, stored, &status);
        }
        self.warn_if_stale(&stored.id, &status);
        let ended = self.dry_run_timeouts(seen);
        let paused = self.dry_run_pauses(seen)?;
        let control = app.slurm.control(tokens(stored));
        let mut hopeless = self.dry_run_requeues(&control, seen, &ended)?;
        hopeless.extend(self.dry_run_resubmissions(seen, &ended)?);
        self.dry_run_retries(seen, &paused)?;
        self.will_tell(stored, target, &status);
        self.dry_run_put_back(seen, hopeless, &ended);
        self.dry_run_submissions(seen, &ended.into_iter().chain(paused).collect())?;
        self.find_followers(stored);
        Ok(())
    }

    fn would(
        &mut self,
        seen: SeenExperiment<'_>,
        key: &TrialKey,
        job: Option<&str>,
        done: PollResult,
    ) {
        self.would_for(seen, key, job, (done, None));
    }

    fn would_for(
        &mut self,
        seen: SeenExperiment<'_>,
        (task, index): &TrialKey,
        job: Option<&str>,
        (done, why): (PollResult, Option<&str>),
    ) {
        let place = (&seen.stored.id, task.as_str(), *index);
        self.report(&place, job.filter(|job| !job.is_empty()), done, why);
    }

    /// Returns the trials that would be ended.
    fn dry_run_timeouts(&mut self, seen: SeenExperiment<'_>) -> BTreeSet<TrialKey> {
        let mut ended = BTreeSet::new();
        for trial in timeouts::over(seen.stored, seen.target, seen.status) {
            let key = (trial.task, trial.index);
            self.would(seen, &key, trial.job.as_deref(), PollResult::TimedOut);
            ended.insert(key);
        }
        ended
    }

    /// Returns the trials that would be paused.
    fn dry_run_pauses(
        &mut self,
        seen: SeenExperiment<'_>,
    ) -> Result<BTreeSet<TrialKey>, CommandError> {
        let mut paused = BTreeSet::new();
        if !seen.stored.experiment.has_budget() || seen.target.scope.task.is_some() {
            return Ok(paused);
        }
        for trial in budget::dry_run(seen.stored, seen.status)? {
            let key = (trial.task, trial.index);
            let done = (PollResult::Paused, Some(&*trial.why));
            self.would_for(seen, &key, trial.job.as_deref(), done);
            paused.insert(key);
        }
        Ok(paused)
    }

    /// Returns the trials that can't run again.
    fn dry_run_requeues(
        &mut self,
        control: &JobControl,
        seen: SeenExperiment<'_>,
        ended: &BTreeSet<TrialKey>,
    ) -> Result<BTreeSet<TrialKey>, CommandError> {
        let mut hopeless = BTreeSet::new();
        let run = self.args.ended_run.as_ref();
        for wanted in requeue::candidates(seen.stored, seen.target, seen.status, run) {
            let key = (wanted.task.clone(), wanted.index);
            if ended.contains(&key) {
                continue;
            }
            match requeue::dry_run(seen.app, control, &wanted) {
                Ok(Some((job, done))) => {
                    hopeless.extend((!done.is_well()).then(|| key.clone()));
                    self.would(seen, &key, Some(&job), done);
                }
                Ok(None) => {}
                Err(error) => self.warn_unless_no_answer(seen, error)?,
            }
        }
        Ok(hopeless)
    }

    /// Returns the trials whose jobs nothing may wait for.
    fn dry_run_resubmissions(
        &mut self,
        seen: SeenExperiment<'_>,
        ended: &BTreeSet<TrialKey>,
    ) -> Result<BTreeSet<TrialKey>, CommandError> {
        let SeenExperiment { app, stored, target, status } = seen;
        for trial in resubmit::dry_run(app, stored, target, status)? {
            let key = (trial.task, trial.index);
            if !ended.contains(&key) {
                self.would_for(seen, &key, Some(&trial.job), (trial.done, trial.why.as_deref()));
            }
        }
        let all = status.tasks.iter().flat_map(|task| task.trials.iter().map(move |it| (task, it)));
        let forgotten = all.filter(|(_, trial)| trial.remedy.is_some_and(Remedy::is_forgotten));
        Ok(forgotten.map(|(task, trial)| (task.name.clone(), trial.index)).collect())
    }

    fn dry_run_retries(
        &mut self,
        seen: SeenExperiment<'_>,
        paused: &BTreeSet<TrialKey>,
    ) -> Result<(), CommandError> {
        let SeenExperiment { app, stored, target, status } = seen;
        let retried = match automatic::dry_run(app, stored, target, status) {
            Ok(retried) => retried,
            Err(error) => return self.warn_unless_no_answer(seen, error),
        };
        for trial in retried {
            let key = (trial.task, trial.index);
            if !paused.contains(&key) {
                self.would_for(seen, &key, None, (PollResult::Retried, Some(&trial.why)));
            }
        }
        Ok(())
    }

    fn dry_run_put_back(
        &mut self,
        seen: SeenExperiment<'_>,
        hopeless: BTreeSet<TrialKey>,
        ended: &BTreeSet<TrialKey>,
    ) {
        for taken in put_back::taken_out(seen.stored, seen.target, seen.status, hopeless) {
            for (trial, job) in taken.each() {
                let key = (taken.task.clone(), trial);
                if !ended.contains(&key) {
                    self.would(seen, &key, Some(&job), PollResult::PutBack);
                }
            }
        }
    }

    /// `others`: what would be ended or paused.
    fn dry_run_submissions(
        &mut self,
        seen: SeenExperiment<'_>,
        others: &BTreeSet<TrialKey>,
    ) -> Result<(), CommandError> {
        let SeenExperiment { app, stored, status, .. } = seen;
        if !may_be_due(stored) {
            return Ok(());
        }
        match due::dry_run(app, stored, status, others) {
            Err(error) => self.warn_unless_no_answer(seen, error)?,
            Ok(submitted) => {
                for (task, trials) in submitted {
                    for trial in trials.iter() {
                        self.would(seen, &(task.clone(), trial), None, PollResult::Submitted);
                    }
                }
            }
        }
        self.start_runner(app, stored, status)
    }

    /// What can't be told of a part keeps nothing else from being told, unless nobody answers.
    fn warn_unless_no_answer(
        &mut self,
        seen: SeenExperiment<'_>,
        error: CommandError,
    ) -> Result<(), CommandError> {
        if error.code == ExitCode::NoAnswer {
            return Err(error);
        }
        self.failed(&seen.stored.id, &error);
        Ok(())
    }
}
