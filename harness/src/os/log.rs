//! What the harness has to say: to the attempt's log, and what is serious to its own output, Slurm's log, too.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::program::output::{self, PREFIX};

/// The two places.
#[derive(Debug)]
pub(crate) struct Log {
    log: Option<File>,
}

impl Log {
    pub(crate) fn new(path: &Path) -> Self {
        Self { log: output::open_log(path).ok() }
    }

    /// For who looks into the attempt's log.
    pub(crate) fn note(&mut self, text: &str) {
        let line = line(text);
        if let Some(log) = &mut self.log {
            drop(log.write_all(line.as_bytes())); // a full disk costs words, not the trial
        }
    }

    /// For everybody.
    pub(crate) fn warn(&mut self, text: &str) {
        self.note(text);
        log_stderr(text);
    }
}

/// Says it where Slurm's log is.
pub(crate) fn log_stderr(text: &str) {
    drop(std::io::stderr().write_all(line(text).as_bytes()));
}

fn line(text: &str) -> String {
    // A name that the program gave may hold anything.
    format!("{PREFIX}{}\n", text.replace(char::is_control, " "))
}
