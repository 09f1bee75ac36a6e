//! Prints lines of logs: as they are, with the trial's name before each, or as JSON; all, or those that are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use nemo_core::log_line::PREFIX;
use nemo_core::open;
use nemo_core::rundir::output_times::OutputTimes;
use regex::bytes::Regex;
use serde_json::json;

use super::LogsArgs;
use super::lines::{BLOCK, LONGEST_LINE, LastLine, each_line, last_lines, line_start};
use super::source::LogFile;
use crate::clock;
use crate::error::{CommandError, IoResultExt};
use crate::report::{Page, escape, say};
use crate::since;

/// Colours of the trials' names; none that means a failure.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

/// What stands around lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineStyle {
    /// A title before those of each file.
    Titled,
    /// The trial's name before each, perhaps coloured.
    Prefixed {
        colour: bool,
    },
    Json,
}

/// What was printed so far, and how.
pub(super) struct Printer<'a> {
    args: &'a LogsArgs,
    style: LineStyle,
    is_terminal: bool,
    /// In unix seconds.
    since: Option<f64>,
    /// Where the next line of each file begins.
    known: BTreeMap<PathBuf, u64>,
    /// The file of the last line.
    last: Option<PathBuf>,
    /// Whether the files were looked at before: what came since is new.
    is_under_way: bool,
    /// Whether it was said that times are missing.
    lacks_times: bool,
}

/// One look at the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLook {
    /// Whether the output of several trials is asked for.
    pub(super) several_trials: bool,
    /// Whether nothing more will be looked at.
    pub(super) is_last: bool,
}

impl<'a> Printer<'a> {
    pub(super) fn new(args: &'a LogsArgs) -> Self {
        Self {
            args,
            style: if args.json { LineStyle::Json } else { LineStyle::Titled },
            is_terminal: io::stdout().is_terminal(),
            since: args.since.map(|since| since.at(clock::now())),
            known: BTreeMap::new(),
            last: None,
            is_under_way: false,
            lacks_times: false,
        }
    }

    /// Whether a line was printed.
    pub(super) fn has_printed(&self) -> bool {
        self.last.is_some()
    }

    /// Prints what is new in these files.
    pub(super) fn print(&mut self, files: Vec<LogFile>, look: LogLook) -> Result<(), CommandError> {
        if look.several_trials && self.is_terminal && self.style == LineStyle::Titled {
            self.style = LineStyle::Prefixed { colour: Page::here(clock::now()).colour };
        }
        let several = files.len() > 1;
        for source in files {
            let file = open::to_read(&source.path).at("read", &source.path)?;
            let mut file = BufReader::with_capacity(BLOCK, file);
            let (start, skip) = match self.known.get(&source.path) {
                Some(known) => (*known, 0),
                None if self.is_under_way => (0, 0),
                None => self.first(&source, &mut file).at("read", &source.path)?,
            };
            file.seek(SeekFrom::Start(start)).at("read", &source.path)?;
            let new = NewLines { source: &source, start, skip, titled: several };
            let next = self.print_lines(&mut file, new, look);
            self.known.insert(source.path, next.at("write", Path::new("standard output"))?);
        }
        self.is_under_way = true;
        Ok(())
    }

    /// Where the first line of a file begins that may be wanted, and how many that match are passed over from there.
    fn first(&mut self, source: &LogFile, file: &mut BufReader<File>) -> io::Result<(u64, usize)> {
        let since = match self.since {
            Some(since) => self.since_start(source, file, since)?,
            None => 0,
        };
        match (self.args.tail, &self.args.grep) {
            (None, _) => Ok((since, 0)),
            (Some(lines), None) => Ok((last_lines(file, lines)?.max(since), 0)),
            (Some(lines), Some(grep)) => {
                Ok((since, matching(file, since, grep)?.saturating_sub(lines)))
            }
        }
    }

    /// Where the output begins that came since then.
    fn since_start(
        &mut self,
        source: &LogFile,
        file: &mut BufReader<File>,
        since: f64,
    ) -> io::Result<u64> {
        if source.end.is_some_and(|end| end < since) {
            return file.seek(SeekFrom::End(0));
        }
        let times = OutputTimes::read(&source.path)?;
        let start = line_start(file, times.before(since))?;
        let (start, has_untimed) = after_old_harness_lines(file, start, since)?;
        if times.is_empty() && has_untimed && !self.lacks_times {
            self.lacks_times = true;
            let path = source.path.display();
            say(&format!(
                "note: the times of the lines of `{path}` were not recorded; all are shown"
            ));
        }
        Ok(start)
    }

    /// Prints the rest of a file, and returns where its next line begins.
    fn print_lines(
        &mut self,
        file: &mut BufReader<File>,
        new: NewLines<'_>,
        look: LogLook,
    ) -> io::Result<u64> {
        if file.fill_buf()?.is_empty() {
            return Ok(new.start);
        }
        let titled = new.titled && self.last.as_ref() != Some(&new.source.path);
        let mut stdout = BufWriter::with_capacity(BLOCK, io::stdout().lock());
        let mut writer = LineWriter {
            out: &mut stdout,
            style: self.style,
            shows_all: self.args.raw || !self.is_terminal,
            title: titled.then(|| new.source.title()),
            source: new.source,
            n_printed: 0,
        };
        let is_as_it_is = self.args.grep.is_none() && self.style == LineStyle::Titled;
        let next = if is_as_it_is && writer.shows_all {
            // Byte for byte, as fast as the disk.
            writer.put_title()?;
            writer.n_printed = 1;
            new.start + io::copy(file, writer.out)?
        } else {
            let last = if look.is_last || is_as_it_is { LastLine::Taken } else { LastLine::Waits };
            let now = self.is_under_way.then(clock::now);
            print_each(file, &mut writer, &new, last, (self.args.grep.as_ref(), now))?
        };
        let has_printed = writer.n_printed > 0;
        stdout.flush()?;
        if has_printed {
            self.last = Some(new.source.path.clone());
        }
        Ok(next)
    }
}

/// Where the lines from `start` begin that are not older lines of the harness, which tell their own time; and whether the
/// first of them tells none.
fn after_old_harness_lines(
    file: &mut BufReader<File>,
    start: u64,
    since: f64,
) -> io::Result<(u64, bool)> {
    file.seek(SeekFrom::Start(start))?;
    let (mut start, mut line) = (start, Vec::new());
    loop {
        line.clear();
        let length = Read::by_ref(file).take(LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
        match harness_time(&line) {
            // It is told in whole seconds.
            Some(time) if time + 1.0 <= since => start += length,
            time => return Ok((start, length > 0 && time.is_none())),
        }
    }
}

/// What of a file is printed now.
#[derive(Clone, Copy)]
struct NewLines<'a> {
    source: &'a LogFile,
    /// Where it begins.
    start: u64,
    /// How many lines that match are passed over.
    skip: usize,
    /// Whether several files are printed.
    titled: bool,
}

/// How many lines match from there on.
fn matching(file: &mut BufReader<File>, start: u64, grep: &Regex) -> io::Result<usize> {
    let mut matching = 0;
    file.seek(SeekFrom::Start(start))?;
    each_line(file, start, LastLine::Taken, |line, _| {
        matching += usize::from(is_match(grep, line));
        Ok(())
    })?;
    Ok(matching)
}

/// Prints the lines that match. `now` is when they came at the latest, if they were not there a moment ago.
fn print_each(
    file: &mut BufReader<File>,
    writer: &mut LineWriter<'_, impl Write>,
    new: &NewLines<'_>,
    last: LastLine,
    (grep, now): (Option<&Regex>, Option<f64>),
) -> io::Result<u64> {
    let times = match writer.style {
        LineStyle::Json => OutputTimes::read(&new.source.path)?,
        LineStyle::Titled | LineStyle::Prefixed { .. } => OutputTimes::default(),
    };
    let mut skip = new.skip;
    each_line(file, new.start, last, |line, end| {
        if grep.is_some_and(|grep| !is_match(grep, line)) {
            return Ok(());
        }
        if skip > 0 {
            skip -= 1;
            return Ok(());
        }
        let time = || harness_time(line).or_else(|| times.at(end)).or(now);
        writer.put(line, time)
    })
}

/// Writes lines of one file.
struct LineWriter<'a, W> {
    out: &'a mut W,
    style: LineStyle,
    /// Whether control characters are printed as they are.
    shows_all: bool,
    /// What comes before the first line.
    title: Option<String>,
    source: &'a LogFile,
    n_printed: usize,
}

impl<W: Write> LineWriter<'_, W> {
    fn put(&mut self, line: &[u8], time: impl Fn() -> Option<f64>) -> io::Result<()> {
        self.n_printed += 1;
        match self.style {
            LineStyle::Json => self.put_json(line, time()),
            LineStyle::Titled => {
                self.put_title()?;
                self.put_text(line)
            }
            LineStyle::Prefixed { colour } => {
                let prefix = self.source.prefix();
                let prefix = escape::escape_line(&prefix);
                let place = self.source.trial as usize % COLOURS.len();
                match COLOURS.get(place).filter(|_| colour) {
                    Some(code) => write!(self.out, "\x1b[{code}m{prefix}\x1b[39m")?,
                    None => write!(self.out, "{prefix}")?,
                }
                self.put_text(line)?;
                if line.ends_with(b"\n") { Ok(()) } else { writeln!(self.out) }
            }
        }
    }

    fn put_title(&mut self) -> io::Result<()> {
        match self.title.take() {
            Some(title) => writeln!(self.out, "==> {} <==", escape::escape_line(&title)),
            None => Ok(()),
        }
    }

    fn put_text(&mut self, line: &[u8]) -> io::Result<()> {
        if self.shows_all {
            return self.out.write_all(line);
        }
        write!(self.out, "{}", on_terminal(&String::from_utf8_lossy(line)))
    }

    fn put_json(&mut self, line: &[u8], time: Option<f64>) -> io::Result<()> {
        let line = String::from_utf8_lossy(without_break(line));
        let LogFile { task, trial, attempt, rank, stream, .. } = self.source;
        let rank = rank.unwrap_or(0);
        let object = json!({
            "task": task, "trial": trial, "attempt": attempt, "rank": rank, "stream": stream,
            "time": time, "line": line,
        });
        escape::write_json(self.out, &object)
    }
}

/// Without its end: `$` is the end of the line.
fn is_match(grep: &Regex, line: &[u8]) -> bool {
    grep.is_match(without_break(line))
}

fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// When the harness wrote a line, which says so itself.
fn harness_time(line: &[u8]) -> Option<f64> {
    let rest = line.strip_prefix(PREFIX.as_bytes())?;
    let word = std::str::from_utf8(rest.split(|byte| *byte == b' ').next()?).ok()?;
    since::date(word)
}

/// What a terminal is shown of a log: colours and the carriage returns of progress bars stay.
fn on_terminal(text: &str) -> String {
    text.split('\r').map(escape::escape_but_colours).collect::<Vec<_>>().join("\r")
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

    fn written(style: LineStyle, line: &str) -> String {
        let source = LogFile {
            path: PathBuf::new(),
            task: "train".to_owned(),
            trial: 6,
            attempt: Some(1),
            rank: None,
            stream: "err",
            end: None,
        };
        let mut out = Vec::new();
        let mut writer = LineWriter {
            out: &mut out,
            style,
            shows_all: false,
            title: Some(source.title()),
            source: &source,
            n_printed: 0,
        };
        writer.put(line.as_bytes(), || Some(7.5)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_told_from_those_of_other_trials() {
        let title = "==> train/6 attempt 1, stderr <==\n";
        assert_eq!(written(LineStyle::Titled, "a\n"), format!("{title}a\n"));
        let plain = LineStyle::Prefixed { colour: false };
        assert_eq!(written(plain, "a\n"), "train/6 attempt 1 err: a\n");
        assert_eq!(written(plain, "a"), "train/6 attempt 1 err: a\n");
        assert_eq!(
            written(LineStyle::Prefixed { colour: true }, "a\u{1b}[2J\n"),
            "\u{1b}[33mtrain/6 attempt 1 err: \u{1b}[39ma\\x1b[2J\n"
        );
        assert_eq!(
            written(LineStyle::Json, "a\r\n"),
            "{\"task\":\"train\",\"trial\":6,\"attempt\":1,\"rank\":0,\"stream\":\"err\",\"time\":7.5,\"line\":\"a\"}\n"
        );
    }

    #[test]
    fn the_harness_dates_its_own_lines() {
        let time = |line: &str| harness_time(line.as_bytes());
        assert_eq!(time("nemo-harness: 2026-11-28T19:31:02Z info x"), Some(1_795_894_262.0));
        assert_eq!(time("nemo-harness: as it was before"), None);
        assert_eq!(time("2026-11-28T19:31:02Z"), None);
    }
}
