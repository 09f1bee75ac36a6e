//! Follows a trial's folder while it runs: its attempts, its reports, and how it saves.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use nemo_core::lines;
use nemo_core::rundir::{AttemptRecord, MetricsLine, TrialDir};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::run_record::{HarnessNotes, Injected, RehearsedAttempt};
use super::scenarios::Fault;
use crate::file_error::IoResultExt;

/// What is known of a running trial so far.
#[derive(Debug)]
pub(super) struct TrialWatcher {
    dir: TrialDir,
    inotify: Inotify,
    /// The attempt whose staging folder is watched.
    watched: Option<(u32, WatchDescriptor)>,
    in_place: Vec<(u32, String)>,
    records: Vec<AttemptRecord>,
    /// The length of the record when it was last read.
    recorded: u64,
    metrics: Tail,
    reports: Vec<MetricsLine>,
    pub(super) injected: Vec<(u32, Injected)>,
    /// The attempts of which it was seen whether a SIGTERM ends them at once.
    pub(super) withstanding: Vec<(u32, bool)>,
}

impl TrialWatcher {
    pub(super) fn new(dir: TrialDir) -> io::Result<Self> {
        Ok(Self {
            dir,
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            watched: None,
            in_place: Vec::new(),
            records: Vec::new(),
            recorded: 0,
            metrics: Tail::default(),
            reports: Vec::new(),
            injected: Vec::new(),
            withstanding: Vec::new(),
        })
    }

    /// Reads what is new.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let length = fs::metadata(self.dir.attempts()).map_or(0, |file| file.len());
        if length != self.recorded {
            self.records =
                lines::read(&self.dir.attempts()).named("read", &self.dir.attempts())?.rows;
            self.recorded = length;
        }
        self.read_reports()?;
        self.watch_staging();
        Ok(())
    }

    /// The number of the newest attempt, and when it began.
    pub(super) fn attempt(&self) -> Option<(u32, f64)> {
        let start = self.records.iter().rev().find_map(AttemptRecord::as_start)?;
        Some((start.attempt, start.began.unwrap_or(start.time)))
    }

    /// Notes that the first attempt was asked at its segment's end, if it lasted so long: the harness sees to that itself,
    /// and writes down when.
    pub(super) fn segment_ended(&mut self, fault: Fault) {
        let first = self.attempts().into_iter().next();
        let asked = first.as_ref().and_then(|first| first.end.as_ref()?.stopped);
        let (Some(first), Some(time)) = (first, asked) else { return };
        let before = first.lines.iter().filter(|line| line.time <= time);
        let step = before.filter_map(|line| line.step).max();
        self.injected.push((0, Injected { fault, time, step }));
    }

    /// Whether the newest attempt has ended.
    pub(super) fn is_over(&self) -> bool {
        let end = self.records.iter().rev().find_map(AttemptRecord::as_end);
        self.attempt().is_some_and(|(number, _)| end.is_some_and(|end| end.attempt == number))
    }

    /// The last step that an attempt reported.
    pub(super) fn step(&self, attempt: u32) -> Option<u64> {
        let own = self.reports.iter().rev().filter(|line| line.attempt == attempt);
        own.filter_map(|line| line.step).max()
    }

    /// Whether any checkpoint is committed.
    pub(super) fn has_checkpoint(&self) -> bool {
        self.records.iter().any(|record| matches!(record, AttemptRecord::Checkpoint { .. }))
    }

    /// A resume takes reports out of the file; what was read before stays known here.
    fn read_reports(&mut self) -> io::Result<()> {
        let newest = self.reports.last().map(|line| line.attempt);
        let (fresh, is_new_file) =
            self.metrics.read(&self.dir.metrics()).named("read", &self.dir.metrics())?;
        let rows = lines::parse::<MetricsLine>(&fresh).rows;
        let is_known = |line: &MetricsLine| is_new_file && newest >= Some(line.attempt);
        self.reports.extend(rows.into_iter().filter(|line| !is_known(line)));
        Ok(())
    }

    fn watch_staging(&mut self) {
        if let Some((number, _)) = self.attempt()
            && self.watched.is_none_or(|(watched, _)| watched != number)
        {
            let staging = self.dir.staging(number);
            let added = self.inotify.add_watch(&staging, AddWatchFlags::IN_CREATE);
            if let Ok(watch) = added {
                self.watched = Some((number, watch));
            }
        }
        // Nothing to read is an error too.
        for event in self.inotify.read_events().unwrap_or_default() {
            let watched = self.watched.filter(|(_, watch)| *watch == event.wd);
            if let (Some((number, _)), Some(name)) = (watched, event.name)
                && is_final(name.as_bytes())
            {
                self.in_place.push((number, name.to_string_lossy().into_owned()));
            }
        }
    }

    /// All that was seen, attempt by attempt.
    pub(super) fn attempts(&self) -> Vec<RehearsedAttempt> {
        let starts = self.records.iter().filter_map(AttemptRecord::as_start);
        starts.map(|start| self.one(start.attempt, start.time, start.resume_step)).collect()
    }

    fn one(&self, number: u32, start: f64, resume_step: Option<u64>) -> RehearsedAttempt {
        let checkpoint = |record: &AttemptRecord| match record {
            AttemptRecord::Checkpoint { attempt, step, time, .. } if *attempt == number => {
                Some((*step, *time))
            }
            _ => None,
        };
        let ends = self.records.iter().filter_map(AttemptRecord::as_end);
        let log = fs::read(self.dir.stderr(number)).unwrap_or_default();
        let of_this = |attempt: &&(u32, Injected)| attempt.0 == number;
        let seen = self.withstanding.iter().find(|(attempt, _)| *attempt == number);
        let in_place = self.in_place.iter().filter(|(attempt, _)| *attempt == number);
        RehearsedAttempt {
            number,
            start,
            resume_step,
            lines: self.reports.iter().filter(|line| line.attempt == number).cloned().collect(),
            checkpoints: self.records.iter().filter_map(checkpoint).collect(),
            injected: self.injected.iter().find(of_this).map(|(_, injected)| *injected),
            withstands_term: seen.map(|(_, withstands)| *withstands),
            end: ends.into_iter().rfind(|end| end.attempt == number).cloned(),
            notes: HarnessNotes::new(&String::from_utf8_lossy(&log)),
            in_place: in_place.map(|(_, name)| name.clone()).collect(),
        }
    }
}

/// Names that the harness takes for what a program means to keep.
fn is_final(name: &[u8]) -> bool {
    !name.starts_with(b".") && !name.windows(4).any(|part| part == b".tmp")
}

/// Reads a growing file on.
#[derive(Debug, Default)]
struct Tail {
    inode: u64,
    offset: u64,
    /// What was read last: where it no longer stands before the offset, the file was cut meanwhile.
    last: Vec<u8>,
}

impl Tail {
    /// The whole lines that are new, and whether the file is another one than before, or was cut.
    fn read(&mut self, path: &std::path::Path) -> io::Result<(Vec<u8>, bool)> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Vec::new(), false));
            }
            file => file?,
        };
        let inode = file.metadata()?.ino();
        let is_new = inode != self.inode || !self.goes_on(&mut file)?;
        if is_new {
            *self = Self { inode, ..Self::default() };
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        self.offset += whole as u64;
        if let Some(line) = bytes.split_inclusive(|byte| *byte == b'\n').next_back() {
            line.clone_into(&mut self.last);
        }
        Ok((bytes, is_new))
    }

    /// Whether the line that was read last still stands before the offset.
    fn goes_on(&self, file: &mut File) -> io::Result<bool> {
        file.seek(SeekFrom::Start(self.offset.saturating_sub(self.last.len() as u64)))?;
        let mut found = Vec::new();
        Read::by_ref(file).take(self.last.len() as u64).read_to_end(&mut found)?;
        Ok(found == self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_and_grew_again_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut tail = Tail::default();
        let mut check = |content: &str, expected: &str, is_new: bool| {
            let same_file = File::options().create(true).write(true).truncate(true).open(&path);
            std::io::Write::write_all(&mut same_file.unwrap(), content.as_bytes()).unwrap();
            let (fresh, found_new) = tail.read(&path).unwrap();
            assert_eq!((String::from_utf8(fresh).unwrap().as_str(), found_new), (expected, is_new));
        };
        check("a1\na2\na3\n", "a1\na2\na3\n", true);
        check("a1\na2\na3\na4\na", "a4\n", false);
        check("a1\nb2\nb3\nb4\nb5\n", "a1\nb2\nb3\nb4\nb5\n", true);
        check("a1\n", "a1\n", true);
        check("a1\nc2\n", "c2\n", false);
    }
}
