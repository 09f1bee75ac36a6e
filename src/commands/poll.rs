//! `poll`: requeues what a harness could not, because Slurm refused or was away. Safe at any time, and again.

use nemo_harness::rundir::TrialDir;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::World;
use crate::cli::PollArgs;
use crate::error::{CommandError, ExitCode};
use crate::observe;
use crate::report::{out, say};
use crate::slurm::{JobDetail, JobState, Phase, SlurmError};
use crate::status;
use crate::store::{ExperimentId, Stored, Target};

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

/// A trial with a mark.
struct Wanted {
    id: ExperimentId,
    task: String,
    index: u32,
    dir: TrialDir,
}

/// Honours the marks of a target, or of all experiments.
pub(super) fn poll(world: &World, args: &PollArgs) -> Result<ExitCode, CommandError> {
    let mut rows = Vec::new();
    let mut all_done = true;
    for wanted in wanted(world, args)? {
        let Some((job, done, why)) = honour(world, &wanted)? else { continue };
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

fn wanted(world: &World, args: &PollArgs) -> Result<Vec<Wanted>, CommandError> {
    if let Some(text) = &args.target {
        let (target, stored) = world.find(text)?;
        return Ok(of_experiment(&stored, &target)?);
    }
    let mut all = Vec::new();
    for id in world.home.ids()? {
        // One damaged folder must not hide the others.
        match world.home.load(&id) {
            Ok(stored) => {
                all.extend(of_experiment(&stored, &Target { id, task: None, trial: None })?);
            }
            Err(error) => say(&format!("warning: `{id}`: {error}")),
        }
    }
    Ok(all)
}

fn of_experiment(stored: &Stored, target: &Target) -> std::io::Result<Vec<Wanted>> {
    let mut all = Vec::new();
    let tasks = stored.experiment.tasks.iter();
    for task in tasks.filter(|task| target.task.as_ref().is_none_or(|name| *name == task.name)) {
        let folder = stored.dir.task(&task.name);
        for index in observe::trial_folders(&folder)? {
            let dir = folder.trial(index);
            if target.trial.is_none_or(|trial| trial == index) && dir.requeue_wanted().exists() {
                all.push(Wanted { id: stored.id.clone(), task: task.name.clone(), index, dir });
            }
        }
    }
    Ok(all)
}

/// Does what the mark wants, if it is still wanted. Nothing where the mark is gone by now.
fn honour(
    world: &World,
    wanted: &Wanted,
) -> Result<Option<(String, Done, Option<String>)>, CommandError> {
    let path = wanted.dir.requeue_wanted();
    let Ok(text) = std::fs::read(&path) else { return Ok(None) };
    let mark: Mark = serde_json::from_slice(&text).map_err(|error| {
        let text = format!("`{}` is damaged: {error}", path.display());
        CommandError::new(ExitCode::Usage, text).hinted("remove it, and look at the trial's log")
    })?;
    let over = status::final_state(&observe::trial_files(&wanted.dir)?).is_some();
    let jobs = if over { Vec::new() } else { world.slurm.show(&mark.slurm_job)?.rows };
    let (done, why) = match standing(over, &jobs) {
        Some(done) => (done, None),
        None => requeue(world, &mark.slurm_job, wanted.dir.pause().exists())?,
    };
    match done {
        Done::Requeued | Done::Queued | Done::Over => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        },
        Done::Running | Done::Forgotten | Done::Refused => {}
    }
    Ok(Some((mark.slurm_job, done, why)))
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

fn requeue(world: &World, job: &str, paused: bool) -> Result<(Done, Option<String>), CommandError> {
    let ids = [job.to_owned()];
    match world.slurm.requeue(&ids) {
        Ok(()) => {}
        Err(SlurmError::Refused { reason, .. }) => return Ok((Done::Refused, Some(reason))),
        Err(error) => return Err(error.into()),
    }
    let then = if paused { world.slurm.hold(&ids) } else { world.slurm.start_soon(&ids) };
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
