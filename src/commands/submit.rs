//! `submit`: writes an experiment down, then asks for it: safe to interrupt anywhere, and to go on with.

use std::io::IsTerminal;

use nemo_harness::rundir::ExperimentDir;
use serde_json::json;

use super::on_slurm::OnSlurm;
use super::{World, check, cluster, follow};
use crate::cli::SubmitArgs;
use crate::error::{CommandError, ExitCode};
use crate::executor::slurm::Submission;
use crate::executor::spec::{Surrounding, task_spec};
use crate::executor::{local, slurm};
use crate::experiment::{Executor, Experiment};
use crate::host::{self, ProcessId};
use crate::journal::{self, Event, Journal, Record};
use crate::plan::{Limits, Plan};
use crate::report::{count, out, say};
use crate::script;
use crate::slurm::{Cluster, JobId};
use crate::store::{self, ExperimentId, NewExperiment, NewTask, Stored};

/// Submits a file, or goes on with an interrupted submission.
pub(super) fn submit(world: &World, args: &SubmitArgs) -> Result<ExitCode, CommandError> {
    if args.dry_run {
        return super::plan::show(world, &args.file, false, args.sequential);
    }
    let stored = match &args.resume {
        Some(target) => resumed(world, target)?,
        None => created(world, args)?,
    };
    let jobs = carry_out(world, &stored)?;
    announce(world, args, &stored, &jobs)?;
    if args.follow || args.wait {
        let view = if args.follow { follow::View::Live } else { follow::View::Silent };
        return follow::until_over(world, &stored, view, None);
    }
    Ok(ExitCode::Fine)
}

/// Reads the file, plans it and writes it all down. Nothing is asked for yet.
fn created(world: &World, args: &SubmitArgs) -> Result<Stored, CommandError> {
    let (toml, mut experiment) = check::load(&args.file)?;
    if args.sequential {
        make_sequential(&mut experiment);
    }
    secrets_are_set(world, &experiment)?;
    let harness = store::install_program(&world.home, &world.harness()?)?;
    let cluster = facts_if_needed(world, &experiment)?;
    let now = host::now();
    let plan = plan_of(&experiment, cluster.as_ref())?;
    let id = free_id(world, &experiment, now);
    let dir = world.home.experiment(&id);
    let tasks = new_tasks(
        &experiment,
        &Context {
            id: &id,
            dir: &dir,
            plan: plan.as_ref(),
            cluster: cluster.as_ref(),
            harness: &harness,
            now,
        },
    );
    let new =
        NewExperiment { id: &id, toml: &toml, experiment: &experiment, plan: plan.as_ref(), tasks };
    let dir = store::create(&world.home, &new)?;
    Ok(Stored { id, dir, experiment, journal: Vec::new() })
}

pub(super) fn make_sequential(experiment: &mut Experiment) {
    for task in &mut experiment.tasks {
        task.concurrent = Some(std::num::NonZeroU32::MIN);
    }
}

/// An id that no folder has. The clock and the process make two of them rare; then the next one is taken.
fn free_id(world: &World, experiment: &Experiment, now: f64) -> ExperimentId {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let seconds = now as u64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any bits will do")]
    let chance = (now.fract() * 1e6) as u32 ^ std::process::id();
    let ids =
        (0..1024).map(|n| ExperimentId::new(&experiment.name, seconds, chance.wrapping_add(n)));
    let free = |id: &ExperimentId| !world.home.experiment(id).0.exists();
    ids.into_iter()
        .find(free)
        .unwrap_or_else(|| ExperimentId::new(&experiment.name, seconds, chance))
}

/// The plan of an experiment whose tasks run on Slurm; none on the local executor.
pub(super) fn plan_of(
    experiment: &Experiment,
    cluster: Option<&Cluster>,
) -> Result<Option<Plan>, CommandError> {
    if !is_on_slurm(experiment) {
        return Ok(None);
    }
    let limits =
        cluster.map_or_else(Limits::default, |cluster| Limits { max_array: cluster.max_array });
    let plan = Plan::new(experiment, limits)?;
    let notes = crate::plan::check(experiment, &plan, limits);
    match notes.first() {
        None => Ok(Some(plan)),
        Some(note) => {
            Err(CommandError::new(ExitCode::Refused, format!("the plan is unsound: {note}"))
                .hinted("this is an error of nemo-slurm; nothing was submitted"))
        }
    }
}

/// Whether Slurm runs any of it. The loader lets no task on Slurm wait for a local one, nor the reverse.
pub(super) fn is_on_slurm(experiment: &Experiment) -> bool {
    experiment.tasks.iter().any(|task| executor_of(experiment, &task.executor).is_some())
}

fn executor_of<'a>(
    experiment: &'a Experiment,
    name: &str,
) -> Option<&'a crate::experiment::SlurmExecutor> {
    match experiment.executors.get(name) {
        Some(Executor::Slurm(slurm)) => Some(slurm),
        Some(Executor::Local(_)) | None => None,
    }
}

fn facts_if_needed(
    world: &World,
    experiment: &Experiment,
) -> Result<Option<Cluster>, CommandError> {
    if is_on_slurm(experiment) { Ok(Some(cluster::facts(world)?)) } else { Ok(None) }
}

fn secrets_are_set(world: &World, experiment: &Experiment) -> Result<(), CommandError> {
    let used = experiment.tasks.iter().filter_map(|task| experiment.executors.get(&task.executor));
    let secrets = used.flat_map(|executor| match executor {
        Executor::Slurm(slurm) => &slurm.surroundings.secrets,
        Executor::Local(local) => &local.surroundings.secrets,
    });
    match secrets.into_iter().find(|name| !world.variables.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let text = format!("the secret `{name}` is not set in your environment");
            Err(CommandError::new(ExitCode::Usage, text).hinted(format!("export {name}=…")))
        }
    }
}

/// What the files of a new experiment follow from.
pub(super) struct Context<'a> {
    pub(super) id: &'a ExperimentId,
    pub(super) dir: &'a ExperimentDir,
    pub(super) plan: Option<&'a Plan>,
    pub(super) cluster: Option<&'a Cluster>,
    pub(super) harness: &'a std::path::Path,
    pub(super) now: f64,
}

/// The specification and the scripts of every task.
pub(super) fn new_tasks(experiment: &Experiment, context: &Context<'_>) -> Vec<NewTask> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let around = Surrounding {
        id: context.id.as_str(),
        dir: context.dir,
        experiment,
        now: context.now as u64,
        cluster: context.cluster,
    };
    let one = |task| NewTask {
        spec: task_spec(task, &around),
        scripts: scripts(experiment, task, context),
    };
    experiment.tasks.iter().map(one).collect()
}

fn scripts(
    experiment: &Experiment,
    task: &crate::experiment::Task,
    context: &Context<'_>,
) -> Vec<String> {
    let (Some(plan), Some(executor)) = (context.plan, executor_of(experiment, &task.executor))
    else {
        return Vec::new();
    };
    let dir = context.dir.task(&task.name);
    let setting = script::Setting {
        experiment: context.id.as_str(),
        task,
        executor,
        task_dir: &dir.0,
        output_dir: dir.slurm_output(),
        harness: context.harness,
    };
    let own = plan.arrays.iter().filter(|array| array.task == task.name);
    own.map(|array| script::script(array, &setting)).collect()
}

/// Reads an interrupted submission back, if nobody works on it.
fn resumed(world: &World, target: &str) -> Result<Stored, CommandError> {
    let (_, stored) = world.find(target)?;
    if let Some(reason) = journal::refusal(&stored.journal) {
        let text = format!("Slurm refused `{}`: {reason}", stored.id);
        let again =
            format!("change `{}` and submit it anew", stored.dir.experiment_toml().display());
        return Err(CommandError::new(ExitCode::Refused, text).hinted(again));
    }
    if crate::observe::is_submitting(&stored.journal) {
        let text = format!("`{}` is being submitted by another process", stored.id);
        return Err(CommandError::new(ExitCode::Refused, text)
            .hinted(format!("`nemo-slurm status {}` shows how far it is", stored.id)));
    }
    Ok(stored)
}

/// Asks for everything that was not asked for yet. Returns the jobs of the plan's arrays.
fn carry_out(world: &World, stored: &Stored) -> Result<Vec<JobId>, CommandError> {
    let mut journal = Journal::open(&stored.dir.journal(), stored.journal.clone())?;
    let going_on = CommandError::hinted;
    let hint = format!("`nemo-slurm submit --continue {}` goes on", stored.id);
    if !journal::is_complete(journal.events()) {
        journal.record(Event::Submitter {
            process: ProcessId::current(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: host::now(),
        })?;
    }
    if !is_on_slurm(&stored.experiment) {
        if local::is_running(&stored.dir)?.is_none() {
            local::start_runner(
                &world.program,
                world.home.path(),
                stored.id.as_str(),
                &stored.dir,
            )?;
        }
        if !journal::is_complete(journal.events()) {
            journal.record(Event::Complete { time: host::now() })?;
            journal.sync()?;
        }
        return Ok(Vec::new());
    }
    let plan = plan_as_written(stored)?;
    let submission = Submission { id: stored.id.as_str(), dir: &stored.dir, plan: &plan };
    let mut slurm = OnSlurm { client: &world.slurm, submission };
    slurm::submit(submission, &mut slurm, &mut journal, &host::now).map_err(|error| {
        let refused = matches!(error, slurm::SubmitError::Refused { .. });
        let error = CommandError::from(error);
        if refused { error } else { going_on(error, hint) }
    })
}

/// The plan that the scripts were written for: limits may have changed since.
fn plan_as_written(stored: &Stored) -> Result<Plan, CommandError> {
    let path = store::plan_file(&stored.dir);
    let text = std::fs::read(&path).map_err(|source| store::StoreError::Io {
        verb: "read",
        path: path.clone(),
        source,
    })?;
    let plan = serde_json::from_slice(&text);
    Ok(plan.map_err(|source| store::StoreError::Damaged { path, source })?)
}

fn announce(
    world: &World,
    args: &SubmitArgs,
    stored: &Stored,
    jobs: &[JobId],
) -> Result<(), CommandError> {
    let id = &stored.id;
    if args.file.json {
        let journal = world.home.load(id)?.journal;
        let value = json!({
            "schema": 1,
            "id": id,
            "dir": stored.dir.0,
            "jobs": jobs_json(&journal),
        });
        out(&value)?;
        return Ok(());
    }
    let trials: usize = stored.experiment.tasks.iter().map(|task| task.trials.len()).sum();
    let what = if jobs.is_empty() {
        "on this machine".to_owned()
    } else {
        format!("as {}", count(jobs.len(), "job array"))
    };
    say(&format!("Submitted {} {what}.", count(trials, "trial")));
    if !args.follow && std::io::stderr().is_terminal() {
        say(&format!(
            "\n  nemo-slurm status {id}\n  nemo-slurm logs {id} --follow\n  nemo-slurm wait {id}\n  nemo-slurm cancel {id}"
        ));
    }
    out(&id.to_string())?;
    Ok(())
}

/// `[{"task", "slurm_job", "trials"}]`, one for each array that is in.
fn jobs_json(journal: &[Event]) -> Vec<serde_json::Value> {
    let intended = |wanted: &str| {
        journal.iter().find_map(|event| match event {
            Event::Intended { token, task, offset, trials, .. } if token == wanted => {
                Some((task.clone(), *offset, *trials))
            }
            _ => None,
        })
    };
    let job = |event: &Event| match event {
        Event::Submitted { token, slurm_job, .. } => {
            let (task, offset, trials) = intended(token)?;
            Some(
                json!({ "task": task, "slurm_job": slurm_job.to_string(), "first_trial": offset, "trials": trials }),
            )
        }
        _ => None,
    };
    journal.iter().filter_map(job).collect()
}
