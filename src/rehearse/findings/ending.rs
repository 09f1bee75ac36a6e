//! How the program ends once it is asked to save: by whom, and whether that counts as done. Pure.

use nemo_core::rundir::Next;

use super::super::run_record::RehearsedAttempt;
use super::super::scenarios::{Fault, ScenarioKind};
use super::saving::{Reaction, SaveReaction, lasted};
use super::{Finding, Rehearsal, Severity};

/// The kinds of runs that reacted so, and the first attempt that did.
fn those<'a>(
    reactions: &[SaveReaction<'a>],
    meant: Reaction,
) -> Option<(&'a RehearsedAttempt, Vec<ScenarioKind>)> {
    let all: Vec<_> = reactions.iter().filter(|(_, _, own)| *own == meant).collect();
    let (_, first, _) = all.first()?;
    Some((first, all.iter().map(|(kind, ..)| *kind).collect()))
}

/// How long after.
fn after(attempt: &RehearsedAttempt) -> String {
    lasted(attempt).map_or("after".to_owned(), |seconds| format!("{seconds:.1} s after"))
}

/// Slurm's TERM goes to the program as well as to the harness.
pub(super) fn dies_of_term(all: &Rehearsal, reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let (attempt, kinds) = those(reactions, Reaction::DiedOfTerm)?;
    let is_slurms = attempt.injected.is_some_and(|own| own.fault == Fault::Requeue);
    let (whose, when) = if is_slurms {
        ("Slurm's own SIGTERM", "a requeue, `scancel` and a preemption send it to every process")
    } else {
        ("a SIGTERM", "it was not sent by the harness")
    };
    let text = format!("{whose} ended the program before it had saved");
    Some(
        Finding::new("dies-of-term", Severity::Error, text)
            .because(format!("it was gone {} it was asked; {when}", after(attempt)))
            .because("what it did since its last checkpoint is lost")
            .hinted(same_handler(all))
            .seen_in(kinds),
    )
}

/// It saves on the signal that the harness sends, and would not live to do so where TERM comes as well.
pub(super) fn term_not_caught(all: &Rehearsal) -> Option<Finding> {
    let attempts =
        all.runs.iter().flat_map(|(run, _)| run.attempts.iter().map(move |own| (run, own)));
    let seen: Vec<_> = attempts.filter(|(_, own)| own.notes.asked).collect();
    let bare: Vec<_> = seen.iter().filter(|(_, own)| own.withstands_term == Some(false)).collect();
    if bare.is_empty() || seen.iter().any(|(_, own)| own.withstands_term == Some(true)) {
        return None;
    }
    let text = format!("the program catches {}, and not SIGTERM", all.signal);
    Some(
        Finding::new("term-not-caught", Severity::Note, text)
            .because("none of its processes catches it (SigCgt in /proc/PID/status)")
            .because("on Slurm a requeue, `scancel` and a preemption send it to every process at once: it ends before it has saved")
            .hinted(same_handler(all))
            .seen_in(bare.iter().map(|(run, _)| run.kind)),
    )
}

fn same_handler(all: &Rehearsal) -> String {
    format!(
        "catch SIGTERM with the same handler as {0}; Python: `signal.signal(signal.SIGTERM, handler)` beside \
         `signal.signal(signal.SIG{0}, handler)`",
        all.signal
    )
}

/// One that is asked with no more steps than this to do may well do them instead.
const FEW: u64 = 2;

/// What it means that all steps are done and the exit code is 0, where the answer was no checkpoint of its own.
pub(super) fn finished(attempt: &RehearsedAttempt, last: Option<u64>) -> Option<Reaction> {
    let asked_at = attempt.injected.and_then(|own| own.step);
    let is_near = last.is_none_or(|last| asked_at.is_some_and(|step| step + FEW >= last));
    let has_saved = attempt.saved_after_request().is_some();
    let is_done = attempt.end.as_ref().is_some_and(|end| end.next == Next::Done);
    match (has_saved || is_done, is_near) {
        // All is saved, or known to be done.
        (true, true) => None,
        (true, false) => Some(Reaction::Nothing),
        (false, _) => Some(Reaction::Finished),
    }
}

/// Exit code 0 after a request to save says nothing of success.
pub(super) fn finishes(reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let (attempt, kinds) = those(reactions, Reaction::Finished)?;
    let listens = reactions.iter().any(|(_, _, own)| matches!(own, Reaction::Saved(..)));
    let level = if listens { Severity::Warning } else { Severity::Error };
    let text = "asked to save near its end, the program finishes without saving";
    Some(
        Finding::new("finishes-without-saving", level, text)
            .because(format!("it ended with exit code 0, {} it was asked, and saved nothing", after(attempt)))
            .because("that does not count as done unless it says `FINISHED=1`: the trial was run again from its last checkpoint")
            .hinted("save at the end too, or say `FINISHED=1` on $NEMO_SOCKET once all is done (`nemo_harness` does)")
            .seen_in(kinds),
    )
}
