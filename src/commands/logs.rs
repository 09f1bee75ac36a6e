//! `logs`: what trials wrote, attempt by attempt, also while they write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nemo_core::open;
use serde_json::json;

use super::App;
use super::status::look;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::report::{escape, say};
use crate::status::{Status, meant};
use crate::store::{Stored, Target};

/// A program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputStream {
    /// Standard output.
    Out,
    /// Standard error, and the messages of the harness.
    Err,
    /// Standard output, then standard error.
    Both,
}

/// `logs`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(
    after_help = "Examples:\n  nemo-slurm logs @/train/3\n  nemo-slurm logs @/train --follow\n  \
    nemo-slurm logs digits/train/0 --attempt 1 --stream err"
)]
pub struct LogsArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Keep printing new lines until the trials are over
    #[arg(long, short)]
    pub follow: bool,
    /// Only this attempt, counted from 0; by default all, in order
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Which output of the program
    #[arg(long, value_enum, default_value_t = OutputStream::Both)]
    pub stream: OutputStream,
    /// Slurm's own output instead of the program's
    #[arg(long)]
    pub slurm: bool,
    /// Only the last lines of each file
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<usize>,
    /// Print control characters as they are, also on a terminal
    #[arg(long)]
    pub raw: bool,
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
        let is_over = meant(&status, &target.scope).all(|(_, trial)| trial.state.is_final());
        for _ in 0..if args.follow && !is_over { LOOKS } else { 1 } {
            let files = files(&stored, &status, &target, args);
            let several = files.len() > 1;
            for source in files {
                let known = printed.contains_key(&source.path);
                let printed = printed.entry(source.path.clone()).or_default();
                let tail = if known { None } else { args.tail };
                let mut file = more(&source.path, printed.until, tail).at("read", &source.path)?;
                printed.until = file.stream_position().at("read", &source.path)?;
                if file.fill_buf().at("read", &source.path)?.is_empty() {
                    continue;
                }
                let titled = several && last.as_ref() != Some(&source.path);
                let written = print(&source, &mut file, titled, args);
                printed.until += written.at("write", Path::new("standard output"))?;
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

/// Prints the rest of a file, and says how many bytes of it that took: byte for byte into a file or a pipe; on a terminal,
/// without what would steer it.
fn print(
    source: &LogFile,
    file: &mut impl BufRead,
    titled: bool,
    args: &LogsArgs,
) -> io::Result<u64> {
    let mut stdout = io::stdout().lock();
    let read = if args.json {
        print_json(source, file, &mut stdout)?
    } else {
        if titled {
            writeln!(stdout, "==> {} <==", escape::escape_line(&source.title()))?;
        }
        if args.raw || !stdout.is_terminal() {
            io::copy(file, &mut stdout)?
        } else {
            each_line(file, |line| {
                write!(stdout, "{}", on_terminal(&String::from_utf8_lossy(line)))
            })?
        }
    };
    stdout.flush()?;
    Ok(read)
}

/// Hands on line after line, its end with it; how many bytes that were. A line without an end is cut into several.
fn each_line(
    file: &mut impl BufRead,
    mut print: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let (mut read, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let length = file.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(read);
        }
        read += length as u64;
        print(&line)?;
    }
}

/// What a terminal is shown of a log: colours and the carriage returns of progress bars stay.
fn on_terminal(text: &str) -> String {
    text.split('\r').map(escape::escape_but_colours).collect::<Vec<_>>().join("\r")
}

fn nothing(status: &Status, target: &Target) -> String {
    let first = meant(status, &target.scope).next().map(|(_, trial)| trial);
    let state = first.map_or("pending", |trial| trial.state.as_str());
    let why = first.and_then(|trial| trial.reason.as_ref());
    let why = why.map_or_else(String::new, |reason| format!(": {reason}"));
    let id = &status.experiment.id;
    format!("No output yet: it is {state}{why}. `nemo-slurm status {id}` shows more.")
}

/// A file with something that a trial, or Slurm for it, wrote.
#[derive(Clone, Debug)]
struct LogFile {
    path: PathBuf,
    task: String,
    trial: u32,
    attempt: Option<u32>,
    /// Of a trial with several processes, which one; none for the first.
    rank: Option<u32>,
    stream: &'static str,
}

impl LogFile {
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

/// Prints one object for each line.
fn print_json(source: &LogFile, file: &mut impl BufRead, out: &mut impl Write) -> io::Result<u64> {
    each_line(file, |line| {
        let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
        let LogFile { task, trial, attempt, rank, stream, .. } = source;
        let object = json!({ "task": task, "trial": trial, "attempt": attempt, "rank": rank.unwrap_or(0), "stream": stream, "line": line });
        writeln!(out, "{}", escape::escape_json(&object.to_string()))
    })
}

/// The files to print, in order. Only those that hold something.
fn files(stored: &Stored, status: &Status, target: &Target, args: &LogsArgs) -> Vec<LogFile> {
    let mut files = Vec::new();
    for (task, trial) in meant(status, &target.scope) {
        let dir = stored.dir.task(task);
        let source = |path, attempt, rank, stream| LogFile {
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
                if args.stream != OutputStream::Err {
                    files.push(source(dir.rank_stdout(attempt, rank), Some(attempt), shown, "out"));
                }
                if args.stream != OutputStream::Out {
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
    let most =
        meant(status, &target.scope).map(|(_, trial)| trial.attempts.len()).max().unwrap_or(0);
    if (wanted as usize) < most {
        return Ok(());
    }
    let hint = match most {
        0 => "it never ran".to_owned(),
        most => format!("its attempts are 0 to {}", most - 1),
    };
    Err(CommandError::new(ExitCode::NotFound, format!("there is no attempt {wanted}")).hinted(hint))
}

/// What a file holds beyond what was printed; at first, if asked for, only its last lines. It may be larger than any
/// memory.
fn more(path: &Path, until: u64, tail: Option<usize>) -> io::Result<BufReader<File>> {
    let mut file = open::to_read(path)?;
    let start = match tail {
        Some(lines) => last_lines(&mut file, lines)?,
        None => until,
    };
    file.seek(SeekFrom::Start(start))?;
    Ok(BufReader::with_capacity(BLOCK, file))
}

/// So much of a file is read at once.
const BLOCK: usize = 64 * 1024;
/// A line that is longer is printed in pieces where each stands in an object.
const LONGEST_LINE: u64 = 1 << 20;

/// Where the last `lines` lines of a file begin: looked for from its end.
fn last_lines(file: &mut (impl Read + Seek), lines: usize) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; BLOCK];
    let (mut at, mut breaks) = (length, 0);
    if lines == 0 {
        return Ok(length);
    }
    while at > 0 {
        let size = at.min(BLOCK as u64);
        at -= size;
        let block = &mut block[..usize::try_from(size).unwrap_or(BLOCK)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(block)?;
        for (place, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = at + place as u64 + 1;
            // The break at the very end ends the last line, and begins none.
            breaks += usize::from(next < length);
            if next < length && breaks == lines {
                return Ok(next);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_does_not_steer_the_terminal() {
        let check = |text, expected: &str| assert_eq!(on_terminal(text), expected);
        check("\r 10 %\r 20 %\n", "\r 10 %\r 20 %\n");
        check(
            "\u{1b}[31mred\u{1b}[0m\u{1b}]0;PWNED\u{7}",
            "\u{1b}[31mred\u{1b}[0m\\x1b]0;PWNED\\x07",
        );
    }

    #[test]
    fn the_last_lines_of_a_text() {
        let check = |text: &str, lines, expected: &str| {
            let start = last_lines(&mut io::Cursor::new(text), lines).unwrap();
            let shown = &text[usize::try_from(start).unwrap()..];
            assert!(shown == expected, "{lines} lines of {} bytes: {start}", text.len());
        };
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc", 2, "b\nc");
        check("a\n", 5, "a\n");
        check("", 2, "");
        check("a\nb\n", 0, "");
        check("\n\n\n", 2, "\n\n");
        for length in [BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let line = "x".repeat(length);
            let text = format!("first\n{line}\nlast\n");
            check(&text, 1, "last\n");
            check(&text, 2, &format!("{line}\nlast\n"));
            check(&text, 3, &text);
        }
    }

    #[test]
    fn a_line_that_is_too_long_for_an_object_is_several() {
        let source = LogFile {
            path: PathBuf::new(),
            task: "t".to_owned(),
            trial: 0,
            attempt: Some(0),
            rank: None,
            stream: "out",
        };
        let long = "x".repeat(usize::try_from(LONGEST_LINE).unwrap());
        let text = format!("a\n{long}b\n\nc");
        let mut out = Vec::new();
        let read = print_json(&source, &mut text.as_bytes(), &mut out).unwrap();
        assert_eq!(read, text.len() as u64);
        let lines: Vec<serde_json::Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let lines: Vec<&str> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
        assert_eq!(lines, ["a", &long, "b", "", "c"]);
    }
}
