//! The tasks of the experiment that another executor runs, as the runner sees them: it waits for them, and sees to it that
//! what waits for this machine is submitted there.

use std::time::{Duration, Instant};

use super::Runner;
use crate::executor::local::schedule::LocalPhase;
use crate::status::{State, Status, TrialStatus};

/// The shortest and the longest time between two looks.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the runner needs to know of other executors.
pub trait OtherTasks {
    /// Looks where all tasks stand, and has submitted what may run now. Says whether something is left that this machine
    /// must see to. An error is what to say of an executor that gives no answer.
    fn look(&mut self) -> Result<(Status, bool), String>;
}

/// When they are looked at.
pub(super) struct Elsewhere<'a> {
    others: &'a mut dyn OtherTasks,
    pause: Duration,
    next: Instant,
    is_anything_left: bool,
}

impl<'a> Elsewhere<'a> {
    pub(super) fn new(others: &'a mut dyn OtherTasks) -> Self {
        Self { others, pause: FIRST_PAUSE, next: Instant::now(), is_anything_left: true }
    }
}

impl Runner<'_> {
    /// Looks at the other tasks, less and less often while nothing comes of it.
    pub(super) fn look_elsewhere(&mut self) {
        let Some(elsewhere) = &mut self.elsewhere else { return };
        if Instant::now() < elsewhere.next {
            return;
        }
        let seen = elsewhere.others.look();
        elsewhere.next = Instant::now() + elsewhere.pause;
        elsewhere.pause = (elsewhere.pause * 3 / 2).min(LONGEST_PAUSE);
        match seen {
            Ok((status, is_anything_left)) => {
                elsewhere.is_anything_left = is_anything_left;
                self.take_over_phases(&status);
            }
            Err(error) => self.warn_once(&error),
        }
    }

    fn take_over_phases(&mut self, status: &Status) {
        let mut reopened = Vec::new();
        for (place, task) in self.tasks.iter_mut().enumerate() {
            let Some(seen) = status.tasks.iter().find(|seen| seen.name == task.task.name) else {
                continue;
            };
            if task.is_elsewhere {
                task.phases = seen.trials.iter().map(phase).collect();
            } else {
                for (index, (phase, trial)) in task.phases.iter_mut().zip(&seen.trials).enumerate()
                {
                    let before = std::mem::replace(phase, with_outside(*phase, trial));
                    if before == LocalPhase::BlockedOutside && *phase != before {
                        reopened.push((place, index));
                    }
                }
            }
        }
        // It may have been paused before, and may start at once.
        for place in reopened {
            self.apply_pause_or_later(place);
        }
    }

    /// Looks at once: what ended here may be waited for there.
    pub(super) fn hasten_look(&mut self) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.next = Instant::now();
            elsewhere.pause = FIRST_PAUSE;
            elsewhere.is_anything_left = true;
        }
    }

    /// What was known may be from before a retry.
    pub(super) fn forget_elsewhere(&mut self) {
        for task in self.tasks.iter_mut().filter(|task| task.is_elsewhere) {
            task.phases.fill(LocalPhase::Running);
        }
        self.hasten_look();
    }

    pub(super) fn is_nothing_left_elsewhere(&self) -> bool {
        self.elsewhere.as_ref().is_none_or(|elsewhere| !elsewhere.is_anything_left)
    }
}

/// A trial of this machine is blocked before the runner says so only if another experiment blocks it, for as long as that does.
fn with_outside(phase: LocalPhase, trial: &TrialStatus) -> LocalPhase {
    use LocalPhase::{BlockedOutside, Completed, Dropped, Lost, Paused, Running, Waiting};
    let is_blocked = trial.state == State::Blocked && trial.is_final();
    match phase {
        Waiting | Paused if is_blocked => BlockedOutside,
        BlockedOutside if !trial.is_final() => Waiting,
        Waiting | Running | Paused | Completed | Lost | Dropped | BlockedOutside => phase,
    }
}

/// Where a trial stands for those that wait for it: over only if that is for good.
fn phase(trial: &TrialStatus) -> LocalPhase {
    match trial.state {
        _ if !trial.is_final() || trial.is_brought_back() => LocalPhase::Running,
        State::Completed => LocalPhase::Completed,
        State::Blocked => LocalPhase::Dropped,
        State::Failed | State::Timeout | State::Cancelled => LocalPhase::Lost,
        State::Running | State::Pending | State::Preempted | State::Paused | State::Unknown => {
            LocalPhase::Running
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Certainty, sample_trial};

    #[test]
    fn another_experiment_ends_what_waits_or_is_paused_till_it_is_retried() {
        use LocalPhase::{BlockedOutside, Lost, Paused, Running, Waiting};
        let blocked =
            TrialStatus { certainty: Certainty::Final, ..sample_trial(0, State::Blocked) };
        let check = |phase, expected| assert_eq!(with_outside(phase, &blocked), expected);
        check(Waiting, BlockedOutside);
        check(Paused, BlockedOutside);
        check(BlockedOutside, BlockedOutside);
        check(Running, Running);
        check(Lost, Lost);
        let open = sample_trial(0, State::Pending);
        assert_eq!(with_outside(BlockedOutside, &open), Waiting);
        assert_eq!(with_outside(Paused, &open), Paused);
    }
}
