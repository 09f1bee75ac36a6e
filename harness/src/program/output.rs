//! The program's output: written to the attempt's files, and handed on line by line where metrics are looked for.
//!
//! A full disk costs output, never the trial.

use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;

use nemo_core::log_line::PREFIX;
use nemo_core::open;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A line longer than this is no report.
const LONGEST_LINE: usize = 16 * 1024;

/// Opens a log to append to; one that can't be opened is replaced by nothing.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    open::to_append(path)
}

/// One of the program's two outputs, on its way through this process.
#[derive(Debug)]
pub(crate) struct Stream {
    pipe: Option<PipeReader>,
    log: Option<File>,
    line: Vec<u8>,
    skipping: bool,
    /// Bytes that could not be written.
    pub(crate) lost: u64,
}

impl Stream {
    /// Makes a pipe whose other end is the program's.
    pub(crate) fn new(log: Option<File>) -> io::Result<(Self, Stdio)> {
        let (pipe, other) = io::pipe()?;
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let line = Vec::new();
        Ok((Self { pipe: Some(pipe), log, line, skipping: false, lost: 0 }, other.into()))
    }

    /// What to poll, until the end of the output.
    pub(crate) fn pipe(&self) -> Option<&PipeReader> {
        self.pipe.as_ref()
    }

    /// Takes what has come, a bounded amount, and hands on each whole line.
    pub(crate) fn read(&mut self, mut each: impl FnMut(&str)) {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..16 {
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

    fn write(&mut self, bytes: &[u8]) {
        let written = self.log.as_mut().map(|log| log.write_all(bytes));
        if !matches!(written, Some(Ok(()))) {
            self.lost += bytes.len() as u64;
        }
    }

    /// A progress bar ends its lines by returning to their start.
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

/// The last line that the program itself wrote to a log, for a person to read.
pub(crate) fn last_line(path: &Path) -> Option<String> {
    const TAIL: u64 = 4096;
    let mut file = open::to_read(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let own = |line: &&str| !line.trim().is_empty() && !line.starts_with(PREFIX);
    let line = tail.lines().rfind(own)?.trim();
    let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let cut = shown.char_indices().nth(300).map(|(at, _)| at);
    Some(cut.map_or(shown.clone(), |at| format!("{}…", &shown[..at])))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut stream, _other) = Stream::new(None).unwrap();
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
        std::fs::write(&path, "Traceback\nValueError: x\n\nnemo-harness: saved\n").unwrap();
        assert_eq!(last_line(&path).as_deref(), Some("ValueError: x"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(last_line(&path), None);
    }
}
