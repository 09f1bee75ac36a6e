//! What Slurm says of the jobs of many experiments, asked once for all together.

use std::collections::HashMap;

use crate::journal::{self, Event};
use crate::slurm::{AccountRow, Client, JobId, Parsed, Phase, QueueRow, SlurmError};
use crate::status::Answer;
use crate::store::Stored;
use crate::summary::{NamedJob, Summary};
use crate::words::count;

/// Both answers.
pub type Both = (Answer<QueueRow>, Answer<AccountRow>);

/// Where an answer comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Slurm is asked now, for this experiment alone.
    Slurm(&'a Client),
    /// It was asked for all experiments together.
    Asked(&'a Answers),
    /// Nobody is asked.
    Nobody,
}

impl Source<'_> {
    /// What it says of the jobs of one experiment.
    #[must_use]
    pub fn of(self, stored: &Stored) -> Both {
        let jobs = named(&stored.journal);
        match self {
            _ if jobs.is_empty() => (Answer::NotAsked, Answer::NotAsked),
            Self::Slurm(client) => {
                let client = &client.on_cluster(stored.experiment.cluster());
                let wanted = Wanted { jobs, open: 0, created: stored.id.made_at() };
                ask_both(&Questions::about(client, &[&wanted]))
            }
            Self::Asked(answers) => answers.of(&jobs),
            Self::Nobody => not_asked(),
        }
    }
}

/// Nothing follows from what was not asked.
fn not_asked() -> Both {
    let why = || "was not asked".to_owned();
    (Answer::Failed(why()), Answer::Failed(why()))
}

/// The arrays that Slurm took, with their names.
#[must_use]
pub fn named(journal: &[Event]) -> Vec<NamedJob> {
    let submitted = journal::submitted(journal).into_iter();
    submitted.map(|(name, slurm_job)| NamedJob { slurm_job, name }).collect()
}

/// Asks `squeue` and `sacct` side by side.
fn ask_both(questions: &Questions) -> Both {
    std::thread::scope(|scope| {
        let accounts = scope.spawn(|| questions.accounts());
        let queue = questions.queue();
        // A thread of ours does not panic; if it did, it gave no answer.
        let lost = || Answer::Failed("was not asked".to_owned());
        (queue, accounts.join().unwrap_or_else(|_| lost()))
    })
}

/// Seconds by which this machine's clock and Slurm's may differ.
const CLOCK_SLACK: i64 = 3600;

/// What is asked about some experiments.
struct Questions {
    client: Client,
    jobs: Vec<JobId>,
    since: i64,
}

impl Questions {
    fn about(client: &Client, wanted: &[&Wanted]) -> Self {
        let jobs: Vec<&NamedJob> = wanted.iter().flat_map(|wanted| &wanted.jobs).collect();
        let since = wanted.iter().map(|wanted| wanted.created).min().unwrap_or(0);
        Self {
            client: client.for_names(jobs.iter().map(|job| job.name.clone()).collect()),
            jobs: jobs.iter().map(|job| job.slurm_job).collect(),
            since: i64::try_from(since).unwrap_or(0) - CLOCK_SLACK,
        }
    }

    fn queue(&self) -> Answer<QueueRow> {
        answer(self.client.queue(&self.jobs))
    }

    fn accounts(&self) -> Answer<AccountRow> {
        answer(self.client.accounting(&self.jobs, self.since))
    }
}

/// How many tasks of each array wait or run.
fn live_tasks(rows: &[QueueRow]) -> HashMap<JobId, usize> {
    let mut live: HashMap<JobId, usize> = HashMap::new();
    for row in rows.iter().filter(|row| matches!(row.state.phase(), Phase::Waiting | Phase::Active))
    {
        *live.entry(row.array_job).or_default() += row.tasks.indices().count();
    }
    live
}

fn answer<T>(said: Result<Parsed<T>, SlurmError>) -> Answer<T> {
    match said {
        Ok(parsed) if parsed.unread.is_empty() => Answer::Rows(parsed.rows),
        Ok(parsed) => {
            let why = format!("{} can't be read", count(parsed.unread.len(), "row"));
            Answer::Partly(parsed.rows, why)
        }
        Err(SlurmError::AccountingOff) => Answer::NotAsked,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// What was said of many experiments.
#[derive(Debug)]
pub struct Answers {
    queue: Answer<QueueRow>,
    accounts: Answer<AccountRow>,
    /// Every array that was asked for.
    places: HashMap<JobId, Places>,
}

impl Default for Answers {
    /// Nothing was asked.
    fn default() -> Self {
        Self { queue: Answer::NotAsked, accounts: Answer::NotAsked, places: HashMap::new() }
    }
}

/// One experiment to ask for.
#[derive(Debug)]
pub struct Wanted {
    /// Its arrays.
    pub jobs: Vec<NamedJob>,
    /// How many of its trials were not over at the last look.
    pub open: usize,
    /// When it was submitted, in unix seconds.
    pub created: u64,
}

impl From<&Summary> for Wanted {
    fn from(summary: &Summary) -> Self {
        let open = summary.row.trials.iter().filter(|(state, _)| !state.is_final());
        Self {
            jobs: summary.jobs.clone(),
            open: open.map(|(_, n)| *n as usize).sum(),
            created: summary.row.created,
        }
    }
}

impl Answers {
    /// Asks for all of these: one `squeue`, and one `sacct` for those of which something is over that was not before.
    #[must_use]
    pub fn ask(client: &Client, wanted: &[Wanted]) -> Self {
        let all: Vec<&Wanted> = wanted.iter().filter(|wanted| !wanted.jobs.is_empty()).collect();
        if all.is_empty() {
            return Self::default();
        }
        let queue = Questions::about(client, &all).queue();
        let live = live_tasks(queue.rows());
        let is_live = |job: &NamedJob| live.get(&job.slurm_job).copied().unwrap_or(0);
        let has_news =
            |wanted: &&&Wanted| wanted.jobs.iter().map(is_live).sum::<usize>() < wanted.open;
        let news: Vec<&Wanted> = all.iter().filter(has_news).copied().collect();
        let accounts = if news.is_empty() {
            Answer::NotAsked
        } else {
            Questions::about(client, &news).accounts()
        };
        Self::new((queue, &all), (accounts, &news))
    }

    fn new(
        queue: (Answer<QueueRow>, &[&Wanted]),
        accounts: (Answer<AccountRow>, &[&Wanted]),
    ) -> Self {
        let mut places: HashMap<JobId, Places> = HashMap::new();
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
        Self { queue: queue.0, accounts: accounts.0, places }
    }

    fn of(&self, jobs: &[NamedJob]) -> Both {
        let own: Option<Vec<&Places>> =
            jobs.iter().map(|job| self.places.get(&job.slurm_job)).collect();
        let Some(own) = own else {
            // That a job has no row says nothing where it was not asked for.
            return not_asked();
        };
        let queue = own.iter().flat_map(|places| places.queue.iter().copied());
        let in_accounts = own.iter().any(|places| places.in_accounts);
        let accounts = own.iter().flat_map(|places| places.accounts.iter().copied());
        let accounts = if in_accounts { self.accounts.part(accounts) } else { Answer::NotAsked };
        (self.queue.part(queue), accounts)
    }
}

/// What was said of one array.
#[derive(Debug, Default)]
struct Places {
    /// Whether `sacct` was asked for it.
    in_accounts: bool,
    /// Its rows in the answer of `squeue`.
    queue: Vec<usize>,
    /// Its rows in the answer of `sacct`.
    accounts: Vec<usize>,
}
