//! What `retry` prints: what was done, what would be, and what was left alone.

use serde_json::{Value, json};

use super::advise::AdviceRow;
use super::choice::{Choice, LeftAlone};
use super::{RetryArgs, WantedRetry};
use crate::commands::submit::Unsubmitted;
use crate::commands::{App, due, followers, generation, prepare, submit};
use crate::error::{CommandError, ExitCode};
use crate::experiment::OutsideDependency;
use crate::humanize::count;
use crate::journal::{self, Changed, Event, RetriedTrials, Retry};
use crate::report::{aligned, out, out_json, say};
use crate::status::Status;
use crate::store::{Stored, Target};

/// The job arrays of a generation, and of those after it where there was no room for all, as `submit --json` shows them.
fn jobs(journal: &[Event], generation: u32) -> Vec<Value> {
    let arrays = journal::submitted_arrays(journal);
    let own =
        arrays.iter().filter(|array| journal::generation_of(journal, array.token) >= generation);
    own.map(submit::job_json).collect()
}

pub(super) fn would_retry(
    app: &App,
    args: &RetryArgs,
    stored: &Stored,
    status: &Status,
    target: &Target,
    wanted: &WantedRetry,
) -> Result<ExitCode, CommandError> {
    let WantedRetry { choice, retry, advice } = wanted;
    let generation = generation::next(stored);
    let mut arrays = Vec::new();
    if !choice.is_empty() && prepare::is_on_slurm(&stored.experiment) {
        // As the retry itself: what waits for room, for this machine or for others is submitted later.
        let now = due::submittable_now(stored, status, &choice.trials(), app)?.trials;
        if let Some(selected) = generation::selection(app, stored, status, now, Some(retry))? {
            arrays = generation::new_plan(app, stored, &selected)?.arrays;
        }
    }
    if args.json {
        let jobs: Vec<Value> = arrays
            .iter()
            .map(|array| {
                let trials = &array.trials;
                json!({ "task": array.task, "slurm_job": null, "first_trial": trials.first(), "trials": trials.count(), "set": trials })
            })
            .collect();
        return out_json(&json!({
            "schema": 1,
            "id": stored.id,
            "dir": stored.dir.0,
            "generation": (!choice.is_empty()).then_some(generation),
            "jobs": jobs,
            "trials": choice.trials(),
            "changes": changes_json(retry),
            "advice": advice,
            "left": choice.left,
            "dry_run": true,
        }));
    }
    show_advice(advice.as_deref())?;
    say_left(choice, advice.as_deref());
    if choice.is_empty() {
        say(&format!("Nothing to retry of `{target}`."));
        return Ok(ExitCode::Fine);
    }
    for (task, groups) in &retry.trials {
        for group in groups {
            let how = how(group);
            let how = if how.is_empty() { " as before" } else { &how };
            out(&format!("{task}/{}:{how}", group.trials))?;
        }
    }
    say(&format!("Would retry {}.", what(choice)));
    Ok(ExitCode::Fine)
}

pub(super) fn announce(
    args: &RetryArgs,
    stored: &Stored,
    target: &Target,
    wanted: &WantedRetry,
    generation: Option<u32>,
) -> Result<ExitCode, CommandError> {
    let WantedRetry { choice, retry, advice } = wanted;
    let jobs = generation.map(|generation| jobs(&stored.journal, generation)).unwrap_or_default();
    if args.json {
        return out_json(&json!({
            "schema": 1,
            "id": stored.id,
            "dir": stored.dir.0,
            "generation": generation,
            "jobs": jobs,
            "trials": choice.trials(),
            "changes": changes_json(retry),
            "advice": advice,
            "left": choice.left,
            "dry_run": false,
        }));
    }
    show_advice(advice.as_deref())?;
    say_left(choice, advice.as_deref());
    match generation {
        None => {
            say(&format!("Nothing to retry of `{target}`."));
            return Ok(ExitCode::Fine);
        }
        Some(_) if choice.is_empty() => say("Finished the earlier retry."),
        Some(_) if jobs.is_empty() && !has_local(stored, choice) => {
            let when = submitted_when(stored);
            say(&format!(
                "Retried {}: submitted later, {when} (`nemo-slurm status`).",
                what(choice)
            ));
        }
        Some(_) if jobs.is_empty() => {
            say(&format!("Retried {} on this machine{}.", what(choice), later(stored)?));
        }
        Some(_) => {
            let arrays = count(jobs.len(), "job array");
            say(&format!("Retried {} as {arrays}{}.", what(choice), later(stored)?));
        }
    }
    out(&stored.id.to_string())?;
    Ok(ExitCode::Fine)
}

/// Whether some of them run on this machine.
fn has_local(stored: &Stored, choice: &Choice) -> bool {
    let (experiment, trials) = (&stored.experiment, choice.trials());
    experiment.tasks.iter().any(|task| experiment.is_local(task) && trials.contains_key(&task.name))
}

/// How many trials there was no room for, or that wait for this machine.
fn later(stored: &Stored) -> Result<String, CommandError> {
    Ok(match Unsubmitted::of(stored)?.later {
        0 => String::new(),
        later => format!("; {} will be submitted later", count(later, "trial")),
    })
}

/// What a retry waits for that has no jobs yet.
fn submitted_when(stored: &Stored) -> String {
    if !followers::is_waiting(stored) {
        return "once your job limit allows it".to_owned();
    }
    let all: Vec<String> = stored.experiment.after.iter().map(OutsideDependency::what).collect();
    let all = all.join(", ");
    format!("once {all} has all its jobs or is over, and your job limit has room")
}

/// `[{"task", "trials", "set", "from_step", "from_start"}]`, of those that do not run as they did.
fn changes_json(retry: &Retry) -> Vec<Value> {
    let groups =
        retry.trials.iter().flat_map(|(task, groups)| groups.iter().map(move |it| (task, it)));
    let changed = groups.filter_map(|(task, group)| {
        let Changed { set, restart_from, .. } = group.changed.as_ref()?;
        let from_step = restart_from.and_then(|from| from.step);
        let from_start = restart_from.is_some() && from_step.is_none();
        let is_plain = set.is_empty() && restart_from.is_none();
        if is_plain {
            return None;
        }
        Some(json!({ "task": task, "trials": group.trials, "set": set, "from_step": from_step, "from_start": from_start }))
    });
    changed.collect()
}

/// ` from step 5, with executor.mem=64G`.
fn how(group: &RetriedTrials) -> String {
    let Some(Changed { set, restart_from, .. }) = &group.changed else { return String::new() };
    let start = restart_from.map(|from| match from.step {
        Some(step) => format!("from step {step}"),
        None => "from the start".to_owned(),
    });
    let keys: Vec<String> = set.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let keys = (!keys.is_empty()).then(|| format!("with {}", keys.join(" ")));
    let parts: Vec<String> = start.into_iter().chain(keys).collect();
    if parts.is_empty() { String::new() } else { format!(" {}", parts.join(", ")) }
}

/// `3 trials, and 2 that were blocked by them`.
fn what(choice: &Choice) -> String {
    let trials = count(choice.n_wanted(), "trial");
    match choice.n_blocked() {
        0 => trials,
        blocked => format!("{trials}, and {blocked} blocked by them"),
    }
}

/// What is left alone, but for what the advice says already.
fn say_left(choice: &Choice, advice: Option<&[AdviceRow]>) {
    let is_told = |left: &&LeftAlone| {
        let mut rows = advice.into_iter().flatten().filter(|row| !row.advice.retry);
        rows.any(|row| row.task == left.task && row.trials == left.trials)
    };
    for left in choice.left.iter().filter(|left| !is_told(left)) {
        say(&format!("{}/{}: left alone: {}", left.task, left.trials, left.why));
    }
}

/// What is done about each failure, and why.
fn show_advice(advice: Option<&[AdviceRow]>) -> Result<(), CommandError> {
    let Some(rows) = advice.filter(|rows| !rows.is_empty()) else { return Ok(()) };
    let row = |row: &AdviceRow| {
        let keys: Vec<String> =
            row.advice.set.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let change = match (row.advice.retry, keys.is_empty()) {
            (false, _) => "not retried".to_owned(),
            (true, true) => "as before".to_owned(),
            (true, false) => keys.join(" "),
        };
        let class = row.advice.class.as_str().to_owned();
        vec![format!("{}/{}", row.task, row.trials), class, change, row.advice.why.clone()]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    out(&aligned(&["trials", "failure", "change", "why"], &rows))?;
    Ok(())
}
