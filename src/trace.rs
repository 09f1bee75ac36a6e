//! What `-v` and `NEMO_LOG` show on stderr: each program of Slurm that was run, its time and answer, and each file that
//! was decided on. Where nobody asks, nothing is even put into words.

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, enabled, trace};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{CommandError, ExitCode};
use crate::report::escape::escape;
use crate::slurm::SlurmError;
use crate::slurm::command::Output;

/// The most characters of a command line that `-v` shows; `-vv` shows all.
const SHOWN: usize = 400;

/// Shows from now on what was asked for: `-v`, `-vv`, or a filter as in `debug` or `nemo_slurm::slurm=trace`.
pub fn start(verbosity: u8, filter: Option<&str>) -> Result<(), CommandError> {
    let targets = match (verbosity, filter.filter(|filter| !filter.is_empty())) {
        (0, None) => return Ok(()),
        (0, Some(filter)) => filter.parse::<Targets>().map_err(|error| wrong(filter, error))?,
        (1, _) => Targets::new().with_default(LevelFilter::DEBUG),
        (_, _) => Targets::new().with_default(LevelFilter::TRACE),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Stderr)
        .with_ansi(false)
        .with_timer(uptime());
    // Somebody who uses this as a library may have a subscriber of their own: then theirs stays.
    let _theirs = tracing_subscriber::registry().with(targets).with(lines).try_init();
    Ok(())
}

fn wrong(filter: &str, error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    let text = format!("NEMO_LOG is `{filter}`, which is not a filter: {error}");
    CommandError::new(ExitCode::Usage, text)
        .hinted("write `debug` or `trace`, or `nemo_slurm::slurm=debug` for one part")
}

/// Standard error without what would steer the terminal. That nobody reads it is no error.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        drop(io::stderr().lock().write_all(escape(&text).as_bytes()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows a program of Slurm that was run.
pub(crate) fn program(
    program: &str,
    args: &[OsString],
    took: Duration,
    answer: &Result<Output, SlurmError>,
) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let mut line = program.to_owned();
    for arg in args {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    if !enabled!(Level::TRACE) && line.chars().count() > SHOWN {
        line = line.chars().take(SHOWN).chain("…".chars()).collect();
    }
    debug!("`{line}` took {} ms: {}", took.as_millis(), describe_answer(answer));
    if let Ok(output) = answer {
        trace!("`{program}` printed: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// An answer in one line.
fn describe_answer(answer: &Result<Output, SlurmError>) -> String {
    let output = match answer {
        Ok(output) => output,
        Err(error) => return error.to_string(),
    };
    let mut text = match output.code {
        Some(code) => format!("exit code {code}, {} bytes", output.stdout.len()),
        None => "a signal ended it".to_owned(),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = stderr.lines().map(str::trim).find(|line| !line.is_empty());
    text.extend(first.iter().flat_map(|line| [": ", line]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_described_in_one_line() {
        let output = |code, stderr: &str| {
            Ok(Output { stdout: b"12\n".to_vec(), stderr: stderr.as_bytes().to_vec(), code })
        };
        let check = |answer: &Result<Output, SlurmError>, expected| {
            assert_eq!(describe_answer(answer), expected);
        };
        check(&output(Some(0), ""), "exit code 0, 3 bytes");
        check(&output(Some(1), "\n a: b\nc"), "exit code 1, 3 bytes: a: b");
        check(&output(None, ""), "a signal ended it");
        let waited = Duration::from_secs(3);
        let silent = Err(SlurmError::NoAnswer { program: "sacct", waited });
        check(&silent, "`sacct` did not answer within 3 s");
    }
}
