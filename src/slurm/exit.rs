//! What the exit code that Slurm shows for a job means. Pure, and the only place that decides it.
//!
//! Slurm shows `CODE:SIGNAL`. A shell reports a program that a signal killed as 128 and the signal's number; up to 24.11
//! Slurm takes the 128 away (`exit 137` is `9:0`), later it does not (`137:0`).

use std::fmt;

use nemo_core::exit;
use nix::sys::signal::Signal;

use super::parse::account::SlurmExitCode;

/// How a job's batch script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobExit {
    /// It exited.
    Code(u32),
    /// This signal ended it, or a program whose end it passed on.
    Signal(u32),
    /// It was never started: Slurm could not open the file for its output.
    NoOutputFile,
}

/// What Slurm shows where it can't open a job's output file: no signal has this meaning.
const NO_OUTPUT_FILE: u32 = 53;
/// A shell's exit code is this much above the signal's number.
const SHELL: u32 = 128;
/// Real-time signals end here.
const LAST_SIGNAL: u32 = 64;

impl From<SlurmExitCode> for JobExit {
    fn from(shown: SlurmExitCode) -> Self {
        let SlurmExitCode { code, signal } = shown;
        match (code, signal) {
            (_, NO_OUTPUT_FILE) => Self::NoOutputFile,
            (_, signal) if signal != 0 => Self::Signal(signal),
            (code, _) if code > SHELL && is_signal(code - SHELL) => Self::Signal(code - SHELL),
            (code, _) if is_signal(code) && !is_own(code) => Self::Signal(code),
            (code, _) => Self::Code(code),
        }
    }
}

fn is_signal(number: u32) -> bool {
    (1..=LAST_SIGNAL).contains(&number)
}

/// Whether the batch script, which is our harness or a shell that could not start it, exits with this code by itself.
fn is_own(code: u32) -> bool {
    let own = [exit::FAILED, exit::USAGE];
    own.iter().any(|own| u32::from(*own) == code)
}

impl JobExit {
    /// The signal, where one ended it.
    #[must_use]
    pub fn signal(self) -> Option<u32> {
        match self {
            Self::Signal(signal) => Some(signal),
            Self::Code(_) | Self::NoOutputFile => None,
        }
    }

    /// The exit code, where it exited.
    #[must_use]
    pub fn code(self) -> Option<u32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) | Self::NoOutputFile => None,
        }
    }
}

impl fmt::Display for JobExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => {
                let name = i32::try_from(*signal).ok().and_then(|n| Signal::try_from(n).ok());
                match name {
                    Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                    None => write!(f, "was killed by signal {signal}"),
                }
            }
            Self::NoOutputFile => {
                write!(f, "was not started: Slurm could not open its output file")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: u32, signal: u32, expected: &str) {
        assert_eq!(JobExit::from(SlurmExitCode { code, signal }).to_string(), expected);
    }

    #[test]
    fn a_signal_is_read_however_slurm_shows_it() {
        check(0, 9, "was killed by signal 9 (SIGKILL)");
        check(9, 0, "was killed by signal 9 (SIGKILL)"); // `exit 137` up to 24.11
        check(137, 0, "was killed by signal 9 (SIGKILL)"); // `exit 137` on 26.05
        check(15, 0, "was killed by signal 15 (SIGTERM)");
        check(143, 0, "was killed by signal 15 (SIGTERM)");
        check(1, 7, "was killed by signal 7 (SIGBUS)");
        check(0, 36, "was killed by signal 36");
        check(0, 53, "was not started: Slurm could not open its output file");
        for code in [0, 1, 2, 75, 93, 124, 126, 127, 128, 200, 255] {
            check(code, 0, &format!("exited with code {code}"));
        }
    }
}
