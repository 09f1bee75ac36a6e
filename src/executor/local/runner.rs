//! The runner: starts the trials of a local experiment as they become ready, until all are over.
//!
//! It alone writes `runner.jsonl`. Killed at any moment, a new one goes on from the trials' own records.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nemo_core::durable::{self, Appender};
use nemo_core::lines;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{AttemptRecord, requests};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::schedule::{self, LocalTask, Phase};
use super::spawn;
use crate::experiment::{Executor, Experiment};
use crate::host::{self, Liveness, ProcessId};
use crate::observe;
use crate::status::{Action, Request, State};
use crate::store::{Claim, Stored};

/// How long a request may lie before it is seen, and how often a harness that is no child is looked at.
const TICK: Duration = Duration::from_millis(500);
/// A harness that dies without a word this often is not started again. Its own rules stop it earlier.
const SILENT_DEATHS: u32 = 5;

/// How the harness of one trial ended.
struct Ended {
    place: (usize, usize),
    exit_code: Option<i32>,
    signal: Option<i32>,
}

struct Runner<'a> {
    stored: &'a Stored,
    claim: &'a Claim,
    harness: PathBuf,
    tasks: Vec<LocalTask<'a>>,
    log: Appender,
    /// Harnesses that live, by trial.
    live: BTreeMap<(usize, usize), ProcessId>,
    /// Those of them that an earlier runner started: they are no children of ours.
    adopted: BTreeSet<(usize, usize)>,
    silent_deaths: BTreeMap<(usize, usize), u32>,
    seen_requests: BTreeSet<PathBuf>,
    /// Wishes that hold on: what was cancelled is not started again.
    cancelled: Vec<Request>,
    /// Pauses and resumes, the latest last.
    pauses: Vec<Request>,
    ended: (Sender<Ended>, Receiver<Ended>),
}

/// Runs a local experiment until all of it is over.
pub fn run(stored: &Stored, harness: &Path, claim: &Claim) -> io::Result<()> {
    let mut log = Appender::open(&stored.dir.runner_log())?;
    log.line(&RunnerRecord::Runner { process: ProcessId::current(), time: host::now() })?;
    let mut runner = Runner {
        stored,
        claim,
        harness: harness.to_owned(),
        tasks: local_tasks(&stored.experiment),
        log,
        live: BTreeMap::new(),
        adopted: BTreeSet::new(),
        silent_deaths: BTreeMap::new(),
        seen_requests: BTreeSet::new(),
        cancelled: Vec::new(),
        pauses: Vec::new(),
        ended: channel(),
    };
    runner.recover()?;
    runner.carry_out()
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
        phases: vec![Phase::Waiting; task.trials.len()],
    };
    experiment.tasks.iter().map(local).collect()
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
                self.tasks[place.0].phases[place.1] = Phase::Running;
                self.live.insert(place, process);
                self.adopted.insert(place);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self) -> io::Result<()> {
        loop {
            self.claim.check().map_err(io::Error::other)?;
            self.heed_requests()?;
            let decision = schedule::decide(&self.tasks);
            for &place in &decision.drop {
                self.drop_trial(place, false)?;
            }
            for &place in &decision.start {
                self.start(place)?;
            }
            if schedule::is_over(&self.tasks) {
                return self.log.line(&RunnerRecord::Finished { time: host::now() });
            }
            if decision.drop.is_empty() {
                self.wait()?;
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.ended.1.recv_timeout(TICK) {
            Ok(ended) => self.heed_end(&ended)?,
            // The runner itself holds a sender.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let over = |place: &&(usize, usize)| {
            self.live.get(place).is_none_or(|process| process.liveness() != Liveness::Alive)
        };
        for place in self.adopted.iter().filter(over).copied().collect::<Vec<_>>() {
            self.adopted.remove(&place);
            self.heed_end(&Ended { place, exit_code: None, signal: None })?;
        }
        Ok(())
    }

    fn start(&mut self, place: (usize, usize)) -> io::Result<()> {
        let task = self.tasks[place.0].task.name.clone();
        let trial = index(place);
        let dir = self.stored.dir.task(&task);
        let child = match spawn::harness(&self.harness, &dir, trial) {
            Ok(child) => child,
            Err(error) => {
                eprintln!("can't start `{}`: {error}", self.harness.display());
                self.tasks[place.0].phases[place.1] = Phase::Lost;
                return self.drop_trial(place, true);
            }
        };
        let pid = child.id();
        self.log.line(&RunnerRecord::Started { task, trial, pid, time: host::now() })?;
        self.tasks[place.0].phases[place.1] = Phase::Running;
        self.live.insert(place, ProcessId::of(pid));
        let ended = self.ended.0.clone();
        std::thread::spawn(move || {
            let (exit_code, signal) = spawn::wait(child);
            // The receiver lives as long as the runner.
            drop(ended.send(Ended { place, exit_code, signal }));
        });
        Ok(())
    }

    fn heed_end(&mut self, ended: &Ended) -> io::Result<()> {
        let place = ended.place;
        self.live.remove(&place);
        self.log.line(&RunnerRecord::Ended {
            task: self.tasks[place.0].task.name.clone(),
            trial: index(place),
            exit_code: ended.exit_code,
            signal: ended.signal,
            time: host::now(),
        })?;
        let phase = match self.recorded_phase(place)? {
            Some(phase) => phase,
            None if ended.exit_code == Some(i32::from(nemo_core::exit::REQUEUE)) => Phase::Waiting,
            None => self.silent_death(place),
        };
        self.tasks[place.0].phases[place.1] = phase;
        let task = &self.tasks[place.0].task.name;
        let is_cancelled = self.cancelled.iter().any(|wish| wish.covers(task, index(place)));
        if phase == Phase::Waiting && is_cancelled {
            self.drop_trial(place, true)?;
        }
        self.heed_pause(place)
    }

    /// What follows when a harness was killed before it could write an end.
    fn silent_death(&mut self, place: (usize, usize)) -> Phase {
        let deaths = self.silent_deaths.entry(place).or_default();
        *deaths += 1;
        if *deaths < SILENT_DEATHS { Phase::Waiting } else { Phase::Lost }
    }

    /// A final end, as the trial's own folder has it.
    fn recorded_phase(&self, place: (usize, usize)) -> io::Result<Option<Phase>> {
        let files = observe::trial_files(&self.trial_dir(place))?;
        let phase =
            |state: State| if state == State::Completed { Phase::Completed } else { Phase::Lost };
        Ok(crate::status::final_state(&files).map(phase))
    }

    fn last_process(&self, place: (usize, usize)) -> io::Result<Option<ProcessId>> {
        let rows = lines::read::<AttemptRecord>(&self.trial_dir(place).attempts())?.rows;
        let last = rows.iter().rev().find_map(AttemptRecord::as_start);
        Ok(last.map(|start| start.process.clone()))
    }

    fn trial_dir(&self, place: (usize, usize)) -> nemo_core::rundir::TrialDir {
        self.stored.dir.task(&self.tasks[place.0].task.name).trial(index(place))
    }

    fn drop_trial(&mut self, place: (usize, usize), cancelled: bool) -> io::Result<()> {
        self.tasks[place.0].phases[place.1] = if cancelled { Phase::Lost } else { Phase::Dropped };
        self.log.line(&RunnerRecord::Dropped {
            task: self.tasks[place.0].task.name.clone(),
            trial: index(place),
            cancelled,
        })
    }

    /// Carries out what `cancel`, `pause` and `resume` have asked for since the last look.
    fn heed_requests(&mut self) -> io::Result<()> {
        let heeded = self.pauses.len();
        for (path, request) in requests::read(&self.stored.dir)? {
            if self.seen_requests.insert(path) {
                self.heed(&request)?;
            }
        }
        if self.pauses.len() > heeded {
            for task in 0..self.tasks.len() {
                for trial in 0..self.tasks[task].phases.len() {
                    self.heed_pause((task, trial))?;
                }
            }
        }
        Ok(())
    }

    /// Makes a trial paused or not, as it was wished last.
    fn heed_pause(&mut self, place: (usize, usize)) -> io::Result<()> {
        let task = &self.tasks[place.0].task.name;
        let last = self.pauses.iter().rev().find(|wish| wish.covers(task, index(place)));
        let Some(wish) = last else { return Ok(()) };
        let paused = wish.action == Action::Pause;
        let dir = self.trial_dir(place);
        let phase = &mut self.tasks[place.0].phases[place.1];
        match (*phase, paused) {
            (Phase::Running, true) if !dir.pause().exists() => {
                durable::create_dir_all(dir.path())?;
                durable::replace_file_durably(&dir.pause(), b"{}\n")?;
                self.tell(place, Signal::SIGUSR1);
            }
            (Phase::Waiting, true) => *phase = Phase::Paused,
            (Phase::Paused, false) => *phase = Phase::Waiting,
            (
                Phase::Waiting
                | Phase::Running
                | Phase::Paused
                | Phase::Completed
                | Phase::Lost
                | Phase::Dropped,
                _,
            ) => {}
        }
        Ok(())
    }

    fn heed(&mut self, request: &Request) -> io::Result<()> {
        match request.action {
            Action::Cancel => self.cancelled.push(request.clone()),
            Action::Pause | Action::Resume => self.pauses.push(request.clone()),
            Action::Preempt => {}
        }
        for task in 0..self.tasks.len() {
            for trial in 0..self.tasks[task].phases.len() {
                let place = (task, trial);
                if !request.covers(&self.tasks[task].task.name, index(place)) {
                    continue;
                }
                match (self.tasks[task].phases[trial], request.action) {
                    (Phase::Running, Action::Cancel) => self.tell(place, Signal::SIGTERM),
                    (Phase::Running, Action::Preempt) => self.tell(place, Signal::SIGUSR1),
                    (Phase::Waiting | Phase::Paused, Action::Cancel) => {
                        self.drop_trial(place, true)?;
                    }
                    (_, Action::Pause | Action::Resume) // below, by the last wish of all
                    | (Phase::Waiting | Phase::Paused, Action::Preempt)
                    | (Phase::Completed | Phase::Lost | Phase::Dropped, _) => {}
                }
            }
        }
        Ok(())
    }

    fn tell(&self, place: (usize, usize), signal: Signal) {
        let process = self.live.get(&place).filter(|process| process.liveness() == Liveness::Alive);
        let pid = process.and_then(|process| i32::try_from(process.pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            eprintln!("can't signal process {pid}: {error}");
        }
    }
}

fn index(place: (usize, usize)) -> u32 {
    u32::try_from(place.1).unwrap_or(u32::MAX)
}
