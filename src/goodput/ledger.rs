//! One trial's ledger: its attempts are cut into parts, and what lies between them is shared out.

use super::attempts::{self, LedgerAttempt, Save};
use super::idle::idle;
use super::spans::{MicroTime, Spans, moment, seconds};
use super::{Ledger, LedgerState, Life, LossReason, Micros};

/// Where a trial's time went.
#[must_use]
pub fn ledger(life: &Life<'_>) -> Ledger {
    let attempts = attempts::of(life);
    let submitted = moment(life.submitted);
    let last = attempts.last().map_or(submitted, |attempt| attempt.until);
    let is_over = matches!(life.standing, LedgerState::Completed | LedgerState::GivenUp);
    let end = if is_over { last } else { last.max(moment(life.now)) };
    let work = WorkSpans::of(&attempts, life, submitted, end);
    let idle = idle(life, &attempts);
    let mut ledger = Ledger { end: is_over.then(|| seconds(end)), ..Ledger::default() };
    let mut before: Option<&LedgerAttempt<'_>> = None;
    let mut cursor = submitted;
    for (place, attempt) in attempts.iter().enumerate() {
        ledger.between(before, Some(attempt), (cursor, attempt.begin), &idle, life);
        ledger.attempt(before, attempt, &work);
        if !(attempt.is_completed() || work.is_running && place + 1 == attempts.len()) {
            ledger.count(attempt.reason(), 1);
        }
        cursor = attempt.until;
        before = Some(attempt);
    }
    ledger.between(before, None, (cursor, end), &idle, life);
    ledger
}

/// What became of the work, over all attempts.
struct WorkSpans {
    /// When work was done that no later attempt had.
    lost: Spans,
    /// When work was done that is not saved, in an attempt that runs.
    at_risk: Spans,
    /// Whether the last attempt runs.
    is_running: bool,
}

impl WorkSpans {
    fn of(
        attempts: &[LedgerAttempt<'_>],
        life: &Life<'_>,
        submitted: MicroTime,
        end: MicroTime,
    ) -> Self {
        let mut lost = Vec::new();
        // The checkpoints that what is done now goes back to, oldest first.
        let mut kept: Vec<Save> = Vec::new();
        let mut before: Option<&LedgerAttempt<'_>> = None;
        for attempt in attempts {
            if let Some(before) = before {
                lost.push((resumed_at(attempt, before, &mut kept, submitted), attempt.begin));
            }
            kept.extend(attempt.saves.iter().map(|save| {
                let at = save.at.clamp(attempt.begin, attempt.until);
                Save { at, ..*save }
            }));
            before = Some(attempt);
        }
        let rest = (kept.last().map_or(submitted, |save| save.at), end);
        let is_running =
            before.is_some_and(LedgerAttempt::is_open) && life.standing == LedgerState::Running;
        let mut at_risk = Spans::default();
        match life.standing {
            LedgerState::Completed => {}
            LedgerState::Running if is_running => at_risk = Spans::one(rest.0, rest.1),
            LedgerState::GivenUp
            | LedgerState::Running
            | LedgerState::Queued
            | LedgerState::Paused => {
                lost.push(rest);
            }
        }
        Self { lost: Spans::union(lost), at_risk, is_running }
    }
}

/// When the work was done that an attempt went on from. Forgets the checkpoints that it did not use.
fn resumed_at(
    attempt: &LedgerAttempt<'_>,
    before: &LedgerAttempt<'_>,
    kept: &mut Vec<Save>,
    submitted: MicroTime,
) -> MicroTime {
    // One that went on from nothing although there was something could not be resumed, and did no work.
    let Some(step) = attempt.resume_step.or(kept.last().map(|save| save.step)) else {
        return submitted;
    };
    kept.retain(|save| save.step <= step);
    match kept.last() {
        Some(save) if save.step == step => save.at,
        // Its harness was killed between the commit and the record: it was the last that happened. Or the program went on by
        // itself, and nobody knows when it saved.
        _ => {
            kept.push(Save { step, at: before.until, took: None });
            before.until
        }
    }
}

impl Ledger {
    /// What lies before an attempt, or after the last.
    fn between(
        &mut self,
        before: Option<&LedgerAttempt<'_>>,
        next: Option<&LedgerAttempt<'_>>,
        (from, until): (MicroTime, MicroTime),
        idle: &Spans,
        life: &Life<'_>,
    ) {
        let is_paused = next.is_none() && life.standing == LedgerState::Paused;
        let mut gap = Spans::one(from, until);
        if before.is_none() {
            self.parts.waiting += gap.take(&Spans::one(from, moment(life.eligible))).length();
        }
        let meant_again = idle.clone().take(&gap).first_end();
        self.parts.waiting += gap.take(idle).length();
        if is_paused && meant_again.is_none() || before.is_some_and(LedgerAttempt::was_paused) {
            // Without a request nobody knows until when. With one, clocks may differ about when it began.
            let pause = Spans::one(from, meant_again.unwrap_or(until));
            self.parts.waiting += gap.take(&pause).length();
        }
        self.queue_or_restart(before, next, gap.length());
    }

    /// A time between attempts in which it was to run.
    fn queue_or_restart(
        &mut self,
        before: Option<&LedgerAttempt<'_>>,
        next: Option<&LedgerAttempt<'_>>,
        length: Micros,
    ) {
        match before {
            None => self.queue(LossReason::Starting, length),
            Some(before) if before.goes_on_in_place(next) => {
                self.parts.restarting += length;
                self.lose(before.reason(), length);
            }
            Some(before) => self.queue(before.reason(), length),
        }
    }

    /// Cuts an attempt into parts, the strongest claim first.
    fn attempt(
        &mut self,
        before: Option<&LedgerAttempt<'_>>,
        attempt: &LedgerAttempt<'_>,
        work: &WorkSpans,
    ) {
        let (begin, ready, until) = (attempt.begin, attempt.ready, attempt.until);
        match before {
            None => {
                self.parts.starting += ready - begin;
                self.lose(LossReason::Starting, ready - begin);
                self.count(LossReason::Starting, 1);
            }
            Some(before) => {
                self.parts.restarting += ready - begin;
                self.lose(before.reason(), ready - begin);
            }
        }
        let mut rest = Spans::one(ready, until);
        let since = attempt.silent_since.unwrap_or(until);
        let hung = rest.take(&Spans::one(since, until)).length();
        let mut saving = rest.take(&saves(attempt)).length();
        saving += rest.take_first(attempt.saving().unwrap_or(0) - saving);
        let repeated = rest.take(&work.lost).length();
        self.parts.hung += hung;
        self.parts.saving += saving;
        self.parts.repeated += repeated;
        self.parts.productive += rest.length();
        self.unknown_start += rest.clone().take(&attempt.unknown_start()).length();
        self.at_risk += rest.take(&work.at_risk).length();
        self.lose(LossReason::Hang, hung);
        self.lose(LossReason::Saving, saving);
        self.count(LossReason::Saving, u32::try_from(attempt.saves.len()).unwrap_or(u32::MAX));
        self.lose(attempt.reason(), repeated);
    }

    fn queue(&mut self, reason: LossReason, length: Micros) {
        self.parts.queued += length;
        if length > 0 {
            self.losses.entry(reason).or_default().queued += length;
        }
    }

    fn lose(&mut self, reason: LossReason, length: Micros) {
        if length > 0 {
            self.losses.entry(reason).or_default().held += length;
        }
    }

    fn count(&mut self, reason: LossReason, times: u32) {
        if times > 0 {
            let loss = self.losses.entry(reason).or_default();
            loss.times = loss.times.saturating_add(times);
        }
    }
}

/// When an attempt saved: where a save was measured, and from the request to stop until the end where that led to one.
fn saves(attempt: &LedgerAttempt<'_>) -> Spans {
    let measured = attempt.saves.iter().filter_map(|save| Some((save.at - save.took?, save.at)));
    let last =
        attempt.stopped().filter(|stopped| attempt.saves.iter().any(|save| save.at >= *stopped));
    Spans::union(measured.chain(last.map(|stopped| (stopped, attempt.until))))
}
