//! From records to attempts on one line of time, whatever the records and whichever clocks they came from.

use nemo_core::rundir::{self, AttemptEnd, AttemptRecord, AttemptStart, Cause, Next};

use super::spans::{MicroTime, Spans, moment};
use super::{LedgerState, Life, LossReason};

/// One attempt. Its times lie in order: no attempt begins before the one before it is over.
#[derive(Clone, Debug)]
pub(super) struct LedgerAttempt<'a> {
    start: &'a AttemptStart,
    /// From where it went on.
    pub(super) resume_step: Option<u64>,
    end: Option<&'a AttemptEnd>,
    /// When it was last heard of.
    sign: MicroTime,
    pub(super) begin: MicroTime,
    /// When the program worked, as far as anybody knows.
    pub(super) ready: MicroTime,
    /// Until when the program has told nothing from which one knows whether it was still starting; none where it told
    /// that it works before it saved.
    unknown_start: Option<MicroTime>,
    pub(super) until: MicroTime,
    /// What it committed.
    pub(super) saves: Vec<Save>,
    /// When it was first without a sign of life, if it hung.
    pub(super) silent_since: Option<MicroTime>,
}

/// A committed checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Save {
    pub(super) step: u64,
    pub(super) at: MicroTime,
    /// How long it took, where that was measured.
    pub(super) took: Option<MicroTime>,
}

impl LedgerAttempt<'_> {
    pub(super) fn reason(&self) -> LossReason {
        LossReason::of(self.end.map(|end| end.cause))
    }

    /// From its start to its first checkpoint, or its end, where nobody knows when it began to work.
    pub(super) fn unknown_start(&self) -> Spans {
        self.unknown_start.map_or_else(Spans::default, |until| Spans::one(self.ready, until))
    }

    pub(super) fn is_completed(&self) -> bool {
        self.end.is_some_and(|end| end.next == Next::Done)
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn was_paused(&self) -> bool {
        self.end.is_some_and(|end| end.cause == Cause::Paused)
    }

    /// When it began to be stopped.
    pub(super) fn stopped(&self) -> Option<MicroTime> {
        self.end?.stopped.map(moment)
    }

    /// What all its saves took.
    pub(super) fn saving(&self) -> Option<MicroTime> {
        self.end?.saving.map(moment)
    }

    /// Whether what comes after it needs no scheduler.
    pub(super) fn goes_on_in_place(&self, next: Option<&Self>) -> bool {
        let says_so = self.end.is_some_and(|end| end.next == Next::Restart);
        let in_same_job = next.is_some_and(|next| {
            self.start.slurm_job.is_some()
                && self.start.slurm_job == next.start.slurm_job
                && self.start.restarts == next.start.restarts
        });
        says_so || in_same_job
    }
}

/// All attempts of a trial, in their order.
pub(super) fn of<'a>(life: &Life<'a>) -> Vec<LedgerAttempt<'a>> {
    let mut attempts = collect(life);
    let mut cursor = moment(life.submitted);
    for place in 0..attempts.len() {
        let (earlier, later) = attempts.split_at_mut(place + 1);
        let Some(attempt) = earlier.last_mut() else { continue };
        attempt.begin = began(attempt.start).max(cursor);
        let next = later.first().map(|next| began(next.start).max(attempt.begin));
        attempt.until = until(attempt, next, life).max(attempt.begin);
        attempt.ready = attempt.ready.clamp(attempt.begin, attempt.until);
        attempt.unknown_start =
            attempt.unknown_start.map(|saved| saved.clamp(attempt.ready, attempt.until));
        cursor = attempt.until;
    }
    attempts
}

fn began(start: &AttemptStart) -> MicroTime {
    moment(start.began.map_or(start.time, |began| began.min(start.time)))
}

/// When an attempt was over, as far as its files tell. `next` is when the one after it began.
fn until(attempt: &LedgerAttempt<'_>, next: Option<MicroTime>, life: &Life<'_>) -> MicroTime {
    let latest = next.unwrap_or(MicroTime::MAX);
    let Some(end) = attempt.end else {
        let is_running = next.is_none() && life.standing == LedgerState::Running;
        return if is_running { moment(life.now) } else { attempt.sign.min(latest) };
    };
    let nobody_saw_it = end.exit_code.is_none() && end.signal.is_none();
    if nobody_saw_it && moment(end.time) >= latest {
        // The next attempt wrote this end; one that it took over from ran until then, one that was lost did not.
        return if end.cause == Cause::Superseded { latest } else { attempt.sign.min(latest) };
    }
    moment(end.time).min(latest)
}

/// Gives each record to its attempt. One that belongs to none is passed over.
fn collect<'a>(life: &Life<'a>) -> Vec<LedgerAttempt<'a>> {
    let mut attempts: Vec<LedgerAttempt<'a>> = Vec::new();
    let mut was_ready: Vec<bool> = Vec::new();
    for record in life.records {
        if let AttemptRecord::Start(start) = record {
            attempts.push(started(start, life));
            was_ready.push(false);
            continue;
        }
        let Some((number, time)) = of_attempt(record) else { continue };
        let place = attempts.iter().rposition(|attempt| attempt.start.attempt == number);
        let Some(place) = place else { continue };
        let attempt = &mut attempts[place];
        match record {
            AttemptRecord::Ready { .. } => {
                let is_first = !std::mem::replace(&mut was_ready[place], true);
                // A checkpoint shows that the program has worked, and not since when.
                if is_first && attempt.saves.is_empty() {
                    (attempt.ready, attempt.unknown_start) = (moment(time), None);
                }
            }
            AttemptRecord::Checkpoint { step, saving, .. } => {
                if attempt.saves.is_empty() {
                    attempt.unknown_start = attempt.unknown_start.map(|_| moment(time));
                }
                attempt.saves.push(Save {
                    step: *step,
                    at: moment(time),
                    took: saving.map(moment),
                });
            }
            AttemptRecord::Hang { since, .. } => attempt.silent_since = Some(moment(*since)),
            AttemptRecord::End(end) => attempt.end = Some(end),
            AttemptRecord::Start(_)
            | AttemptRecord::WentOn { .. }
            | AttemptRecord::Warning { .. }
            | AttemptRecord::Label { .. }
            | AttemptRecord::ExcludeNode { .. }
            | AttemptRecord::Removed { .. }
            | AttemptRecord::SetAside { .. } => {}
        }
        if attempt.end.is_none() {
            attempt.sign = attempt.sign.max(moment(time));
        }
    }
    for (attempt, start) in attempts.iter_mut().zip(rundir::starts(life.records)) {
        attempt.resume_step = start.resume_step;
    }
    attempts
}

fn started<'a>(start: &'a AttemptStart, life: &Life<'_>) -> LedgerAttempt<'a> {
    let heard = life.signs.get(&start.attempt).map_or(0, |sign| moment(*sign));
    LedgerAttempt {
        start,
        resume_step: start.resume_step,
        end: None,
        sign: heard.max(moment(start.time)),
        begin: 0,
        // Without a word of the program's, its start counts.
        ready: moment(start.time),
        unknown_start: Some(MicroTime::MAX),
        until: 0,
        saves: Vec::new(),
        silent_since: None,
    }
}

/// The attempt that a record is about, and its time.
fn of_attempt(record: &AttemptRecord) -> Option<(u32, f64)> {
    match record {
        AttemptRecord::Start(start) => Some((start.attempt, start.time)),
        AttemptRecord::End(end) => Some((end.attempt, end.time)),
        AttemptRecord::Checkpoint { attempt, time, .. }
        | AttemptRecord::Ready { attempt, time }
        | AttemptRecord::Hang { attempt, time, .. } => Some((*attempt, *time)),
        AttemptRecord::Label { .. }
        | AttemptRecord::WentOn { .. }
        | AttemptRecord::Warning { .. }
        | AttemptRecord::ExcludeNode { .. }
        | AttemptRecord::Removed { .. }
        | AttemptRecord::SetAside { .. } => None,
    }
}
