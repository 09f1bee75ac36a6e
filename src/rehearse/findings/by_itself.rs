//! A program that is never asked, and saves by itself (`checkpoint.signal = "none"`): what a stop costs it. Pure.

use nemo_core::rundir::NO_SIGNAL;

use super::super::run_record::{RehearsedAttempt, RehearsedRun};
use super::super::scenarios::ScenarioKind;
use super::{Finding, Rehearsal, Severity};
use crate::humanize::count;

/// Whether the task says so.
pub(super) fn is_meant(all: &Rehearsal) -> bool {
    all.signal == NO_SIGNAL
}

/// The step after which an attempt went on, and the last step of the attempt before it.
fn went_on(pair: &[RehearsedAttempt]) -> Option<(u64, u64)> {
    let [before, after] = pair else { return None };
    Some((after.steps().min()?.saturating_sub(1), before.steps().max()?))
}

/// Each pair of attempts of a disturbed run, one after the other.
fn pairs(run: &RehearsedRun) -> impl Iterator<Item = (u64, u64)> {
    run.attempts.windows(2).filter_map(went_on)
}

/// The steps that were done twice in the worst case: a number that its user should know.
pub(super) fn judge(all: &Rehearsal) -> Vec<Finding> {
    let runs = || all.runs.iter().map(|(run, _)| run);
    let first = all.baseline.steps().first().copied().unwrap_or_default();
    let goes_on = runs().any(|run| pairs(run).any(|(from, _)| from >= first));
    let saves = runs().chain([&all.baseline]).any(|run| run.saves().next().is_some());
    if runs().next().is_none() {
        return Vec::new();
    }
    if !saves && !goes_on {
        let finding = Finding::new("never-saves", Severity::Error, "the program never saves a checkpoint")
            .because("it is never asked to (`signal = \"none\"`), nothing was committed, and no attempt went on where another one had been")
            .hinted(format!("say where it saves, in [task.{}.checkpoint]:", all.task))
            .pasting("from = \"out/ckpt*.pt\"");
        return vec![finding.seen_in(runs().map(|run| run.kind))];
    }
    let lost =
        runs().flat_map(|run| pairs(run).map(move |(from, last)| (last.saturating_sub(from), run)));
    let worst = lost.max_by_key(|(steps, _)| *steps);
    vec![loss(all, worst, saves)]
}

fn loss(all: &Rehearsal, worst: Option<(u64, &RehearsedRun)>, saves: bool) -> Finding {
    let steps = worst.map_or(0, |(steps, _)| steps);
    let shown = count(usize::try_from(steps).unwrap_or(usize::MAX), "step");
    let text = format!(
        "the program is never asked to save: a stop costs what it did since its last save, up to {shown} here"
    );
    let all_steps = all.baseline.steps().len().max(1);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let seconds = all.baseline.seconds * steps as f64 / all_steps as f64;
    let kinds: Vec<ScenarioKind> = worst.map(|(_, run)| run.kind).into_iter().collect();
    let finding = Finding::new("saves-by-itself", Severity::Warning, text).because(format!(
        "{shown} were done twice in the worst of {}, about {seconds:.1} s",
        count(all.runs.len(), "disturbed run")
    ));
    let finding = if saves {
        finding.hinted("save more often, or let it save when it is asked (`checkpoint.signal`)")
    } else {
        finding
            .because("none of its saves was committed: nobody verifies what it goes on from")
            .hinted(format!(
                "say where it saves, in [task.{}.checkpoint]: `from` and `restore_to`",
                all.task
            ))
    };
    finding.seen_in(kinds)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{attempt, rehearsal};
    use super::super::{is_safe, judge as judge_all};
    use crate::rehearse::compare::RunComparison;
    use crate::rehearse::run_record::Injected;
    use crate::rehearse::scenarios::Fault;

    fn by_itself(attempts: Vec<super::RehearsedAttempt>) -> super::Rehearsal {
        let all = rehearsal(attempts, RunComparison::default());
        super::Rehearsal { signal: super::NO_SIGNAL.to_owned(), ..all }
    }

    #[test]
    fn what_a_stop_costs_is_a_warning_with_a_number() {
        let mut attempts = vec![attempt(None, 40), attempt(Some(30), 60)];
        attempts[0].checkpoints = vec![(30, 130.0)];
        let injected = Injected { fault: Fault::KillProgram, time: 140.2, step: Some(40) };
        attempts[0].injected = Some(injected);
        let findings = judge_all(&by_itself(attempts));
        let own = findings.iter().find(|own| own.code == "saves-by-itself").unwrap();
        assert!(own.what.ends_with("up to 10 steps here"), "{}", own.what);
        assert!(is_safe(&findings), "{findings:#?}");
    }

    #[test]
    fn one_that_goes_on_from_a_file_that_only_it_knows_is_warned_of() {
        let injected = Injected { fault: Fault::KillProgram, time: 140.2, step: Some(40) };
        let again = super::RehearsedAttempt { resume_step: None, ..attempt(Some(30), 60) };
        let first = super::RehearsedAttempt { injected: Some(injected), ..attempt(None, 40) };
        let mut all = by_itself(vec![first, again]);
        all.baseline.attempts[0].checkpoints.clear();
        let findings = judge_all(&all);
        let codes: Vec<&str> = findings.iter().map(|own| own.code).collect();
        assert_eq!(codes, ["saves-by-itself"], "{findings:#?}");
        assert!(findings[0].evidence.iter().any(|own| own.contains("nobody verifies")));
    }
}
