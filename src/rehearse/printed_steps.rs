//! The steps of a program that prints them and no metric: the harness has no record of them, so its output is read here.

use std::collections::BTreeMap;
use std::io;

use nemo_core::log_line;
use nemo_core::patterns::Patterns;
use nemo_core::rundir::{MetricsLine, TrialDir};
use serde_json::Map;

use super::tail::Tail;
use crate::clock;

/// Reads both outputs of each attempt on.
#[derive(Debug)]
pub(super) struct PrintedSteps {
    patterns: BTreeMap<String, String>,
    attempt: u32,
    /// Of this attempt's outputs: what tells the step, and how far they are read.
    outputs: Vec<(Patterns, Tail)>,
}

impl PrintedSteps {
    /// None where the task reads metrics, or no steps.
    pub(super) fn new(patterns: &BTreeMap<String, String>) -> Option<Self> {
        let is_alone =
            patterns.len() == 1 && Patterns::new(patterns).is_ok_and(|own| own.has_step());
        is_alone.then(|| Self { patterns: patterns.clone(), attempt: 0, outputs: Vec::new() })
    }

    /// A report for each new step of this attempt.
    pub(super) fn read(&mut self, dir: &TrialDir, attempt: u32) -> io::Result<Vec<MetricsLine>> {
        let mut lines = Vec::new();
        if self.outputs.is_empty() || self.attempt != attempt {
            lines.extend(self.rest(dir)?);
            let fresh = [Patterns::new(&self.patterns), Patterns::new(&self.patterns)];
            let fresh = fresh.into_iter().flatten().map(|own| (own, Tail::default()));
            (self.attempt, self.outputs) = (attempt, fresh.collect());
        }
        lines.extend(self.rest(dir)?);
        Ok(lines)
    }

    /// What the attempt has printed since.
    fn rest(&mut self, dir: &TrialDir) -> io::Result<Vec<MetricsLine>> {
        let (attempt, mut lines) = (self.attempt, Vec::new());
        let paths = [dir.stdout(attempt), dir.stderr(attempt)];
        for ((patterns, tail), path) in self.outputs.iter_mut().zip(paths) {
            let (bytes, _) = tail.read(&path)?;
            let text = String::from_utf8_lossy(&bytes);
            // What the harness says of checkpoints has steps too.
            for line in text.lines().filter(|line| !line.starts_with(log_line::PREFIX)) {
                let before = patterns.current;
                patterns.line(line);
                if patterns.current != before {
                    let (step, time) = (patterns.current, clock::now());
                    lines.push(MetricsLine {
                        step,
                        attempt,
                        time,
                        values: Map::new(),
                        validation: false,
                    });
                }
            }
        }
        Ok(lines)
    }
}

/// The record that the harness would have kept: what was done after a checkpoint is taken out when it is resumed from.
pub(super) fn record(reports: &[MetricsLine], resumes: &[(u32, Option<u64>)]) -> Vec<MetricsLine> {
    let mut record: Vec<MetricsLine> = Vec::new();
    for (attempt, resumed) in resumes {
        record.retain(|line| line.step <= *resumed);
        record.extend(reports.iter().filter(|line| line.attempt == *attempt).cloned());
    }
    record
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    fn patterns(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn steps_are_read_where_nothing_else_is() {
        let step = ("step", r"step (\d+)");
        assert!(PrintedSteps::new(&patterns(&[step, ("loss", "(.)")])).is_none());
        assert!(PrintedSteps::new(&patterns(&[("loss", "(.)")])).is_none());
        let folder = tempfile::tempdir().unwrap();
        let dir = TrialDir(folder.path().to_owned());
        let mut steps = PrintedSteps::new(&patterns(&[step])).unwrap();
        let mut check = |attempt, text: &str, expected: &[u64]| {
            std::fs::write(dir.stdout(attempt), text).unwrap();
            let lines = steps.read(&dir, attempt).unwrap();
            let found: Vec<u64> = lines.iter().filter_map(|line| line.step).collect();
            assert_eq!(found, expected, "{text}");
        };
        check(0, "step 1\nstep 2\nhello\nst", &[1, 2]);
        check(0, "step 1\nstep 2\nhello\nstep 3\n", &[3]);
        check(1, "step 3\n", &[3]);
        std::fs::write(dir.stderr(2), "nemo-harness: now info resuming from step 3\nstep 4\n")
            .unwrap();
        let found = steps.read(&dir, 2).unwrap();
        assert_eq!(found.iter().filter_map(|line| line.step).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_resume_takes_out_what_came_after_its_checkpoint() {
        let line = |(attempt, step)| MetricsLine {
            step: Some(step),
            attempt,
            time: 0.0,
            values: Map::new(),
            validation: false,
        };
        let reports: Vec<MetricsLine> =
            [(0, 1), (0, 2), (0, 3), (1, 3), (1, 4), (2, 1)].map(line).into();
        let check = |resumes: &[(u32, Option<u64>)], expected: &[u64]| {
            let found = record(&reports, resumes);
            let found: Vec<u64> = found.iter().filter_map(|line| line.step).collect();
            assert_eq!(found, expected);
        };
        check(&[(0, None), (1, Some(2))], &[1, 2, 3, 4]);
        check(&[(0, None), (1, Some(2)), (2, None)], &[1]);
    }
}
