//! `logs`: what trials wrote, attempt by attempt, also while they write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::App;
use super::status::look;
use crate::error::{CommandError, ExitCode};
use crate::report::say;
use crate::status::{Status, TrialStatus};
use crate::store::{Stored, Target};

/// A program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error, and what the harness has to say.
    Err,
    /// First the one, then the other.
    Both,
}

/// `logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm logs @/train/3\n  nemo-slurm logs @/train --follow\n  \
    nemo-slurm logs digits/train/0 --attempt 1 --stream err"
)]
pub struct LogsArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Go on as more is written, until the trials are over
    #[arg(long, short)]
    pub follow: bool,
    /// One attempt, from 0; else all, in order
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Which of a program's outputs
    #[arg(long, value_enum, default_value_t = Stream::Both)]
    pub stream: Stream,
    /// Slurm's own output instead of the program's
    #[arg(long)]
    pub slurm: bool,
    /// Only the last lines of each file
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<usize>,
    /// Print a JSON object for each line
    #[arg(long)]
    pub json: bool,
}

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
pub(super) fn logs(app: &App, args: &LogsArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let mut printed: BTreeMap<PathBuf, Printed> = BTreeMap::new();
    let mut last: Option<PathBuf> = None;
    loop {
        let status = look(app, &stored)?;
        attempt_exists(&status, &target, args)?;
        let is_over = meant(&status, &target).all(|(_, trial)| trial.state.is_final());
        for _ in 0..if args.follow && !is_over { LOOKS } else { 1 } {
            let files = files(&stored, &status, &target, args);
            let several = files.len() > 1;
            for source in files {
                let known = printed.contains_key(&source.path);
                let printed = printed.entry(source.path.clone()).or_default();
                let tail = if known { None } else { args.tail };
                let text = more(&source.path, printed, tail)?;
                if text.is_empty() {
                    continue;
                }
                let mut stdout = io::stdout().lock();
                if args.json {
                    stdout.write_all(&json_lines(&source, &text))?;
                } else {
                    if several && last.as_ref() != Some(&source.path) {
                        writeln!(stdout, "==> {} <==", source.title())?;
                    }
                    stdout.write_all(&text)?;
                }
                stdout.flush()?;
                last = Some(source.path);
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

/// A file with something that a trial, or Slurm for it, wrote.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    task: String,
    trial: u32,
    attempt: Option<u32>,
    /// Of a trial with several processes, which one; none for the first.
    rank: Option<u32>,
    stream: &'static str,
}

impl Source {
    fn title(&self) -> String {
        let Self { task, trial, stream, .. } = self;
        let rank = self.rank.map_or(String::new(), |rank| format!(", rank {rank}"));
        match (self.attempt, *stream) {
            (None, stream) => format!("{task}/{trial} {stream}"),
            (Some(attempt), "out") => format!("{task}/{trial} attempt {attempt}{rank}"),
            (Some(attempt), _) => format!("{task}/{trial} attempt {attempt}{rank}, stderr"),
        }
    }
}

/// One object for each line.
fn json_lines(source: &Source, text: &[u8]) -> Vec<u8> {
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
    let object = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let Source { task, trial, attempt, rank, stream, .. } = source;
        let object = json!({ "task": task, "trial": trial, "attempt": attempt, "rank": rank.unwrap_or(0), "stream": stream, "line": line });
        format!("{object}\n").into_bytes()
    };
    lines.flat_map(object).collect()
}

/// The files to print, in order. Only those that hold something.
fn files(stored: &Stored, status: &Status, target: &Target, args: &LogsArgs) -> Vec<Source> {
    let mut files = Vec::new();
    for (task, trial) in meant(status, target) {
        let dir = stored.dir.task(task);
        let source = |path, attempt, rank, stream| Source {
            path,
            task: task.to_owned(),
            trial: trial.index,
            attempt,
            rank,
            stream,
        };
        if args.slurm {
            let name = trial.slurm_job.clone().unwrap_or_else(|| format!("local_{}", trial.index));
            let path = dir.slurm_output().join(format!("{name}.out"));
            files.push(source(path, None, None, "slurm"));
            continue;
        }
        let dir = dir.trial(trial.index);
        // A trial that is read while it runs may have one attempt more than was known.
        for attempt in 0..=u32::try_from(trial.attempts.len()).unwrap_or(u32::MAX) {
            if args.attempt.is_some_and(|wanted| wanted != attempt) {
                continue;
            }
            // The first one's logs are the attempt's own; there may be thousands of others, or none.
            for rank in 0..=dir.last_rank(attempt) {
                let shown = (rank > 0).then_some(rank);
                if args.stream != Stream::Err {
                    files.push(source(dir.rank_stdout(attempt, rank), Some(attempt), shown, "out"));
                }
                if args.stream != Stream::Out {
                    files.push(source(dir.rank_stderr(attempt, rank), Some(attempt), shown, "err"));
                }
            }
        }
    }
    files.retain(|source| source.path.metadata().is_ok_and(|file| file.len() > 0));
    files
}

/// An attempt that never was is a mistake, not an empty log.
fn attempt_exists(status: &Status, target: &Target, args: &LogsArgs) -> Result<(), CommandError> {
    let Some(wanted) = args.attempt else { return Ok(()) };
    let most = meant(status, target).map(|(_, trial)| trial.attempts.len()).max().unwrap_or(0);
    if (wanted as usize) < most {
        return Ok(());
    }
    let hint = match most {
        0 => "it never ran".to_owned(),
        most => format!("its attempts are 0 to {}", most - 1),
    };
    Err(CommandError::new(ExitCode::NotFound, format!("there is no attempt {wanted}")).hinted(hint))
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
