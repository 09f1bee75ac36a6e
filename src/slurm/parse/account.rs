//! The rows of `sacct`.

use std::sync::Arc;

use nom::Parser;
use nom::character::complete::char;
use nom::sequence::separated_pair;

use super::number::number as digits;
use super::record::{Interner, ParseRow, RecordFields, Rows, all, exactly};
use super::{Expected, Parsed, Reading, UnreadLine, id, time};
use crate::slurm::id::{JobId, ShownId, Tasks};
use crate::slurm::state::{JobState, state_and_user};

/// What `sacct --format` is asked for: only fields that every version has, the free text last.
pub const FIELDS: [&str; 9] =
    ["JobID", "JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "NodeList", "Reason"];

/// How a job ended: the `0:9` of Slurm's tables. Not the whole truth: a TIMEOUT has `0:0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlurmExitCode {
    /// What the program returned.
    pub code: u32,
    /// The signal that ended it, or 0.
    pub signal: u32,
}

/// One attempt of a job, or of a task, in the accounting database. Its key is (`job`, `submit`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// The array's id; for a job that is no array, the job's; for a heterogeneous one, the leader's.
    pub array_job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// The raw id, which every started task has of its own.
    pub job: JobId,
    /// The state of this attempt.
    pub state: JobState,
    /// Who cancelled it.
    pub cancelled_by: Option<u32>,
    /// What the batch script returned.
    pub exit: SlurmExitCode,
    /// When this attempt was submitted, in epoch seconds.
    pub submit: Option<i64>,
    /// When it started.
    pub start: Option<i64>,
    /// When it ended.
    pub end: Option<i64>,
    /// Its nodes, as a host list; `None assigned` while it waits.
    pub nodes: Arc<str>,
    /// Why it waits or waited, in Slurm's word.
    pub reason: Arc<str>,
}

/// `0:9`.
pub fn exit_code(input: &[u8]) -> Reading<'_, SlurmExitCode> {
    let pair = separated_pair(digits, char(':'), digits);
    nom::error::context("an exit code", pair.map(|(code, signal)| SlurmExitCode { code, signal }))
        .parse(input)
}

/// A state, which is never empty and always begins with a letter.
pub(super) fn state(field: &[u8]) -> Result<(JobState, Option<u32>), Expected<'_>> {
    if field.first().is_some_and(u8::is_ascii_uppercase) {
        Ok(state_and_user(field))
    } else {
        Err(Expected { at: field, what: "a job state" })
    }
}

impl<'a> ParseRow<'a> for AccountRow {
    fn take(fields: &mut RecordFields<'a>, names: &mut Interner<'a>) -> Result<Self, Expected<'a>> {
        let ShownId { job: array_job, tasks, .. } = exactly(id::shown, fields.text()?)?;
        let job = fields.read(id::job)?;
        let (state, cancelled_by) = state(fields.text()?)?;
        Ok(Self {
            array_job,
            tasks,
            job,
            state,
            cancelled_by,
            exit: fields.read(exit_code)?,
            submit: fields.read(time::point)?,
            start: fields.read(time::point)?,
            end: fields.read(time::point)?,
            nodes: names.get(fields.text()?),
            reason: names.get(fields.last()?),
        })
    }
}

/// Reads rows one by one.
pub fn rows(output: &[u8]) -> impl Iterator<Item = Result<AccountRow, UnreadLine>> {
    Rows::<AccountRow>::new(output)
}

/// Reads the whole output of a `sacct` that was asked for [`FIELDS`].
#[must_use]
pub fn parse(output: &[u8]) -> Parsed<AccountRow> {
    all(output)
}
