//! One `squeue` and one `sacct` for the job arrays of many experiments.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::cache::{CachedOutput, QueryCache, QueryFailure, QueryProgram};
use super::{no_answer, run};
use crate::clock;
use crate::slurm::parse::{account, queue};
use crate::slurm::{AccountRow, Client, JobId, JobPhase, Parsed, QueueRow, block_on};
use crate::status::QueryResult;
use crate::summary::{NamedJob, Summary};

/// The job arrays of one experiment.
#[derive(Debug)]
pub struct JobsToQuery {
    /// Its arrays.
    pub jobs: Vec<NamedJob>,
    /// How many of its trials were not certain to be over at the last look.
    pub open: usize,
    /// When it was submitted, in unix seconds.
    pub created: u64,
}

impl From<&Summary> for JobsToQuery {
    fn from(summary: &Summary) -> Self {
        Self { jobs: summary.jobs.clone(), open: summary.open, created: summary.row.created }
    }
}

/// How to ask Slurm, and how old an answer may be.
#[derive(Clone, Copy)]
pub struct QueryContext<'a> {
    /// Slurm's programs.
    pub client: &'a Client,
    /// The answers that other processes got.
    pub cache: &'a QueryCache,
    /// The oldest answer that will do, in unix seconds.
    pub not_before: f64,
    /// When `sacct` is asked again.
    pub backoff: &'a AccountingBackoff,
    /// Jobs that other processes will ask for soon. If `squeue` is run, it is asked for them too.
    pub others: &'a dyn Fn() -> Vec<NamedJob>,
}

/// Spaces out the runs of `sacct` of a process that looks again and again.
#[derive(Debug, Default)]
pub struct AccountingBackoff {
    /// How many tasks waited or ran at the last look, and since when it was so many.
    live: Cell<Option<(usize, f64)>>,
}

/// The least and the most seconds between two runs of `sacct` while nothing changes in the queue.
const MIN_PAUSE: f64 = 10.0;
const MAX_PAUSE: f64 = 60.0;

impl AccountingBackoff {
    /// The oldest answer of `sacct` that will do, in unix seconds, if `squeue` shows so many live tasks.
    ///
    /// A task that left the queue is looked up at once. The accounts may lag behind it, so they are asked again while
    /// nothing else happens, less and less often.
    fn not_before(&self, live: usize, queue_asked: f64) -> f64 {
        match self.live.get() {
            Some((known, since)) if known == live => {
                let now = clock::now();
                now - (now - since).clamp(MIN_PAUSE, MAX_PAUSE)
            }
            _ => {
                self.live.set(Some((live, queue_asked)));
                queue_asked
            }
        }
    }
}

impl QueryContext<'_> {
    fn squeue(&self, experiments: &[&JobsToQuery]) -> CachedOutput {
        let own = jobs(experiments);
        self.cache.get_or_run(QueryProgram::Squeue, &names(&own), self.not_before, || {
            let others = (self.others)();
            let own_names = names(&own);
            let others = others.iter().filter(|job| !own_names.contains(&job.name));
            let all: Vec<&NamedJob> = own.iter().copied().chain(others).collect();
            (names(&all), block_on("squeue", run::squeue(self.client, &all)))
        })
    }

    fn sacct(&self, experiments: &[&JobsToQuery], not_before: f64) -> CachedOutput {
        let own = jobs(experiments);
        let created = experiments.iter().map(|experiment| experiment.created).min().unwrap_or(0);
        self.cache.get_or_run(QueryProgram::Sacct, &names(&own), not_before, || {
            (names(&own), block_on("sacct", run::sacct(self.client, &own, created)))
        })
    }
}

fn jobs<'a>(experiments: &[&'a JobsToQuery]) -> Vec<&'a NamedJob> {
    experiments.iter().flat_map(|experiment| &experiment.jobs).collect()
}

fn names(jobs: &[&NamedJob]) -> HashSet<String> {
    jobs.iter().map(|job| job.name.clone()).collect()
}

impl CachedOutput {
    fn rows<T>(&self, parse: impl FnOnce(&[u8]) -> Parsed<T>) -> QueryResult<T> {
        match &self.failure {
            None => run::query_result(Ok(parse(self.text.as_bytes()))),
            Some(QueryFailure::AccountingOff) => QueryResult::Off,
            Some(QueryFailure::Other(why)) => QueryResult::Failed(why.clone()),
        }
    }
}

/// How many tasks of each job array wait or run.
fn live_tasks(rows: &[QueueRow]) -> HashMap<JobId, usize> {
    let is_live =
        |row: &&QueueRow| matches!(row.state.phase(), JobPhase::Waiting | JobPhase::Active);
    let mut live: HashMap<JobId, usize> = HashMap::new();
    for row in rows.iter().filter(is_live) {
        *live.entry(row.array_job).or_default() += row.tasks.indices().count();
    }
    live
}

/// Whether fewer tasks of an experiment wait or run than it has open trials: `sacct` may know how the others ended.
fn needs_accounts(experiment: &JobsToQuery, live: &HashMap<JobId, usize>) -> bool {
    let of_array = |job: &NamedJob| live.get(&job.slurm_job).copied().unwrap_or(0);
    experiment.jobs.iter().map(of_array).sum::<usize>() < experiment.open
}

/// What Slurm knows of many experiments.
#[derive(Debug)]
pub struct SlurmAnswers {
    queue: QueryResult<QueueRow>,
    accounts: QueryResult<AccountRow>,
    /// When `squeue` was run, in unix seconds.
    asked: f64,
    /// Every job array that was asked for.
    by_array: HashMap<JobId, RowIndices>,
}

/// The rows of one job array.
#[derive(Debug, Default)]
struct RowIndices {
    /// Whether `sacct` was asked for it.
    in_accounts: bool,
    /// Its rows in the answer of `squeue`.
    queue: Vec<usize>,
    /// Its rows in the answer of `sacct`.
    accounts: Vec<usize>,
}

impl Default for SlurmAnswers {
    /// Nothing was asked.
    fn default() -> Self {
        Self {
            queue: QueryResult::NotAsked,
            accounts: QueryResult::NotAsked,
            asked: 0.0,
            by_array: HashMap::new(),
        }
    }
}

impl SlurmAnswers {
    /// Runs one `squeue` for all of these experiments, and one `sacct` for those whose trials it does not show any more.
    #[must_use]
    pub fn query(context: QueryContext<'_>, experiments: &[JobsToQuery]) -> Self {
        let submitted: Vec<&JobsToQuery> =
            experiments.iter().filter(|experiment| !experiment.jobs.is_empty()).collect();
        if submitted.is_empty() {
            return Self::default();
        }
        let output = context.squeue(&submitted);
        let queue = output.rows(queue::parse);
        let live = live_tasks(queue.rows());
        let mut ended = submitted.clone();
        ended.retain(|experiment| needs_accounts(experiment, &live));
        let accounts = if ended.is_empty() {
            QueryResult::NotAsked
        } else {
            let not_before = context.backoff.not_before(live.values().sum(), output.asked);
            context.sacct(&ended, not_before).rows(account::parse)
        };
        let by_array = by_array((&queue, &submitted), (&accounts, &ended));
        Self { queue, accounts, asked: output.asked, by_array }
    }

    /// When `squeue` was run, in unix seconds; 0 where it was not.
    #[must_use]
    pub fn asked(&self) -> f64 {
        self.asked
    }

    pub(super) fn queue_of(&self, jobs: &[NamedJob]) -> QueryResult<QueueRow> {
        let Some(arrays) = self.arrays(jobs) else { return no_answer() };
        self.queue.part(arrays.iter().flat_map(|rows| rows.queue.iter().copied()))
    }

    pub(super) fn accounts_of(&self, jobs: &[NamedJob]) -> QueryResult<AccountRow> {
        let Some(arrays) = self.arrays(jobs) else { return no_answer() };
        if !arrays.iter().any(|rows| rows.in_accounts) {
            return QueryResult::NotAsked;
        }
        self.accounts.part(arrays.iter().flat_map(|rows| rows.accounts.iter().copied()))
    }

    /// None if one of the jobs was not asked for: then it proves nothing that it has no row.
    fn arrays(&self, jobs: &[NamedJob]) -> Option<Vec<&RowIndices>> {
        jobs.iter().map(|job| self.by_array.get(&job.slurm_job)).collect()
    }
}

/// The rows of each job array. Each answer comes with the experiments that it was asked for.
fn by_array(
    (queue, queued): (&QueryResult<QueueRow>, &[&JobsToQuery]),
    (accounts, accounted): (&QueryResult<AccountRow>, &[&JobsToQuery]),
) -> HashMap<JobId, RowIndices> {
    let mut by_array: HashMap<JobId, RowIndices> = HashMap::new();
    for job in jobs(queued) {
        by_array.entry(job.slurm_job).or_default();
    }
    for job in jobs(accounted) {
        by_array.entry(job.slurm_job).or_default().in_accounts = true;
    }
    for (index, row) in queue.rows().iter().enumerate() {
        by_array.entry(row.array_job).or_default().queue.push(index);
    }
    for (index, row) in accounts.rows().iter().enumerate() {
        by_array.entry(row.array_job).or_default().accounts.push(index);
    }
    by_array
}
