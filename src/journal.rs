//! `journal.jsonl`: what was asked of Slurm and what came of it. An intent is durable before its effect.
//!
//! Its one writer is the process that has claimed the experiment: `submit`, or `submit --continue` once that one is gone.

use std::io;
use std::path::Path;

use nemo_core::durable::Appender;
use serde::{Deserialize, Serialize};

use crate::host::ProcessId;
use crate::plan::Plan;
use crate::slurm::id::JobId;
use crate::store::{Claim, ClaimError};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process began to submit, or went on with it.
    Submitter {
        /// Which one.
        #[serde(rename = "by")]
        process: ProcessId,
        /// The version of the program.
        version: String,
        /// Unix seconds.
        time: f64,
    },
    /// What will be asked of Slurm, so that an interrupted submission goes on with the very same.
    Planned {
        /// The arrays in the order of their submission.
        plan: Plan,
    },
    /// An array is about to be submitted: if nothing follows, it may or may not be known to Slurm.
    Intended {
        /// The name by which it is found again.
        token: String,
        /// Its task.
        task: String,
        /// Its place among the arrays of its task.
        array: usize,
        /// The trial of its array task 0.
        offset: u32,
        /// How many trials it runs.
        trials: u32,
        /// Unix seconds.
        time: f64,
    },
    /// Slurm took an array.
    Submitted {
        /// The array's token.
        token: String,
        /// The array's job id.
        slurm_job: JobId,
        /// Unix seconds.
        time: f64,
    },
    /// Slurm refused an array; what was in before is cancelled.
    Refused {
        /// The array's token.
        token: String,
        /// In Slurm's own words.
        reason: String,
        /// Unix seconds.
        time: f64,
    },
    /// The heads of all chains were released, and with that all is in.
    Complete {
        /// Unix seconds.
        time: f64,
    },
}

/// What the journal knows of one array.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Nothing was asked.
    Absent,
    /// It was about to be submitted at this time.
    Intended(f64),
    /// Slurm knows it.
    Submitted(JobId),
}

/// Finds what became of an array.
#[must_use]
pub fn entry(journal: &[Event], wanted: &str) -> Entry {
    let mut entry = Entry::Absent;
    for event in journal {
        match event {
            Event::Intended { token, time, .. } if token == wanted && entry == Entry::Absent => {
                entry = Entry::Intended(*time);
            }
            Event::Submitted { token, slurm_job, .. } if token == wanted => {
                return Entry::Submitted(*slurm_job);
            }
            Event::Submitter { .. }
            | Event::Planned { .. }
            | Event::Intended { .. }
            | Event::Submitted { .. }
            | Event::Refused { .. }
            | Event::Complete { .. } => {}
        }
    }
    entry
}

/// What is to be asked of Slurm; nothing on the local executor.
#[must_use]
pub fn plan(journal: &[Event]) -> Option<&Plan> {
    journal.iter().find_map(|event| match event {
        Event::Planned { plan } => Some(plan),
        _ => None,
    })
}

/// The arrays that Slurm took, by token.
#[must_use]
pub fn submitted(journal: &[Event]) -> Vec<(String, JobId)> {
    let one = |event: &Event| match event {
        Event::Submitted { token, slurm_job, .. } => Some((token.clone(), *slurm_job)),
        _ => None,
    };
    journal.iter().filter_map(one).collect()
}

/// When Slurm took the array of a trial, in unix seconds.
#[must_use]
pub fn submitted_at(journal: &[Event], task: &str, trial: u32) -> Option<f64> {
    let has_trial = |wanted: &str| {
        journal.iter().any(|event| match event {
            Event::Intended { token, task: of, offset, trials, .. } => {
                token == wanted && of == task && (*offset..offset + trials).contains(&trial)
            }
            _ => false,
        })
    };
    journal.iter().find_map(|event| match event {
        Event::Submitted { token, time, .. } if has_trial(token) => Some(*time),
        _ => None,
    })
}

/// When the submission began, in unix seconds.
#[must_use]
pub fn began(journal: &[Event]) -> Option<f64> {
    journal.iter().find_map(|event| match event {
        Event::Submitter { time, .. } => Some(*time),
        _ => None,
    })
}

/// Whether nothing is left to submit.
#[must_use]
pub fn is_complete(journal: &[Event]) -> bool {
    journal.iter().any(|event| matches!(event, Event::Complete { .. }))
}

/// Slurm's words, if it refused a part of the experiment.
#[must_use]
pub fn refusal(journal: &[Event]) -> Option<&str> {
    journal.iter().find_map(|event| match event {
        Event::Refused { reason, .. } => Some(reason.as_str()),
        _ => None,
    })
}

/// The journal, open for its one writer: the process that has claimed the experiment.
#[derive(Debug)]
pub struct Journal<'a> {
    file: Appender,
    events: Vec<Event>,
    claim: &'a Claim,
}

impl<'a> Journal<'a> {
    /// Opens a journal whose events were read since the experiment was claimed.
    pub fn open(path: &Path, events: Vec<Event>, claim: &'a Claim) -> io::Result<Self> {
        Ok(Self { file: Appender::open(path)?, events, claim })
    }

    /// What it holds.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

/// Where the executor writes down what it is about to do.
pub trait Record {
    /// What was recorded before.
    fn events(&self) -> &[Event];
    /// Whether this process may still write here and ask Slurm: another one may have taken the experiment over.
    fn check_claim(&self) -> Result<(), ClaimError>;
    /// Records one event. A crash of the machine may lose it until [`Record::sync`] returns.
    fn record(&mut self, event: Event) -> io::Result<()>;
    /// Makes all that was recorded durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl Record for Journal<'_> {
    fn events(&self) -> &[Event] {
        &self.events
    }
    fn check_claim(&self) -> Result<(), ClaimError> {
        self.claim.check()
    }
    fn record(&mut self, event: Event) -> io::Result<()> {
        self.file.line_unsynced(&event)?;
        self.events.push(event);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}
