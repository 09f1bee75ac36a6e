//! What the harness has to say: to the attempt's log, and what is serious to its own output, Slurm's log, too.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use nemo_core::log_line::{self, LogLevel};

use crate::os::clock::unix_now;
use crate::os::serial_queue::SerialQueue;
use crate::program::output;

/// Where everything is written down, if somebody asked for it.
static DEBUG: OnceLock<Mutex<File>> = OnceLock::new();

/// The two places. Both may lie on a disk that hangs: a thread writes.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    file: Option<Arc<File>>,
    records: SerialQueue,
    /// Lines that there was no room for.
    lost: u32,
}

impl Log {
    pub(crate) fn new(path: &Path, records: &SerialQueue) -> Self {
        let file = output::open_log(path).ok().map(Arc::new);
        Self { file, records: records.clone(), lost: 0 }
    }

    /// For who looks into the attempt's log.
    pub(crate) fn note(&mut self, text: &str) {
        self.write(LogLevel::Info, text);
        debug(|| text.to_owned());
    }

    /// For everybody.
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
                drop((&*file).write_all(line.as_bytes())); // a full disk costs words, not the trial
            }
            if level == LogLevel::Warn {
                drop(std::io::stderr().write_all(line.as_bytes()));
            }
        });
    }
}

/// Says it where Slurm's log is: something is lost, or may be.
pub(crate) fn log_stderr(text: &str) {
    write_stderr(LogLevel::Warn, text);
}

/// The same for what only tells what is done.
pub(crate) fn log_info(text: &str) {
    write_stderr(LogLevel::Info, text);
}

/// The same for what the trial can't go on with.
pub(crate) fn log_error(text: &str) {
    write_stderr(LogLevel::Error, text);
}

fn write_stderr(level: LogLevel, text: &str) {
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
    let line = log_line::format(unix_now(), LogLevel::Debug, &text());
    drop(file.write_all(line.as_bytes()));
}
