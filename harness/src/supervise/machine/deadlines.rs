//! What a supervisor does because time has passed: limits that are near, and the escalation of a stop.

use std::time::Duration;

use nemo_core::stop_times::{kill_before_deadline, term_before_deadline};

use super::{Action, AttemptPhase, RETRY, SaveRequest, Stop, StopCause, Supervisor};
use crate::os::clock::Time;

/// The time from TERM to KILL after a requested requeue or a hang.
const KILL_SOON: Duration = Duration::from_secs(5);
/// How long the supervisor waits for a process that can't be killed because the kernel holds it.
const UNKILLABLE: Duration = Duration::from_mins(1);

impl Supervisor {
    pub(super) fn limit_at(&self) -> Option<Time> {
        let at = self.segment_end?.saturating_sub(self.policy.lead);
        (self.stop.is_none() && !self.is_querying).then_some(at)
    }

    pub(super) fn experiment_at(&self) -> Option<Time> {
        let at = self.policy.experiment_end?.saturating_sub(self.policy.lead);
        self.stop.is_none().then_some(at)
    }

    /// Begins a stop before an end that is known beforehand. Slurm is asked first, since its time limit may have changed.
    pub(super) fn time_limits(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.query_at().is_some_and(|at| at <= now) {
            self.query_slurm(actions);
        }
        if self.phase != AttemptPhase::Running {
            return;
        }
        if self.experiment_at().is_some_and(|at| at <= now) {
            self.begin_stop(StopCause::Deadline, self.policy.experiment_end, now);
            self.request_save(now, false, actions);
        }
        if self.limit_at().is_some_and(|at| at <= now) {
            if self.policy.local {
                self.begin_stop(StopCause::TimeLimit, self.segment_end, now);
                self.request_save(now, false, actions);
            } else {
                self.query_slurm(actions);
            }
        }
    }

    /// When Slurm is asked again after a missing answer.
    pub(super) fn query_at(&self) -> Option<Time> {
        let is_alive = matches!(
            self.phase,
            AttemptPhase::Running | AttemptPhase::Terminating | AttemptPhase::Killing
        );
        self.next_query_at.filter(|_| is_alive && !self.is_querying)
    }

    /// When a program that trains on after its save must end. As long as nobody says that it is being stopped, it was
    /// perhaps a mere request to save.
    pub(super) fn end_at(&self) -> Option<Time> {
        let trains_on = self.policy.trains_on || self.policy.saves_by_itself;
        let waits = trains_on && self.is_saved && self.phase == AttemptPhase::Running;
        match self.stop.filter(|_| waits)? {
            Stop { cause: StopCause::Unknown, deadline, .. } => {
                Some(deadline?.saturating_sub(self.policy.lead))
            }
            Stop { since, .. } => Some(since),
        }
    }

    /// When TERM and KILL are due.
    pub(super) fn escalation(&self) -> Option<[Time; 2]> {
        let stop = self.stop;
        let by_deadline = stop.and_then(|stop| Some((stop.deadline?, stop.since)));
        let by_deadline = by_deadline.map(|(deadline, since)| {
            let whole = deadline.saturating_sub(since);
            let [term, kill] = [term_before_deadline(whole), kill_before_deadline(whole)];
            [deadline.saturating_sub(term), deadline.saturating_sub(kill)]
        });
        let soon = self.end_soon.map(|at| [at, at + KILL_SOON]);
        let told = by_deadline.into_iter().chain(soon);
        let told = told.reduce(|[a, b], [c, d]| [a.min(c), b.min(d)]);
        // Without a deadline it is killed all the same if it does not end. Its saves may take their time.
        told.or_else(|| self.terminated_at.map(|at| [at, at + self.policy.kill_wait]))
    }

    pub(super) fn escalate(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let SaveRequest::Pending { retry, .. } = &mut self.request
            && self.phase == AttemptPhase::Running
            && *retry <= now
        {
            *retry = now + RETRY;
            actions.push(Action::RequestSave);
        }
        if self.end_at().is_some_and(|at| at <= now) {
            self.terminate(now, actions);
        }
        let Some([terminate, kill]) = self.escalation() else { return };
        if self.phase == AttemptPhase::Running && terminate <= now {
            self.terminate(now, actions);
        }
        let again = self.phase == AttemptPhase::Killing && self.kill_again <= now;
        if (self.phase == AttemptPhase::Terminating && kill <= now) || again {
            self.phase = AttemptPhase::Killing;
            self.kill_again = now + RETRY;
            actions.push(Action::Kill);
            self.killed_at.get_or_insert(now);
        }
        // A process that the kernel holds must not delay the attempt's end: Slurm's KILL would reach the harness too.
        let is_late = self.deadline().is_some_and(|deadline| deadline <= now);
        let is_long = self.killed_at.is_some_and(|at| now.saturating_sub(at) >= UNKILLABLE);
        if self.phase == AttemptPhase::Killing && (is_late || is_long) {
            self.phase = AttemptPhase::Settling { settled: false };
            actions.push(Action::Settle);
        }
    }

    pub(super) fn finish(&mut self, now: Time, actions: &mut Vec<Action>) {
        let AttemptPhase::Settling { settled } = self.phase else { return };
        let late = self.deadline().is_some_and(|deadline| deadline <= now);
        if late || (settled && !self.is_querying) {
            self.phase = AttemptPhase::Over;
            actions.push(Action::Decide);
        }
    }
}
