//! `journal.jsonl`: what was asked of Slurm and what came of it. An intent is durable before its effect.
//!
//! Its one writer is the process that has claimed the experiment: `submit`, or `submit --continue` once that one is gone.

use std::io;
use std::path::Path;

use nemo_core::durable::Appender;
use serde::{Deserialize, Serialize};

use crate::plan::{JobArray, Plan};
use crate::process::ProcessId;
use crate::slurm::id::JobId;
use crate::slurm::indices::IndexSet;
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
    /// What will be asked of Slurm for a generation, so that an interrupted submission goes on with the very same.
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
        /// What is added to an array index to get the trial.
        offset: u32,
        /// The trials that it runs.
        trials: IndexSet,
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
    /// The heads of all chains were released, and with that all of a generation is in.
    Complete {
        /// Which one, from 0.
        generation: u32,
        /// Unix seconds.
        time: f64,
    },
}

/// What the journal knows of one array.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrayRecord {
    /// Nothing was asked.
    Absent,
    /// It was about to be submitted at this time.
    Intended(f64),
    /// Slurm knows it.
    Submitted(JobId),
}

/// Finds what became of an array.
#[must_use]
pub fn entry(journal: &[Event], wanted: &str) -> ArrayRecord {
    let mut entry = ArrayRecord::Absent;
    for event in journal {
        match event {
            Event::Intended { token, time, .. }
                if token == wanted && entry == ArrayRecord::Absent =>
            {
                entry = ArrayRecord::Intended(*time);
            }
            Event::Submitted { token, slurm_job, .. } if token == wanted => {
                return ArrayRecord::Submitted(*slurm_job);
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

/// What is to be asked of Slurm, one plan a generation; nothing on the local executor.
pub fn plans(journal: &[Event]) -> impl DoubleEndedIterator<Item = &Plan> {
    journal.iter().filter_map(|event| match event {
        Event::Planned { plan } => Some(plan),
        _ => None,
    })
}

/// The arrays of all generations, in the order of their submission.
pub fn planned_arrays(journal: &[Event]) -> impl Iterator<Item = &JobArray> {
    plans(journal).flat_map(|plan| &plan.arrays)
}

/// An array that Slurm took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Submitted<'a> {
    /// The name by which it is found.
    pub token: &'a str,
    /// Its job id.
    pub job: JobId,
    /// Its task.
    pub task: &'a str,
    /// What is added to an array index to get the trial.
    pub offset: u32,
    /// The trials that it runs.
    pub trials: &'a IndexSet,
    /// When Slurm took it, in unix seconds.
    pub time: f64,
}

impl Submitted<'_> {
    /// The trial that an array index runs.
    #[must_use]
    pub fn trial_of(&self, index: u32) -> Option<u32> {
        let trial = self.offset.checked_add(index)?;
        self.trials.contains(trial).then_some(trial)
    }
}

/// The arrays that Slurm took, with what they run, in the order of their submission.
#[must_use]
pub fn submitted_arrays(journal: &[Event]) -> Vec<Submitted<'_>> {
    journal.iter().filter_map(|event| submitted_array(journal, event)).collect()
}

fn submitted_array<'a>(journal: &'a [Event], event: &'a Event) -> Option<Submitted<'a>> {
    let Event::Submitted { token, slurm_job, time } = event else { return None };
    let (task, offset, trials) = place(journal, token)?;
    Some(Submitted { token, job: *slurm_job, task, offset, trials, time: *time })
}

/// What an array runs: as it was intended or, where that line is damaged, as it was planned.
fn place<'a>(journal: &'a [Event], wanted: &str) -> Option<(&'a str, u32, &'a IndexSet)> {
    let intended = journal.iter().find_map(|event| match event {
        Event::Intended { token, task, offset, trials, .. } if token == wanted => {
            Some((task.as_str(), *offset, trials))
        }
        _ => None,
    });
    // A task's name may end as another's does.
    let planned = || {
        planned_arrays(journal)
            .filter(|array| wanted.ends_with(&format!(".{}.{}", array.task, array.index)))
            .max_by_key(|array| array.task.len())
    };
    intended.or_else(|| planned().map(|array| (array.task.as_str(), array.offset, &array.trials)))
}

/// The arrays that Slurm took, by token.
#[must_use]
pub fn submitted(journal: &[Event]) -> Vec<(String, JobId)> {
    journal
        .iter()
        .filter_map(|event| match event {
            Event::Submitted { token, slurm_job, .. } => Some((token.clone(), *slurm_job)),
            _ => None,
        })
        .collect()
}

/// When Slurm took the array of a trial, in unix seconds.
#[must_use]
pub fn submitted_at(journal: &[Event], task: &str, trial: u32) -> Option<f64> {
    let arrays = submitted_arrays(journal);
    let of_trial = arrays.iter().find(|array| array.task == task && array.trials.contains(trial));
    of_trial.map(|array| array.time)
}

/// When the submission began, in unix seconds.
#[must_use]
pub fn began(journal: &[Event]) -> Option<f64> {
    journal.iter().find_map(|event| match event {
        Event::Submitter { time, .. } => Some(*time),
        _ => None,
    })
}

/// Whether nothing is left to submit of any generation.
#[must_use]
pub fn is_complete(journal: &[Event]) -> bool {
    let last = plans(journal).map(|plan| plan.generation).max().unwrap_or(0);
    (0..=last).all(|generation| is_generation_complete(journal, generation))
}

/// Whether nothing is left to submit of one.
#[must_use]
pub fn is_generation_complete(journal: &[Event], wanted: u32) -> bool {
    journal
        .iter()
        .any(|event| matches!(event, Event::Complete { generation, .. } if *generation == wanted))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn array(index: usize, offset: u32, trials: &str) -> JobArray {
        JobArray {
            task: "train".to_owned(),
            index,
            offset,
            trials: trials.parse().unwrap(),
            throttle: None,
            after: Vec::new(),
            held: false,
        }
    }

    fn intended(index: usize, offset: u32, trials: &str) -> Event {
        let array = array(index, offset, trials);
        let token = format!("x-1.train.{index}");
        let (task, trials) = (array.task, array.trials);
        Event::Intended { token, task, array: index, offset, trials, time: 0.0 }
    }

    fn submitted(index: usize, job: u32) -> Event {
        let token = format!("x-1.train.{index}");
        Event::Submitted { token, slurm_job: JobId(job), time: f64::from(job) }
    }

    fn planned(generation: u32, arrays: Vec<JobArray>) -> Event {
        Event::Planned { plan: Plan { generation, arrays } }
    }

    #[test]
    fn arrays_of_all_generations_are_known_with_their_trials() {
        let journal = [
            planned(0, vec![array(0, 0, "0-9"), array(1, 10, "10-19")]),
            intended(0, 0, "0-9"),
            submitted(0, 7),
            // The intent of the next one is damaged: what it runs was planned.
            submitted(1, 8),
            Event::Complete { generation: 0, time: 9.0 },
            planned(1, vec![array(2, 10, "13,17")]),
            intended(2, 10, "13,17"),
        ];
        let shown =
            |array: &Submitted<'_>| format!("{} {} {}", array.job, array.offset, array.trials);
        let shown: Vec<String> = submitted_arrays(&journal).iter().map(shown).collect();
        assert_eq!(shown, ["7 0 0-9", "8 10 10-19"]);
        assert_eq!(submitted_arrays(&journal)[1].trial_of(3), Some(13));
        assert_eq!(submitted_arrays(&journal)[1].trial_of(10), None);
        assert_eq!(submitted_at(&journal, "train", 13), Some(8.0));
        assert!(is_generation_complete(&journal, 0) && !is_complete(&journal));
        let complete = [&journal[..], &[Event::Complete { generation: 1, time: 9.0 }]].concat();
        assert!(is_complete(&complete));
    }
}
