//! The facts of an attempt after its program has ended.

use std::time::Duration;

use crate::attempt::start_error::StartError;
use crate::attempt::verdict::{Exit, ProgramReport};
use crate::os::log::Log;
use crate::rank::failed_rank::FailedRank;
use crate::supervise::StopCause;

/// The facts after the program's end.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct AttemptReport {
    pub(crate) exit: Exit,
    /// The rank that decided the end, if the program has several.
    pub(crate) failed_rank: Option<FailedRank>,
    pub(crate) stop: Option<StopCause>,
    pub(crate) was_notified: bool,
    /// Slurm's answer about the stop came after every other event.
    pub(crate) is_confirmed: bool,
    pub(crate) deadline: Option<Duration>,
    /// A person asked for the stop.
    pub(crate) is_by_hand: bool,
    pub(crate) step: Option<u64>,
    /// The newest checkpoint that this attempt committed.
    pub(crate) committed: Option<u64>,
    /// A save is secured for the next attempt, since there was no time to commit it.
    pub(crate) is_taken: bool,
    /// The saves that could not be committed, and why.
    pub(crate) uncommitted: Vec<String>,
    pub(crate) from_program: ProgramReport,
    /// The harness killed the program because it did not end.
    pub(crate) killed: bool,
    pub(crate) notes: AttemptNotes,
    /// The time of all saves, if the program reported it.
    pub(crate) saving: Option<Duration>,
    pub(crate) log: Log,
}

impl AttemptReport {
    /// The report of an attempt that could not start.
    pub(crate) fn start_error(why: StartError, log: Log) -> Self {
        Self::of(why.into(), log)
    }

    /// A report of which only the exit is known.
    pub(crate) fn of(exit: Exit, log: Log) -> Self {
        Self {
            exit,
            failed_rank: None,
            stop: None,
            was_notified: false,
            is_confirmed: false,
            deadline: None,
            is_by_hand: false,
            step: None,
            committed: None,
            is_taken: false,
            uncommitted: Vec::new(),
            from_program: ProgramReport::default(),
            killed: false,
            notes: AttemptNotes::default(),
            saving: None,
            log,
        }
    }

    /// A one-line summary for people.
    pub(crate) fn summary(&self, seconds: f64, last: Option<String>) -> String {
        let who = self.failed_rank.as_ref().filter(|_| self.exit != Exit::Code(0));
        let name = who.map_or("the program".to_owned(), FailedRank::to_string);
        let mut story = match &self.exit {
            Exit::Code(_) | Exit::Signal(_) => format!("{name} {} after {seconds:.0} s", self.exit),
            Exit::NotStarted(_) => format!("{name} {}", self.exit),
            Exit::StartFailed(reason) => {
                who.map_or(reason.clone(), |_| format!("{name}: {reason}"))
            }
        };
        if let Some(who) = who.filter(|who| !who.others.is_empty()) {
            story = format!("{story} ({})", who.others);
        }
        let failed = !matches!(
            self.exit,
            Exit::Code(0 | 75 | 85) | Exit::StartFailed(_) | Exit::NotStarted(_)
        );
        if let Some(last) = last.filter(|_| failed) {
            story = format!("{story}; last line of its error output: `{last}`");
        }
        for refused in &self.uncommitted {
            story = format!("{story}; {refused}");
        }
        story
    }
}

/// Notes of the event loop that matter at the end.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct AttemptNotes {
    /// The program showed that it works.
    pub(crate) worked: bool,
    /// When the stop began, in unix seconds.
    pub(crate) stopped: Option<f64>,
    pub(crate) wants_requeue: bool,
    /// The step after which the program went on by itself.
    pub(crate) went_on: Option<u64>,
    /// The policy that forbids another attempt after a crash.
    pub(crate) stop_restarting: Option<String>,
    /// Another attempt must not run on this node.
    pub(crate) leave_node: bool,
    /// The program saved to memory, where its checkpoints may have had no room.
    pub(crate) had_no_room: bool,
}
