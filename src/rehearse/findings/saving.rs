//! Whether the program is told, whether it saves in time, and how it ends then. Pure.

use nemo_core::rundir::Next;

use super::super::advice;
use super::super::run_record::{RehearsedAttempt, RehearsedRun};
use super::super::scenarios::{Fault, ScenarioKind};
use super::{Finding, Rehearsal, Severity, by_itself, ending};
use crate::humanize::count;

/// What a program did after it was asked to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reaction {
    /// It saved this step after so many seconds, and ended.
    Saved(u64, f64),
    /// It saved this step after so many seconds, and went on.
    WentOn(u64, f64),
    /// It ended, and saved nothing.
    Left,
    /// A SIGTERM that was not the harness's ended it before it had saved.
    DiedOfTerm,
    /// It ended with exit code 0, all steps done and not saved, which does not count as done.
    Finished,
    /// It did nothing until it was ended, or until all was done.
    Nothing,
}

/// What an attempt did after it was asked, if it was.
#[must_use]
pub fn reaction(attempt: &RehearsedAttempt, baseline: &RehearsedRun) -> Option<Reaction> {
    let asked = attempt.asked_at()?;
    let last = baseline.steps().last().copied();
    if attempt.was_done_before(last) {
        return None;
    }
    let is_whole = match last {
        Some(_) => attempt.steps().max() == last,
        // Without steps only its exit code says so.
        None => attempt.end.as_ref().is_some_and(|end| end.exit_code == Some(0)),
    };
    let is_usual = |step: u64| baseline.checkpoints.contains(&step);
    // What it saves anyway at these steps is no answer: it may have been committed only after the request.
    let answer = attempt.checkpoints.iter().find(|(step, at)| *at >= asked && !is_usual(*step));
    if attempt.died_of_term() && answer.is_none() {
        return Some(Reaction::DiedOfTerm);
    }
    let after_request = |&(step, at): &(u64, f64)| (step, at - asked);
    let has_answered = last.is_none() && answer.is_some();
    if attempt.left_by_itself() && (!is_whole || has_answered) {
        let saved = answer.map(after_request).or_else(|| attempt.saved_after_request());
        let saved = saved.or_else(|| just_saved(attempt, asked));
        return Some(saved.map_or(Reaction::Left, |(step, time)| Reaction::Saved(step, time)));
    }
    if is_whole && answer.is_none() && attempt.finished() {
        return ending::finished(attempt, last);
    }
    let went_on = |(step, seconds)| Reaction::WentOn(step, seconds);
    Some(answer.map(after_request).map_or(Reaction::Nothing, went_on))
}

/// Where it had just saved the very step, the same content is committed once.
fn just_saved(attempt: &RehearsedAttempt, asked: f64) -> Option<(u64, f64)> {
    // What it resumed from is still the newest where it has done nothing since.
    let resumed = attempt.resume_step.filter(|_| attempt.lines.is_empty());
    let step = attempt.checkpoints.last().map(|(step, _)| *step).or(resumed)?;
    let end = attempt.end.as_ref()?;
    let is_last = match attempt.steps().max() {
        Some(reported) => reported <= step,
        // Without steps its exit code is believed, which says that it has saved.
        None => matches!(end.exit_code, Some(75 | 85)),
    };
    is_last.then_some((step, end.time - asked))
}

/// Whether a longer notice would tell more: the program heard, and was ended before anything came of it.
#[must_use]
pub fn needs_long_notice(run: &RehearsedRun, baseline: &RehearsedRun) -> bool {
    run.attempts.iter().any(|attempt| {
        reaction(attempt, baseline) == Some(Reaction::Nothing)
            && attempt.notes.asked
            && (attempt.notes.terminated || attempt.notes.killed)
    })
}

/// An attempt that was asked, with its run's kind and what it did.
pub(super) type SaveReaction<'a> = (ScenarioKind, &'a RehearsedAttempt, Reaction);

/// Each attempt that was asked.
fn reactions(all: &Rehearsal) -> Vec<SaveReaction<'_>> {
    let of_run = |run: &'_ RehearsedRun| run.kind;
    all.runs
        .iter()
        .flat_map(|(run, _)| run.attempts.iter().map(move |attempt| (of_run(run), attempt)))
        .filter_map(|(kind, attempt)| Some((kind, attempt, reaction(attempt, &all.baseline)?)))
        .collect()
}

pub(super) fn judge(all: &Rehearsal) -> Vec<Finding> {
    if by_itself::is_meant(all) {
        let mut findings = by_itself::judge(all);
        findings.extend(leaves_processes(all));
        findings.extend(not_reached(all));
        return findings;
    }
    let reactions = reactions(all);
    let mut findings = Vec::new();
    findings.extend(never_saves(all, &reactions));
    if findings.is_empty() || !is_heard(all) {
        findings.extend(unheard(all, &reactions));
        findings.extend(ending::finishes(&reactions));
    }
    let dies = ending::dies_of_term(all, &reactions);
    findings.extend(dies.or_else(|| ending::term_not_caught(all)));
    findings.extend(too_slow(all, &reactions));
    findings.extend(in_place(all));
    findings.extend(exits_0(all, &reactions));
    findings.extend(goes_on(&reactions));
    findings.extend(leaves_processes(all));
    findings.extend(not_reached(all));
    findings
}

/// Whether the signal was caught in any run.
fn is_heard(all: &Rehearsal) -> bool {
    all.runs.iter().flat_map(|(run, _)| &run.attempts).any(|own| own.notes.asked)
}

fn never_saves(all: &Rehearsal, reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let disturbed = all.runs.iter().map(|(run, _)| run);
    let mut runs = std::iter::once(&all.baseline).chain(disturbed);
    let has_saved = runs.any(|run| run.saves().next().is_some());
    // Without a run in which it was asked, it may just not have been time yet.
    if has_saved || all.runs.is_empty() || too_slow(all, reactions).is_some() {
        return None;
    }
    // Nobody knows what it would have done with more time.
    if !reactions.is_empty() && reactions.iter().all(|(_, _, own)| *own == Reaction::DiedOfTerm) {
        return None;
    }
    let attempts: usize = all.runs.iter().map(|(run, _)| run.attempts.len()).sum();
    let caught = if is_heard(all) { "it catches" } else { "it does not catch" };
    Some(
        Finding::new("never-saves", Severity::Error, "the program never saves a checkpoint")
            .because(format!(
                "nothing was committed in {} of {}; {caught} {}",
                count(attempts, "attempt"),
                count(all.runs.len(), "disturbed run"),
                all.signal
            ))
            .hinted(format!(
                "when {} comes, write a file or folder into $NEMO_CHECKPOINT_DIR under a name that begins with `.tmp`, \
                 rename it to `step-N`, and exit with 75",
                all.signal
            ))
            .seen_in(all.runs.iter().map(|(run, _)| run.kind)),
    )
}

/// It was asked, and nothing came of it although there was time.
fn unheard(all: &Rehearsal, reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let slow = too_slow(all, reactions);
    // A program that does save when asked may once be asked before it listens, or too near its end.
    let listens = reactions.iter().any(|(_, _, own)| matches!(own, Reaction::Saved(..)));
    let is_chance = |attempt: &RehearsedAttempt, reaction: Reaction| {
        let was_deaf = !attempt.notes.asked || attempt.steps().next().is_none();
        listens && reaction == Reaction::Nothing && was_deaf
    };
    let lazy: Vec<_> = reactions
        .iter()
        .filter(|(kind, attempt, reaction)| {
            let is_slow = slow.as_ref().is_some_and(|finding| finding.scenarios.contains(kind));
            let is_lazy = matches!(reaction, Reaction::Nothing | Reaction::Left);
            is_lazy && !is_slow && !is_chance(attempt, *reaction)
        })
        .collect();
    let (_, attempt, reaction) = lazy.first()?;
    let kinds = lazy.iter().map(|(kind, _, _)| *kind);
    let signal = &all.signal;
    if *reaction == Reaction::Left {
        let text = "the program ends when it is asked to save, and has saved nothing";
        let reason = attempt.end.as_ref().and_then(|end| end.reason.clone()).unwrap_or_default();
        let finding = Finding::new("ends-without-saving", Severity::Error, text)
            .because(format!("no checkpoint was committed; {reason}"))
            .hinted("save before the exit, and wait until the file has its final name");
        return Some(finding.seen_in(kinds));
    }
    let text = format!("the program ignores {signal}, by which it is asked to save");
    let finding = Finding::new("ignores-signal", Severity::Error, text);
    let finding = if attempt.notes.asked {
        finding
            .because(format!("it catches {signal} (or a library does), and then {}", idle(attempt)))
            .hinted("let the handler set a flag, and between two steps: save, then exit with 75")
    } else {
        finding
            .because(format!("none of its processes catches {signal} (SigCgt in /proc/PID/status)"))
            .hinted(format!(
                "Python: `signal.signal(signal.SIG{signal}, lambda *_: asked.append(1))`, and between two steps: \
                 if asked, save and exit with 75. If `run` starts it by a shell script, end that one with `exec`"
            ))
    };
    Some(finding.seen_in(kinds))
}

/// What it did instead.
fn idle(attempt: &RehearsedAttempt) -> String {
    if attempt.finished() {
        format!("worked on{} until all was done", until(attempt))
    } else {
        format!("neither saved nor ended{}", until(attempt))
    }
}

/// The seconds from the request to its end.
pub(super) fn lasted(attempt: &RehearsedAttempt) -> Option<f64> {
    Some(attempt.end.as_ref()?.time - attempt.asked_at()?)
}

fn until(attempt: &RehearsedAttempt) -> String {
    lasted(attempt).map_or_else(String::new, |seconds| format!(" for {seconds:.1} s"))
}

/// It was ended while it saved: a longer notice was enough.
fn too_slow(all: &Rehearsal, reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let needed = reactions.iter().find_map(|(kind, attempt, reaction)| match (kind, reaction) {
        (ScenarioKind::LongNotice, Reaction::Saved(step, _) | Reaction::WentOn(step, _)) => {
            attempt.save_seconds(*step)
        }
        _ => None,
    })?;
    let lead = advice::lead(needed);
    let kinds: Vec<ScenarioKind> = reactions
        .iter()
        .filter(|(kind, _, reaction)| {
            *kind != ScenarioKind::LongNotice && *reaction == Reaction::Nothing
        })
        .map(|(kind, _, _)| *kind)
        .collect();
    Some(
        Finding::new("lead-too-short", Severity::Error, "the program saves too slowly for its `lead`")
            .because(format!(
                "it needs {needed:.1} s from the signal until the checkpoint is committed; with a lead of {} s it is told \
                 to end after {:.1} s",
                all.lead,
                advice::until_term(all.lead)
            ))
            .hinted(format!("give it more time, in [task.{}.checkpoint]", all.task))
            .pasting(format!("lead = \"{lead}s\""))
            .seen_in(kinds),
    )
}

fn in_place(all: &Rehearsal) -> Option<Finding> {
    let again = all.again.iter().map(|(run, _)| run);
    let runs: Vec<&RehearsedRun> = std::iter::once(&all.baseline)
        .chain(again)
        .chain(all.runs.iter().map(|(run, _)| run))
        .collect();
    let seen = runs.iter().flat_map(|run| &run.attempts).find_map(|own| own.in_place.first())?;
    let torn = runs.iter().flat_map(|run| &run.attempts).filter(|own| own.notes.torn).count();
    let of = runs.iter().filter(|run| run.attempts.iter().any(|own| !own.in_place.is_empty()));
    let finding = Finding::new("in-place-save", Severity::Error, "the program saves under the final name")
        .because(format!("`{seen}` is written under its final name: before the program ends, nothing shows when it is complete"));
    let finding = if torn > 0 {
        finding.because(format!("in {} what it had saved was lost so", count(torn, "attempt")))
    } else {
        finding
    };
    Some(
        finding
            .hinted(format!(
                "write to `.tmp-{seen}` in $NEMO_CHECKPOINT_DIR first, then `os.rename(\".tmp-{seen}\", \"{seen}\")`; a folder too"
            ))
            .seen_in(of.map(|run| run.kind)),
    )
}

fn exits_0(all: &Rehearsal, reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let with_0: Vec<_> = reactions
        .iter()
        .filter(|(_, attempt, reaction)| {
            let code = attempt.end.as_ref().and_then(|end| end.exit_code);
            matches!(reaction, Reaction::Saved(..)) && code == Some(0)
        })
        .collect();
    let (_, attempt, _) = with_0.first()?;
    let last = all.baseline.steps().last().copied();
    let of = match (attempt.steps().max(), last) {
        (Some(step), Some(last)) => format!(" after step {step} of {last}"),
        _ => String::new(),
    };
    let text = "the program exits with 0 although it is not done";
    let finding = Finding::new("exits-0-after-save", Severity::Error, text)
        .because(format!("it saved as asked and exited with 0{of}"));
    let ends = with_0.iter().filter_map(|(_, attempt, _)| attempt.end.as_ref());
    let finding = if ends.filter(|own| own.next == Next::Done).count() > 0 {
        finding.because("the trial then counted as completed")
    } else {
        finding.because(
            "while the harness itself stops it, that is understood; after any other signal, such as `scancel --signal` by \
             hand, the trial would count as completed",
        )
    };
    let hint =
        "exit with 75 (saved, requeue me) or 85 (saved, start me again here): `sys.exit(75)`";
    Some(finding.hinted(hint).seen_in(with_0.iter().map(|(kind, _, _)| *kind)))
}

fn goes_on(reactions: &[SaveReaction<'_>]) -> Option<Finding> {
    let mut went = Vec::new();
    for (kind, attempt, reaction) in reactions {
        let Reaction::WentOn(saved, seconds) = *reaction else { continue };
        let more = attempt.steps().max().map_or(0, |step| step.saturating_sub(saved));
        // One that was ended right after it had saved had no time to go.
        if more > 1 && *kind != ScenarioKind::LongNotice {
            went.push((*kind, saved, seconds, more));
        }
    }
    let (_, saved, seconds, more) = *went.first()?;
    let more = count(usize::try_from(more).unwrap_or(usize::MAX), "step");
    let text = "the program saves when asked, and goes on";
    Some(
        Finding::new("goes-on-after-save", Severity::Warning, text)
            .because(format!(
                "it saved step {saved} after {seconds:.1} s, and went on for {more}: they are done twice"
            ))
            .hinted("exit with 75 once the checkpoint has its name")
            .seen_in(went.iter().map(|(kind, ..)| *kind)),
    )
}

fn leaves_processes(all: &Rehearsal) -> Option<Finding> {
    // After a kill it is no fault to have left children.
    let left = |run: &RehearsedRun| {
        run.attempts.iter().any(|own| own.notes.left_behind && own.left_by_itself())
    };
    let again = all.again.iter().map(|(run, _)| run);
    let runs =
        std::iter::once(&all.baseline).chain(again).chain(all.runs.iter().map(|(run, _)| run));
    let kinds: Vec<ScenarioKind> = runs.filter(|run| left(run)).map(|run| run.kind).collect();
    (!kinds.is_empty()).then(|| {
        Finding::new("leaves-processes", Severity::Warning, "the program ends, and leaves processes behind")
            .because("they were killed right after it had ended, and lost what they still had to do")
            .hinted("wait for child processes before the end; start none with `setsid`, `nohup` or `&` at the end")
            .seen_in(kinds)
    })
}

/// In the rehearsal a crash was followed by another attempt, whatever the file says.
pub(super) fn crash_ends_trial(all: &Rehearsal) -> Option<Finding> {
    let killed = all.runs.iter().any(|(run, _)| run.kind == ScenarioKind::Killed);
    (killed && all.crashes == 0).then(|| {
        Finding::new(
            "crash-ends-trial",
            Severity::Note,
            "outside of a rehearsal a crash would end the trial for good",
        )
        .hinted(format!("to go on from the last checkpoint, in [task.{}.restart]:", all.task))
        .pasting("crashes = 2")
        .seen_in([ScenarioKind::Killed])
    })
}

/// Disturbances that came too late, or for which there was no time.
fn not_reached(all: &Rehearsal) -> Option<Finding> {
    let last = all.baseline.steps().last().copied();
    let runs = all.runs.iter().map(|(run, _)| run);
    let calm: Vec<ScenarioKind> =
        runs.filter(|run| !run.was_disturbed(last)).map(|run| run.kind).collect();
    if calm.len() == all.runs.len() {
        let text = "nothing was disturbed, so nothing tells whether the program is safe";
        return Some(
            Finding::new("not-disturbed", Severity::Error, text)
                .hinted("let the training take longer than a few seconds, and the rehearsal as long as it needs")
                .seen_in(calm),
        );
    }
    (!calm.is_empty()).then(|| {
        Finding::new("not-disturbed", Severity::Warning, "a run was over before it could be disturbed")
            .hinted("let the training take a few seconds more: it is looked at every 5 ms, and limits are whole seconds")
            .seen_in(calm)
    })
}

/// The longest time from a request until its checkpoint was committed.
pub(in crate::rehearse) fn longest_save(all: &Rehearsal) -> Option<f64> {
    let times = reactions(all).into_iter().filter_map(|(_, attempt, reaction)| match reaction {
        Reaction::Saved(step, _) | Reaction::WentOn(step, _) => {
            let is_asked = !matches!(attempt.injected.map(|own| own.fault), Some(Fault::Requeue));
            // The same step may have been saved just before: then nothing says how long that took.
            attempt.save_seconds(step).filter(|_| is_asked)
        }
        Reaction::Left | Reaction::DiedOfTerm | Reaction::Finished | Reaction::Nothing => None,
    });
    times.reduce(f64::max)
}
