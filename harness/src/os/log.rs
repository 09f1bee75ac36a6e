//! What the harness has to say: to the attempt's log, and what is serious to its own output, Slurm's log, too.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use nemo_core::log_line::{self, Level};

use crate::os::clock::unix_now;
use crate::program::output;

/// Where everything is written down, if somebody asked for it.
static DEBUG: OnceLock<Mutex<File>> = OnceLock::new();

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
        self.write(Level::Info, text);
        debug(|| text.to_owned());
    }

    /// For everybody.
    pub(crate) fn warn(&mut self, text: &str) {
        self.write(Level::Warn, text);
        log_stderr(text);
    }

    fn write(&mut self, level: Level, text: &str) {
        let line = log_line::format(unix_now(), level, text);
        if let Some(log) = &mut self.log {
            drop(log.write_all(line.as_bytes())); // a full disk costs words, not the trial
        }
    }
}

/// Says it where Slurm's log is: something is lost, or may be.
pub(crate) fn log_stderr(text: &str) {
    write_stderr(Level::Warn, text);
}

/// The same for what only tells what is done.
pub(crate) fn log_info(text: &str) {
    write_stderr(Level::Info, text);
}

/// The same for what the trial can't go on with.
pub(crate) fn log_error(text: &str) {
    write_stderr(Level::Error, text);
}

fn write_stderr(level: Level, text: &str) {
    let line = log_line::format(unix_now(), level, text);
    drop(std::io::stderr().write_all(line.as_bytes()));
    debug(|| text.to_owned());
}

/// From now on every event and action is written down there.
pub(crate) fn debug_to(path: &Path) {
    match output::open_log(path) {
        Ok(file) => drop(DEBUG.set(Mutex::new(file))),
        Err(error) => log_stderr(&crate::job::trial::with_path(path, &error)),
    }
}

/// Writes a line where everything is written down; its text is made only then.
pub(crate) fn debug(text: impl FnOnce() -> String) {
    let Some(Ok(mut file)) = DEBUG.get().map(Mutex::lock) else { return };
    let line = log_line::format(unix_now(), Level::Debug, &text());
    drop(file.write_all(line.as_bytes()));
}
