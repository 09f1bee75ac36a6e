//! `poll`: requeues what no harness could: Slurm refused or was away, or the harness was killed before it could ask, or
//! could not be started. Safe at any time, and again.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use nemo_core::lines;
use nemo_core::progress::{self, Counted};
use nemo_core::rundir::{AttemptRecord, TrialDir};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::App;
use super::polling::query_slurm;
use super::put_back;
use super::status::look_by;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::journal;
use crate::observe::Depth;
use crate::query::{self, SlurmSource, named};
use crate::report::{out_json, say};
use crate::script;
use crate::slurm::{JobControl, JobDetail, JobPhase, JobState, SlurmError};
use crate::status::{self, Remedy, Status};
use crate::store::{ExperimentId, Stored, Target};
use crate::summary::{self, Index};

/// `poll`.
#[derive(Debug, Args)]
#[command(
    after_help = "`nemo-slurm status` says when a poll is needed: Slurm refused a requeue or did not answer, a harness was killed, or a job could not be started. \
    `poll` may be repeated, and may run from cron: every five minutes is best, since Slurm soon forgets a job that has ended. \
    A job is given up after five failed starts (or `restart.no_progress`, if that is less). \
    The exit code is 1 if a job can't be requeued or an experiment can't be read.\n\n\
    Example:\n  nemo-slurm poll"
)]
pub struct PollArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]; all experiments by default
    pub target: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What the mark tells.
#[derive(Debug, Deserialize)]
struct RequeueMark {
    slurm_job: String,
}

/// What was done about a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum PollResult {
    /// The job was put back into the queue.
    Requeued,
    /// Slurm held it, since it could not start it, and holds it no more.
    Released,
    /// Slurm had cancelled it for what it waits for, and it waits again.
    PutBack,
    /// It is there already.
    Queued,
    /// It still runs: Slurm may yet do it by itself.
    Running,
    /// The trial is over.
    Over,
    /// Slurm no longer knows the job.
    Forgotten,
    /// Slurm refuses.
    Refused,
    /// It was started too often in vain.
    GivenUp,
}

impl PollResult {
    fn is_well(self) -> bool {
        match self {
            Self::Requeued
            | Self::Released
            | Self::PutBack
            | Self::Queued
            | Self::Running
            | Self::Over => true,
            Self::Forgotten | Self::Refused | Self::GivenUp => false,
        }
    }
}

/// A trial that wants to run again.
struct RequeueCandidate {
    id: ExperimentId,
    task: String,
    index: u32,
    dir: TrialDir,
    /// Its job; none where the experiment's journal does not tell.
    job: Option<String>,
    remedy: Remedy,
    /// Its `restart.no_progress`.
    budget: u32,
}

/// An experiment, a task and a trial of it.
type Place<'a> = (&'a ExperimentId, &'a str, u32);

impl RequeueCandidate {
    fn place(&self) -> Place<'_> {
        (&self.id, &self.task, self.index)
    }
}

/// What one pass over experiments found, and whether all of it could be looked at.
struct PollPass<'a> {
    app: &'a App,
    json: bool,
    rows: Vec<serde_json::Value>,
    is_well: bool,
}

/// Brings back the trials of a target, or of all experiments.
pub(super) fn poll(app: &App, args: &PollArgs) -> Result<ExitCode, CommandError> {
    let mut pass = PollPass { app, json: args.json, rows: Vec::new(), is_well: true };
    if let Some(text) = &args.target {
        let (target, stored) = app.find(text)?;
        pass.experiment(&stored, &target, SlurmSource::Slurm(&app.slurm), Depth::All)?;
    } else {
        pass.all()?;
    }
    let PollPass { rows, is_well, .. } = pass;
    if args.json {
        out_json(&json!({ "schema": 1, "trials": rows }))?;
    } else if rows.is_empty() && is_well {
        say("Nothing to do: no trial needs to be requeued.");
    }
    Ok(if is_well { ExitCode::Fine } else { ExitCode::Failed })
}

impl PollPass<'_> {
    /// All that are not final. Slurm is asked once for all of them.
    fn all(&mut self) -> Result<(), CommandError> {
        let app = self.app;
        let ids = app.home.ids()?;
        let index = Index::read(&app.home);
        let known = summary::known(&app.home, &ids, &index);
        let open = || ids.iter().zip(&known).filter(|(_, known)| !known.is_final());
        let question = |(id, known)| {
            let wanted = summary::wanted(&app.home, id, known)?;
            // There may be more jobs than at the last look.
            let jobs = app.home.journal(id).map_or_else(|_| Vec::new(), |it| named(&it));
            Some(query::JobsToQuery { jobs, ..wanted })
        };
        let wanted: Vec<query::JobsToQuery> = open().filter_map(question).collect();
        let answers = query_slurm(app, &wanted, clock::now(), &Vec::new);
        for (id, _) in open() {
            self.one_of_all(id.clone(), SlurmSource::Asked(&answers))?;
        }
        Ok(())
    }

    /// One experiment of a home. What is wrong with it must not keep the others waiting.
    fn one_of_all(
        &mut self,
        id: ExperimentId,
        source: SlurmSource<'_>,
    ) -> Result<(), CommandError> {
        let target = Target::whole(id);
        let loaded = self.app.home.load(&target.id).map_err(CommandError::from);
        match loaded.and_then(|stored| self.experiment(&stored, &target, source, Depth::Open)) {
            // Slurm is away: it is for all of them.
            Err(error) if error.code == ExitCode::NoAnswer => Err(error),
            Err(error) => {
                self.is_well = false;
                say(&format!("warning: `{}`: {}", target.id, error.error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn experiment(
        &mut self,
        stored: &Stored,
        target: &Target,
        source: SlurmSource<'_>,
        depth: Depth,
    ) -> Result<(), CommandError> {
        if journal::submitted(&stored.journal).is_empty() {
            return Ok(());
        }
        let app = &self.app.on_cluster_of(stored);
        // What is asked for all at once is asked of this machine's cluster.
        let elsewhere = stored.experiment.cluster().is_some();
        let source = if elsewhere { SlurmSource::Slurm(&app.slurm) } else { source };
        let (status, _) = look_by(app, stored, source, depth)?;
        let mut hopeless = BTreeSet::new();
        let control = app.slurm.control(tokens(stored));
        for wanted in wanted(stored, target, &status) {
            match honour(app, &control, &wanted) {
                Ok(Some((job, done, why))) => {
                    if !done.is_well() {
                        hopeless.insert((wanted.task.clone(), wanted.index));
                    }
                    self.report(&wanted.place(), &job, done, why.as_deref());
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
        // What waits for them comes after them.
        for taken in put_back::taken_out(stored, target, &status, hopeless) {
            let (done, why) = match put_back::put_back(&control, &taken) {
                Ok(()) => (PollResult::PutBack, None),
                Err(SlurmError::Refused { reason, .. }) => (PollResult::Refused, Some(reason)),
                Err(error) => return Err(error.into()),
            };
            for (trial, job) in taken.each() {
                self.report(&(&stored.id, &taken.task, trial), &job, done, why.as_deref());
            }
        }
        Ok(())
    }

    fn report(&mut self, place: &Place<'_>, job: &str, done: PollResult, why: Option<&str>) {
        let (id, task, index) = place;
        self.is_well &= done.is_well();
        if !self.json {
            say(&format!("{id}/{task}/{index}: {}", sentence(job, done, why)));
        }
        self.rows.push(json!({ "experiment": id, "task": task, "trial": index, "slurm_job": job, "did": done, "reason": why }));
    }
}

/// The trials of a target that want to run again: those that left a mark, and those that could not.
fn wanted(stored: &Stored, target: &Target, status: &Status) -> Vec<RequeueCandidate> {
    let mut all = Vec::new();
    let tasks = stored.experiment.tasks.iter().zip(&status.tasks);
    for (task, seen) in tasks.filter(|(task, _)| target.scope.covers_task(&task.name)) {
        let budget = task.restart.no_progress;
        for trial in seen.trials.iter().filter(|trial| target.scope.covers_trial(trial.index)) {
            let dir = stored.dir.task(&task.name).trial(trial.index);
            let has_mark = dir.requeue_wanted().exists().then_some(Remedy::Requeue);
            let remedy = trial.remedy.filter(|remedy| *remedy != Remedy::PutBack);
            all.extend(has_mark.or(remedy).map(|remedy| RequeueCandidate {
                id: stored.id.clone(),
                task: task.name.clone(),
                index: trial.index,
                dir,
                job: trial.slurm_job.clone(),
                remedy,
                budget,
            }));
        }
    }
    all
}

/// The names of all job arrays of an experiment.
fn tokens(stored: &Stored) -> Vec<String> {
    let id = stored.id.as_str();
    let arrays = journal::planned_arrays(&stored.journal);
    arrays.map(|array| script::token(id, &array.task, array.index)).collect()
}

fn records(dir: &TrialDir) -> std::io::Result<Vec<AttemptRecord>> {
    Ok(lines::read(&dir.attempts())?.rows)
}

/// Does what is wanted, if it still is. Nothing where no job is known.
fn honour(
    app: &App,
    control: &JobControl,
    wanted: &RequeueCandidate,
) -> Result<Option<(String, PollResult, Option<String>)>, CommandError> {
    let path = wanted.dir.requeue_wanted();
    let Some(job) = marked(&path).or_else(|| wanted.job.clone()) else { return Ok(None) };
    let records = records(&wanted.dir).at("read", &wanted.dir.attempts())?;
    let over = status::final_end(&records).is_some();
    // A job of another name is not ours, whatever its id: Slurm has forgotten the trial's.
    let is_gone = over || control.own(std::slice::from_ref(&job))?.is_empty();
    let jobs = if is_gone { Vec::new() } else { app.slurm.show(&job)?.rows };
    let (done, why) = match standing(over, &jobs, wanted.remedy) {
        Some(done) => (done, None),
        None if is_given_up(wanted.budget, &jobs, &records, waited(&wanted.dir)) => {
            (PollResult::GivenUp, None)
        }
        None => match wanted.remedy {
            Remedy::Requeue => requeue(control, &job, wanted.dir.pause().exists())?,
            Remedy::Release => release(control, &job)?,
            Remedy::PutBack => return Ok(None), // together with others, afterwards
        },
    };
    match done {
        PollResult::Requeued | PollResult::Queued | PollResult::Over => {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.at("remove", &path)?,
            }
        }
        PollResult::Released
        | PollResult::PutBack
        | PollResult::Running
        | PollResult::Forgotten
        | PollResult::Refused
        | PollResult::GivenUp => {}
    }
    Ok(Some((job, done, why)))
}

/// The job that a mark names. One that was torn says all the same that the trial wants to run again.
fn marked(path: &Path) -> Option<String> {
    let mark: RequeueMark = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(mark.slurm_job)
}

/// Where the job stands; nothing if something is to be done about it.
fn standing(over: bool, jobs: &[JobDetail], remedy: Remedy) -> Option<PollResult> {
    if over {
        return Some(PollResult::Over);
    }
    let Some(job) = jobs.last() else { return Some(PollResult::Forgotten) };
    match job.state.phase() {
        // As `squeue` says `launch failed requeued held`.
        JobPhase::Waiting if remedy == Remedy::Release && job.reason.contains("launch_failed") => {
            None
        }
        JobPhase::Waiting => Some(PollResult::Queued),
        JobPhase::Active | JobPhase::Unknown => Some(PollResult::Running),
        // Somebody cancelled it since: a requeue would undo that.
        JobPhase::Ended if job.state == JobState::Cancelled => Some(PollResult::Over),
        JobPhase::Ended if remedy == Remedy::Release => Some(PollResult::Running),
        JobPhase::Ended => None,
    }
}

fn is_given_up(
    budget: u32,
    jobs: &[JobDetail],
    records: &[AttemptRecord],
    waited: Option<u32>,
) -> bool {
    progress::is_used_up(budget, vain_starts(jobs, records, waited), Counted::Unrecorded)
}

/// How many starts in a row, up to the last, left no record: Slurm counts them all. `waited` is the last one at which
/// the harness itself chose to wait for the trials before this one.
fn vain_starts(jobs: &[JobDetail], records: &[AttemptRecord], waited: Option<u32>) -> u32 {
    let starts = jobs.last().map_or(0, |job| job.restarts + 1);
    let recorded = records.iter().rev().find_map(AttemptRecord::as_start);
    let worked = recorded.map(|start| start.restarts).max(waited);
    starts.saturating_sub(worked.map_or(0, |restarts| restarts + 1))
}

/// The restarts of the job when its harness last left to wait; none where it never did, or that can't be read.
fn waited(dir: &TrialDir) -> Option<u32> {
    let text = nemo_core::open::read(&dir.waited()).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
    value["restarts"].as_u64().and_then(|restarts| restarts.try_into().ok())
}

fn requeue(
    control: &JobControl,
    job: &str,
    paused: bool,
) -> Result<(PollResult, Option<String>), CommandError> {
    let ids = [job.to_owned()];
    match control.requeue(&ids) {
        Ok(()) => {}
        Err(SlurmError::Refused { reason, .. }) => return Ok((PollResult::Refused, Some(reason))),
        Err(error) => return Err(error.into()),
    }
    let then = if paused { control.hold(&ids) } else { control.start_soon(&ids) };
    match then {
        Ok(()) | Err(SlurmError::Refused { .. }) => Ok((PollResult::Requeued, None)), // it is in the queue
        Err(error) => Err(error.into()),
    }
}

fn release(control: &JobControl, job: &str) -> Result<(PollResult, Option<String>), CommandError> {
    match control.release(&[job.to_owned()]) {
        Ok(()) => Ok((PollResult::Released, None)),
        Err(SlurmError::Refused { reason, .. }) => Ok((PollResult::Refused, Some(reason))),
        Err(error) => Err(error.into()),
    }
}

fn sentence(job: &str, done: PollResult, why: Option<&str>) -> String {
    match done {
        PollResult::Requeued => format!("job {job} was requeued"),
        PollResult::Released => format!("job {job} was released"),
        PollResult::PutBack => {
            format!(
                "job {job} is back in the queue; Slurm had cancelled it because of its dependency"
            )
        }
        PollResult::GivenUp => format!(
            "job {job} failed to start too often; look at Slurm's own output: `nemo-slurm logs --slurm`"
        ),
        PollResult::Queued => format!("job {job} is in the queue already"),
        PollResult::Running => format!("job {job} is still running; run this again later"),
        PollResult::Over => format!("job {job} has ended and is not requeued"),
        PollResult::Forgotten => {
            format!(
                "Slurm no longer knows job {job}; the checkpoints are kept, but only a new `nemo-slurm submit` can run the trial"
            )
        }
        PollResult::Refused => {
            format!("Slurm refused to requeue job {job}: {}", why.unwrap_or("it gave no reason"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::parse::job;

    fn job(state: &str, reason: &str, restarts: u32) -> Vec<JobDetail> {
        let line = format!(
            "JobId=7 JobName=a UserId=u(1) GroupId=u(1) JobState={state} Reason={reason} Requeue=1 Restarts={restarts} ExitCode=93:0 TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n"
        );
        let jobs = job::parse(line.as_bytes());
        assert_eq!(jobs.rows.len(), 1, "{jobs:?}");
        jobs.rows
    }

    #[track_caller]
    fn check(state: &str, expected: Option<PollResult>) {
        let jobs = job(state, "None", 0);
        assert_eq!(standing(false, &jobs, Remedy::Requeue), expected, "{state}");
        assert_eq!(standing(true, &jobs, Remedy::Requeue), Some(PollResult::Over), "{state}");
    }

    #[test]
    fn only_an_ended_job_is_requeued() {
        check("FAILED", None);
        check("COMPLETED", None);
        check("NODE_FAIL", None);
        check("PENDING", Some(PollResult::Queued));
        check("RUNNING", Some(PollResult::Running));
        check("COMPLETING", Some(PollResult::Running));
        check("CANCELLED", Some(PollResult::Over));
        check("NEW_WORD", Some(PollResult::Running));
        assert_eq!(standing(false, &[], Remedy::Requeue), Some(PollResult::Forgotten));
    }

    #[test]
    fn only_a_job_that_slurm_could_not_start_is_released() {
        let held = |reason| standing(false, &job("PENDING", reason, 1), Remedy::Release);
        assert_eq!(held("launch_failed_requeued_held"), None);
        assert_eq!(held("JobHeldUser"), Some(PollResult::Queued));
        let running = job("RUNNING", "None", 1);
        assert_eq!(standing(false, &running, Remedy::Release), Some(PollResult::Running));
    }

    #[test]
    fn starts_without_a_record_are_counted_from_slurm_s_restarts() {
        let start = |restarts: u32| -> AttemptRecord {
            serde_json::from_value(serde_json::json!({
                "event": "start", "attempt": 0, "slurm_job": "7_0", "restarts": restarts, "node": "n1",
                "pid": 1, "boot_id": "b", "start_ticks": 1, "time": 1.0, "resume_step": null,
            }))
            .unwrap()
        };
        let vain = |restarts, records: &[AttemptRecord]| {
            vain_starts(&job("FAILED", "None", restarts), records, None)
        };
        assert_eq!((vain(0, &[]), vain(4, &[])), (1, 5));
        // The harness began, and was killed later: this start was not in vain.
        assert_eq!((vain(0, &[start(0)]), vain(3, &[start(0)])), (0, 3));
        assert_eq!(vain(3, &[start(0), start(3)]), 0);
        assert_eq!(vain_starts(&[], &[], None), 0);
        // The harness put the job back itself.
        assert_eq!(vain_starts(&job("FAILED", "None", 4), &[], Some(3)), 1);
        assert_eq!(vain_starts(&job("FAILED", "None", 4), &[start(4)], Some(3)), 0);
    }
}
