//! From a file to an experiment's folder: what `submit` writes down before it asks for anything, and `plan` only shows.

use std::path::{Path, PathBuf};

use nemo_core::rundir::ExperimentDir;
use serde_json::json;

use super::outside::Awaited;
use super::submit::SubmitArgs;
use super::windows::{self, JobRoom};
use super::{App, build, check, cluster, kept_environment, outside, paths, warnings};
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::slurm;
use crate::executor::spec::{JobPrograms, SubmitContext, task_spec};
use crate::experiment::{Dependency, Executor, Experiment, Loaded, On, ResolvedConfig};
use crate::git;
use crate::gpus;
use crate::humanize::count;
use crate::journal::Event;
use crate::package;
use crate::parallel::join;
use crate::plan::{JobArray, Limits, Plan, Selection, SubmitLimits, submittable};
use crate::process::ProcessId;
use crate::report::say;
use crate::script;
use crate::slurm::Cluster;
use crate::store::{
    self, Claim, ClaimHolder, ConfigFile, ExperimentId, NewExperiment, NewTask, StoreError, Stored,
};

/// Reads the file, plans it and writes it all down, claimed by this process. Nothing is asked for yet.
pub(super) fn create(app: &App, args: &SubmitArgs) -> Result<(Stored, Claim), CommandError> {
    let (toml, Loaded { mut experiment, params, mut config }) = check::load(&args.file)?;
    if args.sequential {
        make_sequential(&mut experiment);
    }
    cluster::choose(app, &mut experiment)?;
    note_changes(&experiment, args.sequential, &mut config);
    paths::check_home(app, is_on_slurm(&experiment))?;
    let kept = kept_environment::gather(app, &experiment)?;
    require_gpus(app, &experiment)?;
    let harness = build::install_harness(app, &app.home)?;
    let nemo_slurm = own_copy(app, &experiment);
    let cluster = facts_if_needed(app, &experiment)?;
    warnings::say_all(app, &experiment, cluster.as_ref());
    let outside = outside::resolve(app, &mut experiment)?;
    let room = cluster.as_ref().and_then(|cluster| windows::room(app, &experiment, cluster));
    let plan = plan_of(&experiment, cluster.as_ref(), outside, room)?;
    // Git looks at its work tree while the code is shipped.
    let (git, shipped) =
        join(|| git::state(&experiment.workdir), || package::ship(&app.home, &experiment));
    let (config, shipped) = (ConfigFile { git, resolved: config }, shipped?);
    if let Some(shipped) = &shipped {
        say(&format!("Shipped {}.", shipped.summary));
        for warning in &shipped.warnings {
            say(warning);
        }
    }
    let holder = ClaimHolder::current().at("read", Path::new("/dev/urandom"))?;
    let write = |id: &ExperimentId, now: f64| {
        let dir = &app.home.experiment(id);
        let (plan, cluster, harness) = (plan.as_ref(), cluster.as_ref(), harness.as_path());
        let nemo_slurm = nemo_slurm.as_deref();
        let is_shipped = shipped.is_some();
        let context = Context { id, dir, plan, cluster, harness, nemo_slurm, is_shipped, now };
        let tasks = new_tasks(&experiment, &context);
        let journal = first_events(id, plan, now);
        let (toml, experiment) = (toml.as_str(), &experiment);
        let (params, environment, holder) = (&params, &kept, Some(&holder));
        let config = Some(&config);
        let dir = store::create(
            &app.home,
            &NewExperiment {
                id,
                toml,
                experiment,
                config,
                params,
                journal: &journal,
                environment,
                holder,
                shipped: shipped.as_ref(),
                tasks,
            },
        )?;
        Ok((dir, journal))
    };
    let (id, (dir, journal)) = with_free_id(app, &experiment.name, write)?;
    let claim = Claim::of_new(&dir, holder.clone());
    Ok((Stored { id, dir, experiment, journal, damage: None }, claim))
}

/// Fails where trials on this machine are to have more GPUs than there are.
pub(super) fn require_gpus(app: &App, experiment: &Experiment) -> Result<(), CommandError> {
    let Some(wanted) = experiment.gpus_per_trial() else { return Ok(()) };
    let there = gpus::visible(&app.variables);
    if there.len() >= wanted as usize {
        return Ok(());
    }
    let (wanted, there) = (count(wanted as usize, "GPU"), count(there.len(), "GPU"));
    let text = format!("trials on this machine are to have {wanted} at once, but it has {there}");
    Err(CommandError::new(ExitCode::Usage, text).hinted(
        "lower `parallel` or `gpus_per_trial` of the executor; `CUDA_VISIBLE_DEVICES` says which GPUs count",
    ))
}

/// The copy of this program that jobs start at their end; none on the local executor, or on a disk that is too full for it:
/// the experiment runs without it too.
fn own_copy(app: &App, experiment: &Experiment) -> Option<PathBuf> {
    let install = || store::install_program(&app.home, store::OWN_NAME, &app.program);
    let copy = is_on_slurm(experiment).then(install)?;
    let tell = |error: &StoreError| {
        say(&format!(
            "warning: the jobs can't look after each other, since they have no `nemo-slurm`: {error}; \
             run `nemo-slurm poll` from time to time"
        ));
    };
    copy.inspect_err(tell).ok()
}

/// Tells the configuration what the command line and the shell changed of the experiment.
fn note_changes(experiment: &Experiment, is_sequential: bool, config: &mut ResolvedConfig) {
    for task in experiment.tasks.iter().filter(|_| is_sequential) {
        config.set(&["task", &task.name, "search", "concurrent"], 1.into(), "--sequential");
        if !task.after.is_empty() {
            let after = task.after.iter().map(|edge| json!({ "task": edge.task, "on": edge.on }));
            config.set(&["task", &task.name, "after"], after.collect(), "--sequential");
        }
    }
    for (name, executor) in &experiment.executors {
        if let Executor::Slurm(slurm) = executor
            && let Some(cluster) = slurm.sbatch.get("clusters")
        {
            let path = ["executor", name, "sbatch", "clusters"];
            config.fill(&path, cluster.as_str().into(), "the environment");
        }
    }
}

/// How often another process may take an id first. More often is an error of another kind.
const RIVALS: usize = 1000;

/// Makes a folder under an id that is the newest of all. Another process may take the id meanwhile: then the next one.
fn with_free_id<T>(
    app: &App,
    name: &str,
    write: impl Fn(&ExperimentId, f64) -> Result<T, StoreError>,
) -> Result<(ExperimentId, T), StoreError> {
    let mut known = app.home.ids()?;
    let most = known.len() + RIVALS;
    loop {
        let now = clock::now();
        let id = ExperimentId::next(name, now, &known);
        match write(&id, now) {
            Err(error) if error.is_taken() && known.len() < most => known.push(id),
            written => return written.map(|made| (id, made)),
        }
    }
}

/// What the journal begins with: who submits what, and that its first array comes next. That intent is so durable with the
/// folder, and needs no wait for the disk of its own.
fn first_events(id: &ExperimentId, plan: Option<&Plan>, now: f64) -> Vec<Event> {
    let plan = plan.cloned();
    let first = plan.as_ref().and_then(|plan| plan.arrays.first());
    let intent = first.map(|array| slurm::intent(id.as_str(), array, now));
    let planned = plan.map(|plan| Event::Planned { plan, retry: None });
    std::iter::once(submitter()).chain(planned).chain(intent).collect()
}

/// This process, for the journal.
pub(super) fn submitter() -> Event {
    Event::Submitter {
        process: ProcessId::current(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: clock::now(),
    }
}

/// One trial at a time: of a task, and of tasks that don't depend on each other, whatever becomes of the ones before.
pub(super) fn make_sequential(experiment: &mut Experiment) {
    for place in 0..experiment.tasks.len() {
        let before = place.checked_sub(1).map(|before| experiment.tasks[before].name.clone());
        let task = &mut experiment.tasks[place];
        // Each of those before waits for all that are before it: only its own `after` can name the last of them.
        let waits_for = before.filter(|before| !task.after.iter().any(|own| own.task == *before));
        task.concurrent = Some(std::num::NonZeroU32::MIN);
        task.after.extend(waits_for.map(|task| Dependency { task, on: On::Any }));
    }
}

/// The plan of an experiment whose tasks run on Slurm; none on the local executor.
pub(super) fn plan_of(
    experiment: &Experiment,
    cluster: Option<&Cluster>,
    outside: Awaited,
    room: Option<JobRoom>,
) -> Result<Option<Plan>, CommandError> {
    if !is_on_slurm(experiment) {
        return Ok(None);
    }
    let limits =
        cluster.map_or_else(Limits::default, |cluster| Limits { max_array: cluster.max_array });
    let all = Selection::all(experiment);
    // What waits for this machine, for room, or for what has no jobs yet, is submitted later.
    let room = room.map(JobRoom::worth_a_try);
    let at_once = SubmitLimits { room, holds_roots: outside.is_incomplete };
    let trials = submittable(experiment, &all.trials, at_once, &|_, _, _| false).trials;
    let first = Selection { trials, outside: outside.edges, ..all };
    let plan = Plan::new(experiment, &first, limits)?;
    let notes = crate::plan::check(experiment, &first, &plan, limits);
    match notes.first() {
        None => Ok(Some(plan)),
        Some(note) => {
            Err(CommandError::new(ExitCode::Refused, format!("the plan is not valid: {note}"))
                .hinted("this is an error of nemo-slurm; nothing was submitted"))
        }
    }
}

/// Whether Slurm runs any of it.
pub(super) fn is_on_slurm(experiment: &Experiment) -> bool {
    experiment.has_slurm()
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
    pub harness: &'a Path,
    /// The copy of this program that jobs start at their end.
    pub nemo_slurm: Option<&'a Path>,
    /// Whether its code is shipped with it.
    pub is_shipped: bool,
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
        graph: experiment.graph(),
        now: context.now as u64,
        cluster: context.cluster,
        has_more: context.plan.is_some_and(|plan| plan.trials() < n_on_slurm(experiment)),
        is_shipped: context.is_shipped,
        programs: context
            .nemo_slurm
            .map(|nemo_slurm| JobPrograms { harness: context.harness, nemo_slurm }),
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

/// How many trials run on Slurm.
fn n_on_slurm(experiment: &Experiment) -> usize {
    let on_slurm = experiment.tasks.iter().filter(|task| !experiment.is_local(task));
    on_slurm.map(|task| task.n_trials as usize).sum()
}

fn scripts(
    experiment: &Experiment,
    task: &crate::experiment::Task,
    context: &Context<'_>,
) -> Vec<String> {
    let Some(plan) = context.plan else { return Vec::new() };
    let (id, dir, harness) = (context.id.as_str(), context.dir, context.harness);
    let own = plan.arrays.iter().filter(|array| array.task == task.name);
    own.filter_map(|array| array_script(experiment, id, dir, array, (harness, None))).collect()
}

/// The script of one array; none if its task does not run on Slurm.
pub(super) fn array_script(
    experiment: &Experiment,
    id: &str,
    dir: &ExperimentDir,
    array: &JobArray,
    (harness, spec): (&Path, Option<&str>),
) -> Option<String> {
    let task = experiment.tasks.iter().find(|task| task.name == array.task)?;
    let executor = executor_of(experiment, &task.executor)?;
    let dir = dir.task(&task.name);
    let setting = script::ScriptContext {
        experiment: id,
        task,
        executor,
        task_dir: &dir.0,
        output_dir: dir.slurm_output(),
        harness,
        spec,
    };
    Some(script::script(array, &setting))
}
