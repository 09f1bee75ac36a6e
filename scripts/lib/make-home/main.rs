//! Makes a home of many experiments: `make-home FOLDER N [--open M]`. Each is loaded, planned, submitted and summed up by
//! the product's own functions, so that its formats are always the product's.
#![expect(clippy::disallowed_methods, reason = "writes files that only measurements read")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod chance;
mod files;
mod ledger;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nemo_core::process_id::ProcessId;
use nemo_core::rundir::{ExperimentDir, Notes};
use nemo_slurm::commands::prepare::{Context, new_tasks};
use nemo_slurm::executor::slurm::{Scheduler, Submission, submit};
use nemo_slurm::experiment::{self, Loaded};
use nemo_slurm::journal::{Event, Journal};
use nemo_slurm::plan::{Limits, Plan, Selection};
use nemo_slurm::process::Liveness;
use nemo_slurm::slurm::{JobId, SlurmError};
use nemo_slurm::status::{
    Certainty, QueryResult, RememberedState, RememberedStates, RunnerView, StatusInputs, join,
};
use nemo_slurm::store::{self, ExperimentId, Home, NewExperiment, Stored};
use nemo_slurm::store::{Claim, ClaimHolder, ConfigFile, KeptEnvironment};
use nemo_slurm::summary::{self, Index, InputVersions, Look, Summary};
use nemo_slurm::{observe, remembered};

use chance::Chance;
use files::{file, name, trials, versions};
use ledger::{TrialLedger, fates};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One experiment in so many is damaged.
const DAMAGED: usize = 500;
/// The last of those that are over have the folders of all their trials, the others of so many.
const WHOLE: usize = 20;
const FOLDERS: u32 = 3;
/// Seconds between two submissions.
const APART: u64 = 5_000;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (folder, total, open) = match words.as_slice() {
        [folder, total] => (folder, total.parse()?, 0),
        [folder, total, "--open", open] => (folder, total.parse()?, open.parse()?),
        _ => return Err("usage: make-home FOLDER N [--open M]".into()),
    };
    let home = Home::new(std::path::absolute(folder)?);
    nemo_core::durable::create_dir_all(&home.experiments())?;
    let maker = Maker {
        versions: versions(total),
        home,
        total,
        open,
        now: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let mut summaries = maker.all()?;
    summaries.sort_by(|a, b| a.row.id.age().cmp(&b.row.id.age()));
    let lines = summaries.iter().filter_map(Summary::entry);
    Index::read(&maker.home).replace(&maker.home, lines);
    let newest = summaries.last().map(|summary| summary.row.id.to_string()).unwrap_or_default();
    println!("{total} experiments, {open} of them not over; the newest is {newest}");
    Ok(())
}

struct Maker {
    /// Which of its name each experiment is.
    versions: Vec<usize>,
    home: Home,
    total: usize,
    open: usize,
    /// Unix seconds.
    now: u64,
}

/// What becomes of an experiment.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Over,
    Open,
    Damaged,
}

impl Maker {
    fn all(&self) -> Result<Vec<Summary>> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<Summary>> {
            let mut made = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.total {
                    return Ok(made);
                }
                made.extend(self.one(number)?);
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            let ends =
                workers.into_iter().map(|worker| worker.join().map_err(|_| "a worker panicked")?);
            Ok(ends.collect::<Result<Vec<_>>>()?.concat())
        })
    }

    /// The very newest is over; every second one before it is open until there are enough.
    fn fate(&self, number: usize) -> Fate {
        let from_newest = self.total - 1 - number;
        let spacing = if self.open * 2 < self.total { 2 } else { 1 };
        let is_open = from_newest >= 1
            && (from_newest - 1).is_multiple_of(spacing)
            && (from_newest - 1) / spacing < self.open;
        match () {
            () if number % DAMAGED == DAMAGED / 2 => Fate::Damaged,
            () if is_open => Fate::Open,
            () => Fate::Over,
        }
    }

    fn one(&self, number: usize) -> Result<Option<Summary>> {
        let mut chance = Chance::new(number as u64);
        let fate = self.fate(number);
        let created = self.now - 60 - (self.total - number) as u64 * APART;
        let is_local = fate == Fate::Over && trials(number) <= 30 && chance.below(5) == 0;
        let name = name(number);
        let toml = file(&name, number, is_local, &mut chance);
        let loaded = experiment::load(&toml, &self.home.path().join("exp.toml"), &[], None)?;
        let id = ExperimentId::new(&name, created, 0);
        let stored = self.submit(&id, &toml, &loaded, number, created as f64, is_local)?;
        if fate == Fate::Damaged {
            damage(&stored.dir, number / DAMAGED)?;
            return Ok(None);
        }
        let is_whole = fate == Fate::Open || is_local || self.total - number <= WHOLE;
        let trials = fates(&stored, fate, &mut chance);
        for trial in &trials {
            if is_whole || trial.index < FOLDERS {
                trial.write(&stored, created as f64)?;
            }
        }
        let mut summary = self.sum_up(&stored, fate, &trials, created)?;
        summary.row.version = self.versions[number];
        summary::keep(&stored.dir, &summary);
        Ok(Some(summary))
    }

    fn submit(
        &self,
        id: &ExperimentId,
        toml: &str,
        loaded: &Loaded,
        number: usize,
        now: f64,
        is_local: bool,
    ) -> Result<Stored> {
        let Loaded { experiment, params, config } = loaded;
        let config = Some(&ConfigFile { resolved: config.clone(), git: None });
        let dir = self.home.experiment(id);
        let plan = if is_local {
            None
        } else {
            Some(Plan::new(experiment, &Selection::all(experiment), Limits::default())?)
        };
        let process = ProcessId::current();
        let begun =
            Event::Submitter { process, version: env!("CARGO_PKG_VERSION").to_owned(), time: now };
        let planned = plan.clone().map(|plan| Event::Planned { plan, retry: None });
        let journal: Vec<Event> = std::iter::once(begun).chain(planned).collect();
        let harness = PathBuf::from("nemo-harness");
        let context = Context {
            id,
            dir: &dir,
            plan: plan.as_ref(),
            cluster: None,
            harness: &harness,
            nemo_slurm: None,
            is_shipped: false,
            now,
        };
        let tasks = new_tasks(experiment, &context);
        let holder = ClaimHolder::current()?;
        let new = NewExperiment {
            id,
            toml,
            experiment,
            config,
            params,
            journal: &journal,
            tasks,
            environment: &KeptEnvironment::default(),
            holder: Some(&holder),
            shipped: None,
        };
        store::create(&self.home, &new)?;
        if let Some(plan) = &plan {
            let claim = Claim::of_new(&dir, holder.clone());
            let mut journal = Journal::open(&dir.journal(), journal, &claim)?;
            let mut numbers = Numbers(1000 + u32::try_from(number)? * 4);
            let submission = Submission {
                id: id.as_str(),
                dir: &dir,
                plan,
                damaged_since: None,
                is_new: false,
                requests: &[],
            };
            submit(submission, &mut numbers, &mut journal, &|| now)?;
        }
        Ok(self.home.load(id)?)
    }

    /// What somebody who looked would have kept.
    fn sum_up(
        &self,
        stored: &Stored,
        fate: Fate,
        trials: &[TrialLedger],
        created: u64,
    ) -> Result<Summary> {
        let is_over = fate == Fate::Over;
        let queue = trials.iter().filter_map(|trial| trial.in_queue(stored)).collect();
        let accounts = trials.iter().filter_map(|trial| trial.in_accounts(stored)).collect();
        let sources = StatusInputs {
            params: Vec::new(),
            stored,
            submitting: false,
            queue: QueryResult::Rows(queue),
            accounts: QueryResult::Rows(accounts),
            files: observe::all_files(stored)?,
            requests: Vec::new(),
            damaged_requests: Vec::new(),
            lost_outside: None,
            now: self.now as f64,
            asked: self.now as f64,
            runner: RunnerView {
                records: Vec::new(),
                liveness: Some(Liveness::Dead),
                rebooted: false,
                damage: None,
            },
            earlier: trials.iter().fold(RememberedStates::default(), |mut earlier, trial| {
                let certainty = if is_over { Certainty::Final } else { Certainty::Open };
                let known = RememberedState { state: trial.state, reason: None, certainty };
                earlier.add(&trial.task, trial.index..=trial.index, known);
                earlier
            }),
        };
        let status = join(&sources);
        remembered::keep(stored, &status);
        let as_of = if is_over { created + APART } else { self.now - 3600 };
        let from = InputVersions { slurm: Some(as_of as f64), ..InputVersions::of(&stored.dir) };
        let (notes, now) = (&Notes::default(), as_of as f64);
        let look = Look { earlier: None, notes, is_final: is_over, version: 1, now };
        Ok(summary::of(stored, &status, from, look))
    }
}

/// Each time in another way.
fn damage(dir: &ExperimentDir, kind: usize) -> Result<()> {
    let json = dir.experiment_json();
    match kind % 4 {
        0 => {
            let text = std::fs::read(&json)?;
            std::fs::write(&json, &text[..text.len() / 2])?;
        }
        1 => std::fs::remove_file(&json)?,
        2 => std::fs::write(
            &json,
            std::fs::read_to_string(&json)?.replacen("\"here\"", "\"hero\"", 1),
        )?,
        _ => {
            std::fs::remove_dir_all(&dir.0)?;
            std::fs::create_dir(&dir.0)?;
        }
    }
    Ok(())
}

/// Takes everything, and gives it the next number.
struct Numbers(u32);

impl Scheduler for Numbers {
    fn submit(&mut self, _: &Path, _: &[String]) -> std::result::Result<JobId, SlurmError> {
        self.0 += 1;
        Ok(JobId(self.0))
    }
    fn find(
        &mut self,
        _: &str,
        _: &Path,
        _: f64,
    ) -> std::result::Result<Option<JobId>, SlurmError> {
        Ok(None)
    }
    fn release(&mut self, _: &[JobId]) -> std::result::Result<(), SlurmError> {
        Ok(())
    }
    fn cancel(&mut self, _: &[JobId]) -> std::result::Result<(), SlurmError> {
        Ok(())
    }
}
