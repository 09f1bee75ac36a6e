//! What two undisturbed runs have in common, and what that leaves unsaid. Pure.

use std::collections::BTreeSet;

use super::super::compare::RunComparison;
use super::super::compare_files::{FileDifference, How};
use super::super::file_names::pattern;
use super::super::run_record::RehearsedRun;
use super::super::scenarios::ScenarioKind;
use super::super::series::RunSeries;
use super::exactness::{describe_point, tree_evidence};
use super::{Finding, Rehearsal, Severity};

/// What differs between the files of two undisturbed runs.
fn undisturbed_differences(own: &RunComparison) -> impl Iterator<Item = &FileDifference> {
    let trees = own.checkpoints.iter().map(|(_, tree)| tree).chain([&own.results]);
    trees.flat_map(|tree| &tree.differences)
}

/// Weights that differ between two undisturbed runs. A header is none.
fn noisy_weights(own: &RunComparison) -> Vec<&FileDifference> {
    let is_header = |how: &How| matches!(how, How::Bytes { until: Some(_), .. });
    undisturbed_differences(own).filter(|own| own.weights && !is_header(&own.how)).collect()
}

/// Whether neither a metric nor a file is the same in both undisturbed runs, although there are some.
fn has_nothing_in_common(all: &Rehearsal, own: &RunComparison) -> bool {
    let trees = || own.checkpoints.iter().map(|(_, tree)| tree).chain([&own.results]);
    let compared = trees().map(|tree| tree.compared).sum::<usize>();
    let differing = trees().map(|tree| {
        let paths: BTreeSet<&str> = tree.differences.iter().map(|own| own.path.as_str()).collect();
        paths.len()
    });
    let metrics = own.series.compared > 0;
    let agree = !metrics_that_agree(all).is_empty();
    (metrics || compared > 0) && !(metrics && agree) && differing.sum::<usize>() >= compared
}

/// Two undisturbed runs whose weights differ, or that have nothing in common.
pub(super) fn not_deterministic(all: &Rehearsal) -> Option<Finding> {
    let (_, own) = all.again.as_ref()?;
    let weights = noisy_weights(own);
    let is_blind = has_nothing_in_common(all, own);
    if weights.is_empty() && !is_blind {
        return None;
    }
    let unnamed: Vec<&&FileDifference> =
        weights.iter().filter(|own| !all.noise.has_part(&own.path, &own.part)).collect();
    let mut metrics = own.series.first.iter().map(|first| first.metric.as_str());
    let is_accepted = unnamed.is_empty() && (!is_blind || metrics.all(|name| all.noise.has(name)));
    let level = if is_accepted { Severity::Warning } else { Severity::Error };
    let what = if weights.is_empty() {
        "two undisturbed runs differ: the program is not deterministic, whatever a resume does"
    } else {
        "the weights of two undisturbed runs differ: the program is not deterministic, whatever a resume does"
    };
    let mut finding = Finding::new("not-deterministic", level, what);
    if let Some(first) = &own.series.first {
        finding =
            finding.because(format!("the first difference: {}", describe_point(first, own.unit())));
    }
    finding.evidence.extend(tree_evidence(own));
    let finding = finding
        .because("so a resume can't be shown to be exact; the disturbed runs were compared with ten times that difference")
        .hinted(format!(
            "seed every generator from NEMO_SEED (`random`, `numpy`, `torch`, data workers), and for a rehearsal switch \
             on what your framework has (`torch.use_deterministic_algorithms(True)`). What can't be the same, say in \
             [task.{}.rehearse]:",
            all.task
        ))
        .seen_in([ScenarioKind::Undisturbed]);
    if is_accepted {
        return Some(Finding { hint: String::new(), ..finding });
    }
    let first = own.series.first.as_ref().map(|first| first.metric.clone());
    Some(finding.pasting(format!("noise = {:?}", noise_patterns(&unnamed, first))))
}

/// What would accept these, by the first words of their names.
fn noise_patterns(weights: &[&&FileDifference], metric: Option<String>) -> Vec<String> {
    let of_part = |own: &&&FileDifference| match own.part.split_once(['.', '[', '/']) {
        Some((first, _)) => format!("{first}*"),
        None if own.part.is_empty() => own.path.clone(),
        None => own.part.clone(),
    };
    let mut patterns: Vec<String> = weights.iter().map(of_part).chain(metric).collect();
    patterns.sort();
    patterns.dedup();
    patterns
}

/// The metrics of which two undisturbed runs report the same.
fn metrics_that_agree(all: &Rehearsal) -> Vec<String> {
    let Some((again, _)) = &all.again else { return Vec::new() };
    let [a, b] = [&all.baseline, again].map(|run| RunSeries::new(&run.lines));
    let agreeing = a.names().into_iter().filter(|name| {
        a.points.iter().all(|(step, point)| {
            b.points.get(step).is_none_or(|other| other.get(*name) == point.get(*name))
        })
    });
    agreeing.map(str::to_owned).collect()
}

/// Something differs undisturbed, such as a time, and much else does not.
pub(super) fn noisy(all: &Rehearsal) -> Option<Finding> {
    let (_, own) = all.again.as_ref()?;
    let mut what: Vec<String> = own.series.first.iter().map(|point| point.metric.clone()).collect();
    for difference in undisturbed_differences(own) {
        let place = difference.place();
        if !what.contains(&place) {
            what.push(place);
        }
    }
    what.truncate(5);
    (!what.is_empty()).then(|| {
        let text = format!(
            "{} differ between two undisturbed runs, and were not compared exactly",
            what.join(", ")
        );
        Finding::new("noisy", Severity::Note, text)
            .hinted("times, paths and the like: nothing to do")
            .seen_in([ScenarioKind::Undisturbed])
    })
}

/// Logs, and what the file says to ignore.
pub(super) fn not_compared(all: &Rehearsal) -> Option<Finding> {
    let (_, own) = all.again.as_ref()?;
    let trees = own.checkpoints.iter().map(|(_, tree)| tree).chain([&own.results]);
    let shown = |name: &String| pattern(name).unwrap_or_else(|| name.clone());
    let mut names: Vec<String> = trees.flat_map(|tree| &tree.not_compared).map(shown).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.truncate(5);
    (!names.is_empty()).then(|| {
        let text =
            format!("{}{more} were not compared: logs, databases that can't be read, and what `ignore` names", names.join(", "));
        Finding::new("not-compared", Severity::Note, text).seen_in([ScenarioKind::Undisturbed])
    })
}

/// A difference where nothing had happened yet.
pub(super) fn late_noise(open: &[&(RehearsedRun, RunComparison)]) -> Option<Finding> {
    let early: Vec<_> =
        open.iter().filter(|own| own.1.differs_after_resume() == Some(false)).collect();
    let (_, own) = &***early.first()?;
    let first = own.series.first.as_ref()?;
    Some(
        Finding::new(
            "not-deterministic",
            Severity::Error,
            "a run differs from the undisturbed one before it resumed from anything: the program is not deterministic",
        )
        .because(describe_point(first, own.unit()))
        .hinted("seed every generator from NEMO_SEED, and rehearse again")
        .seen_in(early.iter().map(|own| own.0.kind)),
    )
}
