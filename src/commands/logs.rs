//! `logs`: what trials wrote, attempt by attempt, also while they write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::World;
use super::status::look;
use crate::cli::{LogsArgs, Stream};
use crate::error::{CommandError, ExitCode};
use crate::report::say;
use crate::status::{Status, TrialStatus};
use crate::store::{Stored, Target};

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(500);
/// So many looks at the files between two looks at the states.
const LOOKS: u32 = 6;

/// One file and what of it was printed.
#[derive(Debug, Default)]
struct Printed {
    /// Bytes.
    until: u64,
}

/// Prints the logs of a target.
pub(super) fn logs(world: &World, args: &LogsArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = world.find(&args.target)?;
    let mut printed: BTreeMap<PathBuf, Printed> = BTreeMap::new();
    let mut last: Option<PathBuf> = None;
    loop {
        let status = look(world, &stored)?;
        let is_over = meant(&status, &target).all(|(_, trial)| trial.state.is_final());
        for _ in 0..if args.follow && !is_over { LOOKS } else { 1 } {
            let files = files(&stored, &status, &target, args);
            let several = files.len() > 1;
            for (title, path) in files {
                let known = printed.contains_key(&path);
                let printed = printed.entry(path.clone()).or_default();
                let tail = if known { None } else { args.tail };
                let text = more(&path, printed, tail)?;
                if text.is_empty() {
                    continue;
                }
                let mut stdout = io::stdout().lock();
                if several && last.as_ref() != Some(&path) {
                    writeln!(stdout, "==> {title} <==")?;
                }
                stdout.write_all(&text)?;
                stdout.flush()?;
                last = Some(path);
            }
            if !args.follow || is_over {
                if last.is_none() {
                    say(&nothing(&status, &target));
                }
                return Ok(ExitCode::Fine);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn nothing(status: &Status, target: &Target) -> String {
    let state = meant(status, target).next().map_or("pending", |(_, trial)| trial.state.as_str());
    format!(
        "Nothing was written yet: it is {state}. `nemo-slurm status {}` tells more.",
        status.experiment.id
    )
}

fn meant<'a>(
    status: &'a Status,
    target: &'a Target,
) -> impl Iterator<Item = (&'a str, &'a TrialStatus)> {
    status
        .tasks
        .iter()
        .filter(|task| target.task.as_ref().is_none_or(|wanted| *wanted == task.name))
        .flat_map(|task| task.trials.iter().map(|trial| (task.name.as_str(), trial)))
        .filter(|(_, trial)| target.trial.is_none_or(|wanted| wanted == trial.index))
}

/// The files to print, in order, each with a title. Only those that exist.
fn files(
    stored: &Stored,
    status: &Status,
    target: &Target,
    args: &LogsArgs,
) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (task, trial) in meant(status, target) {
        let dir = stored.dir.task(task);
        if args.slurm {
            let name = trial.slurm_job.clone().unwrap_or_else(|| format!("local_{}", trial.index));
            let path = dir.slurm_output().join(format!("{name}.out"));
            files.push((format!("{task}/{} {name}", trial.index), path));
            continue;
        }
        let dir = dir.trial(trial.index);
        // A trial that is read while it runs may have one attempt more than was known.
        for attempt in 0..=u32::try_from(trial.attempts.len()).unwrap_or(u32::MAX) {
            if args.attempt.is_some_and(|wanted| wanted != attempt) {
                continue;
            }
            let title = format!("{task}/{} attempt {attempt}", trial.index);
            if args.stream != Stream::Err {
                files.push((title.clone(), dir.stdout(attempt)));
            }
            if args.stream != Stream::Out {
                files.push((format!("{title}, stderr"), dir.stderr(attempt)));
            }
        }
    }
    files.retain(|(_, path)| path.metadata().is_ok_and(|file| file.len() > 0));
    files
}

/// What a file holds beyond what was printed; at first, if asked for, only its last lines.
fn more(path: &Path, printed: &mut Printed, tail: Option<usize>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(printed.until))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    printed.until += text.len() as u64;
    if let Some(lines) = tail {
        let start = last_lines(&text, lines);
        text.drain(..start);
    }
    Ok(text)
}

/// Where the last `lines` lines of a text begin.
fn last_lines(text: &[u8], lines: usize) -> usize {
    let ended = text.strip_suffix(b"\n").unwrap_or(text);
    let mut breaks = ended.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match lines {
        0 => text.len(),
        lines => breaks.nth(lines - 1).map_or(0, |(place, _)| place + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_text() {
        let check = |text: &str, lines, expected: &str| {
            assert_eq!(&text[last_lines(text.as_bytes(), lines)..], expected, "{text:?} {lines}");
        };
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc", 2, "b\nc");
        check("a\n", 5, "a\n");
        check("", 2, "");
        check("a\nb\n", 0, "");
    }
}
