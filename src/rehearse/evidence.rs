//! What of a comparison can tell whether a resumed run has the right state. A settings file is the same whatever the weights
//! are, and a learning rate follows from the step.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::align::ResumePosition;
use super::compare_files::{self, FileDifference, How, PassedOver};
use super::file_content::{self, Content};
use super::file_names;
use super::run_record::{RehearsedAttempt, RehearsedRun};
use super::series::RunSeries;
use super::tolerance::TreeTolerance;
use crate::file_error::IoResultExt;

/// What depends on the state of a resumed program, and was compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateEvidence {
    /// Values of metrics after a resume.
    pub metrics: usize,
    /// The steps of the checkpoints whose weights were compared.
    pub weights: BTreeSet<u64>,
    /// When the newest result that holds weights was written, in unix seconds.
    pub weights_written: Option<f64>,
    /// Other files with numbers that change while the program runs.
    pub numbers: usize,
}

impl StateEvidence {
    /// Whether nothing that was compared depends on the state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics == 0 && !self.has_files()
    }

    /// Whether a file tells it, and not the metrics alone.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.weights.is_empty() || self.weights_written.is_some() || self.numbers > 0
    }
}

/// Values that both runs have after the first resume. Where none is known, those of which the first attempt reported none.
pub(super) fn metrics(
    expected: &RunSeries,
    (run, found): (&RehearsedRun, &RunSeries),
    resumes: &[ResumePosition],
) -> usize {
    if run.attempts.len() < 2 {
        return 0;
    }
    let telling: BTreeSet<&str> =
        expected.names().into_iter().filter(|name| depends_on_state(expected, name)).collect();
    let of_first = if resumes.is_empty() { places_of_first(run, found) } else { BTreeSet::new() };
    let after = resumes.first().map_or(0, |resume| resume.after);
    let both = expected.points.range(after + 1..).filter_map(|(step, point)| {
        if of_first.contains(step) {
            return None;
        }
        let other = found.points.get(step)?;
        let shared = |name: &&&str| point.contains_key(**name) && other.contains_key(**name);
        Some(telling.iter().filter(shared).count())
    });
    both.sum()
}

/// The places of the record at which the first attempt reported.
fn places_of_first(run: &RehearsedRun, found: &RunSeries) -> BTreeSet<u64> {
    let first = run.attempts.first().map_or(0, |first| first.number);
    let lines = (1..).zip(&run.lines).filter(|(_, line)| line.attempt == first);
    lines
        .filter_map(|(place, line)| if found.has_steps { line.step } else { Some(place) })
        .collect()
}

/// The checkpoint that a run went on from before it saved this step. Where no resume is known, it went on from files of its
/// own, and any checkpoint before will do; but what the first attempt saved tells nothing.
pub(super) fn before(run: &RehearsedRun, resumes: &[ResumePosition], step: u64) -> Option<u64> {
    let (first, later) = run.attempts.split_first()?;
    if !resumes.is_empty() {
        let known = resumes.iter().map(|resume| resume.step);
        return known.filter(|own| *own < step && run.checkpoints.contains(own)).max();
    }
    let has = |attempt: &RehearsedAttempt| attempt.checkpoints.iter().any(|(own, _)| *own == step);
    let is_later = !has(first) && later.iter().any(has);
    run.checkpoints.iter().copied().filter(|own| is_later && *own < step).max()
}

/// Whether a metric is another one for other weights: it changes, and is none that follows from the step or the machine.
fn depends_on_state(series: &RunSeries, name: &str) -> bool {
    let mut values = series.points.values().filter_map(|point| point.get(name));
    let first = values.next();
    // A count that is reported once may be of anything.
    let is_fraction = first.and_then(Value::as_f64).is_some_and(|value| value.fract() != 0.0);
    let is_alone = is_fraction && values.clone().next().is_none();
    !file_names::is_schedule(name)
        && !file_names::is_clock(name)
        && (is_alone || values.any(|value| Some(value) != first))
}

/// Adds what the checkpoint of a step tells. What it does not have otherwise than the one that the run went on from, does
/// not depend on what the program did since.
pub(super) fn add_checkpoint(
    evidence: &mut StateEvidence,
    (before, earlier): (u64, &Path),
    (step, later): (u64, &Path),
    passed: &PassedOver<'_>,
) -> io::Result<()> {
    let changed = compare_files::compare(earlier, later, &TreeTolerance::new(), passed)?;
    // Where its arrays are not read, the rest tells of the file and not of the state.
    if changed.not_compared.iter().any(|path| file_names::is_database(Path::new(path))) {
        return Ok(());
    }
    for own in &changed.differences {
        match content(own, earlier, later, (before, step))? {
            Content::Weights => drop(evidence.weights.insert(step)),
            Content::Numbers => evidence.numbers += 1,
            Content::Other => {}
        }
    }
    Ok(())
}

/// What it is that two checkpoints differ in.
fn content(
    own: &FileDifference,
    earlier: &Path,
    later: &Path,
    (before, step): (u64, u64),
) -> io::Result<Content> {
    let at = |root: &Path| {
        if own.path.is_empty() { root.to_owned() } else { root.join(&own.path) }
    };
    Ok(match own.how {
        How::Missing => Content::Other,
        How::Added if own.part.is_empty() => file_content::content(&at(later))?,
        _ if own.weights => Content::Weights,
        _ if file_names::is_clock(&own.part) => Content::Other,
        How::Numbers { of: 1, largest, .. } if is_step(largest, before, step) => Content::Other,
        How::Bytes { .. } if own.part.is_empty() => {
            let (earlier, later) = (at(earlier), at(later));
            let texts = [&earlier, &later].map(|path| std::fs::read(path).named("read", path));
            let [earlier, later] = texts;
            let is_counter = file_content::is_counter(&earlier?, &later?, (before, step));
            if is_counter { Content::Other } else { Content::Numbers }
        }
        How::Added | How::Numbers { .. } | How::Bytes { .. } => Content::Numbers,
    })
}

#[expect(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "whole numbers, as they were written"
)]
fn is_step(difference: f64, before: u64, step: u64) -> bool {
    difference == step.abs_diff(before) as f64
}

/// Adds what results tell that were written after `since`. What is older was there before the program did anything, and
/// settings are the same whenever they are written.
pub(super) fn add_results(
    evidence: &mut StateEvidence,
    root: &Path,
    paths: &[PathBuf],
    since: f64,
) -> io::Result<()> {
    for path in paths {
        let whole = root.join(path);
        let modified = whole.metadata().and_then(|own| own.modified()).named("read", &whole)?;
        let at = modified.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        if at < since || file_names::is_settings(path) {
            continue;
        }
        match file_content::content(&whole)? {
            Content::Weights => {
                evidence.weights_written = Some(evidence.weights_written.unwrap_or(0.0).max(at));
            }
            Content::Numbers => evidence.numbers += 1,
            Content::Other => {}
        }
    }
    Ok(())
}

/// From when on the last attempt of a run has done something: its first report. Of one that reports nothing, the second half.
pub(super) fn last_work(run: &RehearsedRun) -> f64 {
    let Some(last) = run.attempts.last() else { return 0.0 };
    let end = last.end.as_ref().map_or(last.start, |end| end.time);
    last.lines.first().map_or(f64::midpoint(last.start, end), |line| line.time)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::super::file_names::NamePatterns;
    use super::super::run_record::RunEnd;
    use super::super::scenarios::ScenarioKind;
    use super::*;
    use nemo_core::rundir::MetricsLine;
    use serde_json::json;

    fn series(value: impl Fn(u32) -> serde_json::Value) -> RunSeries {
        let line = |step: u32| MetricsLine {
            step: Some(u64::from(step)),
            attempt: 0,
            time: 0.0,
            values: value(step).as_object().unwrap().clone(),
            validation: false,
        };
        RunSeries::new(&(1..=9).map(line).collect::<Vec<_>>())
    }

    #[test]
    fn only_metrics_after_a_resume_that_depend_on_the_state_tell_something() {
        let check = |value: &dyn Fn(u32) -> serde_json::Value, expected| {
            let own = series(value);
            let resumes = [ResumePosition { step: 6, after: 6 }];
            let run = run(&[], &[]);
            assert_eq!(metrics(&own, (&run, &own), &resumes), expected, "{own:?}");
        };
        check(&|step| json!({ "loss": 1.0 / f64::from(step) }), 3);
        check(&|step| json!({ "lr": 1.0 / f64::from(step), "learning_rate_group_0": step }), 0);
        check(&|_| json!({ "accuracy": 1.0 }), 0);
        check(&|step| if step < 5 { json!({ "loss": step }) } else { json!({}) }, 0);
        check(&|step| if step == 9 { json!({ "accuracy": 0.9 }) } else { json!({}) }, 1);
        check(&|step| if step == 9 { json!({ "layers": 9 }) } else { json!({}) }, 0);
        check(&|step| if step == 9 { json!({ "max_memory": 0.9 }) } else { json!({}) }, 0);
    }

    /// Two attempts, with a report and a checkpoint at each of these steps.
    fn run(first: &[u32], second: &[u32]) -> RehearsedRun {
        let steps = [(0, first), (1, second)];
        let attempts = steps.map(|(number, steps)| RehearsedAttempt {
            number,
            checkpoints: steps.iter().map(|step| (u64::from(*step), 0.0)).collect(),
            ..RehearsedAttempt::default()
        });
        let line = |attempt, step: u32| MetricsLine {
            step: Some(u64::from(step)),
            attempt,
            time: 0.0,
            values: json!({ "loss": 1.0 / f64::from(step) }).as_object().unwrap().clone(),
            validation: false,
        };
        let of = |(attempt, steps): (u32, &[u32])| -> Vec<MetricsLine> {
            steps.iter().map(|step| line(attempt, *step)).collect()
        };
        RehearsedRun {
            kind: ScenarioKind::Preempted,
            seconds: 1.0,
            end: RunEnd::Completed,
            attempts: attempts.into(),
            lines: steps.into_iter().flat_map(of).collect(),
            checkpoints: first.iter().chain(second).map(|step| u64::from(*step)).collect(),
            planned: 1,
        }
    }

    #[test]
    fn what_was_before_an_unknown_resume_tells_nothing() {
        let expected = series(|step| json!({ "loss": 1.0 / f64::from(step) }));
        let check = |run: &RehearsedRun, values, checkpoint| {
            let found = RunSeries::new(&run.lines);
            assert_eq!(metrics(&expected, (run, &found), &[]), values, "{run:?}");
            assert_eq!(before(run, &[], 6), checkpoint, "{run:?}");
        };
        let whole = run(&[1, 2, 3, 4, 5, 6], &[5, 6, 7, 8, 9]);
        check(&whole, 3, None);
        check(&run(&[1, 2, 3], &[4, 5, 6]), 3, Some(5));
        check(&RehearsedRun { attempts: whole.attempts[..1].to_vec(), ..whole }, 0, None);
        let mut counted = run(&[1, 2, 3], &[4, 5]);
        counted.lines.iter_mut().for_each(|line| line.step = None);
        check(&counted, 2, None);
    }

    /// What the checkpoint of step 20 tells, after one of step 10.
    fn told(earlier: &[(&str, &str)], later: &[(&str, &str)]) -> StateEvidence {
        let folder = tempfile::tempdir().unwrap();
        for (side, files) in [("earlier", earlier), ("later", later)] {
            for (name, text) in files {
                let path = folder.path().join(side).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }
        let none = |_: &Path| false;
        let passed = PassedOver { is_left_out: &none, ignored: &NamePatterns::default() };
        let [earlier, later] = ["earlier", "later"].map(|side| folder.path().join(side));
        let mut evidence = StateEvidence::default();
        add_checkpoint(&mut evidence, (10, &earlier), (20, &later), &passed).unwrap();
        evidence
    }

    #[test]
    fn a_checkpoint_tells_what_changes_with_the_state() {
        let weights = told(&[("s.json", r#"{"w": [1.5, 2]}"#)], &[("s.json", r#"{"w": [1, 2]}"#)]);
        assert_eq!(weights.weights, BTreeSet::from([20]));
        let check = |earlier: &[(&str, &str)], later: &[(&str, &str)], expected| {
            assert_eq!(told(earlier, later).has_files(), expected, "{earlier:?} {later:?}");
        };
        check(&[("s.json", r#"{"step": 10}"#)], &[("s.json", r#"{"step": 20}"#)], false);
        check(
            &[("s.json", r#"{"step": 10, "x": 3}"#)],
            &[("s.json", r#"{"step": 20, "x": 9}"#)],
            true,
        );
        check(&[("step", "10\n")], &[("step", "20\n")], false);
        check(&[("state", "10 0.5\n")], &[("state", "20 0.25\n")], true);
        check(&[("model-10.txt", "0.5")], &[("model-20.txt", "0.25")], true);
        check(&[("c.json", r#"{"dropout": 0.1}"#)], &[("c.json", r#"{"dropout": 0.1}"#)], false);
        // The arrays of an OCDBT database are not read.
        check(
            &[("manifest.ocdbt", "a"), ("d/x", "b"), ("m.json", r#"{"x": [0.5, 1]}"#)],
            &[("manifest.ocdbt", "c"), ("d/y", "d"), ("m.json", r#"{"x": [0.7, 1]}"#)],
            false,
        );
    }

    #[test]
    fn a_result_tells_something_if_it_was_written_after_the_resume() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"dropout": 0.1}"#).unwrap();
        std::fs::write(folder.path().join("scores.json"), r#"{"accuracy": 0.1}"#).unwrap();
        std::fs::write(folder.path().join("names.txt"), "cat\ndog\n").unwrap();
        let check = |names: &[&str], since, expected| {
            let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            let mut evidence = StateEvidence::default();
            add_results(&mut evidence, folder.path(), &paths, since).unwrap();
            assert_eq!(evidence.has_files(), expected, "{names:?} {since}");
        };
        check(&["scores.json"], 0.0, true);
        check(&["scores.json"], 9e9, false);
        check(&["config.json"], 0.0, false);
        check(&["names.txt"], 0.0, false);
    }
}
