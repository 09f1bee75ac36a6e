//! Gathers what advice on failed trials needs: why each failed, what Slurm gave it, and what its partition allows.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use nemo_core::scope::Scope;
use serde::Serialize;

use super::advice::{self, FailureFacts, PartitionLimits, RetryAdvice, WantedGrowth};
use super::automatic::DueTrial;
use super::changes::{changed_experiment, is_out_of_time};
use crate::commands::App;
use crate::commands::control::TrialKey;
use crate::error::CommandError;
use crate::experiment::{ChangedKeys, Executor, Experiment, Growth, RetryRule};
use crate::journal::{self, LastRetry, RetriedTrials, Retry};
use crate::package;
use crate::slurm::{IndexSet, JobId, JobUsage, Node, Partition, accounting_since};
use crate::status::{State, Status, TrialStatus};
use crate::store::Stored;
use crate::trial_error::ErrorClass;
use crate::usage::{TrialUsage, memory_peak};

/// What is advised for the failed trials of a target.
#[derive(Debug, Default)]
pub(super) struct AdvisedRetry {
    pub(super) rows: Vec<AdviceRow>,
    /// Trials that are not retried, and why.
    pub(super) refused: BTreeMap<TrialKey, String>,
    /// What changes of the others.
    pub(super) each: BTreeMap<TrialKey, ChangedKeys>,
}

/// Trials with the same advice.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct AdviceRow {
    pub(super) task: String,
    pub(super) trials: IndexSet,
    #[serde(flatten)]
    pub(super) advice: RetryAdvice,
}

/// Advises on the failed trials of a scope. The status must tell their errors.
pub(super) fn advise(
    app: &App,
    stored: &Stored,
    status: &Status,
    scope: &Scope,
    in_states: &[State],
) -> Result<AdvisedRetry, CommandError> {
    let is_meant = |task: &str, trial: &TrialStatus| {
        scope.covers(task, trial.index) && in_states.contains(&trial.state)
    };
    let failed = failed(status, is_meant);
    let sources = FactSources::for_advice(app, stored, &failed)?;
    let is_shipped = package::of(&stored.dir).is_some();
    let mut advised = AdvisedRetry::default();
    for (task, trial, class) in failed {
        let mut advice = sources.with_facts(task, trial, class, advice::advise)?;
        let is_of_code = matches!(class, ErrorClass::BadConfiguration | ErrorClass::GpuOutOfMemory);
        if is_of_code && is_shipped && !advice.retry {
            // A retry runs the code that was shipped, whatever is corrected.
            advice.why.push_str(", and submit again");
        }
        let key = (task.to_owned(), trial.index);
        if advice.retry {
            advised.each.insert(key, advice.set.clone());
        } else {
            advised.refused.insert(key, format!("{}: {}", class.as_str(), advice.why));
        }
        add_row(&mut advised.rows, task, trial.index, advice);
    }
    Ok(advised)
}

fn add_row(rows: &mut Vec<AdviceRow>, task: &str, trial: u32, advice: RetryAdvice) {
    match rows.iter_mut().find(|row| row.task == task && row.advice == advice) {
        Some(row) => row.trials = row.trials.iter().chain([trial]).collect(),
        None => rows.push(AdviceRow {
            task: task.to_owned(),
            trials: [trial].into_iter().collect(),
            advice,
        }),
    }
}

/// Says of each trial that the advice changes by which failure.
pub(super) fn with_advice(retry: Retry, advice: Option<&[AdviceRow]>) -> Retry {
    let Some(rows) = advice else { return retry };
    let class_of = |task: &str, trial: u32| {
        let mut rows = rows.iter().filter(|row| !row.advice.set.is_empty());
        let row = rows.find(|row| row.task == task && row.trials.contains(trial))?;
        Some(row.advice.class.as_str().to_owned())
    };
    retry.divided(class_of, |group, advice| RetriedTrials { advice, ..group })
}

/// A failed trial of a task, and why it failed.
pub(super) type FailedTrial<'a> = (&'a str, &'a TrialStatus, ErrorClass);

/// The failed trials of a status that are meant.
pub(super) fn failed(
    status: &Status,
    is_meant: impl Fn(&str, &TrialStatus) -> bool,
) -> Vec<FailedTrial<'_>> {
    let all =
        status.tasks.iter().flat_map(|task| task.trials.iter().map(|trial| (&*task.name, trial)));
    let failed = all.filter(|(task, trial)| {
        matches!(trial.state, State::Failed | State::Timeout) && is_meant(task, trial)
    });
    let class =
        |trial: &TrialStatus| trial.error.as_ref().map_or(ErrorClass::Unknown, |it| it.class);
    failed.map(|(task, trial)| (task, trial, class(trial))).collect()
}

/// What was asked of Slurm for advice.
#[derive(Debug)]
pub(super) struct FactSources<'a> {
    stored: &'a Stored,
    /// By task and trial.
    retries: HashMap<&'a str, BTreeMap<u32, LastRetry<'a>>>,
    /// By job.
    memory: HashMap<String, JobUsage>,
    partitions: Vec<PartitionLimits>,
    default_partition: Option<String>,
}

impl<'a> FactSources<'a> {
    /// Asks only what the classes of these failures need.
    pub(super) fn for_advice(
        app: &App,
        stored: &'a Stored,
        failed: &[FailedTrial<'_>],
    ) -> Result<Self, CommandError> {
        use ErrorClass::{NodeFailure, OutOfMemory, TimeLimit};
        let of_memory = failed.iter().filter(|it| it.2 == OutOfMemory).copied().collect();
        let limited = |it: &&FailedTrial<'_>| matches!(it.2, OutOfMemory | TimeLimit | NodeFailure);
        let of_limits = failed.iter().filter(limited).copied().collect();
        Self::ask(app, stored, of_memory, of_limits)
    }

    /// Asks what the rules of the file change, whatever the failure.
    pub(super) fn for_rules(
        app: &App,
        stored: &'a Stored,
        due: &[DueTrial<'_>],
    ) -> Result<Self, CommandError> {
        let of_memory = due.iter().filter(|it| it.2.mem.is_some()).map(|it| it.0).collect();
        let limited = |it: &&DueTrial<'_>| it.2.mem.is_some() || it.2.time.is_some();
        let of_limits = due.iter().filter(limited).map(|it| it.0).collect();
        Self::ask(app, stored, of_memory, of_limits)
    }

    /// Asks for the memory of some trials' jobs, and for the limits of some trials' partitions.
    fn ask(
        app: &App,
        stored: &'a Stored,
        mut of_memory: Vec<FailedTrial<'_>>,
        mut of_limits: Vec<FailedTrial<'_>>,
    ) -> Result<Self, CommandError> {
        let tasks = stored.experiment.tasks.iter().map(|task| task.name.as_str());
        let retries = |task| (task, journal::last_retries(&stored.journal, task));
        let mut sources = Self {
            stored,
            retries: tasks.map(retries).collect(),
            memory: HashMap::new(),
            partitions: Vec::new(),
            default_partition: None,
        };
        of_memory.retain(|it| is_on_slurm(stored, it.0));
        of_limits.retain(|it| is_on_slurm(stored, it.0));
        if !of_memory.is_empty() {
            let mut jobs: Vec<JobId> =
                of_memory.iter().filter_map(|(_, trial, _)| job_of(trial)).collect();
            jobs.sort_unstable();
            jobs.dedup();
            let since = journal::began(&stored.journal).unwrap_or(0.0);
            let usage = app.slurm.usage(&jobs, accounting_since(since))?.into_iter();
            sources.memory = usage.map(|usage| (usage.job.clone(), usage)).collect();
        }
        if !of_limits.is_empty() {
            let (partitions, nodes) = (app.slurm.partitions()?, app.slurm.nodes()?);
            sources.default_partition =
                partitions.iter().find(|it| it.default).map(|it| it.name.clone());
            sources.partitions = partitions.iter().map(|it| limits(it, &nodes)).collect();
        }
        Ok(sources)
    }

    /// Calls a function with what is known of a failed trial.
    pub(super) fn with_facts<T>(
        &self,
        task: &str,
        trial: &TrialStatus,
        class: ErrorClass,
        decide: impl FnOnce(&FailureFacts<'_>) -> T,
    ) -> Result<T, CommandError> {
        let retry = self.retries.get(task).and_then(|retries| retries.get(&trial.index));
        let set = retry.and_then(|it| it.changed).map(|it| &it.set);
        let experiment: Cow<'_, Experiment> = changed_experiment(self.stored, task, set)?;
        let in_file = executor(&self.stored.experiment, task);
        let local = Executor::Local(crate::experiment::LocalExecutor::default());
        let executor = executor(&experiment, task).unwrap_or(&local);
        let last = trial.attempts.last();
        let job = last.and_then(|it| it.slurm_job.as_ref()).or(trial.slurm_job.as_ref());
        let memory = job.and_then(|job| self.memory.get(job));
        let dir = self.stored.dir.task(task).trial(trial.index);
        let usage = TrialUsage::read(&dir);
        let partition = self.partition(executor);
        let facts = FailureFacts {
            class,
            executor,
            peak: memory_peak(&usage, memory).map(in_megabytes),
            given: memory.and_then(|it| it.given).map(in_megabytes),
            partition: partition.as_ref(),
            excluded_by_file: excluded(in_file),
            node: last.and_then(|it| it.node.as_deref()),
            has_progress: last.is_some_and(|it| it.checkpoint_step > it.resume_step),
            is_out_of_time: is_out_of_time(self.stored),
        };
        Ok(decide(&facts))
    }

    /// What the partitions of an executor allow, taken together: `main,gpu` runs a job in either.
    fn partition(&self, executor: &Executor) -> Option<PartitionLimits> {
        let Executor::Slurm(slurm) = executor else { return None };
        let names = slurm.partition.as_ref().or(self.default_partition.as_ref())?;
        let known = |name: &str| self.partitions.iter().find(|it| it.name == name.trim()).cloned();
        names.split(',').filter_map(known).reduce(PartitionLimits::or)
    }
}

/// What a rule of the file changes of a failed trial. What can't grow any more stays as it was.
pub(super) fn by_rule(
    sources: &FactSources<'_>,
    (task, trial, class): FailedTrial<'_>,
    rule: &RetryRule,
) -> Result<ChangedKeys, CommandError> {
    let growth = WantedGrowth {
        mem: rule.mem.as_deref().and_then(Growth::of_memory),
        time: rule.time.as_deref().and_then(Growth::of_time),
    };
    sources.with_facts(task, trial, class, |facts| advice::wanted(facts, growth))
}

fn is_on_slurm(stored: &Stored, task: &str) -> bool {
    matches!(executor(&stored.experiment, task), Some(Executor::Slurm(_)))
}

fn executor<'a>(experiment: &'a Experiment, task: &str) -> Option<&'a Executor> {
    let task = experiment.tasks.iter().find(|own| own.name == task)?;
    experiment.executors.get(&task.executor)
}

/// The nodes that an executor excludes.
fn excluded(executor: Option<&Executor>) -> Option<&str> {
    let Some(Executor::Slurm(slurm)) = executor else { return None };
    slurm.sbatch.get("exclude").map(String::as_str)
}

fn job_of(trial: &TrialStatus) -> Option<JobId> {
    let last = trial.attempts.last().and_then(|it| it.slurm_job.as_ref());
    last.or(trial.slurm_job.as_ref())?.split('_').next()?.parse().ok()
}

fn limits(partition: &Partition, nodes: &[Node]) -> PartitionLimits {
    let own: Vec<&Node> =
        nodes.iter().filter(|it| it.partitions.contains(&partition.name)).collect();
    let largest = own.iter().map(|it| it.memory).max();
    PartitionLimits {
        name: partition.name.clone(),
        memory: largest.into_iter().chain(partition.max_memory).min(),
        time: partition.max_time.seconds(),
        default_time: partition.default_time.seconds().or(partition.max_time.seconds()),
        nodes: own.iter().map(|it| it.name.clone()).collect(),
    }
}

fn in_megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
