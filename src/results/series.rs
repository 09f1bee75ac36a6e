//! The series of metrics: every value that a trial reported, or that patterns find in what it printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use nemo_core::patterns::Patterns;
use nemo_core::rundir::{AttemptRecord, AttemptStart, TrialDir, starts};
use nemo_core::{lines, log_line, open};
use serde::Serialize;

use super::each_report;
use super::written::{MetricSource, each_written};

/// Longer lines tell no metric.
const LONGEST_LINE: u64 = 64 * 1024;

/// One value of a metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricRow {
    /// The task.
    pub task: String,
    /// The trial.
    pub trial: u32,
    /// The attempt that reported it.
    pub attempt: u32,
    /// Completed steps.
    pub step: Option<u64>,
    /// Unix seconds; null where nobody knows.
    pub time: Option<f64>,
    /// The metric.
    pub metric: String,
    /// Its value; null if it was not a finite number.
    pub value: Option<f64>,
    /// Who wrote it.
    pub source: MetricSource,
}

/// What is to be said of a series beside its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesNotes {
    /// What could not be read.
    pub warnings: Vec<String>,
    /// Steps that a later attempt did again: what was told of them before is left out.
    pub redone_steps: u64,
}

/// Where the values of a trial are from.
#[derive(Clone, Copy, Debug)]
pub enum SeriesSource<'a> {
    /// `metrics.jsonl`, and the files that the program writes by itself.
    Reported,
    /// The outputs, by these patterns.
    Printed(&'a BTreeMap<String, String>),
}

/// Calls a function with each value of a trial, in their order.
pub fn each_row(
    dir: &TrialDir,
    (task, trial): (&str, u32),
    source: SeriesSource<'_>,
    mut take: impl FnMut(MetricRow) -> io::Result<()>,
) -> io::Result<SeriesNotes> {
    let row = |attempt, step, time, metric, value, source| {
        let task = task.to_owned();
        MetricRow { task, trial, attempt, step, time, metric, value, source }
    };
    let (mut failed, mut known) = (None, BTreeSet::new());
    let mut notes = SeriesNotes { redone_steps: redone_steps(dir), ..SeriesNotes::default() };
    match source {
        SeriesSource::Reported => {
            let warning = each_report(&dir.metrics(), |report| {
                let (attempt, step, time) = (report.attempt, report.step, Some(report.time));
                for (metric, value) in report.values {
                    if !known.contains(&metric) {
                        known.insert(metric.clone());
                    }
                    let source = MetricSource::Reported;
                    let row = row(attempt, step, time, metric, value.as_f64(), source);
                    failed = failed.take().or(take(row).err());
                }
            });
            notes.warnings.extend(warning);
            if let Some(error) = failed {
                return Err(error);
            }
            notes.warnings.extend(each_written(dir, &known, |written| {
                let found = written.value;
                let (step, time, value) = (found.step, found.time, found.value);
                take(row(written.attempt, step, time, found.metric, value, written.source))
            })?);
        }
        SeriesSource::Printed(patterns) => {
            let warning = each_printed(dir, patterns, |attempt, step, metric, value| {
                let row = row(attempt, step, None, metric, value, MetricSource::Printed);
                failed = failed.take().or(take(row).err());
            });
            notes.warnings.extend(warning);
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }
    Ok(notes)
}

/// How many steps later attempts did again, as far as the record tells how far each attempt came.
fn redone_steps(dir: &TrialDir) -> u64 {
    let records = lines::read::<AttemptRecord>(&dir.attempts()).map(|records| records.rows);
    let records = records.unwrap_or_default();
    let mut starts = starts(&records).into_iter();
    let (mut reached, mut redone) = (0_u64, 0_u64);
    for record in records {
        match record {
            AttemptRecord::Start(_) => {
                let from = starts.next().and_then(|start| start.resume_step).unwrap_or(0);
                redone += reached.saturating_sub(from);
                reached = from;
            }
            AttemptRecord::End(end) => reached = end.step.unwrap_or(reached),
            AttemptRecord::Checkpoint { step, .. } => reached = reached.max(step),
            AttemptRecord::Removed { .. }
            | AttemptRecord::SetAside { .. }
            | AttemptRecord::Ready { .. }
            | AttemptRecord::Hang { .. }
            | AttemptRecord::Label { .. }
            | AttemptRecord::WentOn { .. }
            | AttemptRecord::Warning { .. }
            | AttemptRecord::ExcludeNode { .. } => {}
        }
    }
    redone
}

/// The values in the outputs of each attempt, without those of steps that a later attempt did again.
fn each_printed(
    dir: &TrialDir,
    patterns: &BTreeMap<String, String>,
    mut take: impl FnMut(u32, Option<u64>, String, Option<f64>),
) -> Option<String> {
    let records = match lines::read::<AttemptRecord>(&dir.attempts()) {
        Ok(records) => records.rows,
        Err(error) => return Some(format!("can't read `{}`: {error}", dir.attempts().display())),
    };
    let starts = starts(&records);
    let mut warning = None;
    for (place, start) in starts.iter().enumerate() {
        let number = start.attempt;
        for path in [dir.stdout(number), dir.stderr(number)] {
            let Ok(mut patterns) = Patterns::new(patterns) else { continue };
            let read = each_line(&path, |line| {
                let Some(found) = patterns.line(line) else { return };
                let step = patterns.current;
                if !is_redone(step, &starts[place + 1..]) {
                    for (metric, value) in found {
                        take(number, step, metric, value.as_f64());
                    }
                }
            });
            if let Err(error) = read {
                warning = Some(format!("can't read `{}`: {error}", path.display()));
            }
        }
    }
    warning
}

/// Whether a later attempt did a step again: it resumed from an earlier one, or began from the start.
pub(super) fn is_redone(step: Option<u64>, later: &[AttemptStart]) -> bool {
    later.iter().any(|start| match start.resume_step {
        None => true,
        Some(resumed) => step.is_some_and(|step| step > resumed),
    })
}

/// Calls a function with each line of the program's own. A missing file has none.
fn each_line(path: &Path, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut file = match open::to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => BufReader::with_capacity(64 * 1024, file?),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut file).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        // A progress bar writes several lines into one.
        let shown = text.trim_end_matches('\n').split('\r');
        for part in shown.filter(|part| log_line::text(part).is_none()) {
            take(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemo_core::durable::replace_file_durably as write;

    #[test]
    fn what_came_before_a_program_went_on_by_itself_stays() {
        let top = tempfile::tempdir().unwrap();
        let dir = TrialDir(top.path().to_owned());
        let start = r#""slurm_job":null,"node":"n","pid":1,"boot_id":"b","start_ticks":1,"resume_step":null,"time":1.0}"#;
        let records = [
            format!(r#"{{"event":"start","attempt":0,{start}"#),
            r#"{"event":"end","attempt":0,"time":2.0,"cause":"preempted","exit_code":0,"signal":null,"step":3,"checkpoint_step":null,"next":"requeue","reason":null}"#.to_owned(),
            format!(r#"{{"event":"start","attempt":1,{start}"#),
            r#"{"event":"ready","attempt":1,"time":3.0}"#.to_owned(),
            r#"{"event":"went_on","attempt":1,"step":2,"time":3.0}"#.to_owned(),
        ];
        write(&dir.attempts(), format!("{}\n", records.join("\n")).as_bytes()).unwrap();
        write(&dir.stdout(0), b"step 1 loss 5\nstep 2 loss 4\nstep 3 loss 3\n").unwrap();
        write(&dir.stdout(1), b"step 3 loss 3\nstep 4 loss 2\n").unwrap();
        let patterns = BTreeMap::from(
            [("step", r"step (\d+)"), ("loss", r"loss (\d+)")]
                .map(|(name, pattern)| (name.to_owned(), pattern.to_owned())),
        );
        let mut found = Vec::new();
        let notes = each_row(&dir, ("t", 0), SeriesSource::Printed(&patterns), |row| {
            found.push((row.attempt, row.step.unwrap()));
            Ok(())
        });
        assert_eq!(notes.unwrap().redone_steps, 1);
        found.dedup();
        assert_eq!(found, [(0, 1), (0, 2), (1, 3), (1, 4)]);
    }
}
