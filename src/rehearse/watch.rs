//! Follows a trial's folder while it runs: its attempts, its reports, and how it saves.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use nemo_core::rundir::{AttemptRecord, MetricsLine, TrialDir};
use nemo_core::{lines, open};
use nix::sys::inotify::{InitFlags, Inotify, WatchDescriptor};

use super::printed_steps::{self, PrintedSteps};
use super::run_record::{HarnessNotes, Injected, RehearsedAttempt, last_words};
use super::saves_in_place::SavesInPlace;
use super::scenarios::Fault;
use super::tail::Tail;
use crate::file_error::IoResultExt;

/// What is known of a running trial so far.
#[derive(Debug)]
pub(super) struct TrialWatcher {
    dir: TrialDir,
    inotify: Inotify,
    /// The attempt whose staging folder is watched.
    watched: Option<(u32, WatchDescriptor)>,
    in_place: SavesInPlace,
    records: Vec<AttemptRecord>,
    /// The length of the record when it was last read.
    recorded: u64,
    metrics: Tail,
    /// Where the program prints steps and nothing else.
    printed: Option<PrintedSteps>,
    reports: Vec<MetricsLine>,
    pub(super) injected: Vec<(u32, Injected)>,
    /// The attempts of which it was seen whether a SIGTERM ends them at once.
    pub(super) withstanding: Vec<(u32, bool)>,
}

impl TrialWatcher {
    /// `patterns` are those of the task's metrics.
    pub(super) fn new(dir: TrialDir, patterns: &BTreeMap<String, String>) -> io::Result<Self> {
        Ok(Self {
            dir,
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            watched: None,
            in_place: SavesInPlace::default(),
            records: Vec::new(),
            recorded: 0,
            metrics: Tail::default(),
            printed: PrintedSteps::new(patterns),
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
        if let (Some((attempt, _)), Some(printed)) = (self.attempt(), &mut self.printed) {
            let path = self.dir.stdout(attempt);
            self.reports.extend(printed.read(&self.dir, attempt).named("read", &path)?);
        }
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

    /// The record in the end.
    pub(super) fn record(&self) -> io::Result<Vec<MetricsLine>> {
        let path = self.dir.metrics();
        let lines = lines::read(&path).named("read", &path)?.rows;
        if self.printed.is_none() || !lines.is_empty() {
            return Ok(lines);
        }
        let starts = self.records.iter().filter_map(AttemptRecord::as_start);
        let resumes: Vec<(u32, Option<u64>)> =
            starts.map(|start| (start.attempt, start.resume_step)).collect();
        Ok(printed_steps::record(&self.reports, &resumes))
    }

    /// A resume takes reports out of the file; what was read before stays known here.
    fn read_reports(&mut self) -> io::Result<()> {
        let newest = self.reports.last().map(|line| line.attempt);
        let (fresh, is_new_file) =
            self.metrics.read(&self.dir.metrics()).named("read", &self.dir.metrics())?;
        let rows = lines::parse::<MetricsLine>(&fresh).rows;
        let fresh = rows.into_iter().filter(|line| !is_new_file || newest < Some(line.attempt));
        self.reports.extend(fresh);
        Ok(())
    }

    fn watch_staging(&mut self) {
        if let Some((number, _)) = self.attempt()
            && self.watched.is_none_or(|(watched, _)| watched != number)
        {
            let staging = self.dir.staging(number);
            let added = self.inotify.add_watch(&staging, SavesInPlace::events());
            if let Ok(watch) = added {
                self.watched = Some((number, watch));
            }
        }
        // Nothing to read is an error too.
        for event in self.inotify.read_events().unwrap_or_default() {
            let watched = self.watched.filter(|(_, watch)| *watch == event.wd);
            if let (Some((number, _)), Some(name)) = (watched, event.name) {
                self.in_place.add(number, &name.to_string_lossy(), event.mask, event.cookie);
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
        let log = open::read(&self.dir.stderr(number)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let injected = self.injected.iter().find(|(attempt, _)| *attempt == number);
        let seen = self.withstanding.iter().find(|(attempt, _)| *attempt == number);
        RehearsedAttempt {
            number,
            start,
            resume_step,
            lines: self.reports.iter().filter(|line| line.attempt == number).cloned().collect(),
            checkpoints: self.records.iter().filter_map(checkpoint).collect(),
            injected: injected.map(|(_, injected)| *injected),
            withstands_term: seen.map(|(_, withstands)| *withstands),
            end: ends.into_iter().rfind(|end| end.attempt == number).cloned(),
            notes: HarnessNotes::new(&log),
            in_place: self.in_place.of(number),
            last_words: last_words(&log),
        }
    }
}
