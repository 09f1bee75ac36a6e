//! From a file to an experiment's folder: what `submit` writes down before it asks for anything, and `plan` only shows.

use std::path::Path;

use nemo_core::rundir::ExperimentDir;

use super::submit::SubmitArgs;
use super::{App, check, cluster, kept_environment, paths, warnings};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::spec::{SubmitContext, task_spec};
use crate::experiment::{Executor, Experiment, Loaded};
use crate::journal::Event;
use crate::plan::{Limits, Plan, Selection};
use crate::process::ProcessId;
use crate::script;
use crate::slurm::Cluster;
use crate::store::{
    self, Claim, ClaimHolder, ExperimentId, NewExperiment, NewTask, StoreError, Stored,
};

/// Reads the file, plans it and writes it all down, claimed by this process. Nothing is asked for yet.
pub(super) fn create(app: &App, args: &SubmitArgs) -> Result<(Stored, Claim), CommandError> {
    let (toml, Loaded { mut experiment, params }) = check::load(&args.file)?;
    if args.sequential {
        make_sequential(&mut experiment);
    }
    cluster::choose(app, &mut experiment)?;
    paths::check_home(app, is_on_slurm(&experiment))?;
    let kept = kept_environment::kept(app, &experiment)?;
    let harness = store::install_program(&app.home, &app.harness()?)?;
    let cluster = facts_if_needed(app, &experiment)?;
    warnings::say_all(app, &experiment, cluster.as_ref());
    let plan = plan_of(&experiment, cluster.as_ref())?;
    let submitter = std::iter::once(submitter());
    let journal: Vec<Event> =
        submitter.chain(plan.clone().map(|plan| Event::Planned { plan })).collect();
    let holder = ClaimHolder::current().at("read", Path::new("/dev/urandom"))?;
    let write = |id: &ExperimentId, now: f64| {
        let dir = &app.home.experiment(id);
        let (plan, cluster, harness) = (plan.as_ref(), cluster.as_ref(), harness.as_path());
        let tasks = new_tasks(&experiment, &Context { id, dir, plan, cluster, harness, now });
        let (toml, experiment, journal) = (toml.as_str(), &experiment, journal.as_slice());
        let (params, environment, holder) = (&params, &kept, Some(&holder));
        store::create(
            &app.home,
            &NewExperiment { id, toml, experiment, params, journal, environment, holder, tasks },
        )
    };
    let (id, dir) = with_free_id(app, &experiment.name, write)?;
    let claim = Claim::of_new(&dir, holder.clone());
    Ok((Stored { id, dir, experiment, journal, damage: None }, claim))
}

/// So many others may take an id first: more is an error of another kind.
const RIVALS: usize = 1000;

/// Makes a folder under an id that is the newest of all. Another process may take the id meanwhile: then the next one.
fn with_free_id(
    app: &App,
    name: &str,
    write: impl Fn(&ExperimentId, f64) -> Result<ExperimentDir, StoreError>,
) -> Result<(ExperimentId, ExperimentDir), StoreError> {
    let mut known = app.home.ids()?;
    let most = known.len() + RIVALS;
    loop {
        let now = clock::now();
        let id = ExperimentId::next(name, now, &known);
        match write(&id, now) {
            Err(error) if error.is_taken() && known.len() < most => known.push(id),
            written => return written.map(|dir| (id, dir)),
        }
    }
}

/// This process, for the journal.
pub(super) fn submitter() -> Event {
    Event::Submitter {
        process: ProcessId::current(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: clock::now(),
    }
}

pub(super) fn make_sequential(experiment: &mut Experiment) {
    for task in &mut experiment.tasks {
        task.concurrent = Some(std::num::NonZeroU32::MIN);
    }
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
    let all = Selection::all(experiment);
    let plan = Plan::new(experiment, &all, limits)?;
    let notes = crate::plan::check(experiment, &all, &plan, limits);
    match notes.first() {
        None => Ok(Some(plan)),
        Some(note) => {
            Err(CommandError::new(ExitCode::Refused, format!("the plan is not valid: {note}"))
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

fn facts_if_needed(app: &App, experiment: &Experiment) -> Result<Option<Cluster>, CommandError> {
    if is_on_slurm(experiment) {
        Ok(Some(cluster::facts_or_similar(app, experiment.cluster())?))
    } else {
        Ok(None)
    }
}

/// What the files of a new experiment follow from.
#[derive(Debug)]
pub struct Context<'a> {
    /// Its id.
    pub id: &'a ExperimentId,
    /// Its folder.
    pub dir: &'a ExperimentDir,
    /// What will be asked of Slurm; none on the local executor.
    pub plan: Option<&'a Plan>,
    /// What is known of the cluster.
    pub cluster: Option<&'a Cluster>,
    /// The harness that jobs run.
    pub harness: &'a std::path::Path,
    /// Unix seconds.
    pub now: f64,
}

/// The specification and the scripts of every task.
#[must_use]
pub fn new_tasks(experiment: &Experiment, context: &Context<'_>) -> Vec<NewTask> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let around = SubmitContext {
        id: context.id.as_str(),
        dir: context.dir,
        experiment,
        now: context.now as u64,
        cluster: context.cluster,
    };
    experiment
        .tasks
        .iter()
        .map(|task| NewTask {
            spec: task_spec(task, &around),
            scripts: scripts(experiment, task, context),
        })
        .collect()
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
    let setting = script::ScriptContext {
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
