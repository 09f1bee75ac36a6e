//! What Slurm says of the jobs of many experiments, asked once for all together.

mod cache;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use crate::clock;
use crate::humanize::count;
use crate::journal::{self, Event};
use crate::slurm::parse::{account, queue};
use crate::slurm::{
    AccountRow, Client, JobId, JobPhase, Parsed, QueueRow, SlurmError, accounting_since, block_on,
};
use crate::status::QueryResult;
use crate::store::Stored;
pub use crate::summary::NamedJob;
use crate::summary::Summary;

pub use cache::QueryCache;
use cache::{CachedOutput, QueryFailure, QueryProgram};

/// Where an answer comes from.
#[derive(Clone, Copy, Debug)]
pub enum SlurmSource<'a> {
    /// Slurm is asked now, for this experiment alone.
    Slurm(&'a Client),
    /// It was asked for all experiments together.
    Asked(&'a SlurmAnswers),
    /// Nobody is asked.
    Nobody,
}

impl SlurmSource<'_> {
    /// When `squeue` is, or was, asked, in unix seconds.
    #[must_use]
    pub fn asked(self) -> f64 {
        match self {
            Self::Asked(answers) => answers.asked(),
            Self::Slurm(_) | Self::Nobody => clock::now(),
        }
    }

    /// Whether an answer of `sacct` costs a question.
    #[must_use]
    pub fn is_slurm(self) -> bool {
        matches!(self, Self::Slurm(_))
    }

    /// What `squeue` says of the jobs of one experiment. `waits` is called when it runs.
    pub fn queue(self, stored: &Stored, waits: &dyn Fn()) -> QueryResult<QueueRow> {
        let jobs = named(&stored.journal);
        match self {
            _ if jobs.is_empty() => QueryResult::NotAsked,
            Self::Slurm(client) => {
                let client = client.on_cluster(stored.experiment.cluster());
                let jobs: Vec<&NamedJob> = jobs.iter().collect();
                let asked = async {
                    let (text, ()) = tokio::join!(queue_text(&client, &jobs), async { waits() });
                    text
                };
                queue_answer(block_on("squeue", asked))
            }
            Self::Asked(answers) => answers.queue_of(&jobs),
            Self::Nobody => not_asked(),
        }
    }

    /// What `sacct` says of them.
    pub fn accounts(self, stored: &Stored) -> QueryResult<AccountRow> {
        let jobs = named(&stored.journal);
        match self {
            _ if jobs.is_empty() => QueryResult::NotAsked,
            Self::Slurm(client) => {
                let client = client.on_cluster(stored.experiment.cluster());
                let jobs: Vec<&NamedJob> = jobs.iter().collect();
                accounts_answer(sacct(&client, &jobs, stored.id.made_at()))
            }
            Self::Asked(answers) => answers.accounts_of(&jobs),
            Self::Nobody => not_asked(),
        }
    }

    /// What both say, asked side by side. `waits` is called when both programs run.
    pub fn both(
        self,
        stored: &Stored,
        waits: &dyn Fn(),
    ) -> (QueryResult<QueueRow>, QueryResult<AccountRow>) {
        let jobs = named(&stored.journal);
        let Self::Slurm(client) = self else {
            return (self.queue(stored, waits), self.accounts(stored));
        };
        if jobs.is_empty() {
            return (QueryResult::NotAsked, QueryResult::NotAsked);
        }
        let client = client.on_cluster(stored.experiment.cluster());
        let jobs: Vec<&NamedJob> = jobs.iter().collect();
        let asked = async {
            // They are begun in this order. `sacct` takes longer.
            let accounts = accounts_text(&client, &jobs, stored.id.made_at());
            Ok(tokio::join!(accounts, queue_text(&client, &jobs), async { waits() }))
        };
        match block_on("squeue", asked) {
            Ok((accounts, queue, ())) => (queue_answer(queue), accounts_answer(accounts)),
            Err(error) => {
                let why = error.to_string();
                (QueryResult::Failed(why.clone()), QueryResult::Failed(why))
            }
        }
    }
}

fn queue_answer(said: Result<Vec<u8>, SlurmError>) -> QueryResult<QueueRow> {
    answer(said.map(|text| queue::parse(&text)))
}

fn accounts_answer(said: Result<Vec<u8>, SlurmError>) -> QueryResult<AccountRow> {
    answer(said.map(|text| account::parse(&text)))
}

/// Nothing follows from what was not asked.
fn not_asked<T>() -> QueryResult<T> {
    QueryResult::Failed("was not asked".to_owned())
}

/// The arrays that Slurm took, with their names.
#[must_use]
pub fn named(journal: &[Event]) -> Vec<NamedJob> {
    let submitted = journal::submitted(journal).into_iter();
    submitted.map(|(name, slurm_job)| NamedJob { slurm_job, name }).collect()
}

/// The most bytes of names in one question; Linux takes at most 128 KiB in one argument.
const LONGEST: usize = 100_000;

fn squeue(client: &Client, jobs: &[&NamedJob]) -> Result<Vec<u8>, SlurmError> {
    block_on("squeue", queue_text(client, jobs))
}

async fn queue_text(client: &Client, jobs: &[&NamedJob]) -> Result<Vec<u8>, SlurmError> {
    in_parts(client, jobs, async |client, ids| client.queue_text(ids).await).await
}

fn sacct(client: &Client, jobs: &[&NamedJob], created: u64) -> Result<Vec<u8>, SlurmError> {
    block_on("sacct", accounts_text(client, jobs, created))
}

async fn accounts_text(
    client: &Client,
    jobs: &[&NamedJob],
    created: u64,
) -> Result<Vec<u8>, SlurmError> {
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let since = accounting_since(created as f64);
    in_parts(client, jobs, async |client, ids| client.accounting_text(ids, since).await).await
}

/// One question, unless the names of the jobs are too long for one.
async fn in_parts(
    client: &Client,
    jobs: &[&NamedJob],
    ask: impl AsyncFn(&Client, &[JobId]) -> Result<Vec<u8>, SlurmError>,
) -> Result<Vec<u8>, SlurmError> {
    let longest = jobs.iter().map(|job| job.name.len() + 1).max().unwrap_or(1);
    let mut all = Vec::new();
    for part in jobs.chunks((LONGEST / longest).max(1)) {
        let client = client.for_names(part.iter().map(|job| job.name.clone()).collect());
        all.extend(ask(&client, &part.iter().map(|job| job.slurm_job).collect::<Vec<_>>()).await?);
    }
    Ok(all)
}

/// Seconds between two questions to the accounts about what they did not tell.
const LEAST_PAUSE: f64 = 10.0;
const LONGEST_PAUSE: f64 = 60.0;

impl QueryContext<'_> {
    fn queue(&self, wanted: &[&JobsToQuery]) -> CachedOutput {
        let own = jobs(wanted);
        self.shared.answer(QueryProgram::Squeue, &names(&own), self.not_before, || {
            let others = (self.others)();
            let known = names(&own);
            let further = others.iter().filter(|job| !known.contains(&job.name));
            let all: Vec<&NamedJob> = own.iter().copied().chain(further).collect();
            (names(&all), squeue(self.client, &all))
        })
    }

    /// Something that left the queue is looked up in the accounts at once. They may lag behind: while nothing else
    /// happens they are asked again, less and less often.
    fn accounts_not_before(&self, live: usize, queue_asked: f64) -> f64 {
        match self.live.get() {
            Some((known, since)) if known == live => {
                let now = clock::now();
                now - (now - since).clamp(LEAST_PAUSE, LONGEST_PAUSE)
            }
            _ => {
                self.live.set(Some((live, queue_asked)));
                queue_asked
            }
        }
    }

    fn accounts(&self, wanted: &[&JobsToQuery], not_before: f64) -> CachedOutput {
        let own = jobs(wanted);
        let created = wanted.iter().map(|wanted| wanted.created).min().unwrap_or(0);
        self.shared.answer(QueryProgram::Sacct, &names(&own), not_before, || {
            (names(&own), sacct(self.client, &own, created))
        })
    }
}

fn jobs<'a>(wanted: &[&'a JobsToQuery]) -> Vec<&'a NamedJob> {
    wanted.iter().flat_map(|wanted| &wanted.jobs).collect()
}

fn names(jobs: &[&NamedJob]) -> HashSet<String> {
    jobs.iter().map(|job| job.name.clone()).collect()
}

impl CachedOutput {
    fn answer<T>(&self, parse: impl FnOnce(&[u8]) -> Parsed<T>) -> QueryResult<T> {
        match &self.failure {
            None => answer(Ok(parse(self.text.as_bytes()))),
            Some(QueryFailure::AccountingOff) => QueryResult::Off,
            Some(QueryFailure::Other(why)) => QueryResult::Failed(why.clone()),
        }
    }
}

/// How many tasks of each array wait or run.
fn live_tasks(rows: &[QueueRow]) -> HashMap<JobId, usize> {
    let mut live: HashMap<JobId, usize> = HashMap::new();
    for row in
        rows.iter().filter(|row| matches!(row.state.phase(), JobPhase::Waiting | JobPhase::Active))
    {
        *live.entry(row.array_job).or_default() += row.tasks.indices().count();
    }
    live
}

fn answer<T>(said: Result<Parsed<T>, SlurmError>) -> QueryResult<T> {
    match said {
        Ok(parsed) if parsed.unread.is_empty() => QueryResult::Rows(parsed.rows),
        Ok(parsed) => {
            let why = format!("{} can't be read", count(parsed.unread.len(), "row"));
            QueryResult::Partly(parsed.rows, why)
        }
        Err(SlurmError::AccountingOff) => QueryResult::Off,
        Err(error) => QueryResult::Failed(error.to_string()),
    }
}

/// What was said of many experiments.
#[derive(Debug)]
pub struct SlurmAnswers {
    queue: QueryResult<QueueRow>,
    accounts: QueryResult<AccountRow>,
    /// When `squeue` was asked, in unix seconds.
    asked: f64,
    /// Every array that was asked for.
    places: HashMap<JobId, RowIndices>,
}

impl Default for SlurmAnswers {
    /// Nothing was asked.
    fn default() -> Self {
        Self {
            queue: QueryResult::NotAsked,
            accounts: QueryResult::NotAsked,
            asked: 0.0,
            places: HashMap::new(),
        }
    }
}

/// One experiment to ask for.
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

/// Whom to ask, and how old an answer may be.
#[derive(Clone, Copy)]
pub struct QueryContext<'a> {
    /// Slurm.
    pub client: &'a Client,
    /// What others asked for.
    pub shared: &'a QueryCache,
    /// The earliest answer that will do, in unix seconds.
    pub not_before: f64,
    /// How many tasks waited or ran at an earlier look of the same process, and since when it was so many.
    pub live: &'a Cell<Option<(usize, f64)>>,
    /// Further jobs that others will ask for: they are asked for as well, if anything is.
    pub others: &'a dyn Fn() -> Vec<NamedJob>,
}

impl SlurmAnswers {
    /// Asks for all of these: one `squeue`, and one `sacct` for those of which something is over that was not before.
    #[must_use]
    pub fn ask(asking: QueryContext<'_>, wanted: &[JobsToQuery]) -> Self {
        let all: Vec<&JobsToQuery> =
            wanted.iter().filter(|wanted| !wanted.jobs.is_empty()).collect();
        if all.is_empty() {
            return Self::default();
        }
        let said = asking.queue(&all);
        let queue = said.answer(queue::parse);
        let live = live_tasks(queue.rows());
        let news: Vec<&JobsToQuery> = all
            .iter()
            .filter(|wanted| {
                wanted
                    .jobs
                    .iter()
                    .map(|job| live.get(&job.slurm_job).copied().unwrap_or(0))
                    .sum::<usize>()
                    < wanted.open
            })
            .copied()
            .collect();
        let accounts = if news.is_empty() {
            QueryResult::NotAsked
        } else {
            let not_before = asking.accounts_not_before(live.values().sum(), said.asked);
            asking.accounts(&news, not_before).answer(account::parse)
        };
        Self { asked: said.asked, ..Self::new((queue, &all), (accounts, &news)) }
    }

    fn new(
        queue: (QueryResult<QueueRow>, &[&JobsToQuery]),
        accounts: (QueryResult<AccountRow>, &[&JobsToQuery]),
    ) -> Self {
        let mut places: HashMap<JobId, RowIndices> = HashMap::new();
        for (asked, is_in_accounts) in [(queue.1, false), (accounts.1, true)] {
            for job in asked.iter().flat_map(|wanted| &wanted.jobs) {
                places.entry(job.slurm_job).or_default().in_accounts |= is_in_accounts;
            }
        }
        for (place, row) in queue.0.rows().iter().enumerate() {
            places.entry(row.array_job).or_default().queue.push(place);
        }
        for (place, row) in accounts.0.rows().iter().enumerate() {
            places.entry(row.array_job).or_default().accounts.push(place);
        }
        Self { queue: queue.0, accounts: accounts.0, asked: 0.0, places }
    }

    /// When `squeue` was asked, in unix seconds; 0 where nothing was.
    #[must_use]
    pub fn asked(&self) -> f64 {
        self.asked
    }

    fn queue_of(&self, jobs: &[NamedJob]) -> QueryResult<QueueRow> {
        let Some(own) = self.places_of(jobs) else { return not_asked() };
        self.queue.part(own.iter().flat_map(|places| places.queue.iter().copied()))
    }

    fn accounts_of(&self, jobs: &[NamedJob]) -> QueryResult<AccountRow> {
        let Some(own) = self.places_of(jobs) else { return not_asked() };
        if !own.iter().any(|places| places.in_accounts) {
            return QueryResult::NotAsked;
        }
        self.accounts.part(own.iter().flat_map(|places| places.accounts.iter().copied()))
    }

    /// None where one of the jobs was not asked for: that it has no row says nothing then.
    fn places_of(&self, jobs: &[NamedJob]) -> Option<Vec<&RowIndices>> {
        jobs.iter().map(|job| self.places.get(&job.slurm_job)).collect()
    }
}

/// What was said of one array.
#[derive(Debug, Default)]
struct RowIndices {
    /// Whether `sacct` was asked for it.
    in_accounts: bool,
    /// Its rows in the answer of `squeue`.
    queue: Vec<usize>,
    /// Its rows in the answer of `sacct`.
    accounts: Vec<usize>,
}
