//! Trials that want to run again, and what is done for each.

use std::path::{Path, PathBuf};

use nemo_core::lines;
use nemo_core::open;
use nemo_core::progress::{self, Counted};
use nemo_core::rundir::{AttemptRecord, TrialDir, requests};
use serde::Deserialize;

use super::EndedRun;
use super::outcome::PollResult;
use crate::clock;
use crate::commands::App;
use crate::error::{CommandError, IoResultExt};
use crate::journal;
use crate::slurm::{JobControl, JobDetail, JobPhase, JobState, SOON, SlurmError};
use crate::status::{self, Remedy, Request, State, Status, TrialStatus};
use crate::store::{ExperimentId, Stored, Target};

/// What the mark tells.
#[derive(Debug, Deserialize)]
struct RequeueMark {
    slurm_job: String,
}

/// A trial that wants to run again.
pub(super) struct RequeueCandidate {
    pub(super) id: ExperimentId,
    pub(super) task: String,
    pub(super) index: u32,
    dir: TrialDir,
    /// Its job; none where the experiment's journal does not tell.
    job: Option<String>,
    remedy: Remedy,
    /// The run of its job whose harness is known to be gone, though Slurm may still show it.
    ended: Option<EndedRun>,
    /// Its `restart.no_progress`.
    budget: u32,
    /// The number of its first attempt since it was retried.
    from_attempt: u32,
    /// Whether somebody wants it to wait.
    is_paused: bool,
}

/// An experiment, a task and a trial of it.
pub(super) type Place<'a> = (&'a ExperimentId, &'a str, u32);

impl RequeueCandidate {
    pub(super) fn place(&self) -> Place<'_> {
        (&self.id, &self.task, self.index)
    }
}

/// The trials of a target that want to run again: those that left a mark, those that could not, and that of `ended`.
pub(super) fn candidates(
    stored: &Stored,
    target: &Target,
    status: &Status,
    ended: Option<&EndedRun>,
) -> Vec<RequeueCandidate> {
    let mut all = Vec::new();
    let requests = requests::read(&stored.dir).ok();
    let tasks = stored.experiment.tasks.iter().zip(&status.tasks);
    for (task, seen) in tasks.filter(|(task, _)| target.scope.covers_task(&task.name)) {
        let budget = task.restart.no_progress;
        let retries = journal::last_retries(&stored.journal, &task.name);
        for trial in seen.trials.iter().filter(|trial| target.scope.covers_trial(trial.index)) {
            if is_cancelled(requests.as_deref(), &task.name, trial.index) {
                continue;
            }
            let dir = stored.dir.task(&task.name).trial(trial.index);
            // Slurm can't requeue what it does not know: it is submitted again instead.
            let waits_for_resume = trial.state == State::Paused && trial.remedy.is_none();
            if trial.is_dropped() || waits_for_resume {
                continue;
            }
            let has_mark = dir.requeue_wanted().exists().then_some(Remedy::Requeue);
            let of_its_job = |remedy: &Remedy| matches!(remedy, Remedy::Requeue | Remedy::Release);
            let remedy = trial.remedy.filter(of_its_job);
            let ended = ended.filter(|run| is_cut_short(trial, run)).cloned();
            let has_ended = ended.is_some().then_some(Remedy::Requeue);
            all.extend(has_mark.or(has_ended).or(remedy).map(|remedy| RequeueCandidate {
                id: stored.id.clone(),
                task: task.name.clone(),
                index: trial.index,
                dir,
                job: trial.slurm_job.clone(),
                remedy,
                ended,
                budget,
                from_attempt: retries.get(&trial.index).map_or(0, |retry| retry.from_attempt),
                is_paused: is_paused(requests.as_deref(), &task.name, trial.index),
            }));
        }
    }
    all
}

/// Whether this run was that of the trial, which is not over.
fn is_cut_short(trial: &TrialStatus, run: &EndedRun) -> bool {
    trial.slurm_job.as_deref() == Some(run.job.as_str()) && !trial.is_final()
}

type NamedRequests = [(PathBuf, Request)];

/// Whether somebody has asked for the trial's end. What can't be read may say so.
fn is_cancelled(requests: Option<&NamedRequests>, task: &str, index: u32) -> bool {
    requests.is_none_or(|all| {
        requests::is_cancelled(all.iter().map(|(_, request)| request), task, index)
    })
}

/// Whether the trial is to wait until somebody resumes it.
fn is_paused(requests: Option<&NamedRequests>, task: &str, index: u32) -> bool {
    let all = requests.unwrap_or_default().iter().map(|(_, request)| request);
    requests::pause(all, task, index).is_some()
}

/// The job of a trial, what was done about it, and why.
pub(super) type Done = (String, PollResult, Option<String>);

/// What is to be done about a job.
enum RequeueStep {
    Nothing(PollResult),
    /// Back into the queue, to start again after so many seconds.
    Requeue {
        runs: bool,
        after: u32,
    },
    Release,
}

/// What is to be done for a trial, as its records and Slurm tell now, and the job. Nothing where no job is known.
fn step(
    app: &App,
    control: &JobControl,
    wanted: &RequeueCandidate,
) -> Result<Option<(String, RequeueStep)>, CommandError> {
    let path = wanted.dir.requeue_wanted();
    // A mark may be of a job before the trial was retried.
    let Some(job) = wanted.job.clone().or_else(|| marked(&path)) else { return Ok(None) };
    let mut records = records(&wanted.dir).at("read", &wanted.dir.attempts())?;
    records.retain(|record| record.attempt() >= wanted.from_attempt);
    let over = status::final_end(&records).is_some();
    // Of a trial that is over only a job matters that Slurm holds all the same: others wait for its end.
    let is_done_with = over && wanted.remedy != Remedy::Release;
    // A job of another name is not ours, whatever its id: Slurm has forgotten the trial's.
    let is_gone = is_done_with || control.own(std::slice::from_ref(&job))?.is_empty();
    let jobs = if is_gone { Vec::new() } else { app.slurm.show(&job)?.rows };
    let lingering = status::lingering_run(&records, clock::now());
    let lingering = lingering.map(|restarts| EndedRun { job: job.clone(), restarts });
    let ended = wanted.ended.as_ref().or(lingering.as_ref());
    let vain = vain_starts(&jobs, &records, waited(&wanted.dir));
    let is_given_up = !over && progress::is_used_up(wanted.budget, vain, Counted::Unrecorded);
    let step = match standing(over, &jobs, wanted.remedy, ended) {
        Some(done) => RequeueStep::Nothing(done),
        None if is_given_up => RequeueStep::Nothing(PollResult::GivenUp),
        None => match wanted.remedy {
            Remedy::Requeue => {
                let runs = jobs.last().is_some_and(|job| job.state.phase() == JobPhase::Active);
                RequeueStep::Requeue { runs, after: pause_after(vain) }
            }
            Remedy::Release => RequeueStep::Release,
            // Together with others, afterwards.
            Remedy::PutBack | Remedy::Resubmit | Remedy::AskAgain | Remedy::StartRunner => {
                return Ok(None);
            }
        },
    };
    Ok(Some((job, step)))
}

/// What [`honour`] would do. Slurm may refuse it.
pub(super) fn dry_run(
    app: &App,
    control: &JobControl,
    wanted: &RequeueCandidate,
) -> Result<Option<(String, PollResult)>, CommandError> {
    let result = |step| match step {
        RequeueStep::Nothing(done) => done,
        RequeueStep::Requeue { .. } => PollResult::Requeued,
        RequeueStep::Release => PollResult::Released,
    };
    Ok(step(app, control, wanted)?.map(|(job, step)| (job, result(step))))
}

/// Does what is wanted, if it still is. Nothing where no job is known.
pub(super) fn honour(
    app: &App,
    control: &JobControl,
    wanted: &RequeueCandidate,
) -> Result<Option<Done>, CommandError> {
    let Some((job, step)) = step(app, control, wanted)? else { return Ok(None) };
    let (done, why) = match step {
        RequeueStep::Nothing(done) => (done, None),
        RequeueStep::Requeue { runs, after } => {
            let after = Some(after).filter(|_| !wanted.is_paused && !wanted.dir.pause().exists());
            requeue(control, &job, runs, after)?
        }
        RequeueStep::Release => release(control, &job)?,
    };
    let path = wanted.dir.requeue_wanted();
    if done.ends_mark() {
        match std::fs::remove_file(&path) {
            // A folder that is mounted read-only refuses before it looks whether there is a mark.
            Err(_) if matches!(path.try_exists(), Ok(false)) => {}
            removed => removed.at("remove", &path)?,
        }
    }
    Ok(Some((job, done, why)))
}

fn records(dir: &TrialDir) -> std::io::Result<Vec<AttemptRecord>> {
    Ok(lines::read(&dir.attempts())?.rows)
}

/// The job that a mark names. One that was torn says all the same that the trial wants to run again.
fn marked(path: &Path) -> Option<String> {
    let mark: RequeueMark = serde_json::from_slice(&open::read(path).ok()?).ok()?;
    Some(mark.slurm_job)
}

/// Where the job stands; nothing if something is to be done about it.
fn standing(
    over: bool,
    jobs: &[JobDetail],
    remedy: Remedy,
    ended: Option<&EndedRun>,
) -> Option<PollResult> {
    if over && remedy != Remedy::Release {
        return Some(PollResult::Over);
    }
    let unknown = if over { PollResult::Over } else { PollResult::Forgotten };
    let Some(job) = jobs.last() else { return Some(unknown) };
    match job.state.phase() {
        // As `squeue` says `launch failed requeued held`.
        JobPhase::Waiting if remedy == Remedy::Release && job.reason.contains("launch_failed") => {
            None
        }
        JobPhase::Waiting => Some(PollResult::Queued),
        // Nobody is left in it who could ask for its requeue.
        JobPhase::Active if ended.is_some_and(|run| run.restarts == job.restarts) => None,
        JobPhase::Active | JobPhase::Unknown => Some(PollResult::Running),
        // Somebody cancelled it since: a requeue would undo that.
        JobPhase::Ended if job.state == JobState::Cancelled => Some(PollResult::Over),
        JobPhase::Ended if remedy == Remedy::Release => Some(PollResult::Running),
        JobPhase::Ended => None,
    }
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

/// How many seconds a job waits after so many starts in vain. Slurm likes to choose the same node again, so a folder that
/// is read-only there would use up all of them within seconds.
fn pause_after(vain: u32) -> u32 {
    match vain {
        0 | 1 => SOON,
        2 => 30,
        3 => 120,
        _ => 600,
    }
}

/// `after`: it starts again in so many seconds; none where it is to wait until somebody resumes it.
fn requeue(
    control: &JobControl,
    job: &str,
    runs: bool,
    after: Option<u32>,
) -> Result<(PollResult, Option<String>), CommandError> {
    let ids = [job.to_owned()];
    let asked = if runs { control.requeue_running(&ids) } else { control.requeue(&ids) };
    match asked {
        Ok(()) => {}
        Err(SlurmError::Refused { reason, .. }) => return Ok((PollResult::Refused, Some(reason))),
        Err(error) => return Err(error.into()),
    }
    let then = after.map_or_else(|| control.hold(&ids), |after| control.start_after(after, &ids));
    match then {
        // Slurm passes over the requeue of a job that was cancelled meanwhile.
        Err(SlurmError::Refused { .. }) if runs => Ok((PollResult::Over, None)),
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
        assert_eq!(standing(false, &jobs, Remedy::Requeue, None), expected, "{state}");
        assert_eq!(standing(true, &jobs, Remedy::Requeue, None), Some(PollResult::Over), "{state}");
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
        assert_eq!(standing(false, &[], Remedy::Requeue, None), Some(PollResult::Forgotten));
    }

    #[test]
    fn only_a_job_that_slurm_could_not_start_is_released() {
        let held = |reason| standing(false, &job("PENDING", reason, 1), Remedy::Release, None);
        assert_eq!(held("launch_failed_requeued_held"), None);
        assert_eq!(held("JobHeldUser"), Some(PollResult::Queued));
        // The trial is over, and what waits for its job waits for the end of a run that never begins.
        let phantom = job("PENDING", "launch_failed_requeued_held", 1);
        assert_eq!(standing(true, &phantom, Remedy::Release, None), None);
        assert_eq!(standing(true, &[], Remedy::Release, None), Some(PollResult::Over));
        let running = job("RUNNING", "None", 1);
        assert_eq!(standing(false, &running, Remedy::Release, None), Some(PollResult::Running));
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

    #[test]
    fn starts_in_vain_have_growing_pauses() {
        let pauses: Vec<u32> = (0..6).map(pause_after).collect();
        assert_eq!(pauses, [3, 3, 30, 120, 600, 600]);
    }

    #[test]
    fn a_run_whose_harness_is_gone_is_requeued_and_no_later_one() {
        let ended = EndedRun { job: "7".to_owned(), restarts: 2 };
        let check = |state, restarts, expected| {
            let jobs = job(state, "None", restarts);
            assert_eq!(standing(false, &jobs, Remedy::Requeue, Some(&ended)), expected, "{state}");
        };
        check("RUNNING", 2, None);
        check("COMPLETING", 2, None);
        check("RUNNING", 3, Some(PollResult::Running));
        check("PENDING", 3, Some(PollResult::Queued));
        check("CANCELLED", 2, Some(PollResult::Over));
    }
}
