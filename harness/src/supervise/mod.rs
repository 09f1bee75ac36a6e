//! Decides the actions that follow from each event of an attempt. No I/O and no clock: `now` is an argument.
//!
//! An attempt runs until its program has ended. Then every save is committed, and `verdict` decides what follows. During
//! a stop the program is asked to save, then gets TERM, then KILL, early enough that its save can still be committed.

mod machine;

use std::time::Duration;

pub(crate) use machine::Supervisor;

use crate::os::clock::Time;

/// An event of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEvent {
    /// USR1: from Slurm before the time limit or a preemption, from the sentinel, or from a person.
    Usr1,
    /// A person paused the trial: it must save and wait until it is resumed.
    Pause,
    /// TERM: from a person, or from Slurm, which will send KILL later.
    Term,
    /// Whether the request to save reached a process that catches its signal.
    SaveRequested { is_caught: bool },
    /// Slurm's answer about the job.
    SlurmAnswered(SlurmAnswer),
    /// The program has ended. `signal`: the one that ended it, or a process of it whose exit code it passed on.
    Exited { signal: Option<i32> },
    /// Every save is committed, or could not be.
    Settled,
    /// A checkpoint was committed while the program ran.
    Committed {
        /// When it was written.
        at: Time,
    },
    /// A person asked the attempt to save, stop and run again.
    Preempt,
    /// A person cancelled the trial, and Slurm has not told: it must save and end.
    Cancel,
    /// A later attempt has taken over.
    Superseded,
    /// The trial's folder was removed.
    FolderRemoved,
    /// The program gave no sign of life for too long.
    Hung,
    /// The program has saved and asked to be requeued.
    ProgramRequestedRequeue,
    /// Time has passed.
    Tick,
}

/// Slurm's answer about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlurmAnswer {
    /// No answer in time, or no readable one.
    NoAnswer,
    /// The cause of the stop, if the job is being stopped, and the end of its segment.
    Job { stop: Option<StopCause>, end: Option<Time> },
}

/// Why an attempt is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// The cause is not known yet.
    Unknown,
    Preempted,
    TimeLimit,
    /// The whole experiment's time is over.
    Deadline,
    Cancelled,
    /// Somebody else has requeued the job already.
    Requeued,
    /// A later attempt has taken over.
    Superseded,
    /// The trial's folder was removed.
    FolderRemoved,
    /// The program hangs.
    Hung,
    /// The program asked for a requeue.
    ProgramRequestedRequeue,
    /// A person paused it.
    Paused,
}

impl StopCause {
    /// Whether the trial will continue in another run of its job, unless it is cancelled before.
    pub(crate) fn goes_on(self) -> bool {
        match self {
            Self::Unknown
            | Self::Preempted
            | Self::TimeLimit
            | Self::ProgramRequestedRequeue
            | Self::Paused => true,
            Self::Deadline
            | Self::Cancelled
            | Self::Requeued
            | Self::Superseded
            | Self::FolderRemoved
            | Self::Hung => false,
        }
    }

    /// Whether what stops the attempt leaves the job its node: nobody else wants it back, or ends the job soon.
    pub(crate) fn leaves_node(self) -> bool {
        match self {
            Self::Deadline | Self::Hung | Self::ProgramRequestedRequeue => true,
            Self::Unknown
            | Self::Preempted
            | Self::TimeLimit
            | Self::Cancelled
            | Self::Requeued
            | Self::Superseded
            | Self::Paused
            | Self::FolderRemoved => false,
        }
    }
}

/// An action that the event loop must carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the signal that asks the program to save.
    RequestSave,
    /// Send TERM to all its processes.
    Terminate,
    /// Kill all its processes.
    Kill,
    /// Ask Slurm about the job.
    QuerySlurm,
    /// Kill what is left of the program, and commit its saves.
    Settle,
    /// The attempt is over. Decide what follows.
    Decide,
}

/// The rules of an attempt. They don't change while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// There is no Slurm: TERM cancels, USR1 preempts, and the supervisor enforces time limits.
    pub(crate) local: bool,
    /// How long before the end the program is asked to save.
    pub(crate) lead: Duration,
    /// The time from TERM to KILL.
    pub(crate) kill_wait: Duration,
    /// When the experiment is over.
    pub(crate) experiment_end: Option<Time>,
    /// The program does not end by itself after a requested save.
    pub(crate) trains_on: bool,
    /// The program is never asked to save. A stop waits for its next save as long as it can.
    pub(crate) saves_by_itself: bool,
}
