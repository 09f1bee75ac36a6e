//! The state of one attempt, and its pure step.

use std::time::Duration;

use nemo_core::stop_times::{kill_before_deadline, term_before_deadline};

use super::{Action, AttemptEvent, Policy, SlurmAnswer, StopCause};
use crate::os::clock::Time;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptPhase {
    Running,
    /// TERM was sent.
    Terminating,
    /// KILL was sent.
    Killing,
    /// The program is gone.
    Settling {
        settled: bool,
    },
    Over,
}

/// A stop, and by when everything must be done.
#[derive(Clone, Copy, Debug)]
struct Stop {
    cause: StopCause,
    since: Time,
    deadline: Option<Time>,
}

/// How a request to save stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SaveRequest {
    None,
    /// Nobody caught the signal yet. `or_end`: then TERM, since a KILL is near.
    Pending {
        retry: Time,
        then_terminate: bool,
    },
    Caught,
}

const RETRY: Duration = Duration::from_secs(1);
/// How often Slurm is asked again when it gave no answer.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long a program that asked for a requeue has to end by itself.
const REQUEUE_GRACE: Duration = Duration::from_secs(3);
/// How long after such a TERM, or that of a hang, the KILL comes.
const KILL_SOON: Duration = Duration::from_secs(5);
/// How long a process that can't be killed is waited for: the kernel holds it.
const UNKILLABLE: Duration = Duration::from_mins(1);
/// How long a superseded program has to end by itself.
const SUPERSEDED_GRACE: Duration = Duration::from_secs(3);

/// The state of one attempt.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that don't depend on each other")]
pub(crate) struct Supervisor {
    policy: Policy,
    phase: AttemptPhase,
    stop: Option<Stop>,
    request: SaveRequest,
    segment_end: Option<Time>,
    /// TERM came at this time: a KILL follows.
    term_at: Option<Time>,
    /// A question to Slurm is open.
    is_querying: bool,
    next_query_at: Option<Time>,
    /// The program must end by then, whatever time there is.
    end_soon: Option<Time>,
    kill_again: Time,
    /// When the first KILL was sent.
    killed_at: Option<Time>,
    is_notified: bool,
    /// When it was asked, and when the one that it heard was.
    requested_at: Time,
    caught_request_at: Time,
    exited_at: Time,
    /// Slurm has answered since the program's end.
    is_confirmed: bool,
    /// What the program was asked for is committed.
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
            kill_again: Time::ZERO,
            killed_at: None,
            is_notified: false,
            requested_at: Time::ZERO,
            caught_request_at: Time::ZERO,
            exited_at: Time::ZERO,
            is_confirmed: false,
            is_saved: false,
        }
    }

    /// Why the attempt is being stopped.
    pub(crate) fn stop(&self) -> Option<StopCause> {
        self.stop.map(|stop| stop.cause)
    }

    /// By when everything must be done.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.stop.and_then(|stop| stop.deadline)
    }

    /// Whether Slurm's last word came after the program's end, and after every signal: what it said still holds.
    pub(crate) fn has_confirmed_cause(&self) -> bool {
        self.is_confirmed
    }

    /// Whether it was killed from here.
    pub(crate) fn has_killed(&self) -> bool {
        self.killed_at.is_some()
    }

    /// Whether a signal reached the program, so that its exit code says nothing of success.
    pub(crate) fn was_notified(&self) -> bool {
        self.is_notified
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, event: AttemptEvent, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase == AttemptPhase::Over {
            return actions; // repeats and late events change nothing
        }
        match event {
            AttemptEvent::Usr1 => self.usr1(now, &mut actions),
            AttemptEvent::Pause => self.stop_by_hand(StopCause::Paused, now, &mut actions),
            AttemptEvent::Preempt => self.stop_by_hand(StopCause::Preempted, now, &mut actions),
            AttemptEvent::Term => self.term(now, &mut actions),
            AttemptEvent::SaveRequested { is_caught } => {
                self.save_requested(is_caught, &mut actions);
            }
            AttemptEvent::SlurmAnswered(answer) => self.slurm_answered(answer, now, &mut actions),
            AttemptEvent::Exited { killed } => self.exited(killed, now, &mut actions),
            AttemptEvent::Settled => {
                if let AttemptPhase::Settling { settled } = &mut self.phase {
                    *settled = true;
                }
            }
            AttemptEvent::Committed { at } => {
                self.is_saved |= self.request == SaveRequest::Caught && at >= self.requested_at;
            }
            AttemptEvent::Superseded => self.superseded(now, &mut actions),
            AttemptEvent::Hung => self.end_soon(StopCause::Hung, now),
            AttemptEvent::ProgramRequestedRequeue => {
                self.end_soon(StopCause::ProgramRequestedRequeue, now + REQUEUE_GRACE);
            }
            AttemptEvent::Tick => {}
        }
        self.time_limits(now, &mut actions);
        self.escalate(now, &mut actions);
        self.finish(now, &mut actions);
        actions
    }

    /// The next time at which [`Event::Tick`] is due.
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
        let ask_at = self.next_query_at.filter(|_| self.phase == AttemptPhase::Running);
        running.into_iter().chain([ask_at]).flatten().min()
    }

    fn usr1(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.request_save(now, false, actions);
        if self.policy.local {
            // A cancelled trial is not brought back by a request to save.
            let cancelled = self.stop() == Some(StopCause::Cancelled);
            let cause = if cancelled { StopCause::Cancelled } else { StopCause::Preempted };
            self.begin_stop(cause, Some(now + self.policy.lead), now);
        } else if self.stop.is_none() {
            // An answer that is under way may be older than what made somebody send this.
            self.query_slurm(actions);
        }
    }

    /// The segment may be about to end too: Slurm is asked by when all must be done.
    fn stop_by_hand(&mut self, cause: StopCause, now: Time, actions: &mut Vec<Action>) {
        self.request_save(now, false, actions);
        self.begin_stop(cause, Some(now + self.policy.lead), now);
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
            // Slurm's TERM reaches every process of the job: one that ended by it was told to.
            let gone = matches!(self.phase, AttemptPhase::Settling { .. });
            self.is_notified |= !gone || now <= self.exited_at + RETRY;
            self.begin_stop(StopCause::Unknown, Some(deadline), now);
            self.query_slurm(actions);
        }
    }

    /// A stop's cause may become known later, or change: a job can be cancelled while it saves. Its deadline only
    /// comes nearer.
    fn begin_stop(&mut self, cause: StopCause, deadline: Option<Time>, now: Time) {
        let stop = self.stop.get_or_insert(Stop { cause, since: now, deadline });
        stop.deadline = stop.deadline.into_iter().chain(deadline).min();
        let stays = stop.cause == StopCause::Superseded
            || cause == StopCause::Unknown
            || (stop.cause == StopCause::Paused && cause.goes_on());
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

    fn save_requested(&mut self, is_caught: bool, actions: &mut Vec<Action>) {
        let SaveRequest::Pending { then_terminate, .. } = self.request else { return };
        if is_caught {
            self.is_notified = true;
            self.caught_request_at = self.requested_at;
            self.request = SaveRequest::Caught;
            self.forget_mere_request();
        } else if then_terminate && self.phase == AttemptPhase::Running {
            self.terminate(actions);
        }
    }

    /// A request that came without a stop is over once it was heard: the next one is sent again.
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
                self.begin_stop(StopCause::Unknown, None, now);
                self.next_query_at = Some(now + ASK_AGAIN);
            }
            SlurmAnswer::Job { stop: Some(cause), end } => {
                // The end that Slurm shows is over once the TERM came: then only the KILL counts.
                let end = end.filter(|_| self.term_at.is_none());
                self.begin_stop(cause, end, now);
            }
            SlurmAnswer::Job { stop: None, .. } if self.term_at.is_some() => {
                // Slurm means to go on: its node killed it for the run before, or somebody else did. An `scancel` shows.
                self.next_query_at = Some(now + ASK_AGAIN);
            }
            SlurmAnswer::Job { stop: None, end } => {
                // Once the program is gone, a guess stays: it was told to stop, and may have ended for that.
                let gone = matches!(self.phase, AttemptPhase::Settling { .. });
                let guessed = self.stop.is_some_and(|stop| stop.cause == StopCause::Unknown);
                if guessed && !gone {
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

    fn exited(&mut self, killed: bool, now: Time, actions: &mut Vec<Action>) {
        self.phase = AttemptPhase::Settling { settled: false };
        self.exited_at = now;
        // A mere request to save, long ago: the program went on, and ended for another reason.
        if self.stop.is_none() && now > self.caught_request_at.saturating_add(self.policy.lead) {
            self.is_notified = false;
        }
        // Slurm's own signal may have been faster than its news; and without an answer there's no decision.
        let unknown = self.stop.map_or(killed, |stop| stop.cause == StopCause::Unknown);
        let ask =
            (unknown && !self.is_querying) || self.stop.is_some_and(|stop| stop.cause.goes_on());
        if ask && !self.policy.local {
            // Before the last commit, so that the answer is there when that is done.
            self.query_slurm(actions);
        }
        actions.push(Action::Settle);
    }

    fn superseded(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.begin_stop(StopCause::Superseded, Some(now + SUPERSEDED_GRACE), now);
        if self.phase == AttemptPhase::Running {
            self.terminate(actions);
        }
    }

    /// Ends the program without asking it. A stop that is under way keeps its cause, and its time for the commit.
    fn end_soon(&mut self, cause: StopCause, at: Time) {
        let stop = self.stop.get_or_insert(Stop { cause, since: at, deadline: None });
        if stop.cause == StopCause::Unknown {
            stop.cause = cause;
        }
        self.end_soon = self.end_soon.into_iter().chain([at]).min();
    }

    fn terminate(&mut self, actions: &mut Vec<Action>) {
        self.is_notified = true;
        self.phase = AttemptPhase::Terminating;
        actions.push(Action::Terminate);
    }

    fn limit_at(&self) -> Option<Time> {
        let at = self.segment_end?.saturating_sub(self.policy.lead);
        (self.stop.is_none() && !self.is_querying).then_some(at)
    }

    fn experiment_at(&self) -> Option<Time> {
        let at = self.policy.experiment_end?.saturating_sub(self.policy.lead);
        self.stop.is_none().then_some(at)
    }

    /// The ends that are known beforehand. Slurm's may have been moved, so it is asked first.
    fn time_limits(&mut self, now: Time, actions: &mut Vec<Action>) {
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
        if self.next_query_at.is_some_and(|at| at <= now) {
            self.query_slurm(actions);
        }
    }

    /// When TERM and KILL are due.
    fn escalation(&self) -> Option<[Time; 2]> {
        let stop = self.stop?;
        let by_deadline = stop.deadline.map(|deadline| {
            let whole = deadline.saturating_sub(stop.since);
            let [term, kill] = [term_before_deadline(whole), kill_before_deadline(whole)];
            [deadline.saturating_sub(term), deadline.saturating_sub(kill)]
        });
        let soon = self.end_soon.map(|at| [at, at + KILL_SOON]);
        by_deadline.into_iter().chain(soon).reduce(|[a, b], [c, d]| [a.min(c), b.min(d)])
    }

    fn escalate(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let SaveRequest::Pending { retry, .. } = &mut self.request
            && self.phase == AttemptPhase::Running
            && *retry <= now
        {
            *retry = now + RETRY;
            actions.push(Action::RequestSave);
        }
        let no_more = self.policy.trains_on && self.is_saved && self.stop.is_some();
        if self.phase == AttemptPhase::Running && no_more {
            self.terminate(actions);
        }
        let Some([terminate, kill]) = self.escalation() else { return };
        if self.phase == AttemptPhase::Running && terminate <= now {
            self.terminate(actions);
        }
        let again = self.phase == AttemptPhase::Killing && self.kill_again <= now;
        if (self.phase == AttemptPhase::Terminating && kill <= now) || again {
            self.phase = AttemptPhase::Killing;
            self.kill_again = now + RETRY;
            actions.push(Action::Kill);
            self.killed_at.get_or_insert(now);
        }
        // What the kernel holds may not keep the attempt from its end: Slurm's own kill takes the harness too.
        let is_late = self.deadline().is_some_and(|deadline| deadline <= now);
        let is_long = self.killed_at.is_some_and(|at| now.saturating_sub(at) >= UNKILLABLE);
        if self.phase == AttemptPhase::Killing && (is_late || is_long) {
            self.phase = AttemptPhase::Settling { settled: false };
            actions.push(Action::Settle);
        }
    }

    fn finish(&mut self, now: Time, actions: &mut Vec<Action>) {
        let AttemptPhase::Settling { settled } = self.phase else { return };
        let late = self.deadline().is_some_and(|deadline| deadline <= now);
        if late || (settled && !self.is_querying) {
            self.phase = AttemptPhase::Over;
            actions.push(Action::Decide);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
