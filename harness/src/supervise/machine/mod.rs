//! The state machine of one attempt. Pure.

mod deadlines;

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Action, AttemptEvent, Policy, SlurmAnswer, StopCause};
use crate::os::clock::Time;

/// The phase of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptPhase {
    Running,
    /// TERM was sent.
    Terminating,
    /// KILL was sent.
    Killing,
    /// The program has ended. `settled`: every save is committed, or could not be.
    Settling {
        settled: bool,
    },
    Over,
}

/// A stop and its deadline.
#[derive(Clone, Copy, Debug)]
struct Stop {
    cause: StopCause,
    since: Time,
    deadline: Option<Time>,
    /// A person asked for it. That the segment is about to end too does not change why.
    is_by_hand: bool,
}

/// The state of a save request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SaveRequest {
    None,
    /// No process has caught the signal yet. `then_terminate`: send TERM if none does, since KILL is near.
    Pending {
        retry: Time,
        then_terminate: bool,
    },
    Caught,
}

const RETRY: Duration = Duration::from_secs(1);
/// How long after a missing answer Slurm is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How far Slurm's end of a time limit may be from the moment that it announced.
const LIMIT_SLACK: Duration = Duration::from_secs(10);
/// How long a program that asked for a requeue may take to end by itself.
const REQUEUE_GRACE: Duration = Duration::from_secs(3);
/// How long a program whose saves don't count any more may take to end by itself.
const UNSAVED_GRACE: Duration = Duration::from_secs(3);

/// The state of one attempt.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct Supervisor {
    policy: Policy,
    phase: AttemptPhase,
    stop: Option<Stop>,
    request: SaveRequest,
    segment_end: Option<Time>,
    /// When TERM came. KILL follows.
    term_at: Option<Time>,
    /// A question to Slurm is open.
    is_querying: bool,
    next_query_at: Option<Time>,
    /// The program must end by then, even if the deadline is later.
    end_soon: Option<Time>,
    /// When the program got TERM.
    terminated_at: Option<Time>,
    kill_again: Time,
    /// When the first KILL was sent.
    killed_at: Option<Time>,
    is_notified: bool,
    /// When the last save was requested, and when the last request that the program caught was made.
    requested_at: Time,
    caught_request_at: Time,
    exited_at: Time,
    /// The signal that ended the program.
    ended_by: Option<i32>,
    /// Slurm has answered after the program's end.
    is_confirmed: bool,
    /// The requested save is committed.
    is_saved: bool,
}

impl Supervisor {
    pub(crate) fn new(policy: Policy, segment_end: Option<Time>) -> Self {
        Self {
            policy,
            phase: AttemptPhase::Running,
            stop: None,
            request: SaveRequest::None,
            segment_end,
            term_at: None,
            is_querying: false,
            next_query_at: None,
            end_soon: None,
            terminated_at: None,
            kill_again: Time::ZERO,
            killed_at: None,
            is_notified: false,
            requested_at: Time::ZERO,
            caught_request_at: Time::ZERO,
            exited_at: Time::ZERO,
            ended_by: None,
            is_confirmed: false,
            is_saved: false,
        }
    }

    /// Why the attempt is being stopped.
    pub(crate) fn stop(&self) -> Option<StopCause> {
        self.stop.map(|stop| stop.cause)
    }

    /// Whether a person asked for the stop, and Slurm has not told of one of its own.
    pub(crate) fn is_stopped_by_hand(&self) -> bool {
        self.stop.is_some_and(|stop| stop.is_by_hand)
    }

    /// The deadline of the stop.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.stop.and_then(|stop| stop.deadline)
    }

    /// Whether Slurm's last answer came after the program's end and after every signal, so that it still holds.
    pub(crate) fn has_confirmed_cause(&self) -> bool {
        self.is_confirmed
    }

    /// Whether the supervisor had the program killed.
    pub(crate) fn has_killed(&self) -> bool {
        self.killed_at.is_some()
    }

    /// Whether a signal or message reached the program. Then its exit code 0 is not success.
    pub(crate) fn was_notified(&self) -> bool {
        self.is_notified
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, event: AttemptEvent, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase == AttemptPhase::Over {
            return actions; // late events change nothing
        }
        match event {
            AttemptEvent::Usr1 => self.usr1(now, &mut actions),
            AttemptEvent::Pause => self.stop_by_hand(StopCause::Paused, now, &mut actions),
            AttemptEvent::Preempt => self.stop_by_hand(StopCause::Preempted, now, &mut actions),
            AttemptEvent::Cancel => self.stop_by_hand(StopCause::Cancelled, now, &mut actions),
            AttemptEvent::Term => self.term(now, &mut actions),
            AttemptEvent::SaveRequested { is_caught } => {
                self.save_requested(is_caught, now, &mut actions);
            }
            AttemptEvent::SlurmAnswered(answer) => self.slurm_answered(answer, now, &mut actions),
            AttemptEvent::Exited { signal } => self.exited(signal, now, &mut actions),
            AttemptEvent::Settled => {
                if let AttemptPhase::Settling { settled } = &mut self.phase {
                    *settled = true;
                }
            }
            AttemptEvent::Committed { at } => {
                let is_asked = match self.request {
                    SaveRequest::Caught => true,
                    SaveRequest::Pending { .. } => self.policy.saves_by_itself,
                    SaveRequest::None => false,
                };
                self.is_saved |= is_asked && at >= self.requested_at;
            }
            AttemptEvent::Superseded => {
                self.end_unsaved(StopCause::Superseded, now, &mut actions);
            }
            AttemptEvent::FolderRemoved => {
                self.end_unsaved(StopCause::FolderRemoved, now, &mut actions);
            }
            AttemptEvent::Hung => self.end_soon(StopCause::Hung, now, now),
            AttemptEvent::ProgramRequestedRequeue => {
                self.end_soon(StopCause::ProgramRequestedRequeue, now + REQUEUE_GRACE, now);
            }
            AttemptEvent::Tick => {}
        }
        self.time_limits(now, &mut actions);
        self.escalate(now, &mut actions);
        self.finish(now, &mut actions);
        actions
    }

    /// The next time at which [`AttemptEvent::Tick`] is due.
    pub(crate) fn next_tick(&self) -> Option<Time> {
        let retry = match self.request {
            SaveRequest::Pending { retry, .. } => Some(retry),
            SaveRequest::None | SaveRequest::Caught => None,
        };
        let [terminate, kill] = self.escalation().map_or([None; 2], |times| times.map(Some));
        let running = match self.phase {
            AttemptPhase::Running => [retry, terminate, self.limit_at(), self.experiment_at()],
            AttemptPhase::Terminating => [kill, None, None, None],
            AttemptPhase::Killing => [Some(self.kill_again), self.deadline(), None, None],
            AttemptPhase::Settling { .. } => [self.deadline(), None, None, None],
            AttemptPhase::Over => [None; 4],
        };
        running.into_iter().chain([self.query_at(), self.end_at()]).flatten().min()
    }

    fn usr1(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.request_save(now, false, actions);
        if self.policy.local {
            // A cancelled trial is not brought back by a request to save.
            let cancelled = self.stop() == Some(StopCause::Cancelled);
            let cause = if cancelled { StopCause::Cancelled } else { StopCause::Preempted };
            self.begin_stop(cause, Some(now + self.policy.lead), now);
        } else if self.stop.is_none() {
            // A pending answer may be older than the reason for this signal.
            self.query_slurm(actions);
        }
    }

    /// Stops on a person's request. Slurm is asked for a deadline: the segment may be about to end too.
    fn stop_by_hand(&mut self, cause: StopCause, now: Time, actions: &mut Vec<Action>) {
        // What is cancelled does not run again.
        if self.stop.as_ref().is_some_and(|stop| stop.cause == StopCause::Cancelled) {
            return;
        }
        self.request_save(now, false, actions);
        self.begin_stop(cause, Some(now + self.policy.lead), now);
        self.stop.iter_mut().for_each(|stop| stop.is_by_hand = true);
        if !self.policy.local {
            self.query_slurm(actions);
        }
    }

    fn term(&mut self, now: Time, actions: &mut Vec<Action>) {
        let deadline = self.term_at.get_or_insert(now).saturating_add(self.policy.kill_wait);
        self.request_save(now, true, actions);
        if self.policy.local {
            self.begin_stop(StopCause::Cancelled, Some(deadline), now);
        } else {
            // Slurm's TERM reaches every process of the job, so a program that ended by it was notified.
            let gone = matches!(self.phase, AttemptPhase::Settling { .. });
            self.is_notified |= !gone || now <= self.exited_at + RETRY;
            self.begin_stop(StopCause::Unknown, Some(deadline), now);
            self.query_slurm(actions);
        }
    }

    /// Begins a stop or updates it. Its cause may become known later or change: a job can be cancelled while it saves. Its
    /// deadline only moves earlier.
    fn begin_stop(&mut self, cause: StopCause, deadline: Option<Time>, now: Time) {
        let new = Stop { cause, since: now, deadline, is_by_hand: false };
        let stop = self.stop.get_or_insert(new);
        stop.deadline = stop.deadline.into_iter().chain(deadline).min();
        let stays = matches!(stop.cause, StopCause::Superseded | StopCause::FolderRemoved)
            || cause == StopCause::Unknown
            || (stop.is_by_hand && cause.goes_on() && cause != StopCause::Paused);
        if !stays {
            stop.cause = cause;
        }
    }

    fn query_slurm(&mut self, actions: &mut Vec<Action>) {
        self.is_querying = true;
        self.is_confirmed = false;
        self.next_query_at = None;
        actions.push(Action::QuerySlurm);
    }

    fn request_save(&mut self, now: Time, then_terminate: bool, actions: &mut Vec<Action>) {
        if self.phase != AttemptPhase::Running {
            return;
        }
        match &mut self.request {
            SaveRequest::None => {
                self.request = SaveRequest::Pending { retry: now + RETRY, then_terminate };
                (self.is_saved, self.requested_at) = (false, now);
                actions.push(Action::RequestSave);
            }
            SaveRequest::Pending { then_terminate: ends, .. } if then_terminate && !*ends => {
                *ends = true;
                actions.push(Action::RequestSave);
            }
            SaveRequest::Pending { .. } | SaveRequest::Caught => {}
        }
    }

    fn save_requested(&mut self, is_caught: bool, now: Time, actions: &mut Vec<Action>) {
        let SaveRequest::Pending { then_terminate, .. } = self.request else { return };
        if is_caught {
            self.is_notified = true;
            self.caught_request_at = self.requested_at;
            self.request = SaveRequest::Caught;
            self.forget_mere_request();
        } else if then_terminate && self.phase == AttemptPhase::Running {
            self.terminate(now, actions);
        }
    }

    /// Forgets a request without a stop once the program caught it, so that the next one is sent again.
    fn forget_mere_request(&mut self) {
        if self.stop.is_none() && !self.is_querying && self.request == SaveRequest::Caught {
            self.request = SaveRequest::None;
        }
    }

    fn slurm_answered(&mut self, answer: SlurmAnswer, now: Time, actions: &mut Vec<Action>) {
        self.is_querying = false;
        self.is_confirmed =
            answer != SlurmAnswer::NoAnswer && matches!(self.phase, AttemptPhase::Settling { .. });
        match answer {
            SlurmAnswer::NoAnswer => {
                self.begin_stop(StopCause::Unknown, self.segment_end, now);
                self.next_query_at = Some(now + ASK_AGAIN);
            }
            SlurmAnswer::Job { stop: Some(StopCause::TimeLimit), end } if self.has_crashed(end) => {
            }
            SlurmAnswer::Job { stop: Some(cause), end } => {
                // After TERM, the end that Slurm shows has passed. Only KILL counts.
                let end = end.filter(|_| self.term_at.is_none());
                self.begin_stop(cause, end, now);
            }
            SlurmAnswer::Job { stop: None, .. } if self.term_at.is_some() => {
                // Slurm does not stop the job. Its node sent TERM for an earlier run, or a person did. An `scancel` would show.
                self.next_query_at = Some(now + ASK_AGAIN);
            }
            SlurmAnswer::Job { stop: None, end } => {
                // After TERM or the program's end a guess stays: the program was told to stop and may have ended because of that.
                let guessed = self.stop.is_some_and(|stop| stop.cause == StopCause::Unknown);
                if guessed && self.phase == AttemptPhase::Running {
                    self.stop = None;
                }
                self.segment_end = end.filter(|&end| end > now + self.policy.lead);
                self.forget_mere_request();
            }
        }
        if self.stop.is_some() {
            self.request_save(now, false, actions);
        }
    }

    fn exited(&mut self, signal: Option<i32>, now: Time, actions: &mut Vec<Action>) {
        self.phase = AttemptPhase::Settling { settled: false };
        (self.exited_at, self.ended_by) = (now, signal);
        // The program trained on after an old save request, so it ended for another reason.
        if self.stop.is_none() && now > self.caught_request_at.saturating_add(self.policy.lead) {
            self.is_notified = false;
        }
        // Slurm's signal may come before its state changes, and without an answer there is no decision.
        let unknown = self.stop.map_or(signal.is_some(), |stop| stop.cause == StopCause::Unknown);
        let ask =
            (unknown && !self.is_querying) || self.stop.is_some_and(|stop| stop.cause.goes_on());
        if ask && !self.policy.local {
            // The question comes before the last commit, so that the answer is there afterwards.
            self.query_slurm(actions);
        }
        actions.push(Action::Settle);
    }

    /// Whether the program ended before its time limit had anything to do with it: nobody had asked it for anything, and the
    /// end of the limit can't have sent that signal at that moment.
    fn has_crashed(&self, limit_end: Option<Time>) -> bool {
        let was_asked = self.stop.is_some() || self.request != SaveRequest::None;
        if was_asked || !matches!(self.phase, AttemptPhase::Settling { .. }) {
            return false;
        }
        let of_slurm = [Signal::SIGTERM, Signal::SIGKILL].map(|signal| signal as i32);
        let is_of_slurm = self.ended_by.is_some_and(|signal| of_slurm.contains(&signal));
        let window = self.policy.kill_wait + LIMIT_SLACK;
        let is_near = limit_end.is_none_or(|end| end <= self.exited_at.saturating_add(window));
        !(is_of_slurm && is_near)
    }

    /// Ends the program at once: what it would save can't be committed.
    fn end_unsaved(&mut self, cause: StopCause, now: Time, actions: &mut Vec<Action>) {
        self.begin_stop(cause, Some(now + UNSAVED_GRACE), now);
        if self.phase == AttemptPhase::Running {
            self.terminate(now, actions);
        }
    }

    /// Ends the program without asking for a save. An earlier stop keeps its cause and its deadline.
    fn end_soon(&mut self, cause: StopCause, at: Time, now: Time) {
        let new = Stop { cause, since: now, deadline: None, is_by_hand: false };
        let stop = self.stop.get_or_insert(new);
        if stop.cause == StopCause::Unknown {
            stop.cause = cause;
        }
        self.end_soon = self.end_soon.into_iter().chain([at]).min();
    }

    fn terminate(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.is_notified = true;
        self.phase = AttemptPhase::Terminating;
        self.terminated_at = Some(now);
        actions.push(Action::Terminate);
    }
}

#[cfg(test)]
#[path = "../tests.rs"]
mod tests;
