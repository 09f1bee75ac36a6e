//! The lines of `scontrol -o show job`.

use nemo_core::show_job::{Fields, records};

use super::account::{SlurmExitCode, exit_code};
use super::id::whole;
use super::time::{Limit, UnixTime, limit, point};
use super::{ParseError, Parsed, UnreadLine, excerpt};
use crate::slurm::id::{JobId, Tasks};
use crate::slurm::state::JobState;

/// A job as the controller knows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobDetail {
    /// The raw id.
    pub job: JobId,
    /// The array's id; for a job that is no array, the job's.
    pub array_job: JobId,
    /// Which part of it.
    pub tasks: Tasks,
    /// The state.
    pub state: JobState,
    /// Why it waits or ended.
    pub reason: String,
    /// How many times it was requeued.
    pub restarts: u32,
    /// Whether it may be requeued.
    pub requeue: bool,
    /// What the batch script returned.
    pub exit: SlurmExitCode,
    /// Its time limit.
    pub time_limit: Limit,
    /// When this attempt was submitted.
    pub submit: Option<UnixTime>,
    /// When it started, or is expected to.
    pub start: Option<UnixTime>,
    /// When it ended, or has to.
    pub end: Option<UnixTime>,
    /// When its preemption began.
    pub preempted: Option<UnixTime>,
    /// Its partition.
    pub partition: String,
    /// Its nodes, as a host list; empty while it waits.
    pub nodes: String,
}

/// What Slurm prints of an array of which no waiting task is left: its "no value".
const NO_TASK: &str = "4294967294";

fn time(fields: &Fields<'_>, key: &str) -> Result<Option<UnixTime>, ParseError> {
    fields.get(key).map_or(Ok(None), |text| whole(point, text.as_bytes()))
}

fn job(line: &str) -> Option<JobDetail> {
    let fields = Fields::new(line)?;
    let job: JobId = fields.get("JobId")?.parse().ok()?;
    let array = fields.get("ArrayJobId").map(str::parse).transpose().ok()?;
    let component = fields.get("HetJobOffset").and_then(|offset| offset.parse().ok());
    let leader = fields.get("HetJobId").map(str::parse).transpose().ok()?;
    let index = fields.get("ArrayTaskId").filter(|text| *text != NO_TASK);
    let index = index.map(|text| format!("0_[{text}]"));
    let tasks = match (&index, component) {
        (Some(text), _) => text.parse::<crate::slurm::id::ShownId>().ok()?.tasks,
        (None, Some(offset)) => Tasks::Component(offset),
        (None, None) => Tasks::NotAnArray,
    };
    Some(JobDetail {
        job,
        array_job: array.or(leader).unwrap_or(job),
        tasks: single(tasks),
        state: fields.get("JobState").map(|word| JobState::from_word(word.as_bytes()))?,
        reason: fields.get("Reason").unwrap_or("None").to_owned(),
        restarts: fields.get("Restarts")?.parse().ok()?,
        requeue: fields.get("Requeue") == Some("1"),
        exit: whole(exit_code, fields.get("ExitCode")?.as_bytes()).ok()?,
        time_limit: whole(limit, fields.get("TimeLimit")?.as_bytes()).ok()?,
        submit: time(&fields, "SubmitTime").ok()?,
        start: time(&fields, "StartTime").ok()?,
        end: time(&fields, "EndTime").ok()?,
        preempted: time(&fields, "PreemptTime").ok()?,
        partition: fields.get("Partition").unwrap_or_default().to_owned(),
        nodes: fields.get("NodeList").unwrap_or_default().to_owned(),
    })
}

/// A set of one index is one task: `ArrayTaskId` has no brackets that would tell them apart.
fn single(tasks: Tasks) -> Tasks {
    match &tasks {
        Tasks::Set(set) if !set.cut_short && set.limit.is_none() && set.indices.count() == 1 => {
            set.indices.iter().next().map_or(Tasks::NotAnArray, Tasks::One)
        }
        Tasks::Set(_) | Tasks::One(_) | Tasks::NotAnArray | Tasks::Component(_) => tasks,
    }
}

/// Reads every job. A line that begins none goes on with the one before: names and comments hold line breaks.
#[must_use]
pub fn parse(output: &[u8]) -> Parsed<JobDetail> {
    let text = String::from_utf8_lossy(output);
    let records = records(&text);
    let read = records.iter().map(|(line, record)| {
        let text = || excerpt(record.as_bytes());
        job(record).ok_or_else(|| UnreadLine { line: *line, what: "a job", text: text() })
    });
    read.collect()
}
