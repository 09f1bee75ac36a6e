//! The rows of `sacct`.

use std::sync::Arc;

use nom::Parser;
use nom::character::complete::char;
use nom::sequence::separated_pair;

use super::number::number as digits;
use super::record::{Interner, ParseRow, RecordFields, Rows, all};
use super::time::{UnixTime, point};
use super::{Expected, Parsed, Reading, UnreadLine};
use crate::slurm::id::{JobId, Tasks};
use crate::slurm::state::{JobState, state_and_user};

/// What `sacct --format` is asked for: only what something follows from, and only fields that every version has.
pub const FIELDS: [&str; 7] = ["JobID", "State", "ExitCode", "Submit", "Start", "End", "NodeList"];

/// How a job ended: the `0:9` of Slurm's tables. Not the whole truth: a TIMEOUT has `0:0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlurmExitCode {
    /// What the program returned.
    pub code: u32,
    /// The signal that ended it, or 0.
    pub signal: u32,
}

/// One attempt of a job, or of a task, in the accounting database. A row stays small: there may be a million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// The array's id; for a job that is no array, the job's; for a heterogeneous one, the leader's.
    pub array_job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// The state of this attempt.
    pub state: JobState,
    /// The user who cancelled it.
    pub cancelled_by: Option<u32>,
    /// What the batch script returned.
    pub exit: SlurmExitCode,
    /// When this attempt was submitted.
    pub submit: Option<UnixTime>,
    /// When it started.
    pub start: Option<UnixTime>,
    /// When it ended.
    pub end: Option<UnixTime>,
    /// Its nodes, as a host list; `None assigned` while it waits.
    pub nodes: Arc<str>,
}

/// `0:9`.
#[inline]
pub fn exit_code(input: &[u8]) -> Reading<'_, SlurmExitCode> {
    let pair = separated_pair(digits, char(':'), digits);
    nom::error::context("an exit code", pair.map(|(code, signal)| SlurmExitCode { code, signal }))
        .parse(input)
}

/// A state, which is never empty and always begins with a letter.
#[inline]
pub(super) fn state(field: &[u8]) -> Result<(JobState, Option<u32>), Expected<'_>> {
    if field.first().is_some_and(u8::is_ascii_uppercase) {
        Ok(state_and_user(field))
    } else {
        Err(Expected { at: field, what: "a job state" })
    }
}

impl<'a> ParseRow<'a> for AccountRow {
    fn take(fields: &mut RecordFields<'a>, names: &mut Interner<'a>) -> Result<Self, Expected<'a>> {
        let (array_job, tasks) = fields.shown_id()?;
        let (state, cancelled_by) = state(fields.text()?)?;
        Ok(Self {
            array_job,
            tasks,
            state,
            cancelled_by,
            exit: fields.read(exit_code)?,
            submit: fields.read(point)?,
            start: fields.read(point)?,
            end: fields.read(point)?,
            nodes: names.get(fields.last()?),
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
