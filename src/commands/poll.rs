//! `poll`: requeues what no harness could: Slurm refused or was away, or the harness was killed before it could ask, or
//! could not be started. Safe at any time, and again.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, TrialDir};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::App;
use super::status::look;
use crate::error::{CommandError, ExitCode};
use crate::journal;
use crate::observe;
use crate::report::{out, say};
use crate::slurm::{JobDetail, JobState, Phase, SlurmError};
use crate::status::{self, State, Status};
use crate::store::{ExperimentId, Stored, Target};

/// `poll`.
#[derive(Debug, Args)]
#[command(
    after_help = "`nemo-slurm status` says when it is needed: a trial saved, and Slurm refused the requeue or was away; its harness was killed; or Slurm could not start it. \
    It does nothing twice, and may run from cron: every five minutes is best, since Slurm soon forgets a job that has ended. It exits 1 if a job can't be requeued.\n\n\
    Example:\n  nemo-slurm poll"
)]
pub struct PollArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]; all experiments if there is none
    pub target: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What the mark tells.
#[derive(Debug, Deserialize)]
struct Mark {
    slurm_job: String,
}

/// What was done about a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    /// The job was put back into the queue.
    Requeued,
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
}

/// A trial that wants to be requeued.
struct Wanted {
    id: ExperimentId,
    task: String,
    index: u32,
    dir: TrialDir,
    /// Its job, where there is no mark: Slurm has ended it, and the harness did not.
    job: Option<String>,
}

/// Honours the marks of a target, or of all experiments.
pub(super) fn poll(app: &App, args: &PollArgs) -> Result<ExitCode, CommandError> {
    let mut rows = Vec::new();
    let mut all_done = true;
    for wanted in wanted(app, args)? {
        let Some((job, done, why)) = honour(app, &wanted)? else { continue };
        let Wanted { id, task, index, .. } = &wanted;
        all_done &= !matches!(done, Done::Forgotten | Done::Refused);
        if !args.json {
            say(&format!("{id}/{task}/{index}: {}", sentence(&job, done, why.as_deref())));
        }
        rows.push(json!({ "experiment": id, "task": task, "trial": index, "slurm_job": job, "did": done, "reason": why }));
    }
    if args.json {
        out(&json!({ "schema": 1, "trials": rows }))?;
    } else if rows.is_empty() {
        say("Nothing to do: no trial waits to be requeued.");
    }
    Ok(if all_done { ExitCode::Fine } else { ExitCode::Failed })
}

fn wanted(app: &App, args: &PollArgs) -> Result<Vec<Wanted>, CommandError> {
    if let Some(text) = &args.target {
        let (target, stored) = app.find(text)?;
        return of_experiment(app, &stored, &target);
    }
    let mut all = Vec::new();
    for id in app.home.ids()? {
        // One damaged folder must not hide the others.
        match app.home.load(&id) {
            Ok(stored) => {
                let target = Target { id, task: None, trial: None };
                all.extend(of_experiment(app, &stored, &target)?);
            }
            Err(error) => say(&format!("warning: `{id}`: {error}")),
        }
    }
    Ok(all)
}

fn of_experiment(app: &App, stored: &Stored, target: &Target) -> Result<Vec<Wanted>, CommandError> {
    let (mut all, mut open) = (Vec::new(), BTreeMap::new());
    let tasks = stored.experiment.tasks.iter();
    for task in tasks.filter(|task| target.task.as_ref().is_none_or(|name| *name == task.name)) {
        let folder = stored.dir.task(&task.name);
        let is_meant = |index: &u32| target.trial.is_none_or(|trial| trial == *index);
        for index in observe::trial_folders(&folder)?.into_iter().filter(is_meant) {
            let dir = folder.trial(index);
            let wanted =
                Wanted { id: stored.id.clone(), task: task.name.clone(), index, dir, job: None };
            if wanted.dir.requeue_wanted().exists() {
                all.push(wanted);
            } else if is_open(&wanted.dir)? {
                open.insert((task.name.clone(), index), wanted);
            }
        }
    }
    if !open.is_empty() && !journal::submitted(&stored.journal).is_empty() {
        all.extend(lost(&look(app, stored)?, open));
    }
    Ok(all)
}

/// Whether a trial has begun, and its own record does not say that it is over.
fn is_open(dir: &TrialDir) -> std::io::Result<bool> {
    let records = records(dir)?;
    Ok(!records.is_empty() && status::final_end(&records).is_none())
}

fn records(dir: &TrialDir) -> std::io::Result<Vec<AttemptRecord>> {
    Ok(lines::read(&dir.attempts())?.rows)
}

/// Those of the open trials whose job has ended in Slurm's eyes. What was cancelled stays so.
fn lost(status: &Status, mut open: BTreeMap<(String, u32), Wanted>) -> Vec<Wanted> {
    let is_lost = |state: State| matches!(state, State::Failed | State::Timeout);
    let mut all = Vec::new();
    for task in &status.tasks {
        for trial in task.trials.iter().filter(|trial| is_lost(trial.state)) {
            let wanted = open.remove(&(task.name.clone(), trial.index));
            all.extend(wanted.map(|wanted| Wanted { job: trial.slurm_job.clone(), ..wanted }));
        }
    }
    all
}

/// Does what is wanted, if it still is. Nothing where the mark is gone by now.
fn honour(
    app: &App,
    wanted: &Wanted,
) -> Result<Option<(String, Done, Option<String>)>, CommandError> {
    let path = wanted.dir.requeue_wanted();
    let Some(job) = wanted.job.clone().map_or_else(|| marked(&path), |job| Ok(Some(job)))? else {
        return Ok(None);
    };
    let over = status::final_end(&records(&wanted.dir)?).is_some();
    let jobs = if over { Vec::new() } else { app.slurm.show(&job)?.rows };
    let (done, why) = match standing(over, &jobs) {
        Some(done) => (done, None),
        None => requeue(app, &job, wanted.dir.pause().exists())?,
    };
    match done {
        Done::Requeued | Done::Queued | Done::Over => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        },
        Done::Running | Done::Forgotten | Done::Refused => {}
    }
    Ok(Some((job, done, why)))
}

/// The job that a mark names.
fn marked(path: &Path) -> Result<Option<String>, CommandError> {
    let Ok(text) = std::fs::read(path) else { return Ok(None) };
    let mark: Mark = serde_json::from_slice(&text).map_err(|error| {
        let text = format!("`{}` is damaged: {error}", path.display());
        CommandError::new(ExitCode::Usage, text).hinted("remove it, and look at the trial's log")
    })?;
    Ok(Some(mark.slurm_job))
}

/// Where the job stands; nothing if it has ended and must be requeued.
fn standing(over: bool, jobs: &[JobDetail]) -> Option<Done> {
    if over {
        return Some(Done::Over);
    }
    let Some(job) = jobs.last() else { return Some(Done::Forgotten) };
    match job.state.phase() {
        Phase::Waiting => Some(Done::Queued),
        Phase::Active | Phase::Unknown => Some(Done::Running),
        // Somebody cancelled it since: a requeue would undo that.
        Phase::Ended if job.state == JobState::Cancelled => Some(Done::Over),
        Phase::Ended => None,
    }
}

fn requeue(app: &App, job: &str, paused: bool) -> Result<(Done, Option<String>), CommandError> {
    let ids = [job.to_owned()];
    match app.slurm.requeue(&ids) {
        Ok(()) => {}
        Err(SlurmError::Refused { reason, .. }) => return Ok((Done::Refused, Some(reason))),
        Err(error) => return Err(error.into()),
    }
    let then = if paused { app.slurm.hold(&ids) } else { app.slurm.start_soon(&ids) };
    match then {
        Ok(()) | Err(SlurmError::Refused { .. }) => Ok((Done::Requeued, None)), // it is in the queue
        Err(error) => Err(error.into()),
    }
}

fn sentence(job: &str, done: Done, why: Option<&str>) -> String {
    match done {
        Done::Requeued => format!("job {job} is requeued"),
        Done::Queued => format!("job {job} is in the queue already"),
        Done::Running => format!("job {job} still runs; look again later"),
        Done::Over => format!("job {job} is over, and is not requeued"),
        Done::Forgotten => {
            format!(
                "Slurm no longer knows job {job}; its checkpoints are in its folder, and a new `nemo-slurm submit` begins anew"
            )
        }
        Done::Refused => {
            format!("Slurm does not requeue job {job}: {}", why.unwrap_or("it said nothing"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::parse::job;

    #[track_caller]
    fn check(state: &str, expected: Option<Done>) {
        let line = format!(
            "JobId=7 JobName=a UserId=u(1) GroupId=u(1) JobState={state} Reason=None Requeue=1 Restarts=0 ExitCode=93:0 TimeLimit=00:10:00 Partition=main NodeList=n1 NumNodes=1\n"
        );
        let jobs = job::parse(line.as_bytes());
        assert_eq!(jobs.rows.len(), 1, "{jobs:?}");
        assert_eq!(standing(false, &jobs.rows), expected, "{state}");
        assert_eq!(standing(true, &jobs.rows), Some(Done::Over), "{state}");
    }

    #[test]
    fn only_an_ended_job_is_requeued() {
        check("FAILED", None);
        check("COMPLETED", None);
        check("NODE_FAIL", None);
        check("PENDING", Some(Done::Queued));
        check("RUNNING", Some(Done::Running));
        check("COMPLETING", Some(Done::Running));
        check("CANCELLED", Some(Done::Over));
        check("NEW_WORD", Some(Done::Running));
        assert_eq!(standing(false, &[]), Some(Done::Forgotten));
    }
}
