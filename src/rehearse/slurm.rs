//! Runs a trial on Slurm, and disturbs it by what a user may do there.

use std::collections::BTreeMap;
use std::time::Duration;

use nemo_core::rundir::TrialDir;

use super::folder::RunFolder;
use super::local::{RunContext, RunError, RunProgress, gather, read_spec};
use super::run_record::{Injected, RehearsedRun, RunEnd};
use super::scenarios::{Fault, InjectionTime, Scenario};
use super::watch::TrialWatcher;
use crate::clock;
use crate::file_error::IoResultExt;
use crate::observe;
use crate::script;
use crate::slurm::{Client, JobControl, JobId, Recipient};
use crate::status::{self, State};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(100);
/// Between two questions to the controller, in seconds.
const ASK_EVERY: f64 = 10.0;
/// How often is looked, once a second, whether a cancelled job is gone.
const CANCEL_LOOKS: u32 = 40;
/// A job that is neither in the queue nor has written an end is lost after so many questions.
const FORGOTTEN: u32 = 3;

/// A trial that runs there.
struct SlurmTrial<'a> {
    stage: &'a RunContext<'a>,
    client: Client,
    control: JobControl,
    job: JobId,
    dir: TrialDir,
    watch: TrialWatcher,
}

/// Submits the run, and watches it until it is over. After `patience` seconds of running it is given up.
pub(super) fn run(
    stage: &RunContext<'_>,
    client: &Client,
    place: &RunFolder,
    trial: u32,
    scenario: &Scenario,
    patience: Option<f64>,
) -> Result<RehearsedRun, RunError> {
    let Some(array) = place.plan.as_ref().and_then(|plan| plan.arrays.first()) else {
        let none = Err(std::io::Error::other("the run has no script"));
        return Ok(none.at("submit", &place.dir.0)?);
    };
    let token = script::token(place.id.as_str(), &array.task, array.index);
    let arguments = script::arguments(array, &BTreeMap::new());
    let job = client.submit(&place.task.script(0), &arguments)?.job;
    let dir = place.task.trial(trial);
    let spec = read_spec(&place.task).at("read", &place.task.spec())?;
    let watch = TrialWatcher::new(dir.clone(), &spec.metrics).at("watch", dir.path())?;
    let control = client.control(vec![token.clone()]).with_known(&[job]);
    let client = client.for_names(vec![token]);
    let mut run = SlurmTrial { stage, client, control, job, dir, watch };
    let result = run.carry_out(scenario, patience);
    if !matches!(result, Ok(RunEnd::Completed | RunEnd::Failed(_))) {
        run.cancel();
    }
    let end = result?;
    run.watch.look().at("read", run.dir.path())?;
    let seconds = run.ran();
    Ok(gather(&run.watch, &run.dir, scenario, end, seconds).at("read", run.dir.path())?)
}

impl SlurmTrial<'_> {
    fn carry_out(
        &mut self,
        scenario: &Scenario,
        patience: Option<f64>,
    ) -> Result<RunEnd, RunError> {
        let (mut asked, mut forgotten) = (clock::now(), 0);
        loop {
            self.stage.interrupt.wait(LOOK)?;
            let now = clock::now();
            if self.stage.deadline.is_some_and(|deadline| now > deadline) {
                return Err(RunError::OutOfTime);
            }
            self.watch.look().at("read", self.dir.path())?;
            if let Some((attempt, _)) = self.watch.attempt() {
                (self.stage.show)(RunProgress { attempt, step: self.watch.step(attempt) });
            }
            if let Some(end) = self.end()? {
                return Ok(end);
            }
            self.disturb(scenario, now)?;
            if patience.is_some_and(|patience| self.ran() > patience) {
                return Ok(RunEnd::Stuck);
            }
            if now - asked > ASK_EVERY {
                asked = now;
                let queue = self.client.queue(&[self.job])?;
                let lives = queue.rows.iter().any(|row| !row.state.is_final());
                forgotten = if lives { 0 } else { forgotten + 1 };
                if forgotten >= FORGOTTEN {
                    return Ok(RunEnd::Failed(format!(
                        "job {} left the queue without a record",
                        self.job
                    )));
                }
            }
        }
    }

    /// Takes the job back, and waits until it is gone: its folder may be removed then.
    fn cancel(&self) {
        if self.control.cancel(&[self.job.to_string()]).is_err() {
            return;
        }
        for _ in 0..CANCEL_LOOKS {
            let lives = self
                .client
                .queue(&[self.job])
                .map(|queue| queue.rows.iter().any(|row| !row.state.is_final()));
            if !matches!(lives, Ok(true)) {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Seconds since the first attempt began: waiting in the queue does not count.
    fn ran(&self) -> f64 {
        self.watch.attempts().first().map_or(0.0, |first| clock::now() - first.start)
    }

    fn end(&self) -> Result<Option<RunEnd>, RunError> {
        if !self.watch.is_over() {
            return Ok(None);
        }
        let files = observe::trial_files(&self.dir).at("read", self.dir.path())?;
        let reason = || {
            let attempts = self.watch.attempts();
            let end = attempts.last().and_then(|attempt| attempt.end.clone());
            end.and_then(|end| end.reason).unwrap_or_default()
        };
        Ok(status::final_state(&files).map(|state| match state {
            State::Completed => RunEnd::Completed,
            _ => RunEnd::Failed(reason()),
        }))
    }

    /// Does what is due.
    fn disturb(&mut self, scenario: &Scenario, now: f64) -> Result<(), RunError> {
        let Some((attempt, start)) = self.watch.attempt() else { return Ok(()) };
        let Some(injection) = scenario.injections.get(attempt as usize) else { return Ok(()) };
        let is_done = self.watch.injected.iter().any(|(done, _)| *done == attempt);
        let step = self.watch.step(attempt);
        let is_due = match injection.moment {
            InjectionTime::Step(wanted) => step.is_some_and(|step| step >= wanted),
            InjectionTime::Seconds(seconds) => now - start >= seconds,
            InjectionTime::Begin => true,
        };
        if is_done || !is_due || self.watch.is_over() {
            return Ok(());
        }
        let time = clock::now();
        self.watch.injected.push((attempt, Injected { fault: injection.fault, time, step }));
        let ids = [self.job.to_string()];
        match injection.fault {
            Fault::Preempt { .. } => self.control.signal(&ids, "USR1", Recipient::Batch)?,
            Fault::Requeue => self.control.requeue(&ids)?,
            // Only this machine's own runs are disturbed so.
            Fault::Terminate { .. }
            | Fault::KillProgram
            | Fault::KillHarness
            | Fault::TimeLimit { .. } => {}
        }
        Ok(())
    }
}
