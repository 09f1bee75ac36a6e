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
            Err(error) => self.complain(&error),
        }
    }

    fn take_over_phases(&mut self, status: &Status) {
        for task in &mut self.tasks {
            let Some(seen) = status.tasks.iter().find(|seen| seen.name == task.task.name) else {
                continue;
            };
            if task.is_elsewhere {
                task.phases = seen.trials.iter().map(phase).collect();
            } else {
                let own = task.phases.iter_mut().zip(&seen.trials);
                own.for_each(|(phase, trial)| set_blocked_outside(phase, trial));
            }
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
fn set_blocked_outside(phase: &mut LocalPhase, trial: &TrialStatus) {
    let is_blocked = trial.state == State::Blocked && trial.is_final();
    match phase {
        LocalPhase::Waiting if is_blocked => *phase = LocalPhase::BlockedOutside,
        LocalPhase::BlockedOutside if !is_blocked => *phase = LocalPhase::Waiting,
        LocalPhase::Waiting
        | LocalPhase::Running
        | LocalPhase::Paused
        | LocalPhase::Completed
        | LocalPhase::Lost
        | LocalPhase::Dropped
        | LocalPhase::BlockedOutside => {}
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
