//! The rows of `squeue`.

use std::sync::Arc;

use super::number::number;
pub use super::record::DELIMITER;
use super::record::{Interner, ParseRow, RecordFields, Rows, all};
use super::time::{UnixTime, point};
use super::{Expected, Parsed, UnreadLine};
use crate::slurm::id::{JobId, Tasks};
use crate::slurm::state::JobState;

/// What `squeue --Format` is asked for: only what something follows from. The field that can hold free text stands last.
pub const FIELDS: [&str; 5] = ["JobArrayID", "State", "SubmitTime", "RestartCnt", "Reason"];

/// One row of `squeue`: a job, a task, or all the tasks of an array that wait for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRow {
    /// The array's id; for a job that is no array, the job's; for a heterogeneous one, the leader's.
    pub array_job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// The state.
    pub state: JobState,
    /// Why it waits or ended, in Slurm's word; `None` if there is nothing to say.
    pub reason: Arc<str>,
    /// When this attempt was submitted.
    pub submit: Option<UnixTime>,
    /// How often it was put back into the queue: so many runs of it are over.
    pub restarts: u32,
}

impl<'a> ParseRow<'a> for QueueRow {
    fn take(fields: &mut RecordFields<'a>, names: &mut Interner<'a>) -> Result<Self, Expected<'a>> {
        let (array_job, tasks) = fields.shown_id()?;
        Ok(Self {
            array_job,
            tasks,
            state: super::account::state(fields.text()?)?.0,
            submit: fields.read(point)?,
            restarts: fields.read(number)?,
            reason: names.get(fields.last()?),
        })
    }
}

/// Reads rows one by one.
pub fn rows(output: &[u8]) -> impl Iterator<Item = Result<QueueRow, UnreadLine>> {
    Rows::<QueueRow>::new(output)
}

/// Reads the whole output of a `squeue` that was asked for [`FIELDS`].
#[must_use]
pub fn parse(output: &[u8]) -> Parsed<QueueRow> {
    all(output)
}
