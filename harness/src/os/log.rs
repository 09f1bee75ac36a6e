//! The harness's log lines: all go to the attempt's log, and warnings also to its own output, which is Slurm's log.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use nemo_core::log_line::{self, LogLevel};

use crate::os::clock::unix_now;
use crate::os::serial_queue::SerialQueue;
use crate::program::output;

/// The debug log, if it was requested.
static DEBUG: OnceLock<Mutex<File>> = OnceLock::new();

/// The two logs. A thread writes them, since both may be on a disk that hangs.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    file: Option<Arc<File>>,
    records: SerialQueue,
    /// How many lines were dropped.
    lost: u32,
}

impl Log {
    pub(crate) fn new(path: &Path, records: &SerialQueue) -> Self {
        let file = output::open_log(path).ok().map(Arc::new);
        Self { file, records: records.clone(), lost: 0 }
    }

    /// Writes a line to the attempt's log.
    pub(crate) fn note(&mut self, text: &str) {
        self.write(LogLevel::Info, text);
        debug(|| text.to_owned());
    }

    /// Writes a line to both logs.
    pub(crate) fn warn(&mut self, text: &str) {
        self.write(LogLevel::Warn, text);
        debug(|| text.to_owned());
    }

    fn write(&mut self, level: LogLevel, text: &str) {
        if self.records.is_full() {
            self.lost += 1;
            return;
        }
        let mut line = log_line::format(unix_now(), level, text);
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            let text = format!("{lost} lines could not be written here");
            line.insert_str(0, &log_line::format(unix_now(), LogLevel::Warn, &text));
        }
        let file = self.file.clone();
        self.records.add(line.len(), move || {
            if let Some(file) = file {
                drop((&*file).write_all(line.as_bytes())); // a full disk costs lines, not the trial
            }
            if level == LogLevel::Warn {
                drop(std::io::stderr().write_all(line.as_bytes()));
            }
        });
    }
}

/// Writes a warning to Slurm's log: something is lost or may be.
pub(crate) fn log_stderr(text: &str) {
    write_stderr(LogLevel::Warn, text);
}

/// Writes an information to Slurm's log.
pub(crate) fn log_info(text: &str) {
    write_stderr(LogLevel::Info, text);
}

/// Writes an error to Slurm's log: the trial can't continue.
pub(crate) fn log_error(text: &str) {
    write_stderr(LogLevel::Error, text);
}

fn write_stderr(level: LogLevel, text: &str) {
    let line = log_line::format(unix_now(), level, text);
    drop(std::io::stderr().write_all(line.as_bytes()));
    debug(|| text.to_owned());
}

/// Writes every event and action to this log from now on.
pub(crate) fn debug_to(path: &Path) {
    match output::open_log(path) {
        Ok(file) => drop(DEBUG.set(Mutex::new(file))),
        Err(error) => log_stderr(&crate::job::trial::with_path(path, &error)),
    }
}

/// Writes a line to the debug log. The text is made only if there is one.
pub(crate) fn debug(text: impl FnOnce() -> String) {
    let Some(Ok(mut file)) = DEBUG.get().map(Mutex::lock) else { return };
    let line = log_line::format(unix_now(), LogLevel::Debug, &text());
    drop(file.write_all(line.as_bytes()));
}
