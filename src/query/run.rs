//! Runs `squeue` and `sacct` for any number of job arrays, and reads what they print.

use crate::humanize::count;
use crate::slurm::parse::{account, queue};
use crate::slurm::{AccountRow, Client, JobId, Parsed, QueueRow, SlurmError, accounting_since};
use crate::status::QueryResult;
use crate::summary::NamedJob;

/// The most bytes of job names on one command line; Linux takes at most 128 KiB in one argument.
const MAX_NAME_BYTES: usize = 100_000;

/// What `squeue` prints of these job arrays.
pub(super) async fn squeue(client: &Client, jobs: &[&NamedJob]) -> Result<Vec<u8>, SlurmError> {
    in_chunks(client, jobs, async |client, ids| client.queue_text(ids).await).await
}

/// What `sacct` prints of these job arrays, the first of which was submitted at `created` (unix seconds).
pub(super) async fn sacct(
    client: &Client,
    jobs: &[&NamedJob],
    created: u64,
) -> Result<Vec<u8>, SlurmError> {
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let since = accounting_since(created as f64);
    in_chunks(client, jobs, async |client, ids| client.accounting_text(ids, since).await).await
}

/// One run of a program, unless the names of the jobs are too long for one command line.
async fn in_chunks(
    client: &Client,
    jobs: &[&NamedJob],
    run: impl AsyncFn(&Client, &[JobId]) -> Result<Vec<u8>, SlurmError>,
) -> Result<Vec<u8>, SlurmError> {
    let longest = jobs.iter().map(|job| job.name.len() + 1).max().unwrap_or(1);
    let mut output = Vec::new();
    for chunk in jobs.chunks((MAX_NAME_BYTES / longest).max(1)) {
        let client = client.for_names(chunk.iter().map(|job| job.name.clone()).collect());
        let ids: Vec<JobId> = chunk.iter().map(|job| job.slurm_job).collect();
        output.extend(run(&client, &ids).await?);
    }
    Ok(output)
}

/// The rows in the output of [`squeue`].
pub(super) fn queue_rows(output: Result<Vec<u8>, SlurmError>) -> QueryResult<QueueRow> {
    query_result(output.map(|text| queue::parse(&text)))
}

/// The rows in the output of [`sacct`].
pub(super) fn account_rows(output: Result<Vec<u8>, SlurmError>) -> QueryResult<AccountRow> {
    query_result(output.map(|text| account::parse(&text)))
}

/// What follows from the rows of a program, or from its failure.
pub(super) fn query_result<T>(parsed: Result<Parsed<T>, SlurmError>) -> QueryResult<T> {
    match parsed {
        Ok(parsed) if parsed.unread.is_empty() => QueryResult::Rows(parsed.rows),
        Ok(parsed) => {
            let why = format!("{} can't be read", count(parsed.unread.len(), "row"));
            QueryResult::Partly(parsed.rows, why)
        }
        Err(SlurmError::AccountingOff) => QueryResult::Off,
        Err(error) => QueryResult::Failed(error.to_string()),
    }
}
