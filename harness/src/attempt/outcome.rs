//! What is known of an attempt once its program is gone.

use std::time::Duration;

use crate::attempt::start_error::StartError;
use crate::attempt::verdict::{Exit, ProgramReport};
use crate::os::log::Log;
use crate::rank::multi_rank::FailedRank;
use crate::supervise::StopCause;

/// What is known after the program's end.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct AttemptReport {
    pub(crate) exit: Exit,
    /// Whose end it was, where the program has several processes.
    pub(crate) failed_rank: Option<FailedRank>,
    pub(crate) stop: Option<StopCause>,
    pub(crate) was_notified: bool,
    /// What Slurm said of the stop still holds.
    pub(crate) is_confirmed: bool,
    pub(crate) deadline: Option<Duration>,
    pub(crate) step: Option<u64>,
    /// The newest new checkpoint.
    pub(crate) committed: Option<u64>,
    /// The next attempt has a save to commit that this one had no time for.
    pub(crate) is_taken: bool,
    /// What could not be committed, and why.
    pub(crate) uncommitted: Vec<String>,
    pub(crate) from_program: ProgramReport,
    /// It was killed from here, because it did not end.
    pub(crate) killed: bool,
    pub(crate) notes: AttemptNotes,
    /// What all its saves took, where it told.
    pub(crate) saving: Option<Duration>,
    pub(crate) log: Log,
}

impl AttemptReport {
    /// It never began.
    pub(crate) fn start_error(why: StartError, log: Log) -> Self {
        let exit = match why {
            StartError::Permanent(why) => Exit::StartFailed(why),
            StartError::Node(why) => Exit::NotStarted(why),
        };
        Self::of(exit, log)
    }

    /// Nothing but this is known.
    pub(crate) fn of(exit: Exit, log: Log) -> Self {
        Self {
            exit,
            failed_rank: None,
            stop: None,
            was_notified: false,
            is_confirmed: false,
            deadline: None,
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

    /// One line for people.
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

/// What was noted for the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttemptNotes {
    /// The program gave a sign of work.
    pub(crate) worked: bool,
    /// When the stop began, in unix seconds.
    pub(crate) stopped: Option<f64>,
    pub(crate) wants_requeue: bool,
    /// The policy that forbids another attempt after a crash.
    pub(crate) stop_restarting: Option<String>,
    /// Another attempt must not run here.
    pub(crate) leave_node: bool,
}
