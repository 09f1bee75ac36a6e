//! `plan`: what a file would become, without asking for any of it.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::prepare::{Context, is_on_slurm, make_sequential, new_tasks, plan_of};
use super::{App, check, cluster};
use crate::cli::FileArgs;
use crate::error::{CommandError, ExitCode};
use crate::experiment::Experiment;
use crate::humanize::count;
use crate::plan::{JobArray, Plan};
use crate::report::{out, out_json, plan_table, say};
use crate::slurm::Cluster;
use crate::store::ExperimentId;

/// `plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm plan exp.toml\n  nemo-slurm plan exp.toml --scripts"
)]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub file: FileArgs,
    /// Also print the batch scripts
    #[arg(long)]
    pub scripts: bool,
}

/// Shows the plan of a file.
pub(super) fn plan(app: &App, args: &PlanArgs) -> Result<ExitCode, CommandError> {
    show(app, &args.file, args.scripts, false)
}

/// Shows the plan of a file. `sequential` plans at most one trial of a task at a time.
pub(super) fn show(
    app: &App,
    args: &FileArgs,
    scripts: bool,
    sequential: bool,
) -> Result<ExitCode, CommandError> {
    let mut experiment = check::load(args)?.1.experiment;
    if sequential {
        make_sequential(&mut experiment);
    }
    let cluster = cluster_if_it_answers(app, &experiment);
    let plan = plan_of(&experiment, cluster.as_ref())?;
    let Some(plan) = plan else { return local(args, &experiment) };
    // The id is given at submission; harness and folders are where they will be.
    let id = ExperimentId::new(&experiment.name, 0, 0);
    let dir = app.home.experiment(&id);
    let harness = app.home.programs().join("nemo-harness");
    let harness: &Path = &harness;
    let context = Context {
        id: &id,
        dir: &dir,
        plan: Some(&plan),
        cluster: cluster.as_ref(),
        harness,
        now: 0.0,
    };
    let tasks = new_tasks(&experiment, &context);
    let all: Vec<(String, &String)> = tasks
        .iter()
        .flat_map(|task| {
            let name = &task.spec.task;
            task.scripts
                .iter()
                .enumerate()
                .map(move |(n, text)| (format!("{name}/{n}.sbatch"), text))
        })
        .collect();
    if args.json {
        let scripts: serde_json::Map<_, _> =
            all.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        return out_json(&json!({ "schema": 1, "arrays": arrays_json(&plan), "scripts": scripts }));
    }
    out(&plan_table(&plan))?;
    let arrays = count(plan.arrays.len(), "job array");
    let trials = count(plan.trials(), "trial");
    out(&format!("{arrays}, {trials}."))?;
    if scripts {
        for (name, text) in all {
            out(&format!("\n# {name}\n{text}"))?;
        }
    } else {
        let file = args.file.display();
        say(&format!("`nemo-slurm plan {file} --scripts` shows the batch scripts."));
    }
    Ok(ExitCode::Fine)
}

/// The arrays with the number of their trials, and which they are.
fn arrays_json(plan: &Plan) -> Vec<serde_json::Value> {
    plan.arrays.iter().map(array_json).collect()
}

fn array_json(array: &JobArray) -> serde_json::Value {
    json!({
        "task": array.task,
        "index": array.index,
        "offset": array.offset,
        "trials": array.trials.count(),
        "set": array.trials,
        "throttle": array.throttle,
        "after": array.after,
        "held": array.held,
    })
}

/// A plan needs no cluster: without an answer it is made for Slurm's own limits.
fn cluster_if_it_answers(app: &App, experiment: &Experiment) -> Option<Cluster> {
    if !is_on_slurm(experiment) {
        return None;
    }
    let facts = cluster::facts(app, experiment.cluster());
    facts
        .inspect_err(|error| {
            say(&format!("warning: {error}; planning with Slurm's default limits"));
        })
        .ok()
}

fn local(args: &FileArgs, experiment: &Experiment) -> Result<ExitCode, CommandError> {
    if args.json {
        return out_json(&json!({ "schema": 1, "arrays": [], "scripts": {} }));
    }
    for task in &experiment.tasks {
        let after: Vec<&str> = task.after.iter().map(|after| after.task.as_str()).collect();
        let after =
            if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) };
        let trials = count(task.n_trials as usize, "trial");
        out(&format!("{}: {trials} on this machine (`{}`){after}", task.name, task.executor))?;
    }
    Ok(ExitCode::Fine)
}
