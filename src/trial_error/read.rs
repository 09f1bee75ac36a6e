//! Reads the ends of what failed trials printed. An edge: files in, errors out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nemo_core::rundir::{Cause, TaskDir, TrialDir};
use nemo_core::{exit, log_line, open};

use super::{ParsedOutput, TrialError, Weight, error_of, failed_rank, parse};
use crate::parallel::map_chunks;
use crate::status::{State, Status, TrialStatus};
use crate::store::Stored;

/// So much of an output's end is read, however long it is.
const TAIL: u64 = 256 * 1024;
/// So much of it first: nearly always the error is in it.
const SHORT_TAIL: u64 = 32 * 1024;
/// The outputs of so many ranks are looked through.
const MOST_RANKS: u32 = 128;
/// How many threads read, and how few trials are worth one.
const READERS: usize = 8;
const LEAST_PART: usize = 32;

/// Tells each failed trial of a status why it failed.
pub fn set_errors(status: &mut Status, stored: &Stored) {
    set_errors_of(status, stored, &|_, _| true);
}

/// The same, of those failed trials that are meant.
pub fn set_errors_of(
    status: &mut Status,
    stored: &Stored,
    is_meant: &dyn Fn(&str, &TrialStatus) -> bool,
) {
    for task in &mut status.tasks {
        let dir = stored.dir.task(&task.name);
        let failed = (0..task.trials.len()).filter(|at| {
            let trial = &task.trials[*at];
            has_failed(trial) && is_meant(&task.name, trial)
        });
        let failed: Vec<usize> = failed.collect();
        let part = failed.len().div_ceil(READERS).max(LEAST_PART);
        let trials = &task.trials;
        let read = |part: &[usize]| -> Vec<TrialError> {
            part.iter().map(|at| read_error(&dir, &trials[*at])).collect()
        };
        let errors: Vec<TrialError> =
            map_chunks(failed.chunks(part), read).into_iter().flatten().collect();
        for (at, error) in failed.into_iter().zip(errors) {
            task.trials[at].error = Some(Box::new(error));
        }
    }
}

/// Tells of each trial that waits after a start in vain why that was: no record has it.
pub fn tell_vain_starts(status: &mut Status, stored: &Stored) {
    for task in &mut status.tasks {
        let waiting =
            |trial: &&mut TrialStatus| trial.state == State::Pending && trial.attempts.is_empty();
        if !task.trials.iter_mut().any(|trial| waiting(&trial)) {
            continue;
        }
        // A job that never started has no output: there may be thousands.
        let folder = stored.dir.task(&task.name).slurm_output();
        let Ok(entries) = folder.read_dir() else { continue };
        let there: BTreeSet<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        for trial in task.trials.iter_mut().filter(waiting) {
            let Some(job) = &trial.slurm_job else { continue };
            let name = OsString::from(format!("{job}.out"));
            let why = there.contains(&name).then(|| last_error(&folder.join(name)));
            if let Some(why) = why.flatten() {
                let waits = trial.reason.take().map_or_else(String::new, |own| format!("{own}; "));
                trial.reason = Some(format!("{waits}its last start was in vain: {why}"));
            }
        }
    }
}

fn has_failed(trial: &TrialStatus) -> bool {
    matches!(trial.state, State::Failed | State::Timeout)
}

fn read_error(dir: &TaskDir, trial: &TrialStatus) -> TrialError {
    let mut printed = ParsedOutput::default();
    let last = trial.attempts.last();
    if let Some(number) = last.and_then(|last| last.number) {
        printed = of_attempt(&dir.trial(trial.index), number, last.and_then(failed_rank));
    }
    if printed.weight() < Some(Weight::Consequence) {
        // Slurm writes there what it did to the job.
        let name = trial.slurm_job.clone().unwrap_or_else(|| format!("local_{}", trial.index));
        let path = dir.slurm_output().join(format!("{name}.out"));
        if let Some(why) = not_started(trial, &path) {
            return TrialError { message: why, ..error_of(trial, printed) };
        }
        let slurm = of_file(&path);
        printed = if slurm.weight() >= Some(Weight::Consequence) { slurm } else { printed };
    }
    error_of(trial, printed)
}

/// Why the harness could not begin the trial, in its own words: it could write them nowhere but into Slurm's output.
fn not_started(trial: &TrialStatus, path: &Path) -> Option<String> {
    let last = trial.attempts.last()?;
    let is_so = last.exit_code == Some(i32::from(exit::NOT_STARTED));
    if last.cause != Some(Cause::StartFailed) || !is_so {
        return None;
    }
    last_error(path)
}

/// The last line of a file in which the harness says why it can't go on.
fn last_error(path: &Path) -> Option<String> {
    let (end, _) = read_end(path, SHORT_TAIL).ok()?;
    let text = String::from_utf8_lossy(&end);
    text.lines().rev().find_map(log_line::error).map(str::to_owned)
}

/// What an attempt printed: first the rank that decided the end, then all in order.
fn of_attempt(dir: &TrialDir, number: u32, failed: Option<(u32, &str)>) -> ParsedOutput {
    let ranks = 0..=dir.last_rank(number).min(MOST_RANKS);
    let outputs = failed.map(|(rank, _)| rank).into_iter().chain(ranks).flat_map(|rank| {
        let files: [PathBuf; 2] = [dir.rank_stderr(number, rank), dir.rank_stdout(number, rank)];
        files.into_iter()
    });
    let mut best = ParsedOutput::default();
    for path in outputs {
        let is_stderr = path.extension().is_some_and(|end| end == "err");
        best = best.better(ParsedOutput { is_stderr, ..of_file(&path) });
        if best.weight() == Some(Weight::Cause) {
            break;
        }
    }
    best
}

/// What the end of a file tells. One that can't be read tells nothing.
fn of_file(path: &Path) -> ParsedOutput {
    for length in [SHORT_TAIL, TAIL] {
        let Ok((end, is_cut)) = read_end(path, length) else { break };
        let parsed = parse(&end, is_cut);
        if !is_cut || length == TAIL || parsed.is_sure() {
            return parsed;
        }
    }
    ParsedOutput::default()
}

/// The end of a file, and whether something stands before it.
fn read_end(path: &Path, most: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut file = open::to_read(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok((end, start > 0))
}
