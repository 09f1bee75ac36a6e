//! How the program ends once it is asked to save: by whom, and whether that counts as done. Pure.

use super::super::observed::Attempt;
use super::super::plan::{Fault, Kind};
use super::saving::{Reaction, Seen, until};
use super::{Finding, Level, Rehearsal};

/// The kinds of runs that reacted so, and the first attempt that did.
fn those<'a>(reactions: &[Seen<'a>], meant: Reaction) -> Option<(&'a Attempt, Vec<Kind>)> {
    let all: Vec<_> = reactions.iter().filter(|(_, _, own)| *own == meant).collect();
    let (_, first, _) = all.first()?;
    Some((first, all.iter().map(|(kind, ..)| *kind).collect()))
}

/// Slurm's TERM goes to the program as well as to the harness.
pub(super) fn dies_of_term(all: &Rehearsal, reactions: &[Seen<'_>]) -> Option<Finding> {
    let (attempt, kinds) = those(reactions, Reaction::DiedOfTerm)?;
    let is_slurms = attempt.injected.is_some_and(|own| own.fault == Fault::Requeue);
    let (whose, when) = if is_slurms {
        ("Slurm's own SIGTERM", "a requeue, `scancel` and a preemption send it to every process")
    } else {
        ("a SIGTERM", "it was not sent by the harness")
    };
    let text = format!("{whose} ended the program before it had saved");
    Some(
        Finding::new("dies-of-term", Level::Error, text)
            .because(format!("it lasted{} after it was asked; {when}", until(attempt)))
            .because("what it did since its last checkpoint is lost")
            .hinted(format!(
                "catch SIGTERM with the same handler as {0}; Python: `signal.signal(signal.SIGTERM, handler)` beside \
                 `signal.signal(signal.SIG{0}, handler)`",
                all.signal
            ))
            .seen_in(kinds),
    )
}
