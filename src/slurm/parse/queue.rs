//! The rows of `squeue`.

use std::sync::Arc;

use super::number::number as digits;
pub use super::record::DELIMITER;
use super::record::{Interner, ParseRow, RecordFields, Rows, all, exactly};
use super::{Expected, Parsed, UnreadLine, id, time};
use crate::slurm::id::{JobId, ShownId, Tasks};
use crate::slurm::state::JobState;

/// What `squeue --Format` is asked for. The field that can hold free text stands last.
pub const FIELDS: [&str; 10] = [
    "JobArrayID",
    "JobID",
    "State",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "RestartCnt",
    "PreemptTime",
    "NodeList",
    "Reason",
];

/// One row of `squeue`: a job, a task, or all the tasks of an array that wait for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRow {
    /// The array's id; for a job that is no array, the job's; for a heterogeneous one, the leader's.
    pub array_job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// The raw id, which every started task has of its own.
    pub job: JobId,
    /// The state.
    pub state: JobState,
    /// Why it waits or ended, in Slurm's word; `None` if there is nothing to say.
    pub reason: Arc<str>,
    /// When this attempt was submitted, in epoch seconds.
    pub submit: Option<i64>,
    /// When it started, or is expected to.
    pub start: Option<i64>,
    /// When it ended, or has to.
    pub end: Option<i64>,
    /// How many times it was requeued.
    pub restarts: Option<u32>,
    /// When its preemption began.
    pub preempted: Option<i64>,
    /// Its nodes, as a host list; empty while it waits.
    pub nodes: Arc<str>,
}

impl<'a> ParseRow<'a> for QueueRow {
    fn take(fields: &mut RecordFields<'a>, names: &mut Interner<'a>) -> Result<Self, Expected<'a>> {
        let ShownId { job: array_job, tasks, .. } = exactly(id::shown, fields.text()?)?;
        Ok(Self {
            array_job,
            tasks,
            job: fields.read(id::job)?,
            state: super::account::state(fields.text()?)?.0,
            submit: fields.read(time::point)?,
            start: fields.read(time::point)?,
            end: fields.read(time::point)?,
            restarts: exactly(digits, fields.text()?).ok(),
            preempted: fields.read(time::point)?,
            nodes: names.get(fields.text()?),
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
