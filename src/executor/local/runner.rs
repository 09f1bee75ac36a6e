//! The runner: starts the trials of a local experiment as they become ready, until all are over.
//!
//! It alone writes `runner.jsonl`. Killed at any moment, a new one goes on from the trials' own records.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits on the real clock")]

mod control;
mod elsewhere;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nemo_core::gone_folder::GoneFolder;
use nemo_core::lines;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{AttemptRecord, TrialDir, requests};
use nix::sys::signal::Signal;

use self::elsewhere::Elsewhere;
pub use self::elsewhere::OtherTasks;
use super::children::{Children, ExitedHarness};
use super::gpu_slots::GpuSlots;
use super::log::RunnerLog;
use super::schedule::{self, LocalPhase, LocalTask, TrialRef};
use super::silent_deaths::SilentDeaths;
use crate::clock;
use crate::experiment::{Executor, Experiment};
use crate::file_error::{FileError, IoResultExt};
use crate::journal::{self, Event};
use crate::observe;
use crate::process::{Liveness, ProcessId};
use crate::report::say;
use crate::status::{self, Request, State, TrialFiles};
use crate::store::{Claim, ClaimError, Stored};

/// Pause between two looks at requests, and at harnesses that are no children of this process.
const TICK: Duration = Duration::from_millis(500);
/// Pause after a harness could not be started: this machine may lack processes or memory.
const START_BACKOFF: Duration = Duration::from_secs(1);
/// How long the last record is tried again if it can't be written.
const FINISH_TIMEOUT: Duration = Duration::from_mins(10);
/// The signals that end harnesses if nothing can be saved any more, and how long each may take.
const STOP_SIGNALS: [(Signal, Duration); 2] =
    [(Signal::SIGTERM, Duration::from_secs(30)), (Signal::SIGKILL, Duration::from_secs(5))];

struct Runner<'a> {
    stored: &'a Stored,
    /// The journal, which may have grown by a retry.
    journal: Vec<Event>,
    journal_size: u64,
    claim: &'a Claim,
    harness: PathBuf,
    tasks: Vec<LocalTask<'a>>,
    log: RunnerLog,
    /// Harnesses that live, by trial.
    live: BTreeMap<TrialRef, ProcessId>,
    /// Those of them that an earlier runner started: they are no children of ours.
    adopted: BTreeSet<TrialRef>,
    silent_deaths: BTreeMap<TrialRef, SilentDeaths>,
    /// The earliest next start of trials whose harness ended without a record.
    start_after: BTreeMap<TrialRef, Instant>,
    seen_requests: BTreeSet<PathBuf>,
    /// Cancellations and retries, the newest last: a cancelled trial starts again only after a retry.
    cancelled: Vec<Request>,
    /// Pauses, resumes and retries, the newest last.
    pauses: Vec<Request>,
    children: Children,
    /// Ends whose trial's folder could not be read yet.
    unread_ends: Vec<ExitedHarness>,
    /// Whether a pause could not be carried out yet.
    is_pause_open: bool,
    /// The earliest next start of any trial.
    next_start: Instant,
    /// The last warning: it is not repeated.
    last_warning: String,
    gpus: GpuSlots,
    gone_folder: GoneFolder<Instant>,
    /// The tasks that another executor runs, if there are any.
    elsewhere: Option<Elsewhere<'a>>,
}

/// Why the runner gave up before the experiment was over.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The ends of harnesses can't be heard of.
    #[error("can't listen for processes that end")]
    Signals(#[source] io::Error),
    /// Another runner goes on with it.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody removed the experiment: nothing that its programs do could be kept.
    #[error("the experiment's folder `{}` was removed; its programs are ended", folder.display())]
    Removed {
        /// The folder.
        folder: PathBuf,
    },
}

/// Runs a local experiment until all its trials are over.
pub fn run<'a>(
    stored: &'a Stored,
    harness: &Path,
    claim: &'a Claim,
    children: Children,
    gpus: Vec<String>,
    others: Option<&'a mut dyn OtherTasks>,
) -> Result<(), RunnerError> {
    let first = this_runner(&stored.journal);
    let mut runner = Runner {
        stored,
        journal: stored.journal.clone(),
        journal_size: 0,
        claim,
        harness: harness.to_owned(),
        tasks: local_tasks(&stored.experiment),
        log: RunnerLog::open(&stored.dir.runner_log(), &first)?,
        live: BTreeMap::new(),
        adopted: BTreeSet::new(),
        silent_deaths: BTreeMap::new(),
        start_after: BTreeMap::new(),
        seen_requests: BTreeSet::new(),
        cancelled: Vec::new(),
        pauses: Vec::new(),
        children,
        unread_ends: Vec::new(),
        is_pause_open: false,
        next_start: Instant::now(),
        last_warning: String::new(),
        gpus: GpuSlots::new(gpus),
        gone_folder: GoneFolder::default(),
        elsewhere: others.map(Elsewhere::new),
    };
    runner.recover()?;
    runner.run_all()?;
    Ok(runner.finish()?)
}

/// What a runner writes first, and again after a retry.
fn this_runner(journal: &[Event]) -> RunnerRecord {
    let generation = journal::last_generation(journal);
    RunnerRecord::Runner { process: ProcessId::current(), time: clock::now(), generation }
}

fn local_tasks(experiment: &Experiment) -> Vec<LocalTask<'_>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let parallel = |name: &String| match experiment.executors.get(name) {
        // Where trials have GPUs of their own, these say how many run at once.
        Some(Executor::Local(local)) if local.gpus_per_trial.is_some() => {
            local.parallel.map_or(usize::MAX, |n| n.get() as usize)
        }
        Some(Executor::Local(local)) => local.parallel.map_or(processors, |n| n.get() as usize),
        Some(Executor::Slurm(_)) | None => processors,
    };
    let tasks = experiment.tasks.iter().map(|task| {
        let is_elsewhere = !experiment.is_local(task);
        // Of others nothing is known yet.
        let first = if is_elsewhere { LocalPhase::Running } else { LocalPhase::Waiting };
        let phases = vec![first; task.n_trials as usize];
        LocalTask { task, is_elsewhere, parallel: parallel(&task.executor), phases }
    });
    tasks.collect()
}

/// A final end, as a trial's folder has it.
fn final_phase(files: &TrialFiles) -> Option<LocalPhase> {
    let state = status::final_state(files)?;
    Some(if state == State::Completed { LocalPhase::Completed } else { LocalPhase::Lost })
}

impl Runner<'_> {
    /// Takes over from a runner that is gone: the trials' own records say where each stands.
    fn recover(&mut self) -> Result<(), FileError> {
        let log = self.stored.dir.runner_log();
        let earlier = lines::read::<RunnerRecord>(&log).at("read", &log)?.rows;
        for record in earlier {
            let RunnerRecord::Started { task, trial, gpus, .. } = record else { continue };
            if let Some(task) = self.tasks.iter().position(|local| local.task.name == task) {
                self.recover_trial((task, trial as usize), gpus)?;
            }
        }
        Ok(())
    }

    fn recover_trial(&mut self, place: TrialRef, gpus: Vec<String>) -> Result<(), FileError> {
        let files = self.trial_files(place)?;
        let last = files.attempts.iter().rev().find_map(AttemptRecord::as_start);
        let process = last.map(|start| start.process.clone());
        if let Some(phase) = final_phase(&files) {
            *self.phase(place) = phase;
        } else if let Some(process) = process
            && process.liveness() == Liveness::Alive
        {
            *self.phase(place) = LocalPhase::Running;
            self.live.insert(place, process);
            self.adopted.insert(place);
            self.gpus.adopt(place, gpus);
        }
        Ok(())
    }

    /// Starts trials as they become ready, until all are over. A file that can't be read or written now is tried again in the
    /// next round.
    fn run_all(&mut self) -> Result<(), RunnerError> {
        loop {
            self.require_folder()?;
            match self.claim.check() {
                Err(error @ (ClaimError::Lost { .. } | ClaimError::Held { .. })) => {
                    return Err(error.into());
                }
                Err(error @ ClaimError::Io { .. }) => self.warn_once(&error.to_string()),
                Ok(()) => {}
            }
            if let Err(error) = self.apply_retries().and_then(|()| self.apply_requests()) {
                self.warn_once(&error.with_cause());
            }
            self.look_elsewhere();
            let decision = schedule::decide(&self.tasks);
            for &place in &decision.drop {
                self.drop_trial(place, false);
            }
            for &place in &decision.start {
                if self.may_start(place) {
                    self.start(place);
                }
            }
            if schedule::is_over(&self.tasks) && self.is_nothing_left_elsewhere() {
                return Ok(());
            }
            if decision.drop.is_empty() {
                self.wait();
            }
        }
    }

    /// Fails once the experiment's folder was removed, after all programs are ended.
    fn require_folder(&mut self) -> Result<(), RunnerError> {
        let folder = &self.stored.dir.0;
        let found = std::fs::metadata(folder);
        let is_there = !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if !self.gone_folder.look(Instant::now(), is_there) {
            return Ok(());
        }
        let error = RunnerError::Removed { folder: folder.clone() };
        self.end_all();
        Err(error)
    }

    fn end_all(&mut self) {
        for (signal, limit) in STOP_SIGNALS {
            for &place in self.live.keys() {
                self.signal(place, signal);
            }
            let until = Instant::now() + limit;
            let is_alive = |process: &ProcessId| process.liveness() == Liveness::Alive;
            while self.live.values().any(is_alive) && Instant::now() < until {
                self.children.wait(TICK);
            }
        }
    }

    /// Writes the last record, as soon as there is room for it.
    fn finish(mut self) -> Result<(), FileError> {
        self.log.add(RunnerRecord::Finished { time: clock::now() });
        let began = Instant::now();
        loop {
            match self.log.flush() {
                Err(_) if began.elapsed() < FINISH_TIMEOUT => std::thread::sleep(TICK),
                written => return written,
            }
        }
    }

    fn wait(&mut self) {
        let mut ended = std::mem::take(&mut self.unread_ends);
        ended.extend(self.children.wait(TICK));
        let live = &self.live;
        let gone = self.adopted.extract_if(.., |place| {
            live.get(place).is_none_or(|process| process.liveness() != Liveness::Alive)
        });
        ended.extend(gone.map(ExitedHarness::unseen));
        for end in ended {
            if let Err(error) = self.handle_exit(&end) {
                self.warn_once(&error.with_cause());
                self.unread_ends.push(end);
            }
        }
        // What was not written yet is tried again; `finish` insists.
        let _unwritten = self.log.flush();
    }

    /// Prints a warning, unless it is the same as the last one.
    fn warn_once(&mut self, what: &str) {
        if self.last_warning != what {
            what.clone_into(&mut self.last_warning);
            say(what);
        }
    }

    /// Fails where the trial's folder can't be read now: then the same end is handled again.
    fn handle_exit(&mut self, ended: &ExitedHarness) -> Result<(), FileError> {
        let place = ended.place;
        let files = self.trial_files(place)?;
        self.live.remove(&place);
        self.gpus.give_back(place);
        self.log.add(RunnerRecord::Ended {
            task: self.task_name(place).to_owned(),
            trial: index(place),
            exit_code: ended.exit_code,
            signal: ended.signal,
            time: clock::now(),
        });
        let phase = match final_phase(&files) {
            Some(phase) => {
                self.hasten_look();
                phase
            }
            None if ended.exit_code == Some(i32::from(nemo_core::exit::REQUEUE)) => {
                LocalPhase::Waiting
            }
            None => self.silent_death(place, files.attempts.len()),
        };
        *self.phase(place) = phase;
        let is_cancelled =
            requests::is_cancelled(&self.cancelled, self.task_name(place), index(place));
        if phase == LocalPhase::Waiting && is_cancelled {
            self.drop_trial(place, true);
        }
        self.apply_pause_or_later(place);
        Ok(())
    }

    /// What follows when a harness was killed before it could write an end.
    fn silent_death(&mut self, place: TrialRef, n_lines: usize) -> LocalPhase {
        let deaths = self.silent_deaths.entry(place).or_default();
        *deaths = deaths.one_more(n_lines);
        // It may lack what this machine has none of at the moment: another start at once would fail as well, and any
        // other trial's too. What lacks it for longer is asked for less and less often.
        let now = Instant::now();
        self.next_start = self.next_start.max(now + START_BACKOFF);
        self.start_after.insert(place, now + START_BACKOFF * 2_u32.pow(deaths.in_a_row - 1));
        if deaths.are_too_many() { LocalPhase::Lost } else { LocalPhase::Waiting }
    }

    fn trial_files(&self, place: TrialRef) -> Result<TrialFiles, FileError> {
        let dir = self.trial_dir(place);
        let mut files = observe::trial_files(&dir).at("read", dir.path())?;
        let retries = journal::last_retries(&self.journal, self.task_name(place));
        files.retried_from = retries.get(&index(place)).map(|retry| retry.from_attempt);
        Ok(files)
    }

    fn trial_dir(&self, place: TrialRef) -> TrialDir {
        self.stored.dir.task(self.task_name(place)).trial(index(place))
    }

    fn task_name(&self, place: TrialRef) -> &str {
        &self.tasks[place.0].task.name
    }

    fn phase(&mut self, place: TrialRef) -> &mut LocalPhase {
        &mut self.tasks[place.0].phases[place.1]
    }

    /// All trials of all tasks on this machine.
    fn places(&self) -> Vec<TrialRef> {
        let tasks = self.tasks.iter().enumerate().filter(|(_, task)| !task.is_elsewhere);
        tasks
            .flat_map(|(task, local)| (0..local.phases.len()).map(move |trial| (task, trial)))
            .collect()
    }

    fn covers(&self, request: &Request, place: TrialRef) -> bool {
        request.covers(self.task_name(place), index(place))
    }

    fn drop_trial(&mut self, place: TrialRef, cancelled: bool) {
        *self.phase(place) = if cancelled { LocalPhase::Lost } else { LocalPhase::Dropped };
        self.hasten_look();
        let task = self.task_name(place).to_owned();
        self.log.add(RunnerRecord::Dropped { task, trial: index(place), cancelled });
    }
}

fn index(place: TrialRef) -> u32 {
    u32::try_from(place.1).unwrap_or(u32::MAX)
}
