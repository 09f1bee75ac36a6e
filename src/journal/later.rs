//! What of a task was not submitted with the rest: it waits for this machine, or there was no room for it.

use std::collections::HashSet;

use super::arrays::{place, trials};
use super::{Event, generation_of, last_retries, refused_generations};
use crate::experiment::Task;
use crate::plan::{JobArray, Plan};
use crate::slurm::indices::IndexSet;

/// The trials of a task for which Slurm was never asked, or not since they were retried. What it refused was asked for.
#[must_use]
pub fn unplanned(journal: &[Event], task: &Task) -> IndexSet {
    let refused = refused_generations(journal);
    let retries = last_retries(journal, &task.name);
    let is_postponed = |array: &JobArray| {
        journal.iter().any(|event| {
            matches!(event, Event::Postponed { task, array: index, .. } if *task == array.task && *index == array.index)
        })
    };
    let all = trials(journal, task);
    let mut planned: HashSet<u32> = HashSet::new();
    for event in journal {
        let Event::Planned { plan, retry } = event else { continue };
        if retry.is_some() && refused.contains(&plan.generation) {
            continue;
        }
        for trial in plan
            .arrays
            .iter()
            .filter(|it| it.task == task.name && !is_postponed(it))
            .flat_map(|it| it.trials.iter())
        {
            let counts = retries.get(&trial).is_none_or(|it| plan.generation >= it.generation);
            if counts {
                planned.insert(trial);
            }
        }
    }
    all.iter().filter(|trial| !planned.contains(trial)).collect()
}

/// How many trials are worth a try where Slurm had no room for more and nobody tells how much there is: half of what it did not
/// take, twice of what it took since. None where there was room for all.
#[must_use]
pub fn window(journal: &[Event]) -> Option<usize> {
    let mut window: Option<usize> = None;
    for event in journal {
        if let Event::Postponed { trials, reason: Some(_), .. } = event {
            window = Some((trials / 2).max(1));
        } else if let Event::Submitted { token, .. } = event {
            let taken = place(journal, token).map_or(0, |(_, _, trials)| trials.count());
            window = window.map(|window| window.max(taken * 2));
        }
    }
    window
}

/// Whether Slurm had no room for an array that these events asked for, took none of them, and may have room for fewer trials.
#[must_use]
pub fn may_fit_fewer(events: &[Event]) -> bool {
    let is_too_large = |event: &Event| matches!(event, Event::Postponed { trials, reason: Some(_), .. } if *trials > 1);
    let is_taken = |event: &Event| matches!(event, Event::Submitted { .. });
    events.iter().any(is_too_large) && !events.iter().any(is_taken)
}

/// Seconds after the first try for a single trial for which Slurm had no room. It doubles with each that follows.
const FIRST_PAUSE: f64 = 120.0;
const LONGEST_PAUSE: f64 = 3600.0;

/// When Slurm had no room last, and until when nobody asks it again. None while a smaller window may fit.
#[must_use]
pub fn pause(journal: &[Event]) -> Option<(f64, f64)> {
    let (mut n, mut last, mut is_counted) = (0_i32, 0.0, false);
    for event in journal {
        match event {
            // One try for room is one generation, of however many arrays.
            Event::Planned { .. } => is_counted = false,
            Event::Submitted { .. } => n = 0,
            Event::Postponed { trials: ..=1, reason: Some(_), time, .. } => {
                n += i32::from(!is_counted);
                (last, is_counted) = (*time, true);
            }
            _ => {}
        }
    }
    let pause = (FIRST_PAUSE * 2_f64.powi((n - 1).min(16))).min(LONGEST_PAUSE);
    (n > 0).then_some((last, last + pause))
}

/// Slurm's words, if it refused the last generation in which a trial was submitted later than others.
#[must_use]
pub fn later_refusal<'a>(journal: &'a [Event], task: &str, trial: u32) -> Option<&'a str> {
    let is_of = |plan: &Plan| {
        plan.arrays.iter().any(|array| array.task == task && array.trials.contains(trial))
    };
    let last = journal.iter().rev().find_map(|event| match event {
        Event::Planned { plan, retry: None } if is_of(plan) => Some(plan.generation),
        _ => None,
    })?;
    journal.iter().find_map(|event| match event {
        Event::Refused { token, reason, .. } if generation_of(journal, token) == last => {
            Some(reason.as_str())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::id::JobId;

    fn array(index: usize, trials: u32) -> JobArray {
        JobArray {
            task: "train".to_owned(),
            index,
            offset: 0,
            trials: IndexSet::below(trials),
            throttle: None,
            after: Vec::new(),
            held: false,
            outside: Vec::new(),
            behind: Vec::new(),
            after_jobs: Vec::new(),
            wrapped: None,
        }
    }

    #[test]
    fn a_window_shrinks_by_refusals_and_grows_by_what_is_taken() {
        let arrays = vec![array(0, 62), array(1, 31)];
        let plan = Plan { generation: 0, arrays };
        let postponed = Event::Postponed {
            token: "x.train.0".to_owned(),
            task: "train".to_owned(),
            array: 0,
            trials: 62,
            reason: Some("AssocMaxSubmitJobLimit".to_owned()),
            time: 0.0,
        };
        let token = "x.train.1".to_owned();
        let accepted = Event::Submitted { token, slurm_job: JobId(7), time: 0.0 };
        let mut journal = vec![Event::Planned { plan, retry: None }];
        assert_eq!(window(&journal), None);
        journal.push(postponed);
        assert_eq!(window(&journal), Some(31));
        assert!(may_fit_fewer(&journal));
        journal.push(accepted);
        assert_eq!(window(&journal), Some(62));
        assert!(!may_fit_fewer(&journal), "its end submits the others");
        let task = crate::plan::sample_task("train", 62, 0, &[]);
        assert_eq!(unplanned(&journal, &task).to_string(), "31-61", "what was taken is planned");
    }

    #[test]
    fn the_pause_doubles_while_there_is_no_room_for_one() {
        let postponed = |trials, time| Event::Postponed {
            token: "x.train.0".to_owned(),
            task: "train".to_owned(),
            array: 0,
            trials,
            reason: Some("AssocMaxSubmitJobLimit".to_owned()),
            time,
        };
        let planned =
            || Event::Planned { plan: Plan { generation: 0, arrays: Vec::new() }, retry: None };
        let mut journal = vec![planned(), postponed(62, 10.0)];
        assert_eq!(pause(&journal), None, "half of it may fit");
        journal.extend([planned(), postponed(1, 100.0), postponed(1, 100.0)]);
        assert_eq!(pause(&journal), Some((100.0, 220.0)), "one try, whatever its arrays");
        journal.extend([planned(), postponed(1, 300.0)]);
        assert_eq!(pause(&journal), Some((300.0, 540.0)));
        for _ in 0..40 {
            journal.extend([planned(), postponed(1, 1000.0)]);
        }
        assert_eq!(pause(&journal), Some((1000.0, 4600.0)), "an hour at most");
        let token = "x.train.1".to_owned();
        journal.push(Event::Submitted { token, slurm_job: JobId(7), time: 5000.0 });
        assert_eq!(pause(&journal), None);
    }
}
