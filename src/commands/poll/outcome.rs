//! What was done about a trial, in a word and in a sentence.

use serde::Serialize;

/// What was done about a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PollResult {
    /// The job was put back into the queue.
    Requeued,
    /// Slurm held it, since it could not start it, and holds it no more.
    Released,
    /// Slurm had cancelled it for what it waits for, and it waits again.
    PutBack,
    /// Slurm had forgotten its job, and has another one.
    Resubmitted,
    /// Slurm no longer knows its job: it is submitted again if it says the same later.
    Unconfirmed,
    /// Slurm had forgotten its job, and what it waits for outside can't be waited for.
    NotSubmitted,
    /// It had to wait for this machine or for room, and has its job now.
    Submitted,
    /// It had failed, and the file says to retry it.
    Retried,
    /// It waited when the experiment's time was over, and does not start any more.
    TimedOut,
    /// What its executor's trials may use up is spent: it is told to save and to wait.
    Paused,
    /// It is there already.
    Queued,
    /// It still runs: Slurm may yet do it by itself.
    Running,
    /// The trial is over.
    Over,
    /// Slurm no longer knows the job.
    Forgotten,
    /// Slurm refuses.
    Refused,
    /// It was started too often in vain.
    GivenUp,
}

impl PollResult {
    pub(super) fn is_well(self) -> bool {
        match self {
            Self::Requeued
            | Self::Released
            | Self::PutBack
            | Self::Resubmitted
            | Self::Unconfirmed
            | Self::Submitted
            | Self::Retried
            | Self::TimedOut
            | Self::Paused
            | Self::Queued
            | Self::Running
            | Self::Over => true,
            Self::NotSubmitted | Self::Forgotten | Self::Refused | Self::GivenUp => false,
        }
    }

    /// Whether the trial's mark has served its purpose.
    pub(super) fn ends_mark(self) -> bool {
        match self {
            Self::Requeued | Self::Queued | Self::Over => true,
            Self::Released
            | Self::PutBack
            | Self::Resubmitted
            | Self::Unconfirmed
            | Self::NotSubmitted
            | Self::Submitted
            | Self::Retried
            | Self::TimedOut
            | Self::Paused
            | Self::Running
            | Self::Forgotten
            | Self::Refused
            | Self::GivenUp => false,
        }
    }

    /// What would be done about a job, for people.
    pub(super) fn dry_run(self, job: &str, why: Option<&str>) -> String {
        match self {
            Self::Requeued => format!("job {job} would be requeued"),
            Self::Released => format!("job {job} would be released"),
            Self::PutBack => format!(
                "job {job} would be put back into the queue; Slurm had cancelled it because of its dependency"
            ),
            Self::Resubmitted => "would be submitted again; Slurm has forgotten its job".to_owned(),
            Self::Submitted => "would be submitted".to_owned(),
            Self::TimedOut => {
                "waited when the `timeout` of the experiment was over, and would be ended"
                    .to_owned()
            }
            Self::Paused => format!("would be paused: {}", why.unwrap_or("its budget is spent")),
            Self::Retried => format!("would be retried; {}", why.unwrap_or("it failed")),
            Self::NotSubmitted
            | Self::Unconfirmed
            | Self::GivenUp
            | Self::Queued
            | Self::Running
            | Self::Over
            | Self::Forgotten
            | Self::Refused => self.sentence(job, why),
        }
    }

    /// The same about a job, for people.
    pub(super) fn sentence(self, job: &str, why: Option<&str>) -> String {
        match self {
            Self::Requeued => format!("job {job} was requeued"),
            Self::Released => format!("job {job} was released"),
            Self::PutBack => format!(
                "job {job} is back in the queue; Slurm had cancelled it because of its dependency"
            ),
            Self::Resubmitted => {
                format!("is submitted again as job {job}; Slurm had forgotten the one before")
            }
            Self::Unconfirmed => format!(
                "Slurm no longer knows job {job}. If it says the same in 5 minutes, `nemo-slurm poll` submits the trial again"
            ),
            Self::NotSubmitted => format!(
                "Slurm has forgotten job {job}, and it is not submitted again: {}",
                why.unwrap_or("what it waits for is not known")
            ),
            Self::Submitted => format!("is submitted as job {job}"),
            Self::TimedOut => {
                "waited when the `timeout` of the experiment was over, and is ended".to_owned()
            }
            Self::Paused => format!("is paused: {}", why.unwrap_or("its budget is spent")),
            Self::Retried => format!("is retried; {}", why.unwrap_or("it failed")),
            Self::GivenUp => format!(
                "job {job} failed to start too often; look at Slurm's own output: `nemo-slurm logs --slurm`"
            ),
            Self::Queued => format!("job {job} is in the queue already"),
            Self::Running => format!("job {job} is still running; run this again later"),
            Self::Over => format!("job {job} has ended and is not requeued"),
            Self::Forgotten => format!(
                "Slurm no longer knows job {job}; the checkpoints are kept, but only a new `nemo-slurm submit` can run the trial"
            ),
            Self::Refused => {
                format!(
                    "Slurm refused to requeue job {job}: {}",
                    why.unwrap_or("it gave no reason")
                )
            }
        }
    }
}
