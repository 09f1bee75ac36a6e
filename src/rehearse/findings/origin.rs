//! Whether an attempt that counts from the beginning also is at the beginning: by its metrics, or else by what it made. Pure.

use super::super::compare::RunComparison;
use super::Rehearsal;
use super::resuming::ResumedRun;

/// Where an attempt's state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is that of the first steps.
    Start,
    /// It is that of the checkpoint.
    Checkpoint,
    /// It is neither.
    Elsewhere,
    /// Nothing tells.
    Unknown,
}

/// What an attempt that counts from the beginning went on from.
pub(super) fn of(begin: &ResumedRun<'_>, all: &Rehearsal) -> Origin {
    let by_metrics = by_metrics(begin, all);
    if by_metrics != Origin::Unknown {
        return by_metrics;
    }
    let own = all.runs.iter().find(|(run, _)| run.kind == begin.kind).map(|(_, own)| own);
    own.map_or(Origin::Unknown, |own| by_files(begin, own))
}

/// The most reports that are compared.
const ENOUGH: usize = 50;

/// What an attempt reported beside what the undisturbed run did: at the same steps, and at those after the checkpoint.
fn by_metrics(begin: &ResumedRun<'_>, all: &Rehearsal) -> Origin {
    let by = begin.expected - begin.first;
    let (mut same, mut later, mut compared) = (0, 0, 0);
    let (mut off_same, mut off_later) = (0.0_f64, 0.0_f64);
    for line in begin.attempt.lines.iter().take(ENOUGH) {
        let Some(step) = line.step else { continue };
        for (name, value) in &line.values {
            let Some(value) = value.as_f64() else { continue };
            let (at, after) = (undisturbed(all, step, name), undisturbed(all, step + by, name));
            let (Some(at), Some(after)) = (at, after) else { continue };
            // What is the same at both tells nothing.
            if is_equal(at, after) {
                continue;
            }
            compared += 1;
            same += usize::from(is_equal(value, at));
            later += usize::from(is_equal(value, after));
            off_same += (value - at).abs();
            off_later += (value - after).abs();
        }
    }
    match (compared, same, later) {
        (0, ..) => Origin::Unknown,
        (_, same, later) if same > later => Origin::Start,
        (_, same, later) if later > same => Origin::Checkpoint,
        _ if off_same <= off_later => Origin::Start,
        _ => Origin::Elsewhere,
    }
}

fn is_equal(one: f64, other: f64) -> bool {
    one.to_bits() == other.to_bits()
}

fn undisturbed(all: &Rehearsal, step: u64, name: &str) -> Option<f64> {
    let mut lines = all.baseline.lines.iter().filter(|line| line.step == Some(step));
    lines.find_map(|line| line.values.get(name)?.as_f64())
}

/// One that began again makes the same files in the end; one that went on has done more steps by then.
fn by_files(begin: &ResumedRun<'_>, own: &RunComparison) -> Origin {
    let given = begin.attempt.resume_step.unwrap_or_default();
    let later = own.checkpoints.iter().filter(|(step, _)| *step > given).map(|(_, tree)| tree);
    let trees: Vec<_> = later.chain([&own.results]).filter(|tree| tree.compared > 0).collect();
    match trees.iter().all(|tree| tree.differences.is_empty()) {
        _ if trees.is_empty() => Origin::Unknown,
        true => Origin::Start,
        false => Origin::Elsewhere,
    }
}
