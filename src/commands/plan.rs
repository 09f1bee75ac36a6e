//! `plan`: what a file would become, without asking for any of it.

use clap::Args;
use serde_json::json;

use super::outside::Awaited;
use super::prepare::{Context, is_on_slurm, make_sequential, new_tasks, plan_of, require_gpus};
use super::windows::{self, JobRoom};
use super::{App, budget, check, cluster, warnings};
use crate::cli::FileArgs;
use crate::error::{CommandError, ExitCode};
use crate::experiment::{Budget, Experiment, Task};
use crate::humanize::count;
use crate::package::{self, Survey};
use crate::plan::{JobArray, Plan};
use crate::report::{out, out_file, out_json, plan_table, say};
use crate::slurm::{Cluster, IndexSet};
use crate::store::{ExperimentId, NewTask};

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
    warnings::say_all(app, &experiment, cluster.as_ref());
    let shipped = package::survey(&app.home, &experiment)?;
    check_package(shipped.as_ref())?;
    require_gpus(app, &experiment)?;
    let room = cluster.as_ref().and_then(|cluster| windows::room(app, &experiment, cluster));
    let plan = plan_of(&experiment, cluster.as_ref(), Awaited::default(), room)?;
    let Some(plan) = plan else { return show_local(args, &experiment, shipped.as_ref()) };
    let tasks = planned_tasks(app, &experiment, &plan, cluster.as_ref(), shipped.is_some());
    let planned = PlannedFile {
        experiment: &experiment,
        plan: &plan,
        scripts: named_scripts(&tasks),
        room,
        shipped: shipped.as_ref(),
    };
    if args.json {
        return out_json(&planned.to_json());
    }
    planned.print()?;
    if scripts {
        for (name, text) in planned.scripts {
            out_file(&format!("\n# {name}\n{text}"))?;
        }
    } else if !planned.scripts.is_empty() {
        let file = args.file.display();
        say(&format!("`nemo-slurm plan {file} --scripts` shows the batch scripts."));
    }
    Ok(ExitCode::Fine)
}

/// What a file would become on Slurm.
struct PlannedFile<'a> {
    experiment: &'a Experiment,
    plan: &'a Plan,
    /// The batch scripts, by the names of their files.
    scripts: Vec<(String, &'a String)>,
    room: Option<JobRoom>,
    shipped: Option<&'a Survey>,
}

impl PlannedFile<'_> {
    fn to_json(&self) -> serde_json::Value {
        let Self { experiment, plan, room, .. } = self;
        let scripts: serde_json::Map<_, _> =
            self.scripts.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        json!({
            "schema": 1, "arrays": arrays_json(plan), "scripts": scripts, "after": experiment.after,
            "local": local_json(experiment), "later": later_json(experiment, plan),
            "max_submit": room.map(|room| room.limit), "room": room.map(|room| room.left),
            "package": self.shipped.map(Survey::to_json), "budgets": budgets_json(experiment),
        })
    }

    fn print(&self) -> Result<(), CommandError> {
        if !self.plan.arrays.is_empty() {
            out(&plan_table(self.plan, &self.experiment.after))?;
        }
        print_other_tasks(self.experiment, self.plan)?;
        print_room(self.room)?;
        print_budgets(self.experiment)?;
        out(&total(self.experiment, self.plan))?;
        print_package(self.shipped)?;
        Ok(())
    }
}

/// The tasks as a submission would write them. The id is given at submission; harness and folders are where they will be.
fn planned_tasks(
    app: &App,
    experiment: &Experiment,
    plan: &Plan,
    cluster: Option<&Cluster>,
    is_shipped: bool,
) -> Vec<NewTask> {
    let id = ExperimentId::new(&experiment.name, 0, 0);
    let context = Context {
        id: &id,
        dir: &app.home.experiment(&id),
        plan: Some(plan),
        cluster,
        harness: &app.home.programs().join("nemo-harness"),
        nemo_slurm: None,
        is_shipped,
        now: 0.0,
    };
    new_tasks(experiment, &context)
}

/// The batch scripts of all tasks, by the names of their files.
fn named_scripts(tasks: &[NewTask]) -> Vec<(String, &String)> {
    let mut scripts = Vec::new();
    for task in tasks {
        let name = &task.spec.task;
        let numbered = task.scripts.iter().enumerate();
        scripts.extend(numbered.map(|(n, text)| (format!("{name}/{n}.sbatch"), text)));
    }
    scripts
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

/// Warns and refuses as a submission would, by what is in the files that would be shipped.
fn check_package(survey: Option<&Survey>) -> Result<(), CommandError> {
    let Some(survey) = survey else { return Ok(()) };
    for warning in survey.warnings() {
        say(&warning);
    }
    survey.require_no_secrets()
}

fn print_package(survey: Option<&Survey>) -> Result<ExitCode, CommandError> {
    survey.map_or(Ok(ExitCode::Fine), |survey| out(&format!("Ships {}.", survey.summary(None))))
}

/// Shows a file that puts nothing on Slurm.
fn show_local(
    args: &FileArgs,
    experiment: &Experiment,
    shipped: Option<&Survey>,
) -> Result<ExitCode, CommandError> {
    if args.json {
        return out_json(&json!({
            "schema": 1, "arrays": [], "scripts": {}, "after": experiment.after,
            "local": local_json(experiment), "later": [],
            "package": shipped.map(Survey::to_json), "budgets": budgets_json(experiment),
        }));
    }
    print_other_tasks(experiment, &Plan { generation: 0, arrays: Vec::new() })?;
    print_budgets(experiment)?;
    print_package(shipped)
}

/// The tasks that run on this machine, and the trials that are submitted later.
fn print_other_tasks(experiment: &Experiment, plan: &Plan) -> Result<(), CommandError> {
    for task in experiment.tasks.iter().filter(|task| experiment.is_local(task)) {
        let trials = count(task.n_trials as usize, "trial");
        let after = after_words(experiment, task);
        out(&format!("{}: {trials} on this machine (`{}`){after}", task.name, task.executor))?;
    }
    for (task, trials) in later(experiment, plan) {
        let trials = count(trials.count(), "trial");
        let after = after_words(experiment, task);
        out(&format!(
            "{}: {trials} on Slurm (`{}`), submitted later{after}",
            task.name, task.executor
        ))?;
    }
    Ok(())
}

/// `2 job arrays, 8 trials.`, with what is not among them.
fn total(experiment: &Experiment, plan: &Plan) -> String {
    let local = experiment.tasks.iter().filter(|task| experiment.is_local(task));
    let local: usize = local.map(|task| task.n_trials as usize).sum();
    let later: usize = later(experiment, plan).iter().map(|(_, trials)| trials.count()).sum();
    let mut parts = Vec::new();
    if !plan.arrays.is_empty() {
        parts.push(count(plan.arrays.len(), "job array"));
        parts.push(count(plan.trials(), "trial"));
    }
    if local > 0 {
        parts.push(format!("{} on this machine", count(local, "trial")));
    }
    if later > 0 {
        parts.push(format!("{} on Slurm later", count(later, "trial")));
    }
    format!("{}.", parts.join(", "))
}

fn print_room(room: Option<JobRoom>) -> Result<(), CommandError> {
    let Some(JobRoom { limit, left }) = room else { return Ok(()) };
    let limit = count(limit, "job");
    out(&format!("You may have {limit} in Slurm at once; there is room for {left} now."))?;
    Ok(())
}

fn print_budgets(experiment: &Experiment) -> Result<(), CommandError> {
    budget::in_words(experiment).iter().try_for_each(|words| out(words).map(drop))
}

fn budgets_json(experiment: &Experiment) -> serde_json::Value {
    let one = |(name, budget): (&str, Budget)| (name.to_owned(), json!(budget));
    experiment.budgets().map(one).collect::<serde_json::Map<_, _>>().into()
}

fn after_words(experiment: &Experiment, task: &Task) -> String {
    let mut after: Vec<String> = task.after.iter().map(|after| after.task.clone()).collect();
    if after.is_empty() {
        after.extend(experiment.after.iter().map(|it| it.in_words().replacen("after ", "", 1)));
    }
    if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) }
}

/// The trials on Slurm that the first plan leaves out: they wait for this machine, or for room.
fn later<'a>(experiment: &'a Experiment, plan: &Plan) -> Vec<(&'a Task, IndexSet)> {
    let of_task = |task: &'a Task| {
        let is_planned = |trial: &u32| {
            plan.arrays.iter().any(|it| it.task == task.name && it.trials.contains(*trial))
        };
        (task, (0..task.n_trials).filter(|trial| !is_planned(trial)).collect::<IndexSet>())
    };
    let on_slurm = experiment.tasks.iter().filter(|task| !experiment.is_local(task));
    on_slurm.map(of_task).filter(|(_, trials)| trials.count() > 0).collect()
}

fn later_json(experiment: &Experiment, plan: &Plan) -> Vec<serde_json::Value> {
    let one = |(task, trials): (&Task, IndexSet)| json!({ "task": task.name, "trials": trials.count(), "set": trials, "after": task.after });
    later(experiment, plan).into_iter().map(one).collect()
}

fn local_json(experiment: &Experiment) -> Vec<serde_json::Value> {
    let local = experiment.tasks.iter().filter(|task| experiment.is_local(task));
    let one = |task: &Task| json!({ "task": task.name, "executor": task.executor, "trials": task.n_trials, "after": task.after });
    local.map(one).collect()
}
