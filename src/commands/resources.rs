//! `resources`: what trials use of processors, memory and GPUs, and what they used.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::App;
use super::status::{look_by, narrow};
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::journal;
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::report::{Page, out, out_json, resources_table, say};
use crate::slurm::{JobId, JobUsage, accounting_since};
use crate::status::{Status, TrialStatus};
use crate::store::Stored;
use crate::usage::{AskedResources, TrialResources, TrialUsage, trial_resources};

/// `resources`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm resources             # the newest\n  nemo-slurm resources digits/train/3\n  \
    nemo-slurm resources @ --json | jq '.trials[] | {trial, memory_peak_bytes, advice}'"
)]
pub struct ResourcesArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The samples of each trial, by task and trial.
type Usages = BTreeMap<(String, u32), TrialUsage>;

/// Shows what the trials of a target use.
pub(super) fn resources(app: &App, args: &ResourcesArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find_silently(&args.target)?;
    let depth = Depth::Shown(&target.scope);
    let (mut status, _) = look_by(app, &stored, SlurmSource::Slurm(&app.slurm), depth)?;
    narrow(&mut status, &target);
    let mut warnings = status.warnings.clone();
    let usages = read(&stored, &status, &mut warnings);
    let jobs = ask_slurm(&app.on_cluster_of(&stored), &stored, &status, &usages, &mut warnings);
    let trials = rows(&stored, &status, &usages, &jobs);
    if args.json {
        return out_json(&json!({
            "schema": 1, "id": stored.id.to_string(), "trials": trials, "warnings": warnings,
        }));
    }
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    if trials.iter().all(|trial| trial.source.is_none()) {
        say(
            "None of these trials was measured: their programs have not started, or could not be looked at.",
        );
    }
    out(&resources_table(&trials, &Page::here(clock::now())))
}

fn read(stored: &Stored, status: &Status, warnings: &mut Vec<String>) -> Usages {
    let trials = status.tasks.iter().flat_map(|task| task.trials.iter().map(move |it| (task, it)));
    let one = |(task, trial): (&crate::status::TaskStatus, &TrialStatus)| {
        let mut usage = TrialUsage::read(&stored.dir.task(&task.name).trial(trial.index));
        warnings.append(&mut usage.warnings);
        ((task.name.clone(), trial.index), usage)
    };
    trials.map(one).collect()
}

/// Slurm's accounting of the trials that have no samples. That it gives no answer only leaves them out.
fn ask_slurm(
    app: &App,
    stored: &Stored,
    status: &Status,
    usages: &Usages,
    warnings: &mut Vec<String>,
) -> Vec<JobUsage> {
    let trials = status.tasks.iter().flat_map(|task| task.trials.iter().map(|it| (&task.name, it)));
    let is_unmeasured = |task: &str, trial: &TrialStatus| {
        let usage = usages.get(&(task.to_owned(), trial.index));
        trial.state.is_final() && usage.is_none_or(|usage| usage.memory_peak().is_none())
    };
    let unmeasured = trials.filter(|(task, trial)| is_unmeasured(task, trial));
    let ids = unmeasured.filter_map(|(_, trial)| job_of(trial)?.split('_').next()?.parse().ok());
    let mut jobs: Vec<JobId> = ids.collect();
    jobs.sort_unstable();
    jobs.dedup();
    if jobs.is_empty() {
        return Vec::new();
    }
    let since = journal::began(&stored.journal).unwrap_or(0.0);
    app.slurm.usage(&jobs, accounting_since(since)).unwrap_or_else(|error| {
        warnings.push(CommandError::from(error).one_line());
        Vec::new()
    })
}

fn job_of(trial: &TrialStatus) -> Option<&str> {
    let last = trial.attempts.last().and_then(|attempt| attempt.slurm_job.as_deref());
    last.or(trial.slurm_job.as_deref())
}

fn rows(
    stored: &Stored,
    status: &Status,
    usages: &Usages,
    jobs: &[JobUsage],
) -> Vec<TrialResources> {
    let mut rows = Vec::new();
    for shown in &status.tasks {
        let task = stored.experiment.tasks.iter().find(|task| task.name == shown.name);
        let asked = task.map(|task| AskedResources::of(&stored.experiment, task));
        let asked = asked.unwrap_or_default();
        for trial in &shown.trials {
            let none = TrialUsage::default();
            let usage = usages.get(&(shown.name.clone(), trial.index)).unwrap_or(&none);
            let job = job_of(trial).and_then(|id| jobs.iter().find(|job| job.job == id));
            rows.push(trial_resources(&shown.name, trial, usage, job, &asked));
        }
    }
    rows
}
