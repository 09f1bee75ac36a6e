//! The runner: starts the trials of a local experiment as they become ready, until all are over.
//!
//! It alone writes `runner.jsonl`. Killed at any moment, a new one goes on from the trials' own records.
#![expect(clippy::disallowed_methods, reason = "an edge: it waits on the real clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nemo_core::durable;
use nemo_core::lines;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{AttemptRecord, requests};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::children::{Children, ExitedHarness};
use super::log::RunnerLog;
use super::schedule::{self, LocalPhase, LocalTask, TrialRef};
use super::silent_deaths::SilentDeaths;
use super::spawn;
use crate::clock;
use crate::experiment::{Executor, Experiment};
use crate::file_error::{IoResultExt, os_error};
use crate::observe;
use crate::process::{Liveness, ProcessId};
use crate::report::say;
use crate::status::{self, Request, RequestedAction, State, TrialFiles};
use crate::store::{Claim, ClaimError, Stored};

/// How long a request may lie before it is seen, and how often a harness that is no child is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long nothing is started after this machine could not start a harness: it may lack processes or memory.
const PAUSE_OF_STARTS: Duration = Duration::from_secs(1);
/// How long the last records are kept where they can't be written.
const LAST_WORDS: Duration = Duration::from_mins(10);

struct Runner<'a> {
    stored: &'a Stored,
    claim: &'a Claim,
    harness: PathBuf,
    tasks: Vec<LocalTask<'a>>,
    log: RunnerLog,
    /// Harnesses that live, by trial.
    live: BTreeMap<TrialRef, ProcessId>,
    /// Those of them that an earlier runner started: they are no children of ours.
    adopted: BTreeSet<TrialRef>,
    silent_deaths: BTreeMap<TrialRef, SilentDeaths>,
    /// Trials whose harness ended without a word are not started before.
    rests: BTreeMap<TrialRef, Instant>,
    seen_requests: BTreeSet<PathBuf>,
    /// Wishes that hold on: what was cancelled is not started again.
    cancelled: Vec<Request>,
    /// Pauses and resumes, the latest last.
    pauses: Vec<Request>,
    children: Children,
    /// Ends whose trial's folder could not be read yet.
    unread_ends: Vec<ExitedHarness>,
    /// Whether a pause could not be carried out yet.
    is_pause_open: bool,
    /// Nothing is started before.
    next_start: Instant,
    /// What was said last of a harness that could not be started.
    complaint: String,
}

/// Runs a local experiment until it is over already.
pub fn run(stored: &Stored, harness: &Path, claim: &Claim, children: Children) -> io::Result<()> {
    let first = RunnerRecord::Runner { process: ProcessId::current(), time: clock::now() };
    let mut runner = Runner {
        stored,
        claim,
        harness: harness.to_owned(),
        tasks: local_tasks(&stored.experiment),
        log: RunnerLog::open(&stored.dir.runner_log(), &first)?,
        live: BTreeMap::new(),
        adopted: BTreeSet::new(),
        silent_deaths: BTreeMap::new(),
        rests: BTreeMap::new(),
        seen_requests: BTreeSet::new(),
        cancelled: Vec::new(),
        pauses: Vec::new(),
        children,
        unread_ends: Vec::new(),
        is_pause_open: false,
        next_start: Instant::now(),
        complaint: String::new(),
    };
    runner.recover()?;
    runner.carry_out()?;
    runner.finish()
}

fn local_tasks(experiment: &Experiment) -> Vec<LocalTask<'_>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let parallel = |name: &String| match experiment.executors.get(name) {
        Some(Executor::Local(local)) => local.parallel.map_or(processors, |n| n.get() as usize),
        Some(Executor::Slurm(_)) | None => processors,
    };
    let local = |task| LocalTask {
        task,
        parallel: parallel(&task.executor),
        phases: vec![LocalPhase::Waiting; task.n_trials as usize],
    };
    experiment.tasks.iter().map(local).collect()
}

/// A final end, as a trial's folder has it.
fn final_phase(files: &TrialFiles) -> Option<LocalPhase> {
    let state = status::final_state(files)?;
    Some(if state == State::Completed { LocalPhase::Completed } else { LocalPhase::Lost })
}

impl Runner<'_> {
    /// Takes over from a runner that is gone: the trials' own records say where each stands.
    fn recover(&mut self) -> io::Result<()> {
        let earlier = lines::read::<RunnerRecord>(&self.stored.dir.runner_log())?.rows;
        for record in earlier {
            let RunnerRecord::Started { task, trial, .. } = record else { continue };
            let Some(task) = self.tasks.iter().position(|local| local.task.name == task) else {
                continue;
            };
            let place = (task, trial as usize);
            if let Some(phase) = self.recorded_phase(place)? {
                self.tasks[place.0].phases[place.1] = phase;
            } else if let Some(process) = self.last_process(place)?
                && process.liveness() == Liveness::Alive
            {
                self.tasks[place.0].phases[place.1] = LocalPhase::Running;
                self.live.insert(place, process);
                self.adopted.insert(place);
            }
        }
        Ok(())
    }

    /// Whatever the disk answers meanwhile: what can't be done now is done at the next look.
    fn carry_out(&mut self) -> io::Result<()> {
        loop {
            match self.claim.check() {
                Err(error @ (ClaimError::Lost { .. } | ClaimError::Held { .. })) => {
                    return Err(io::Error::other(error));
                }
                Err(error) => self.complain(&error.to_string()),
                Ok(()) => {}
            }
            if let Err(error) = self.heed_requests() {
                self.complain(&error.to_string());
            }
            let decision = schedule::decide(&self.tasks);
            for &place in &decision.drop {
                self.drop_trial(place, false);
            }
            for &place in &decision.start {
                if self.may_start(place) {
                    self.start(place);
                }
            }
            if schedule::is_over(&self.tasks) {
                return Ok(());
            }
            if decision.drop.is_empty() {
                self.wait();
            }
        }
    }

    /// Writes the last record, as soon as there is room for it.
    fn finish(mut self) -> io::Result<()> {
        self.log.add(RunnerRecord::Finished { time: clock::now() });
        let began = Instant::now();
        loop {
            match self.log.flush() {
                Err(_) if began.elapsed() < LAST_WORDS => std::thread::sleep(TICK),
                written => return written,
            }
        }
    }

    fn wait(&mut self) {
        let mut ended = std::mem::take(&mut self.unread_ends);
        ended.extend(self.children.wait(TICK));
        let over = |place: &&TrialRef| {
            self.live.get(place).is_none_or(|process| process.liveness() != Liveness::Alive)
        };
        for place in self.adopted.iter().filter(over).copied().collect::<Vec<_>>() {
            self.adopted.remove(&place);
            ended.push(ExitedHarness::unseen(place));
        }
        for end in ended {
            if let Err(error) = self.heed_end(&end) {
                self.complain(&error.to_string());
                self.unread_ends.push(end);
            }
        }
        // What was not written yet is tried again; `finish` insists.
        let _unwritten = self.log.flush();
    }

    fn may_start(&self, place: TrialRef) -> bool {
        let now = Instant::now();
        now >= self.next_start && self.rests.get(&place).is_none_or(|until| now >= *until)
    }

    fn start(&mut self, place: TrialRef) {
        let task = self.tasks[place.0].task.name.clone();
        let trial = index(place);
        let dir = self.stored.dir.task(&task);
        let child = match spawn::harness(&self.harness, &dir, trial) {
            Ok(child) => child,
            Err(error) if is_passing(&error) => {
                self.next_start = Instant::now() + PAUSE_OF_STARTS;
                return self.complain(&error.to_string());
            }
            Err(error) => {
                let reason = format!("its harness can't be started: {error}");
                self.complain(&reason);
                self.tasks[place.0].phases[place.1] = LocalPhase::Lost;
                return self.log.add(RunnerRecord::NotStarted { task, trial, reason });
            }
        };
        let pid = child.id();
        self.log.add(RunnerRecord::Started { task, trial, pid, time: clock::now() });
        self.tasks[place.0].phases[place.1] = LocalPhase::Running;
        self.live.insert(place, ProcessId::of(pid));
        self.children.insert(place, child);
    }

    /// Says what is wrong, once.
    fn complain(&mut self, what: &str) {
        if self.complaint != what {
            what.clone_into(&mut self.complaint);
            say(what);
        }
    }

    /// Fails where the trial's folder can't be read now: then the same end is heeded again.
    fn heed_end(&mut self, ended: &ExitedHarness) -> io::Result<()> {
        let place = ended.place;
        let files = observe::trial_files(&self.trial_dir(place))?;
        self.live.remove(&place);
        self.log.add(RunnerRecord::Ended {
            task: self.tasks[place.0].task.name.clone(),
            trial: index(place),
            exit_code: ended.exit_code,
            signal: ended.signal,
            time: clock::now(),
        });
        let phase = match final_phase(&files) {
            Some(phase) => phase,
            None if ended.exit_code == Some(i32::from(nemo_core::exit::REQUEUE)) => {
                LocalPhase::Waiting
            }
            None => self.silent_death(place, files.attempts.len()),
        };
        self.tasks[place.0].phases[place.1] = phase;
        let task = &self.tasks[place.0].task.name;
        let is_cancelled = self.cancelled.iter().any(|wish| wish.covers(task, index(place)));
        if phase == LocalPhase::Waiting && is_cancelled {
            self.drop_trial(place, true);
        }
        self.heed_pause_or_later(place);
        Ok(())
    }

    /// Makes a trial paused or not; where the disk has no room for that, at the next look.
    fn heed_pause_or_later(&mut self, place: TrialRef) {
        if let Err(error) = self.heed_pause(place) {
            self.is_pause_open = true;
            self.complain(&error.to_string());
        }
    }

    /// What follows when a harness was killed before it could write an end.
    fn silent_death(&mut self, place: TrialRef, n_lines: usize) -> LocalPhase {
        let deaths = self.silent_deaths.entry(place).or_default();
        *deaths = deaths.one_more(n_lines);
        // It may lack what this machine has none of at the moment: another start at once would fail as well, and any
        // other trial's too. What lacks it for longer is asked for less and less often.
        let now = Instant::now();
        self.next_start = self.next_start.max(now + PAUSE_OF_STARTS);
        self.rests.insert(place, now + PAUSE_OF_STARTS * 2_u32.pow(deaths.in_a_row - 1));
        if deaths.are_too_many() { LocalPhase::Lost } else { LocalPhase::Waiting }
    }

    /// A final end, as the trial's own folder has it.
    fn recorded_phase(&self, place: TrialRef) -> io::Result<Option<LocalPhase>> {
        Ok(final_phase(&observe::trial_files(&self.trial_dir(place))?))
    }

    fn last_process(&self, place: TrialRef) -> io::Result<Option<ProcessId>> {
        let rows = lines::read::<AttemptRecord>(&self.trial_dir(place).attempts())?.rows;
        let last = rows.iter().rev().find_map(AttemptRecord::as_start);
        Ok(last.map(|start| start.process.clone()))
    }

    fn trial_dir(&self, place: TrialRef) -> nemo_core::rundir::TrialDir {
        self.stored.dir.task(&self.tasks[place.0].task.name).trial(index(place))
    }

    fn drop_trial(&mut self, place: TrialRef, cancelled: bool) {
        self.tasks[place.0].phases[place.1] =
            if cancelled { LocalPhase::Lost } else { LocalPhase::Dropped };
        self.log.add(RunnerRecord::Dropped {
            task: self.tasks[place.0].task.name.clone(),
            trial: index(place),
            cancelled,
        });
    }

    /// Carries out what `cancel`, `pause` and `resume` have asked for since the last look.
    fn heed_requests(&mut self) -> io::Result<()> {
        let heeded = self.pauses.len();
        let folder = self.stored.dir.requests();
        for (path, request) in requests::read(&self.stored.dir).named("read", &folder)? {
            if self.seen_requests.insert(path) {
                self.heed(&request);
            }
        }
        if self.pauses.len() > heeded || std::mem::take(&mut self.is_pause_open) {
            for task in 0..self.tasks.len() {
                for trial in 0..self.tasks[task].phases.len() {
                    self.heed_pause_or_later((task, trial));
                }
            }
        }
        Ok(())
    }

    /// Makes a trial paused or not, as it was wished last.
    fn heed_pause(&mut self, place: TrialRef) -> io::Result<()> {
        let task = &self.tasks[place.0].task.name;
        let last = self.pauses.iter().rev().find(|wish| wish.covers(task, index(place)));
        let Some(wish) = last else { return Ok(()) };
        let paused = wish.action == RequestedAction::Pause;
        let dir = self.trial_dir(place);
        let phase = &mut self.tasks[place.0].phases[place.1];
        match (*phase, paused) {
            (LocalPhase::Running, true) if !dir.pause().exists() => {
                durable::create_dir_all(dir.path()).named("make", dir.path())?;
                durable::replace_file_durably(&dir.pause(), b"{}\n")
                    .named("write", &dir.pause())?;
                self.signal(place, Signal::SIGUSR1);
            }
            (LocalPhase::Waiting, true) => *phase = LocalPhase::Paused,
            (LocalPhase::Paused, false) => *phase = LocalPhase::Waiting,
            (
                LocalPhase::Waiting
                | LocalPhase::Running
                | LocalPhase::Paused
                | LocalPhase::Completed
                | LocalPhase::Lost
                | LocalPhase::Dropped,
                _,
            ) => {}
        }
        Ok(())
    }

    fn heed(&mut self, request: &Request) {
        match request.action {
            RequestedAction::Cancel => self.cancelled.push(request.clone()),
            RequestedAction::Pause | RequestedAction::Resume => self.pauses.push(request.clone()),
            RequestedAction::Preempt => {}
        }
        for task in 0..self.tasks.len() {
            for trial in 0..self.tasks[task].phases.len() {
                let place = (task, trial);
                if !request.covers(&self.tasks[task].task.name, index(place)) {
                    continue;
                }
                match (self.tasks[task].phases[trial], request.action) {
                    (LocalPhase::Running, RequestedAction::Cancel) => self.signal(place, Signal::SIGTERM),
                    (LocalPhase::Running, RequestedAction::Preempt) => self.signal(place, Signal::SIGUSR1),
                    (LocalPhase::Waiting | LocalPhase::Paused, RequestedAction::Cancel) => {
                        self.drop_trial(place, true);
                    }
                    (_, RequestedAction::Pause | RequestedAction::Resume) // below, by the last wish of all
                    | (LocalPhase::Waiting | LocalPhase::Paused, RequestedAction::Preempt)
                    | (LocalPhase::Completed | LocalPhase::Lost | LocalPhase::Dropped, _) => {}
                }
            }
        }
    }

    fn signal(&self, place: TrialRef, signal: Signal) {
        let process = self.live.get(&place).filter(|process| process.liveness() == Liveness::Alive);
        let pid = process.and_then(|process| i32::try_from(process.pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            say(&format!("can't signal process {pid}: {error}"));
        }
    }
}

/// Whether another moment may do better: the limit of processes, memory, open files or disk is reached, or a file is
/// still being written.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ExecutableFileBusy, Interrupted, OutOfMemory, QuotaExceeded, StaleNetworkFileHandle,
        StorageFull, TimedOut, WouldBlock,
    };
    let kinds = [
        ExecutableFileBusy,
        Interrupted,
        OutOfMemory,
        QuotaExceeded,
        StaleNetworkFileHandle,
        StorageFull,
        TimedOut,
        WouldBlock,
    ];
    let of_system = [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::EIO];
    kinds.contains(&error.kind()) || os_error(error).is_some_and(|code| of_system.contains(&code))
}

fn index(place: TrialRef) -> u32 {
    u32::try_from(place.1).unwrap_or(u32::MAX)
}
