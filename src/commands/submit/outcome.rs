//! What `submit` says in the end: how much is submitted, how much comes later, and how much never.

use std::io::IsTerminal;

use nemo_core::rundir::requests;
use serde_json::json;

use super::{SubmitArgs, control, followers};
use crate::error::CommandError;
use crate::experiment::OutsideDependency;
use crate::humanize::count;
use crate::journal::{self, Event};
use crate::report::{out, say};
use crate::store::Stored;

/// Says that there was nothing to submit, and why.
pub(super) fn announce_nothing(
    args: &SubmitArgs,
    stored: &Stored,
    why: &str,
) -> Result<(), CommandError> {
    if args.file.json {
        out(&outcome_json(stored, true))?;
        return Ok(());
    }
    say(&format!("Nothing to do for `{}`: {why}.", stored.id));
    out(&stored.id.to_string())?;
    Ok(())
}

/// Says what was submitted.
pub(super) fn announce(args: &SubmitArgs, stored: &Stored) -> Result<(), CommandError> {
    let id = &stored.id;
    let has_no_room = |event: &Event| matches!(event, Event::Postponed { reason: Some(_), .. });
    let is_postponed = stored.journal.iter().any(has_no_room);
    let has_no_job = journal::submitted_arrays(&stored.journal).is_empty();
    if has_no_job && is_postponed {
        say(
            "warning: your job limit in Slurm is reached: nothing is submitted yet, and no job of this experiment can submit it later.",
        );
        say(&format!(
            "hint: `nemo-slurm poll {id}` tries again, and `nemo-slurm poll --install` has cron do it"
        ));
    }
    if has_no_job && !is_postponed && followers::is_waiting(stored) {
        let all: Vec<String> =
            stored.experiment.after.iter().map(OutsideDependency::what).collect();
        say(&format!(
            "It waits for {}, of which not all is in Slurm yet: it is submitted after that, by the jobs of what it waits for or by `nemo-slurm poll`.",
            all.join(", ")
        ));
    }
    if args.file.json {
        out(&outcome_json(stored, false))?;
        return Ok(());
    }
    let trials = stored.experiment.n_trials();
    say(&what_was_submitted(stored, trials)?);
    if !args.follow && std::io::stderr().is_terminal() {
        say(&format!(
            "\n  nemo-slurm status {id}\n  nemo-slurm watch {id}\n  nemo-slurm logs {id} --follow\n  nemo-slurm wait {id}\n  nemo-slurm cancel {id}"
        ));
    }
    out(&id.to_string())?;
    Ok(())
}

/// The trials on Slurm that it was not asked for.
#[derive(Clone, Copy)]
pub(in crate::commands) struct Unsubmitted {
    /// They are cancelled, and stay so.
    cancelled: usize,
    /// They come later.
    pub(in crate::commands) later: usize,
}

impl Unsubmitted {
    pub(in crate::commands) fn of(stored: &Stored) -> Result<Self, CommandError> {
        let (experiment, requests) = (&stored.experiment, control::requests(stored)?);
        let mut unsubmitted = Self { cancelled: 0, later: 0 };
        for task in experiment.tasks.iter().filter(|task| !experiment.is_local(task)) {
            for trial in journal::unplanned(&stored.journal, task).iter() {
                if requests::is_cancelled(&requests, &task.name, trial) {
                    unsubmitted.cancelled += 1;
                } else {
                    unsubmitted.later += 1;
                }
            }
        }
        Ok(unsubmitted)
    }
}

/// How many trials run where, how many come later, and how many never.
fn what_was_submitted(stored: &Stored, n_trials: usize) -> Result<String, CommandError> {
    let Unsubmitted { cancelled, later } = Unsubmitted::of(stored)?;
    let n_arrays = journal::submitted_arrays(&stored.journal).len();
    let arrays = (n_arrays > 0).then(|| format!("as {}", count(n_arrays, "job array")));
    let here = stored.experiment.has_local().then(|| "on this machine".to_owned());
    let places: Vec<String> = arrays.into_iter().chain(here).collect();
    let now = count(n_trials.saturating_sub(later + cancelled), "trial");
    let places = places.join(" and ");
    let mut parts = vec![format!("Submitted {now} {places}").trim_end().to_owned()];
    if later > 0 {
        parts.push(format!("{} will be submitted later", count(later, "trial")));
    }
    if cancelled > 0 {
        let is_or_are = if cancelled == 1 { "is" } else { "are" };
        let trials = count(cancelled, "trial");
        parts.push(format!("{trials} {is_or_are} cancelled, and not submitted"));
    }
    Ok(parts.join("; ") + ".")
}

fn outcome_json(stored: &Stored, nothing_to_do: bool) -> serde_json::Value {
    json!({
        "schema": 1,
        "id": stored.id,
        "dir": stored.dir.0,
        "nothing_to_do": nothing_to_do,
        "jobs": jobs_json(&stored.journal),
    })
}

/// `[{"task", "slurm_job", "first_trial", "trials", "set"}]`, one for each array that is in.
fn jobs_json(journal: &[Event]) -> Vec<serde_json::Value> {
    journal::submitted_arrays(journal).iter().map(job_json).collect()
}

pub(in crate::commands) fn job_json(array: &journal::Submitted<'_>) -> serde_json::Value {
    json!({
        "task": array.task,
        "slurm_job": array.job.to_string(),
        "first_trial": array.trials.first(),
        "trials": array.trials.count(),
        "set": array.trials,
    })
}
