//! The generations of an experiment: which there are, what was retried with them, and whether they are submitted.

use std::collections::{BTreeMap, BTreeSet};

use super::arrays::is_token_of;
use super::{Changed, Event, plans};

/// The last retry of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRetry<'a> {
    /// The generation that it began.
    pub generation: u32,
    /// The number of its first attempt there.
    pub from_attempt: u32,
    /// What it has changed.
    pub changed: Option<&'a Changed>,
}

/// The last retry of each trial of a task that was retried. One that Slurm refused never was.
#[must_use]
pub fn last_retries<'a>(journal: &'a [Event], task: &str) -> BTreeMap<u32, LastRetry<'a>> {
    let refused = refused_generations(journal);
    let mut last = BTreeMap::new();
    for event in journal {
        let Event::Planned { plan, retry: Some(retry) } = event else { continue };
        let generation = plan.generation;
        let groups = retry.trials.get(task).filter(|_| !refused.contains(&generation));
        for group in groups.into_iter().flatten() {
            let from_attempt = group.from_attempt;
            let changed = group.changed.as_ref();
            let one = |trial| (trial, LastRetry { generation, from_attempt, changed });
            last.extend(group.trials.iter().map(one));
        }
    }
    last
}

/// The generation that was planned last, from 0.
#[must_use]
pub fn last_generation(journal: &[Event]) -> u32 {
    plans(journal).map(|plan| plan.generation).max().unwrap_or(0)
}

/// The generations after the first of which Slurm refused a part: nothing of them runs, and what was before holds.
#[must_use]
pub fn refused_generations(journal: &[Event]) -> BTreeSet<u32> {
    let refused = journal.iter().filter_map(|event| match event {
        Event::Refused { token, .. } => Some(generation_of(journal, token)),
        _ => None,
    });
    refused.filter(|generation| *generation > 0).collect()
}

/// The generation of an array; the first where that is not known.
#[must_use]
pub fn generation_of(journal: &[Event], token: &str) -> u32 {
    let arrays = plans(journal)
        .flat_map(|plan| plan.arrays.iter().map(|array| (plan.generation, array)))
        .filter(|(_, array)| is_token_of(token, array));
    // A task's name may end as another's does.
    arrays.max_by_key(|(_, array)| array.task.len()).map_or(0, |(generation, _)| generation)
}

/// Whether nothing is left to submit of any generation.
#[must_use]
pub fn is_complete(journal: &[Event]) -> bool {
    let refused = refused_generations(journal);
    (0..=last_generation(journal)).all(|generation| {
        refused.contains(&generation) || is_generation_complete(journal, generation)
    })
}

/// Whether nothing is left to submit of one.
#[must_use]
pub fn is_generation_complete(journal: &[Event], wanted: u32) -> bool {
    journal
        .iter()
        .any(|event| matches!(event, Event::Complete { generation, .. } if *generation == wanted))
}

/// Slurm's words, if it refused a part of the first submission.
#[must_use]
pub fn refusal(journal: &[Event]) -> Option<&str> {
    journal.iter().find_map(|event| match event {
        Event::Refused { token, reason, .. } if generation_of(journal, token) == 0 => {
            Some(reason.as_str())
        }
        _ => None,
    })
}
