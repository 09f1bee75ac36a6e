//! The folder of a rehearsal: a home of its own, so that the user's experiments are not touched, and in it an experiment
//! for each run.

use std::path::PathBuf;

use nemo_core::rundir::{ExperimentDir, Keep, TaskDir, TaskSpec, Tracker};

use super::scenarios::{Fault, Scenario};
use crate::clock;
use crate::executor::spec::{SubmitContext, task_spec};
use crate::experiment::{Experiment, Task, TrialParams};
use crate::journal::Event;
use crate::package::Shipped;
use crate::plan::{JobArray, Plan};
use crate::process::ProcessId;
use crate::script;
use crate::slurm::Cluster;
use crate::store::{self, ExperimentId, Home, KeptEnvironment, NewExperiment, NewTask, StoreError};

/// Where all runs of a rehearsal lie.
#[derive(Debug)]
pub(crate) struct RehearsalFolder<'a> {
    pub(crate) home: Home,
    pub(crate) harness: PathBuf,
    pub(crate) toml: &'a str,
    /// The experiment, every task on the executor that it is rehearsed on.
    pub(crate) experiment: &'a Experiment,
    /// What each trial is given.
    pub(crate) params: &'a TrialParams,
    pub(crate) task: &'a Task,
    pub(crate) trial: u32,
    /// What is known of the cluster, where runs take place there.
    pub(crate) cluster: Option<&'a Cluster>,
    /// What the programs inherit.
    pub(crate) environment: KeptEnvironment,
    /// The code, so that each run has a working folder of its own.
    pub(crate) shipped: Option<Shipped>,
}

/// One run's place.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub(crate) id: ExperimentId,
    pub(crate) dir: ExperimentDir,
    pub(crate) task: TaskDir,
    pub(crate) plan: Option<Plan>,
}

impl RehearsalFolder<'_> {
    /// The folder that the runs share: what the task waits for ran there.
    pub(crate) fn upstream(&self) -> Result<RunFolder, StoreError> {
        let names = self.experiment.graph().upstream(&self.task.name);
        let tasks: Vec<Task> = self
            .experiment
            .tasks
            .iter()
            .filter(|task| names.contains_key(task.name.as_str()))
            .cloned()
            .collect();
        let id = self.id(0);
        let dir = self.home.experiment(&id);
        let around = self.around(&id, &dir);
        let new = tasks.iter().map(|task| {
            let spec = TaskSpec { sentinel: false, ..undisturbed(task_spec(task, &around)) };
            NewTask { spec, scripts: Vec::new() }
        });
        let new = new.collect();
        self.create(
            &id,
            &Experiment { tasks, notify: None, ..self.experiment.clone() },
            new,
            None,
        )?;
        let task = dir.task(&self.task.name);
        Ok(RunFolder { id, dir, task, plan: None })
    }

    /// A folder for one run, whose inputs are what `upstream` made.
    pub(crate) fn run(
        &self,
        number: u32,
        scenario: &Scenario,
        upstream: &ExperimentDir,
    ) -> Result<RunFolder, StoreError> {
        let id = self.id(number);
        let dir = self.home.experiment(&id);
        let mut spec = undisturbed(task_spec(self.task, &self.around(&id, &dir)));
        spec.inputs = task_spec(self.task, &self.around(&id, upstream)).inputs;
        set_up(&mut spec, scenario);
        let alone = Task { after: Vec::new(), ..self.task.clone() };
        let experiment = Experiment { tasks: vec![alone], notify: None, ..self.experiment.clone() };
        let array = JobArray {
            task: self.task.name.clone(),
            index: 0,
            offset: self.trial,
            trials: [self.trial].into_iter().collect(),
            throttle: None,
            after: Vec::new(),
            held: false,
            outside: Vec::new(),
            behind: Vec::new(),
            after_jobs: Vec::new(),
            wrapped: None,
        };
        let scripts = self.script(&id, &dir, &array, spec.checkpoint.lead);
        let plan = scripts.as_ref().map(|_| Plan { generation: 0, arrays: vec![array] });
        let new = vec![NewTask { spec, scripts: scripts.into_iter().collect() }];
        self.create(&id, &experiment, new, plan.clone())?;
        let task = dir.task(&self.task.name);
        Ok(RunFolder { id, dir, task, plan })
    }

    fn script(
        &self,
        id: &ExperimentId,
        dir: &ExperimentDir,
        array: &JobArray,
        lead: u64,
    ) -> Option<String> {
        let executor = match self.experiment.executors.get(&self.task.executor)? {
            crate::experiment::Executor::Slurm(slurm) => slurm,
            crate::experiment::Executor::Local(_) => return None,
        };
        let mut task = self.task.clone();
        task.checkpoint.lead = lead;
        let place = dir.task(&task.name);
        let setting = script::ScriptContext {
            experiment: id.as_str(),
            task: &task,
            executor,
            task_dir: &place.0,
            output_dir: place.slurm_output(),
            harness: &self.harness,
            spec: None,
        };
        Some(script::script(array, &setting))
    }

    fn id(&self, number: u32) -> ExperimentId {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
        let seconds = clock::now() as u64;
        ExperimentId::new(&self.experiment.name, seconds, number)
    }

    fn around<'b>(&'b self, id: &'b ExperimentId, dir: &'b ExperimentDir) -> SubmitContext<'b> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
        let now = clock::now() as u64;
        SubmitContext {
            id: id.as_str(),
            dir,
            experiment: self.experiment,
            graph: self.experiment.graph(),
            now,
            cluster: self.cluster,
            has_more: false,
            is_shipped: self.shipped.is_some(),
            programs: None,
        }
    }

    fn create(
        &self,
        id: &ExperimentId,
        experiment: &Experiment,
        tasks: Vec<NewTask>,
        plan: Option<Plan>,
    ) -> Result<(), StoreError> {
        let submitter = Event::Submitter {
            process: ProcessId::current(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: clock::now(),
        };
        let journal: Vec<Event> = std::iter::once(submitter)
            .chain(plan.map(|plan| Event::Planned { plan, retry: None }))
            .collect();
        let (toml, journal, environment) = (self.toml, &journal, &self.environment);
        let (params, holder, config) = (self.params, None, None);
        let new = NewExperiment {
            id,
            toml,
            experiment,
            config,
            params,
            journal,
            environment,
            holder,
            shipped: self.shipped.as_ref(),
            tasks,
        };
        store::create(&self.home, &new).map(drop)
    }
}

/// Nothing but the disturbances may end a run, and every checkpoint stays to be compared.
fn undisturbed(mut spec: TaskSpec) -> TaskSpec {
    spec.after.clear(); // what it waits for was made for all of its runs
    spec.deadline = None;
    spec.time_limit = None;
    spec.restart.crashes = 1;
    spec.checkpoint.keep = Keep { trial_latest: u32::MAX, trial_best: 1, experiment_best: 0 };
    // A rehearsal is no run of the user's: trackers keep it in its own folder.
    for tracker in &spec.trackers {
        let (name, value) = match tracker {
            Tracker::Wandb => ("WANDB_MODE", "offline"),
            Tracker::Mlflow => ("MLFLOW_TRACKING_URI", "sqlite:///{dir}/tracker/mlflow.db"),
            // They write below the trial's folder in any case.
            Tracker::Tensorboard | Tracker::Aim => continue,
        };
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    spec
}

/// What the harness must know of the disturbances.
fn set_up(spec: &mut TaskSpec, scenario: &Scenario) {
    if !scenario.injections.is_empty() {
        spec.restart.no_progress = 0; // several interruptions without a checkpoint are to be seen
    }
    for injection in &scenario.injections {
        match injection.fault {
            Fault::Preempt { lead } => spec.checkpoint.lead = lead,
            Fault::Terminate { kill_wait } => spec.kill_wait = Some(kill_wait),
            Fault::KillProgram => spec.restart.crashes += 1,
            Fault::TimeLimit { limit } => spec.time_limit = Some(limit),
            Fault::KillHarness | Fault::Requeue => {}
        }
    }
}
