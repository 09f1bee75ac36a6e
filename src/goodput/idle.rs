//! When a trial was not meant to run, since somebody had paused or ended it, or it was over.

use nemo_core::rundir::requests::RequestedAction;

use super::Life;
use super::attempts::LedgerAttempt;
use super::spans::{MicroTime, Spans, moment};

/// The stretches in which a trial was not meant to run. What an attempt did meanwhile is the attempt's all the same.
pub(super) fn idle(life: &Life<'_>, attempts: &[LedgerAttempt<'_>]) -> Spans {
    let mut idle = Vec::new();
    let (mut paused, mut ended): (Option<MicroTime>, Option<MicroTime>) = (None, None);
    for (action, time) in &life.requests {
        let now = moment(*time);
        match action {
            RequestedAction::Pause => paused = paused.or(Some(now)),
            RequestedAction::Cancel | RequestedAction::Timeout => ended = ended.or(Some(now)),
            RequestedAction::Resume => idle.extend(paused.take().map(|since| (since, now))),
            RequestedAction::Retry => {
                idle.extend(paused.take().map(|since| (since, now)));
                let since = ended.take().unwrap_or_else(|| over_since(life, attempts, now));
                idle.push((since, now));
            }
            RequestedAction::Preempt => {}
        }
    }
    let still = [paused, ended].into_iter().flatten();
    idle.extend(still.map(|since| (since, MicroTime::MAX)));
    Spans::union(idle)
}

/// Since when a trial was over that was retried then, and that nobody had cancelled.
fn over_since(life: &Life<'_>, attempts: &[LedgerAttempt<'_>], then: MicroTime) -> MicroTime {
    let last = attempts.iter().rfind(|attempt| attempt.begin <= then);
    last.map_or(moment(life.submitted), |attempt| attempt.until)
}
