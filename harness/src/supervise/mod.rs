//! Decides what follows from each event of an attempt. No I/O and no clock: `now` comes in, actions go out.
//!
//! An attempt runs until its program is gone, then everything is committed, and the end is decided elsewhere from
//! what was learned here. While it is being stopped the program is asked to save, then told to end, then killed,
//! early enough that what it saved can still be committed.

mod machine;

use std::time::Duration;

pub(crate) use machine::Supervisor;

use crate::os::clock::Time;

/// What happens to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEvent {
    /// USR1: from Slurm before the time limit or a preemption, from the sentinel, or from a person.
    Usr1,
    /// Somebody wants the trial to save, and to wait until it is resumed.
    Pause,
    /// TERM: from Slurm, a KILL will follow; or from a person.
    Term,
    /// Whether the request to save reached a process that catches its signal.
    SaveRequested { is_caught: bool },
    /// What Slurm says of the job.
    SlurmAnswered(SlurmAnswer),
    /// The program is gone. `killed`: by a signal that might have been Slurm's.
    Exited { killed: bool },
    /// Everything that the program saved is committed, or could not be.
    Settled,
    /// A checkpoint was committed while the program ran.
    Committed {
        /// When it was written.
        at: Time,
    },
    /// Somebody wants the attempt to save, stop and run again.
    Preempt,
    /// A later attempt has taken over.
    Superseded,
    /// The program gave no sign of life for too long.
    Hung,
    /// The program has saved, and asked for the job to be requeued.
    ProgramRequestedRequeue,
    /// Time has passed.
    Tick,
}

/// What Slurm answers about the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlurmAnswer {
    /// Nothing in time, or nothing readable.
    NoAnswer,
    /// The job's state: why it is being stopped, if it is, and when its segment ends.
    Job { stop: Option<StopCause>, end: Option<Time> },
}

/// Why an attempt is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// Nobody could say yet.
    Unknown,
    Preempted,
    TimeLimit,
    /// The whole experiment's time is over.
    Deadline,
    Cancelled,
    /// The job was put back into the queue already, by somebody else.
    Requeued,
    /// A later attempt has taken over.
    Superseded,
    /// The program hangs.
    Hung,
    /// The program asked for a requeue.
    ProgramRequestedRequeue,
    /// Somebody paused it.
    Paused,
}

impl StopCause {
    /// Whether the trial will go on in another run of its job, unless it is cancelled meanwhile.
    pub(crate) fn goes_on(self) -> bool {
        match self {
            Self::Unknown
            | Self::Preempted
            | Self::TimeLimit
            | Self::ProgramRequestedRequeue
            | Self::Paused => true,
            Self::Deadline | Self::Cancelled | Self::Requeued | Self::Superseded | Self::Hung => {
                false
            }
        }
    }
}

/// What the attempt must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the signal that asks the program to save.
    RequestSave,
    /// Send TERM to all its processes.
    Terminate,
    /// Kill all its processes.
    Kill,
    /// Ask Slurm what happens to the job.
    QuerySlurm,
    /// Kill what remains, and commit what the program saved.
    Settle,
    /// The attempt is over: decide what follows.
    Decide,
}

/// What stays the same during an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// No Slurm: TERM cancels, USR1 preempts, and time limits are kept here.
    pub(crate) local: bool,
    /// How long before the end the program is told.
    pub(crate) lead: Duration,
    /// How long after TERM the KILL comes.
    pub(crate) kill_wait: Duration,
    /// When the experiment is over.
    pub(crate) experiment_end: Option<Time>,
    /// The program does not end by itself once it has saved as asked.
    pub(crate) trains_on: bool,
}
