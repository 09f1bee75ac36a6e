//! Whether a resumed run does exactly what the undisturbed one does, and what is likely to be missing if not. Pure.

use super::super::align::ResumePosition;
use super::super::compare::Comparison;
use super::super::compare_files::{FileDifference, How, TreeDifference};
use super::super::inventory::CheckpointContents;
use super::super::run_record::{RehearsedRun, RunEnd};
use super::super::scenarios::ScenarioKind;
use super::super::series::PointDifference;
use super::{Finding, Rehearsal, Severity};
use crate::humanize::count;

pub(super) fn judge(all: &Rehearsal, explained: &[ScenarioKind]) -> Vec<Finding> {
    let noise = not_deterministic(all);
    let open: Vec<&(RehearsedRun, Comparison)> = all
        .runs
        .iter()
        .filter(|(run, _)| run.end == RunEnd::Completed && !explained.contains(&run.kind))
        .collect();
    let mut inexact = inexact(&open, noise.is_some());
    if let (Some(finding), None) = (&mut inexact, &all.again) {
        let text = "two undisturbed runs were not compared: there was no time";
        finding.evidence.push(text.to_owned());
    }
    let mut findings = Vec::new();
    if noise.is_none() && inexact.is_none() {
        findings.extend(late_noise(&open));
        findings.extend(only_metrics(&open));
        findings.extend(noisy(all));
    }
    // What differs and is not blamed on a resume is blamed on chance.
    let is_blamed = |kind| inexact.iter().any(|own| own.scenarios.contains(&kind));
    let by_chance = open.iter().filter(|(run, own)| !own.is_equal() && !is_blamed(run.kind));
    let by_chance: Vec<ScenarioKind> = by_chance.map(|(run, _)| run.kind).collect();
    findings.extend(noise.map(|own| own.seen_in(by_chance)));
    findings.extend(inexact);
    findings.extend(nothing_to_compare(all, &open));
    findings
}

/// `loss` 0.5 instead of 0.4.
fn describe_point(point: &PointDifference, unit: &str) -> String {
    format!(
        "{} at {unit} {} is {} instead of {}",
        point.metric, point.step, point.found, point.expected
    )
}

fn differing(difference: &FileDifference) -> String {
    let place = difference.place();
    match &difference.how {
        How::Missing => format!("{place} is missing"),
        How::Added => format!("{place} is there only in the disturbed run"),
        How::Numbers { differing, of, largest } => {
            format!(
                "{place} differs in {differing} of {}, by at most {largest:.3e}",
                count(*of, "number")
            )
        }
        How::Bytes { at } => format!("{place}: bytes differ from byte {at} on"),
    }
}

/// The first few differences.
fn files(what: &str, difference: &TreeDifference) -> Option<String> {
    let all = &difference.differences;
    let shown: Vec<String> = all.iter().take(3).map(differing).collect();
    let more = all.len().saturating_sub(3);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!shown.is_empty()).then(|| format!("{what}: {}{more}", shown.join("; ")))
}

fn tree_evidence(own: &Comparison) -> Vec<String> {
    let first = own.checkpoints.iter().find(|(_, tree)| !tree.differences.is_empty());
    let checkpoint = first.and_then(|(step, tree)| files(&format!("checkpoint step-{step}"), tree));
    checkpoint.into_iter().chain(files("results", &own.results)).collect()
}

/// What differs, for people.
pub(super) fn evidence(own: &Comparison) -> Vec<String> {
    let mut evidence = series_evidence(own);
    evidence.extend(tree_evidence(own));
    evidence
}

fn trees_differ(own: &Comparison) -> bool {
    own.checkpoints.iter().any(|(_, tree)| !tree.differences.is_empty())
        || !own.results.differences.is_empty()
}

/// Two undisturbed runs that have nothing in common.
fn not_deterministic(all: &Rehearsal) -> Option<Finding> {
    let (_, own) = all.again.as_ref()?;
    let series = &own.series;
    let all_differ = series.compared > 0 && metrics_that_agree(all).is_empty();
    let trees = series.compared == 0 && trees_differ(own);
    if !all_differ && !trees {
        return None;
    }
    let mut finding = Finding::new(
        "not-deterministic",
        Severity::Warning,
        "two undisturbed runs differ: the program is not deterministic, whatever a resume does",
    );
    if let Some(first) = &series.first {
        finding =
            finding.because(format!("the first difference: {}", describe_point(first, own.unit())));
    }
    finding.evidence.extend(tree_evidence(own));
    Some(
        finding
            .because("so a resume can't be shown to be exact; the disturbed runs were compared with ten times that difference")
            .hinted(
                "seed every generator from NEMO_SEED (`random`, `numpy`, `torch`, data workers), and for a rehearsal switch \
                 on what your framework has (`torch.use_deterministic_algorithms(True)`)",
            )
            .seen_in([ScenarioKind::Undisturbed]),
    )
}

/// The metrics of which two undisturbed runs report the same.
fn metrics_that_agree(all: &Rehearsal) -> Vec<String> {
    let Some((again, _)) = &all.again else { return Vec::new() };
    let [a, b] = [&all.baseline, again].map(|run| super::super::series::Series::new(&run.lines));
    let agrees = |name: &&str| {
        a.points.iter().all(|(step, point)| {
            b.points.get(step).is_none_or(|other| other.get(*name) == point.get(*name))
        })
    };
    a.names().into_iter().filter(agrees).map(str::to_owned).collect()
}

/// Something differs undisturbed, such as a time, and much else does not.
fn noisy(all: &Rehearsal) -> Option<Finding> {
    let (_, own) = all.again.as_ref()?;
    let mut what: Vec<String> = own.series.first.iter().map(|point| point.metric.clone()).collect();
    let trees = own.checkpoints.iter().map(|(_, tree)| tree).chain([&own.results]);
    for difference in trees.flat_map(|tree| &tree.differences) {
        let place = difference.place();
        if !what.contains(&place) {
            what.push(place);
        }
    }
    what.truncate(5);
    (!what.is_empty()).then(|| {
        let text = format!("{} differ between two undisturbed runs, and were not compared exactly", what.join(", "));
        Finding::new("noisy", Severity::Note, text)
            .hinted("times and the like: nothing to do. Weights: see `not-deterministic` in the documentation")
            .seen_in([ScenarioKind::Undisturbed])
    })
}

/// When a resumed run begins to differ: which part of a step is wrong shows at its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Onset {
    /// At the first step after the resume: its batch or its random numbers are others.
    First,
    /// At the second: the first had the same loss, and led elsewhere.
    Second,
    /// Later.
    Late,
    /// Not every step is reported, or only files differ.
    Unknown,
}

/// When the first difference is, after the resume before it.
fn onset(own: &Comparison, run: &RehearsedRun) -> (Onset, Option<ResumePosition>) {
    let Some(first) = &own.series.first else { return (Onset::Unknown, None) };
    let Some(resume) = own.resume_before(first.step) else { return (Onset::Unknown, None) };
    let onset = match first.step - resume.after {
        _ if !tells_each_step(own, run, resume) => Onset::Unknown,
        1 => Onset::First,
        2 => Onset::Second,
        _ => Onset::Late,
    };
    (onset, Some(resume))
}

/// Whether each step has a report of its own. Where reports are counted there are then at least as many as steps; one
/// or two may have come too late.
fn tells_each_step(own: &Comparison, run: &RehearsedRun, resume: ResumePosition) -> bool {
    if own.has_steps {
        run.steps().into_iter().find(|step| *step > resume.after) == Some(resume.after + 1)
    } else {
        resume.after + 2 >= resume.step
    }
}

/// A difference after a resume, in the run that tells most.
fn inexact(open: &[&(RehearsedRun, Comparison)], is_noisy: bool) -> Option<Finding> {
    let is_meant = |own: &&&(RehearsedRun, Comparison)| {
        let (run, comparison) = &***own;
        let resumed = run.attempts.iter().any(|attempt| attempt.resume_step.is_some());
        let is_later = comparison.differs_after_resume() != Some(false);
        resumed && is_later && trees_or_series(comparison)
    };
    let meant: Vec<_> = open.iter().filter(is_meant).collect();
    let onsets: Vec<Onset> = meant.iter().map(|(run, own)| self::onset(own, run).0).collect();
    let known = onsets.iter().copied().filter(|onset| *onset != Onset::Unknown);
    // What shows now at once and now later depends on where the run is in the data, not in the step.
    let same = known.clone().all(|onset| Some(onset) == known.clone().next());
    let onset = if same { known.clone().next().unwrap_or(Onset::Unknown) } else { Onset::Late };
    let clear = onsets.iter().position(|own| *own == onset).unwrap_or(0);
    let (run, own) = &***meant.get(clear)?;
    let (_, resume) = self::onset(own, run);
    let place = own.series.first.as_ref().map_or(0, |first| first.step);
    let place = format!("{} {place}", own.unit());
    let how = match (onset, resume.map(|resume| resume.step)) {
        (Onset::First, Some(step)) => {
            format!("it differs from {place}, the first after the resume from step {step}")
        }
        (_, Some(step)) => format!("resumed from step {step} it differs from {place} on"),
        (_, None) => "its metrics agree, and its files differ".to_owned(),
    };
    let what = format!("a resumed run does not continue exactly: {how}");
    let mut finding = Finding::new("resume-not-exact", Severity::Error, what);
    finding.evidence.extend(series_evidence(own));
    finding.evidence.extend(tree_evidence(own));
    if is_noisy {
        finding =
            finding.because("that is more than ten times what two undisturbed runs differ by");
    }
    let (evidence, hint) = suspects(own, onset);
    finding.evidence.extend(evidence);
    Some(finding.hinted(hint).seen_in(meant.iter().map(|own| own.0.kind)))
}

fn trees_or_series(own: &Comparison) -> bool {
    // Where a step's metrics differ and no file does, something else is wrong: see `only_metrics`.
    trees_differ(own) || (own.series.first.is_some() && !has_equal_files(own))
}

/// Whether a file that depends on the whole training is the same.
fn has_equal_files(own: &Comparison) -> bool {
    let last = own.series.first.as_ref().map_or(0, |first| as_step(own, first.step));
    let later = own.checkpoints.iter().any(|(step, tree)| *step >= last && tree.compared > 0);
    (later || own.results.compared > 0) && !trees_differ(own)
}

/// The step at a place of the record: where reports are counted, by the resume before.
fn as_step(own: &Comparison, place: u64) -> u64 {
    own.resume_before(place).map_or(place, |resume| resume.step + (place - resume.after))
}

fn series_evidence(own: &Comparison) -> Vec<String> {
    let Some(first) = &own.series.first else { return Vec::new() };
    let (unit, largest) = (own.unit(), own.series.largest.as_ref());
    let largest = largest.filter(|largest| largest.step != first.step);
    let largest = largest.map_or_else(String::new, |largest| {
        format!("; the largest difference: {:.3e}, at {unit} {}", largest.size(), largest.step)
    });
    vec![format!("{}{largest}", describe_point(first, unit))]
}

/// What is likely to be missing: by when it differs, and by what the checkpoint seems to hold.
fn suspects(own: &Comparison, onset: Onset) -> (Vec<String>, String) {
    let CheckpointContents { optimizer, random, data } = CheckpointContents::new(&own.held);
    let place = random || data;
    let names: Vec<&str> = own.held.iter().take(8).map(String::as_str).collect();
    let holds = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
    let lacks = match (optimizer, place) {
        (false, true) => "nothing in it looks like an optimizer's state (momentum, exp_avg, …)",
        (true, false) => {
            "nothing in it looks like a random generator or a place in the data (rng, order, sampler, …)"
        }
        (false, false) => {
            "nothing in it looks like an optimizer's state, a random generator or a place in the data"
        }
        (true, true) => "optimizer, and random numbers or data, seem to be in it",
    };
    let when = match onset {
        Onset::First => Some(
            "so the batch or the random numbers of that step are others already, if the metric is measured before the update, as a training loss is",
        ),
        Onset::Second => Some(
            "the first step after the resume agrees and the second does not: the same batch led to other weights, so the update is another one",
        ),
        Onset::Late => Some(
            "some steps after the resume agree: what is missing acts late, such as the next epoch's shuffle, a learning-rate schedule, or an average",
        ),
        Onset::Unknown => None,
    };
    let evidence =
        [Some(format!("the checkpoint holds {holds}; {lacks}")), when.map(str::to_owned)];
    (evidence.into_iter().flatten().collect(), hint(optimizer, place, onset))
}

const SAVE_OPTIMIZER: &str = "save and load the optimizer's state (`optimizer.state_dict()`)";
const SAVE_RANDOM: &str = "save and load the random generators (`random.getstate()`, NumPy's, `torch.get_rng_state()`, those of \
                           the GPUs) and the place in the data (epoch, order, offset)";

fn hint(optimizer: bool, place: bool, onset: Onset) -> String {
    match (optimizer, place, onset) {
        (false, _, Onset::Second) | (false, true, Onset::First | Onset::Unknown) => {
            format!("most likely the optimizer's state is lost: {SAVE_OPTIMIZER}")
        }
        (true, _, Onset::Second) => {
            "most likely the optimizer's state is saved and not loaded: load it after the optimizer is made, and make none anew \
             after that"
                .to_owned()
        }
        (true, false, _) => {
            format!("most likely the data or the random numbers start from the beginning: {SAVE_RANDOM}")
        }
        (true, true, _) | (false, true, Onset::Late) => {
            "look at what is loaded, and when: an optimizer or a learning-rate schedule that is made after the load, a seed that \
             is set after the state was restored, data workers with generators of their own, a shuffle that only the next \
             epoch makes"
                .to_owned()
        }
        (false, false, _) => format!(
            "something besides the weights is not restored: {SAVE_RANDOM}; {SAVE_OPTIMIZER}. To tell them apart, rehearse once \
             without momentum and once without shuffling, by `--set`"
        ),
    }
}

/// A difference where nothing had happened yet.
fn late_noise(open: &[&(RehearsedRun, Comparison)]) -> Option<Finding> {
    let early: Vec<_> =
        open.iter().filter(|own| own.1.differs_after_resume() == Some(false)).collect();
    let (_, own) = &***early.first()?;
    let first = own.series.first.as_ref()?;
    Some(
        Finding::new(
            "not-deterministic",
            Severity::Warning,
            "a run differs from the undisturbed one before it resumed from anything: the program is not deterministic",
        )
        .because(describe_point(first, own.unit()))
        .hinted("seed every generator from NEMO_SEED, and rehearse again")
        .seen_in(early.iter().map(|own| own.0.kind)),
    )
}

/// The weights are the same, and what is printed is not.
fn only_metrics(open: &[&(RehearsedRun, Comparison)]) -> Option<Finding> {
    let meant: Vec<_> = open
        .iter()
        .filter(|own| own.1.differs_after_resume() == Some(true) && has_equal_files(&own.1))
        .collect();
    let (_, own) = &***meant.first()?;
    Some(
        Finding::new(
            "metrics-not-restored",
            Severity::Warning,
            "after a resume metrics differ, and checkpoints and results do not",
        )
        .because(series_evidence(own).join(""))
        .hinted("an average or a sum since the start is not saved: save it, or print what belongs to the step alone")
        .seen_in(meant.iter().map(|own| own.0.kind)),
    )
}

fn nothing_to_compare(all: &Rehearsal, open: &[&(RehearsedRun, Comparison)]) -> Option<Finding> {
    let is_empty = |own: &Comparison| {
        let trees = own.checkpoints.iter().map(|(_, tree)| tree.compared).sum::<usize>();
        own.series.compared + trees + own.results.compared == 0
    };
    let blind = !open.is_empty() && open.iter().all(|(_, own)| is_empty(own));
    blind.then(|| {
        Finding::new("nothing-to-compare", Severity::Error, "could not tell whether a resume is exact")
            .because("no metric was read, no two runs have a checkpoint of the same step, and no file is below $NEMO_DIR")
            .hinted(format!("read what it prints, in [task.{}.metrics]", all.task))
            .pasting("step = 'step (\\d+)'\nloss = 'loss: (\\S+)'")
            .seen_in(open.iter().map(|(run, _)| run.kind))
    })
}
