//! Where a trial's time went: every second since its submission is in exactly one part. Pure. `docs/goodput.md` defines the parts.

mod attempts;
mod idle;
mod ledger;
mod resources;
mod spans;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use nemo_core::rundir::requests::RequestedAction;
use nemo_core::rundir::{AttemptRecord, Cause};
use serde::Serialize;

pub use ledger::ledger;
pub use resources::{Resources, Unit, resources, unit};
pub use summary::{
    Account, Goodput, LossSum, Price, TaskGoodput, TrialGoodput, TrialLedger, goodput, json,
};

/// All that a trial's ledger follows from. Times are unix seconds.
#[derive(Clone, Debug)]
pub struct Life<'a> {
    /// `attempts.jsonl`.
    pub records: &'a [AttemptRecord],
    /// When it was submitted.
    pub submitted: f64,
    /// When all that it waits for was over; at once where that is before its submission.
    pub eligible: f64,
    /// What was requested of it and when, oldest first.
    pub requests: Vec<(RequestedAction, f64)>,
    /// When each attempt whose end nobody saw was last heard of.
    pub signs: BTreeMap<u32, f64>,
    /// Where it stands.
    pub standing: LedgerState,
    /// The time of looking.
    pub now: f64,
}

/// Where a trial stands, as far as its ledger depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// It completed: all that was not done again counted.
    Completed,
    /// It is over without having completed: only what was saved counted.
    GivenUp,
    /// It runs, as far as anybody knows.
    Running,
    /// It will run, or run again.
    Queued,
    /// Somebody paused it.
    Paused,
}

/// A length of time in microseconds, never negative. So wide that no sum of trials is beyond it.
pub type Micros = i128;

/// The parts of a trial's time. They sum to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeParts {
    /// Was not to run: its parents were not over, it was paused, or it was over until somebody retried it.
    pub waiting: Micros,
    /// In the scheduler's queue, at first or again.
    pub queued: Micros,
    /// From the first attempt's beginning until the program worked.
    pub starting: Micros,
    /// Work that counted.
    pub productive: Micros,
    /// The program saved.
    pub saving: Micros,
    /// Work that was lost.
    pub repeated: Micros,
    /// From a later attempt's beginning until the program worked, and between two attempts of one job.
    pub restarting: Micros,
    /// The program gave no sign of life.
    pub hung: Micros,
}

impl TimeParts {
    /// From the submission to the end, or to now.
    #[must_use]
    pub fn whole(&self) -> Micros {
        self.waiting + self.queued + self.held()
    }

    /// The time in which it had its nodes.
    #[must_use]
    pub fn held(&self) -> Micros {
        self.productive + self.lost()
    }

    /// The part of that which did not count.
    #[must_use]
    pub fn lost(&self) -> Micros {
        self.starting + self.saving + self.repeated + self.restarting + self.hung
    }

    /// The time in which it was to run: what the effective training time ratio is of.
    #[must_use]
    pub fn available(&self) -> Micros {
        self.queued + self.held()
    }
}

impl std::ops::AddAssign for TimeParts {
    fn add_assign(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.queued += other.queued;
        self.starting += other.starting;
        self.productive += other.productive;
        self.saving += other.saving;
        self.repeated += other.repeated;
        self.restarting += other.restarting;
        self.hung += other.hung;
    }
}

/// What time was lost to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as the causes of an attempt's end")]
pub enum LossReason {
    Preempted,
    TimeLimit,
    Crash,
    NodeFailure,
    Hang,
    OutOfMemory,
    Cancelled,
    Paused,
    /// The program asked to be started again.
    Asked,
    Superseded,
    /// Nobody wrote why.
    Silent,
    /// The first start, and the queue before it.
    Starting,
    /// Saves.
    Saving,
}

impl LossReason {
    fn of(cause: Option<Cause>) -> Self {
        match cause {
            Some(Cause::Preempted) => Self::Preempted,
            Some(Cause::TimeLimit) => Self::TimeLimit,
            Some(Cause::Failed) => Self::Crash,
            Some(Cause::NodeFailure | Cause::StartFailed) => Self::NodeFailure,
            Some(Cause::Hung) => Self::Hang,
            Some(Cause::OutOfMemory) => Self::OutOfMemory,
            Some(Cause::Cancelled) => Self::Cancelled,
            Some(Cause::Paused) => Self::Paused,
            Some(Cause::Restart | Cause::Completed) => Self::Asked,
            Some(Cause::Superseded) => Self::Superseded,
            None => Self::Silent,
        }
    }

    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preempted => "preempted",
            Self::TimeLimit => "time limit",
            Self::Crash => "crash",
            Self::NodeFailure => "node failure",
            Self::Hang => "hang",
            Self::OutOfMemory => "out of memory",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Asked => "asked to restart",
            Self::Superseded => "superseded",
            Self::Silent => "no end recorded",
            Self::Starting => "first start",
            Self::Saving => "saving",
        }
    }
}

/// What one reason cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// How often.
    pub times: u32,
    /// Time that did not count, while the trial had its nodes.
    pub held: Micros,
    /// Time in the queue because of it.
    pub queued: Micros,
}

/// Losses by reason. Their `held` sum to [`TimeParts::lost`], their `queued` to [`TimeParts::queued`].
pub type Losses = BTreeMap<LossReason, Loss>;

/// Where one trial's time went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The parts.
    pub parts: TimeParts,
    /// Of the productive part, what is not saved yet.
    pub at_risk: Micros,
    /// Of the productive part, what lies before the first checkpoint of a program that told nothing until then: how much of
    /// it was its start, nobody knows.
    pub unknown_start: Micros,
    /// What the rest was lost to.
    pub losses: Losses,
    /// When it ended, in unix seconds; none while it is not over.
    pub end: Option<f64>,
}
