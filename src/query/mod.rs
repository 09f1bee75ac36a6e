//! What `squeue` and `sacct` know of the job arrays of experiments.
//!
//! [`SlurmSource`] answers for one experiment: it runs the programs, or takes the rows from [`SlurmAnswers`], where one
//! `squeue` and one `sacct` were run for many experiments. [`QueryCache`] shares such answers between processes.

mod answers;
mod cache;
mod run;

use crate::clock;
use crate::journal::{self, Event};
use crate::slurm::{AccountRow, Client, QueueRow, block_on};
use crate::status::QueryResult;
use crate::store::Stored;
pub use crate::summary::NamedJob;

pub use answers::{AccountingBackoff, JobsToQuery, QueryContext, SlurmAnswers};
pub use cache::QueryCache;

/// Where the rows of one experiment come from.
#[derive(Clone, Copy, Debug)]
pub enum SlurmSource<'a> {
    /// Slurm's programs are run now, for this experiment alone.
    Slurm(&'a Client),
    /// They were run for many experiments together.
    Asked(&'a SlurmAnswers),
    /// Slurm is not asked.
    Nobody,
}

impl SlurmSource<'_> {
    /// When `squeue` is, or was, run, in unix seconds.
    #[must_use]
    pub fn asked(self) -> f64 {
        match self {
            Self::Asked(answers) => answers.asked(),
            Self::Slurm(_) | Self::Nobody => clock::now(),
        }
    }

    /// Whether [`SlurmSource::accounts`] runs `sacct`.
    #[must_use]
    pub fn is_slurm(self) -> bool {
        matches!(self, Self::Slurm(_))
    }

    /// The rows of `squeue` for one experiment. `on_started` is called once it runs.
    pub fn queue(self, stored: &Stored, on_started: &dyn Fn()) -> QueryResult<QueueRow> {
        let jobs = submitted_jobs(&stored.journal);
        match self {
            _ if jobs.is_empty() => QueryResult::NotAsked,
            Self::Slurm(client) => {
                let client = client.on_cluster(stored.experiment.cluster());
                let jobs: Vec<&NamedJob> = jobs.iter().collect();
                let output = async {
                    let squeue = run::squeue(&client, &jobs);
                    let (output, ()) = tokio::join!(squeue, async { on_started() });
                    output
                };
                run::queue_rows(block_on("squeue", output))
            }
            Self::Asked(answers) => answers.queue_of(&jobs),
            Self::Nobody => no_answer(),
        }
    }

    /// The rows of `sacct` for one experiment.
    pub fn accounts(self, stored: &Stored) -> QueryResult<AccountRow> {
        let jobs = submitted_jobs(&stored.journal);
        match self {
            _ if jobs.is_empty() => QueryResult::NotAsked,
            Self::Slurm(client) => {
                let client = client.on_cluster(stored.experiment.cluster());
                let jobs: Vec<&NamedJob> = jobs.iter().collect();
                let sacct = run::sacct(&client, &jobs, stored.id.made_at());
                run::account_rows(block_on("sacct", sacct))
            }
            Self::Asked(answers) => answers.accounts_of(&jobs),
            Self::Nobody => no_answer(),
        }
    }

    /// The rows of both programs, run side by side. `on_started` is called once both run.
    pub fn both(
        self,
        stored: &Stored,
        on_started: &dyn Fn(),
    ) -> (QueryResult<QueueRow>, QueryResult<AccountRow>) {
        let jobs = submitted_jobs(&stored.journal);
        let Self::Slurm(client) = self else {
            return (self.queue(stored, on_started), self.accounts(stored));
        };
        if jobs.is_empty() {
            return (QueryResult::NotAsked, QueryResult::NotAsked);
        }
        let client = client.on_cluster(stored.experiment.cluster());
        let jobs: Vec<&NamedJob> = jobs.iter().collect();
        let outputs = async {
            // `sacct` takes longer, so it is started first.
            let sacct = run::sacct(&client, &jobs, stored.id.made_at());
            let squeue = run::squeue(&client, &jobs);
            Ok(tokio::join!(sacct, squeue, async { on_started() }))
        };
        match block_on("squeue", outputs) {
            Ok((sacct, squeue, ())) => (run::queue_rows(squeue), run::account_rows(sacct)),
            Err(error) => {
                let why = error.to_string();
                (QueryResult::Failed(why.clone()), QueryResult::Failed(why))
            }
        }
    }
}

/// The result where Slurm was not asked about jobs that it may have: missing rows prove nothing.
fn no_answer<T>() -> QueryResult<T> {
    QueryResult::Failed("was not asked".to_owned())
}

/// The job arrays that Slurm accepted, with their names.
#[must_use]
pub fn submitted_jobs(journal: &[Event]) -> Vec<NamedJob> {
    let submitted = journal::submitted(journal).into_iter();
    submitted.map(|(name, slurm_job)| NamedJob { slurm_job, name }).collect()
}
