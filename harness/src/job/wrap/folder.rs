//! The folder of a wrapped job: that of an experiment with one task, so that every command of nemo-slurm reads it.
//!
//! Where it lies is for `place` to say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nemo_core::durable;
use nemo_core::placeholder::escape;
use nemo_core::rundir::{
    AttemptRecord, CheckpointSpec, CommandSpec, ExperimentDir, Keep, NO_SIGNAL, RestartSpec,
    TaskSpec,
};
use nemo_core::{checksum, lines, open, profile};
use serde_json::{Value, json};

use super::array_tasks::ArrayBounds;
use super::cluster::ClusterFacts;
use super::options::WrapOptions;
use super::own_job::OwnJob;
use super::place::StatePlace;
use super::{array_tasks, poll_program, resources, shared_paths};
use crate::job::trial::TaskSource;
use crate::monitor::alarms::Alarm;
use crate::os::clock::{Clock, unix_now};
use crate::os::log::log_info;

/// The only task.
pub(super) const TASK: &str = "job";

/// A job that is wrapped.
#[derive(Debug)]
pub(super) struct WrappedJob {
    id: String,
    dir: ExperimentDir,
    /// The Slurm job; none outside of one.
    slurm: Option<OwnJob>,
    /// The tasks of its array.
    array: ArrayBounds,
}

impl WrappedJob {
    /// Finds the folder of this job, or makes it.
    pub(super) fn open(
        home: &Path,
        options: &WrapOptions,
        slurm: Option<OwnJob>,
        workdir: &Path,
        trial: u32,
    ) -> io::Result<Self> {
        let jobs = home.join("jobs");
        durable::create_dir_all(&jobs.join("by-id"))?;
        let dir = options.dir.as_ref().map(|dir| workdir.join(dir));
        dir.as_ref().map_or(Ok(()), |dir| durable::create_dir_all(dir))?;
        let program = options.program.first().map(|own| PathBuf::from(own.clone()));
        let program = program.and_then(|own| Some(own.file_name()?.to_str()?.to_owned()));
        let name = slurm.as_ref().map(|job| job.name.clone()).or(program).unwrap_or_default();
        let place = StatePlace { jobs: &jobs, dir: dir.as_deref(), name: &name };
        let id = place.id(slurm.as_ref(), trial)?;
        let own = jobs.join(&id);
        durable::create_dir_all(&own)?; // somebody may have removed it
        let is_array = slurm.as_ref().is_some_and(|job| job.is_array);
        let array = if is_array { ArrayBounds::read() } else { ArrayBounds::default() };
        let dir = ExperimentDir(fs::canonicalize(own)?);
        Ok(Self { id, dir, slurm, array })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Writes what the harness and nemo-slurm read. Returns what this trial's harness reads: each task of an array may
    /// have another command, and they start side by side. And what is to be told, if two of them get in each other's way.
    pub(super) fn write(
        &self,
        options: &WrapOptions,
        facts: &ClusterFacts,
        shown: &str,
        workdir: &Path,
        trial: u32,
        clock: &Clock,
    ) -> io::Result<(TaskSource, Option<Alarm>)> {
        let task = self.dir.task(TASK);
        durable::create_dir_below(&self.dir.0, &task.0)?;
        let spec = self.spec(options, facts, workdir);
        let own = spec_name(trial);
        let text = checksum::to_vec(&spec)?;
        self.compare_command(&task.0.join(&own), &spec, trial)?;
        put(&task.0.join(&own), &text)?;
        let (path, is_new) = (self.dir.experiment_json(), !self.has_own_id());
        // Jobs of other sizes may share the folder: what one of them needs stays.
        let before = n_trials(&path).unwrap_or(0);
        let n_trials = before.max(self.array.last + 1);
        put_longer(&task.trial_lines(), &trial_lines(n_trials)?)?;
        if is_new || n_trials > before {
            let experiment = self.experiment(&spec, shown, n_trials);
            durable::replace_file_durably(&path, &checksum::to_vec(&experiment)?)?;
        }
        if is_new {
            durable::replace_file_durably(&task.spec(), &text)?;
        }
        self.journal(clock)?;
        let alarm = shared_paths::alarm(&task.0, &spec, trial);
        Ok((TaskSource { dir: task.0, spec: Some(own), text: Some(text), gpus: None }, alarm))
    }

    /// Says where another command was the last to run this trial: its checkpoints may be another program's. Where that one
    /// is done in this very run of the job, this one would not run at all, so it is an error.
    fn compare_command(&self, file: &Path, spec: &TaskSpec, trial: u32) -> io::Result<()> {
        let before = open::read(file).ok();
        let before = before.and_then(|text| checksum::from_slice::<TaskSpec>(&text).ok());
        let Some(before) = before.filter(|before| before.command != spec.command) else {
            return Ok(());
        };
        let last = match before.command {
            CommandSpec::Exec(words) => words.join(" "),
            CommandSpec::Shell(text) => text,
        };
        let last: String = last.chars().take(200).collect();
        let attempts = self.dir.task(TASK).trial(trial).attempts();
        let rows = lines::read::<AttemptRecord>(&attempts)?.rows;
        if self.slurm.as_ref().is_some_and(|job| job.has_done(&rows)) {
            return Err(io::Error::other(format!(
                "this job has run `{last}` here, and that is done: give each program of a job a `--dir` of its own"
            )));
        }
        log_info(&format!(
            "the last command here was `{last}`; programs that do not share checkpoints need a `--dir` each"
        ));
        Ok(())
    }

    /// Whether the folder knows its id. The first task of an array speaks for all; a copy has that of the original.
    fn has_own_id(&self) -> bool {
        read_id(&self.dir.0).is_some_and(|id| id == self.id)
    }

    fn spec(&self, options: &WrapOptions, facts: &ClusterFacts, workdir: &Path) -> TaskSpec {
        let program = options.program.iter().map(|word| escape(&word.to_string_lossy()));
        let asks = options.save_command.is_none();
        let signal = options.signal.clone().or_else(|| (!asks).then(|| NO_SIGNAL.to_owned()));
        TaskSpec {
            schema: 1,
            experiment: self.id.clone(),
            task: TASK.to_owned(),
            command: CommandSpec::Exec(program.collect()),
            workdir: workdir.to_owned(),
            setup: Vec::new(),
            env: std::collections::BTreeMap::new(),
            inherit: None,
            seed: 0,
            checkpoint: CheckpointSpec {
                signal: signal.unwrap_or_else(|| profile::signal(options.profile).to_owned()),
                lead: options.lead,
                every: None,
                keep: Keep::default(),
                from: options.from.clone(),
                restore_to: options.restore_to.clone(),
                tier: None,
                command: options.save_command.as_deref().map(shell),
                resume: options.resume_command.as_deref().map(shell),
            },
            restart: RestartSpec { crashes: options.crashes, no_progress: 3, hang: None },
            metrics: options.metrics.clone(),
            inputs: std::collections::BTreeMap::new(),
            after: Vec::new(),
            sentinel: facts.needs_sentinel && self.slurm.is_some(),
            deadline: None,
            kill_wait: facts.kill_wait,
            requeue_exit: facts.requeue_exit,
            time_limit: None,
            metric: None,
            log_policy: Vec::new(),
            profile: options.profile,
            launch: None,
            trackers: Vec::new(),
            tags: Vec::new(),
            threads: None,
            poll: self.slurm.as_ref().and_then(|_| poll_program::find()),
            restart_from: None,
            package: None,
        }
    }

    /// The experiment as nemo-slurm reads it.
    fn experiment(&self, spec: &TaskSpec, shown: &str, n_trials: u32) -> Value {
        let surroundings = json!({ "env": {}, "secrets": [], "setup": [] });
        let executor = if self.slurm.is_some() {
            resources::executor(shown)
        } else {
            json!({ "kind": "local", "parallel": null, "time": null, "surroundings": surroundings })
        };
        json!({
            "name": self.id.rsplit_once('-').map_or("", |(name, _)| name), "description": null, "tags": [],
            "metadata": {}, "timeout": null, "seed": 0, "workdir": spec.workdir,
            "executors": { "job": executor },
            "tasks": [{
                "name": TASK, "executor": "job", "run": spec.command, "after": [], "n_trials": n_trials,
                "concurrent": null, "metric": null, "goal": "min", "checkpoint": spec.checkpoint,
                "restart": spec.restart, "metrics": spec.metrics, "log_policy": [], "profile": spec.profile,
                "launch": null,
            }],
        })
    }

    /// Tells nemo-slurm of the Slurm job. Tasks of an array that start in the same moment write the same lines. Where Slurm
    /// did not answer the first of them, the next one tells which tasks there are.
    fn journal(&self, clock: &Clock) -> io::Result<()> {
        let Some(job) = &self.slurm else { return Ok(()) };
        let Ok(number) = job.number.parse::<u32>() else { return Ok(()) };
        let path = self.dir.journal();
        let text = match open::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        let rows = lines::parse::<Value>(&text).rows;
        let told = job.told_trials(&rows);
        let (rule, span) = (self.array.by_rule(), self.array.span());
        if told.is_some_and(|told| told != span || rule.as_ref() == Some(&span)) {
            return Ok(());
        }
        let trials = rule.or_else(|| self.ask_tasks(job, clock)).unwrap_or(span);
        if told == Some(&trials) {
            return Ok(());
        }
        durable::rewrite_with_lines(&path, text, &Self::lines(job, number, &trials))
    }

    /// The tasks of the array: those that Slurm shows, and those that have run here, which it may have forgotten.
    fn ask_tasks(&self, job: &OwnJob, clock: &Clock) -> Option<String> {
        let mut tasks = array_tasks::ask(&job.number, clock)?;
        tasks.extend(trials_here(&self.dir.task(TASK).0).filter(|trial| self.has_run(job, *trial)));
        Some(array_tasks::as_ranges(&tasks))
    }

    /// Whether a task of this array has run. Another job in the same folder may have others.
    fn has_run(&self, job: &OwnJob, trial: u32) -> bool {
        let id = format!("{}_{trial}", job.number);
        let rows = lines::read::<AttemptRecord>(&self.dir.task(TASK).trial(trial).attempts());
        let rows = rows.map(|read| read.rows).unwrap_or_default();
        rows.iter()
            .filter_map(AttemptRecord::as_start)
            .any(|own| own.slurm_job.as_deref() == Some(&*id))
    }

    fn lines(job: &OwnJob, number: u32, trials: &str) -> [Value; 4] {
        let (name, time) = (&job.name, unix_now());
        let array = json!({
            "task": TASK, "index": 0, "offset": 0, "trials": trials, "throttle": null, "after": [], "held": false,
            "wrapped": { "name": name, "is_array": job.is_array },
        });
        [
            json!({ "event": "planned", "plan": { "generation": 0, "arrays": [array] } }),
            json!({
                "event": "intended", "token": name, "task": TASK, "array": 0, "offset": 0, "trials": trials, "time": time,
            }),
            json!({ "event": "submitted", "token": name, "slurm_job": number, "time": time }),
            json!({ "event": "complete", "generation": 0, "time": time }),
        ]
    }
}

/// The file in the task's folder that a trial reads.
pub(super) fn spec_name(trial: u32) -> String {
    format!("task.{trial}.json")
}

/// The trials that have been in a task's folder.
pub(super) fn trials_here(task: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir(task).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("task.")?.strip_suffix(".json")?.parse().ok()
    })
}

/// A line for each trial.
fn trial_lines(n_trials: u32) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for trial in 0..n_trials {
        text.extend(checksum::to_vec(&json!({ "trial": trial, "params": {} }))?);
        text.push(b'\n');
    }
    Ok(text)
}

/// A text for `sh`, in which braces are the shell's own.
fn shell(text: &str) -> CommandSpec {
    CommandSpec::Shell(escape(text))
}

/// Writes a file, unless it holds that already.
fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    if open::read(path).is_ok_and(|own| own == text) {
        return Ok(());
    }
    durable::replace_file_durably(path, text)
}

/// Writes a file, unless it begins like that already: a larger job in the same folder wrote more.
fn put_longer(path: &Path, text: &[u8]) -> io::Result<()> {
    if open::read(path).is_ok_and(|own| own.starts_with(text)) {
        return Ok(());
    }
    durable::replace_file_durably(path, text)
}

/// How many trials an experiment's file says that there are.
fn n_trials(path: &Path) -> Option<u32> {
    let experiment: Value = checksum::from_slice(&open::read(path).ok()?).ok()?;
    experiment["tasks"][0]["n_trials"].as_u64()?.try_into().ok()
}

/// The id of the job whose folder this is.
pub(super) fn read_id(dir: &Path) -> Option<String> {
    let task = ExperimentDir(dir.to_owned()).task(TASK);
    let text = open::read(&task.spec()).ok()?;
    let id = checksum::from_slice::<TaskSpec>(&text).ok()?.experiment;
    (!id.contains('/') && !id.starts_with('.')).then_some(id)
}
