//! The program's output: written to the attempt's files, and read line by line if metrics are expected in it.
//!
//! On a full disk output is lost, but never the trial.

use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nemo_core::log_line::PREFIX;
use nemo_core::open;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::os::serial_queue::SerialQueue;

/// Longer lines are not parsed.
const LONGEST_LINE: usize = 16 * 1024;

/// Opens a log to append to. If it can't be opened, the output is dropped.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    open::to_append(path)
}

/// One of the program's two outputs, read through a pipe.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pipe: Option<PipeReader>,
    /// The file to write and the thread that writes it. None if the output is only read.
    log: Option<(Option<Arc<File>>, SerialQueue)>,
    line: Vec<u8>,
    skipping: bool,
    /// How many bytes could not be written.
    pub(crate) lost: Arc<AtomicU64>,
}

impl ProgramOutput {
    /// Makes a pipe for the program. Its output is written to the log.
    pub(crate) fn new(log: Option<File>, records: &SerialQueue) -> io::Result<(Self, Stdio)> {
        Self::of(Some((log.map(Arc::new), records.clone())))
    }

    /// Makes a pipe that is only read.
    pub(crate) fn read_only() -> io::Result<(Self, Stdio)> {
        Self::of(None)
    }

    fn of(log: Option<(Option<Arc<File>>, SerialQueue)>) -> io::Result<(Self, Stdio)> {
        let (pipe, other) = io::pipe()?;
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let stream =
            Self { pipe: Some(pipe), log, line: Vec::new(), skipping: false, lost: Arc::default() };
        Ok((stream, other.into()))
    }

    /// The pipe to poll, until the end of the output. While the disk is behind, the program waits, as it would if it wrote
    /// itself.
    pub(crate) fn pipe(&self) -> Option<&PipeReader> {
        self.pipe.as_ref().filter(|_| !self.is_full())
    }

    /// Reads a bounded amount, and calls the function with each whole line.
    pub(crate) fn read(&mut self, mut each: impl FnMut(&str)) {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..16 {
            if self.is_full() {
                return;
            }
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    self.end_line(&mut each);
                }
                Ok(length) => {
                    self.write(&buffer[..length]);
                    self.cut(&buffer[..length], &mut each);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn is_full(&self) -> bool {
        self.log.as_ref().is_some_and(|(_, records)| records.is_full())
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some((log, records)) = &self.log else { return };
        let (log, lost, bytes) = (log.clone(), Arc::clone(&self.lost), bytes.to_vec());
        records.add(bytes.len(), move || {
            let written = log.map(|log| (&*log).write_all(&bytes));
            if !matches!(written, Some(Ok(()))) {
                lost.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        });
    }

    /// A progress bar ends its lines with a carriage return.
    fn cut(&mut self, bytes: &[u8], each: &mut impl FnMut(&str)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n' || byte == b'\r') {
            let ends = part.ends_with(b"\n") || part.ends_with(b"\r");
            let text = if ends { &part[..part.len() - 1] } else { part };
            if self.line.len() + text.len() > LONGEST_LINE {
                self.skipping = true;
                self.line.clear();
            }
            if !self.skipping {
                self.line.extend_from_slice(text);
            }
            if ends {
                self.end_line(each);
            }
        }
    }

    fn end_line(&mut self, each: &mut impl FnMut(&str)) {
        if !self.skipping && !self.line.is_empty() {
            each(&String::from_utf8_lossy(&self.line));
        }
        self.skipping = false;
        self.line.clear();
    }
}

/// The end of a log, from the start of a line on: the rest of one that began before may be the harness's own.
fn whole_lines(path: &Path) -> io::Result<Vec<u8>> {
    const TAIL: u64 = 32 * 1024;
    let mut file = open::to_read(path)?;
    let length = file.metadata()?.len();
    // One byte more tells whether a line ends right before.
    let start = length.saturating_sub(TAIL + 1);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if start > 0 {
        let first = tail.iter().position(|&byte| byte == b'\n').map_or(tail.len(), |at| at + 1);
        tail.drain(..first);
    }
    Ok(tail)
}

/// The last line that the program itself wrote to a log, for a person to read.
pub(crate) fn last_line(path: &Path) -> Option<String> {
    let tail = whole_lines(path).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let mut lines = tail.lines().filter(|line| !line.starts_with(PREFIX) && !is_exit_report(line));
    // A line that is only drawn says nothing.
    let line = lines.rfind(|line| line.contains(char::is_alphanumeric))?.trim();
    let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let cut = shown.char_indices().nth(300).map(|(at, _)| at);
    Some(cut.map_or(shown.clone(), |at| format!("{}…", &shown[..at])))
}

/// What `srun` says below the last line of a program that failed. The harness knows the code itself.
fn is_exit_report(line: &str) -> bool {
    line.starts_with("srun: error: ") && line.contains(": Exited with exit code ")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut stream, _other) = ProgramOutput::read_only().unwrap();
        let mut lines = Vec::new();
        let mut each = |line: &str| lines.push(line.to_owned());
        for chunk in chunks {
            stream.cut(chunk, &mut each);
        }
        stream.end_line(&mut each);
        lines
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        assert_eq!(lines(&[b"a", b"b\nc\r", b"d\r\n\ne"]), ["ab", "c", "d", "e"]);
        assert_eq!(lines(&[b"\xff\n"]), ["\u{fffd}"]);
        let long = vec![b'x'; LONGEST_LINE + 1];
        assert_eq!(lines(&[&long, b"tail\nnext\n"]), ["next"]);
    }

    #[test]
    fn the_last_line_is_the_programs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.err");
        std::fs::write(&path, "Traceback\nValueError: x\n----\n\nnemo-harness: saved\n").unwrap();
        assert_eq!(last_line(&path).as_deref(), Some("ValueError: x"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(last_line(&path), None);
    }

    /// That a task ended is known, and no program was used wrongly because `srun` says so.
    #[test]
    fn the_last_line_is_not_srun_s_report() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.err");
        let exited = "srun: error: n1: task 0: Exited with exit code 2";
        std::fs::write(&path, format!("mesh is empty\n{exited}\n")).unwrap();
        assert_eq!(last_line(&path).as_deref(), Some("mesh is empty"));
        std::fs::write(&path, format!("{exited}\n")).unwrap();
        assert_eq!(last_line(&path), None);
        let memory = "srun: error: n1: task 0: Out Of Memory";
        std::fs::write(&path, format!("mesh\n{memory}\n")).unwrap();
        assert_eq!(last_line(&path).as_deref(), Some(memory));
    }

    #[test]
    fn the_rest_of_a_line_that_was_cut_is_nobodys_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.err");
        let own = format!("{PREFIX}2026-11-30T16:34:01Z info `step-73` is committed as it is\n");
        // Wherever the tail begins: each of these logs is one byte longer than the one before.
        for extra in 0..own.len() {
            std::fs::write(&path, own.repeat(1000) + PREFIX + &"x".repeat(extra) + "\n").unwrap();
            assert_eq!(last_line(&path), None, "{extra}");
        }
        std::fs::write(&path, own.repeat(1000) + "ValueError: x\n" + &own.repeat(100)).unwrap();
        assert_eq!(last_line(&path).as_deref(), Some("ValueError: x"));
    }
}
