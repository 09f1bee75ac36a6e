//! Makes a home of many experiments: `make-home FOLDER N [--open M]`. Each is loaded, planned, submitted and summed up by
//! the product's own functions, so that its formats are always the product's.
#![expect(clippy::disallowed_methods, reason = "writes files that only measurements read")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nemo_core::checksum;
use nemo_core::process_id::ProcessId;
use nemo_core::rundir::{
    AttemptEnd, AttemptRecord, AttemptStart, Cause, ExperimentDir, MetricsLine, Next, Params,
    TrialDir,
};
use nemo_slurm::commands::prepare::{Context, new_tasks};
use nemo_slurm::executor::slurm::{Scheduler, Submission, submit};
use nemo_slurm::experiment::{self, Loaded};
use nemo_slurm::journal::{self, Event, Journal};
use nemo_slurm::plan::{Limits, Plan, Selection};
use nemo_slurm::process::Liveness;
use nemo_slurm::slurm::id::{TaskSet, Tasks};
use nemo_slurm::slurm::parse::account::SlurmExitCode;
use nemo_slurm::slurm::{AccountRow, JobId, JobState, QueueRow, SlurmError};
use nemo_slurm::status::{
    Certainty, QueryResult, RememberedState, RunnerView, State, StatusInputs, join,
};
use nemo_slurm::store::{self, ExperimentId, Home, NewExperiment, Stored};
use nemo_slurm::store::{Claim, ClaimHolder, KeptEnvironment};
use nemo_slurm::summary::{self, InputVersions, Summary};
use nemo_slurm::{observe, remembered};

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
    let over = summaries.iter().filter(|summary| summary.is_final);
    let lines = over.map(|it| (it.row.id.clone(), it.row.state, it.row.to_json().into()));
    summary::write_index(&maker.home, lines);
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
        let Loaded { experiment, params } = loaded;
        let dir = self.home.experiment(id);
        let plan = if is_local {
            None
        } else {
            Some(Plan::new(experiment, &Selection::all(experiment), Limits::default())?)
        };
        let process = ProcessId::current();
        let begun =
            Event::Submitter { process, version: env!("CARGO_PKG_VERSION").to_owned(), time: now };
        let planned = plan.clone().map(|plan| Event::Planned { plan });
        let journal: Vec<Event> = std::iter::once(begun).chain(planned).collect();
        let harness = PathBuf::from("nemo-harness");
        let context =
            Context { id, dir: &dir, plan: plan.as_ref(), cluster: None, harness: &harness, now };
        let tasks = new_tasks(experiment, &context);
        let holder = ClaimHolder::current()?;
        let new = NewExperiment {
            id,
            toml,
            experiment,
            params,
            journal: &journal,
            tasks,
            environment: &KeptEnvironment::default(),
            holder: Some(&holder),
        };
        store::create(&self.home, &new)?;
        if let Some(plan) = &plan {
            let claim = Claim::of_new(&dir, holder.clone());
            let mut journal = Journal::open(&dir.journal(), journal, &claim)?;
            let mut numbers = Numbers(1000 + u32::try_from(number)? * 4);
            let submission = Submission { id: id.as_str(), dir: &dir, plan, damaged_since: None };
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
            stored,
            submitting: false,
            queue: QueryResult::Rows(queue),
            accounts: QueryResult::Rows(accounts),
            files: observe::all_files(stored)?,
            requests: Vec::new(),
            damaged_requests: Vec::new(),
            now: self.now as f64,
            runner: RunnerView {
                records: Vec::new(),
                liveness: Some(Liveness::Dead),
                rebooted: false,
                damage: None,
            },
            earlier: trials.iter().fold(BTreeMap::new(), |mut earlier, trial| {
                let task: &mut BTreeMap<_, _> = earlier.entry(trial.task.clone()).or_default();
                let certainty = if is_over { Certainty::Final } else { Certainty::Open };
                let known = RememberedState { state: trial.state, reason: None, certainty };
                task.insert(trial.index, known);
                earlier
            }),
        };
        let status = join(&sources);
        remembered::keep(&stored.dir, &status);
        let as_of = if is_over { created + APART } else { self.now - 3600 };
        let from = InputVersions { slurm: Some(as_of as f64), ..InputVersions::of(&stored.dir) };
        Ok(summary::of(stored, &status, from, is_over, 1, as_of as f64))
    }
}

/// Some names are of one experiment, others of many.
fn name(number: usize) -> String {
    let mut chance = Chance::new(number as u64 + (1 << 40));
    let models = ["resnet", "gpt", "vit", "mlp", "unet", "bert", "mamba", "gnn"];
    let data = ["imagenet", "wiki", "cifar", "openweb", "lidar"];
    let most = 10_u64.pow(chance.below(4) as u32);
    format!("{}-{}-{}", models[chance.below(8)], data[chance.below(5)], chance.below(most))
}

fn versions(total: usize) -> Vec<usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut next = |number| {
        let count = counts.entry(name(number)).or_default();
        *count += 1;
        *count
    };
    (0..total).map(&mut next).collect()
}

/// As many have few trials as have many: half of them have at most 31.
fn trials(number: usize) -> usize {
    let mut chance = Chance::new(number as u64 + (1 << 41));
    match number % 1000 {
        1 => 1,
        2 => 1000,
        _ => 10_f64.powf(chance.below(3_000) as f64 / 1000.0) as usize,
    }
}

/// The file of an experiment.
fn file(name: &str, number: usize, is_local: bool, chance: &mut Chance) -> String {
    let (model, rest) = name.split_once('-').unwrap_or((name, ""));
    let data = rest.split('-').next().unwrap_or(rest);
    let tags: Vec<String> = ["baseline", "ablation", "paper", "sweep", "nightly"]
        .into_iter()
        .filter(|_| chance.below(3) == 0)
        .map(|tag| format!("{tag:?}"))
        .collect();
    let executor = if is_local {
        "kind = \"local\""
    } else {
        "kind = \"slurm\"\npartition = \"gpu\"\ntime = \"4h\""
    };
    let prepare = if number.is_multiple_of(3) { "[task.prepare]\nrun = \"true\"\n" } else { "" };
    let after = if prepare.is_empty() { "" } else { "after = [\"prepare\"]\n" };
    format!(
        "name = \"{name}\"\ndescription = \"{model} on {data}, number {number}\"\ntags = [{}]\n\
         [metadata]\nmodel = \"{model}\"\ndata = \"{data}\"\nwidth = {}\n[executor.here]\n{executor}\n\
         [defaults]\nexecutor = \"here\"\n{prepare}[task.train]\n{after}run = \"true {{index}} {{lr}}\"\n\
         [task.train.params]\nindex = {{ int = [0, {}] }}\nlr = 0.1\n[task.train.search]\nmethod = \"grid\"\n\
         metric = \"loss\"\ngoal = \"min\"\n[task.train.metrics]\nloss = 'loss (\\S+)'\n",
        tags.join(", "),
        1 << chance.below(12),
        trials(number) - 1,
    )
}

/// A trial and what became of it.
struct TrialLedger {
    task: String,
    index: u32,
    state: State,
    loss: f64,
}

fn fates(stored: &Stored, fate: Fate, chance: &mut Chance) -> Vec<TrialLedger> {
    let kind = chance.below(10);
    let mut all = Vec::new();
    for task in &stored.experiment.tasks {
        let is_last = Some(&task.name) == stored.experiment.tasks.last().map(|task| &task.name);
        let total = task.n_trials;
        for index in 0..total {
            let state = match fate {
                _ if !is_last => State::Completed,
                // Those in the middle run, those before them are over, and the others wait.
                Fate::Open if index < total / 2 => State::Completed,
                Fate::Open if index < total / 2 + 8 => State::Running,
                Fate::Open => State::Pending,
                Fate::Over | Fate::Damaged => match kind {
                    0 => State::Cancelled,
                    1 | 2 if chance.below(4) == 0 => State::Failed,
                    _ => State::Completed,
                },
            };
            let loss = chance.below(10_000) as f64 / 10_000.0;
            all.push(TrialLedger { task: task.name.clone(), index, state, loss });
        }
    }
    all
}

impl TrialLedger {
    /// Its array and its place there.
    fn place(&self, stored: &Stored) -> Option<(JobId, u32)> {
        let arrays = journal::submitted_arrays(&stored.journal);
        let is_own = |array: &&journal::Submitted<'_>| {
            array.task == self.task && array.trials.contains(self.index)
        };
        let array = arrays.iter().find(is_own)?;
        Some((array.job, self.index - array.offset))
    }

    fn in_queue(&self, stored: &Stored) -> Option<QueueRow> {
        let (job, index) = self.place(stored)?;
        let (tasks, state) = match self.state {
            State::Running => (Tasks::One(index), JobState::Running),
            State::Pending => {
                let indices = std::iter::once(index).collect();
                let set = TaskSet { indices, limit: None, cut_short: false };
                (Tasks::Set(Box::new(set)), JobState::Pending)
            }
            _ => return None,
        };
        let (reason, nodes) = ("Resources".into(), "".into());
        let (submit, start, end, preempted) = (Some(100), None, None, None);
        Some(QueueRow {
            array_job: job,
            tasks,
            job,
            state,
            reason,
            submit,
            start,
            end,
            restarts: Some(0),
            preempted,
            nodes,
        })
    }

    fn in_accounts(&self, stored: &Stored) -> Option<AccountRow> {
        let (job, index) = self.place(stored)?;
        let state = match self.state {
            State::Completed => JobState::Completed,
            State::Failed => JobState::Failed,
            State::Cancelled => JobState::Cancelled,
            _ => return None,
        };
        let (submit, start, end) = (Some(100), Some(200), Some(300));
        let (exit, nodes, reason) = (SlurmExitCode::default(), "n1".into(), "None".into());
        let tasks = Tasks::One(index);
        Some(AccountRow {
            array_job: job,
            tasks,
            job,
            state,
            cancelled_by: None,
            exit,
            submit,
            start,
            end,
            nodes,
            reason,
        })
    }

    /// Its folder, if it ever ran.
    fn write(&self, stored: &Stored, created: f64) -> Result<()> {
        if self.state == State::Pending {
            return Ok(());
        }
        let dir = stored.dir.task(&self.task).trial(self.index);
        std::fs::create_dir_all(dir.path())?;
        let start = created + 60.0 + f64::from(self.index);
        let mut records = vec![AttemptRecord::Start(AttemptStart {
            attempt: 0,
            slurm_job: self.place(stored).map(|(job, index)| format!("{job}_{index}")),
            restarts: 0,
            process: ProcessId {
                node: format!("n{}", self.index % 64),
                boot_id: "b0070000-0000-4000-8000-000000000000".to_owned(),
                pid: 4000,
                start_ticks: 100,
            },
            time: start,
            resume_step: None,
            began: Some(start),
        })];
        for step in [100, 200] {
            let (attempt, time) = (0, start + step as f64);
            records.push(AttemptRecord::Checkpoint {
                attempt,
                step,
                time,
                saving: Some(0.5),
                bytes: Some(1 << 20),
            });
        }
        records.extend(self.end(start).map(AttemptRecord::End));
        lines(&dir.attempts(), &records)?;
        lines(&dir.metrics(), &self.metrics(start))?;
        std::fs::write(dir.params(), serde_json::to_vec(&Params::new())?)?;
        output(&dir, self.loss)
    }

    fn end(&self, start: f64) -> Option<AttemptEnd> {
        let (cause, next, code) = match self.state {
            State::Completed => (Cause::Completed, Next::Done, 0),
            State::Failed => (Cause::Failed, Next::Failed, 1),
            State::Cancelled => (Cause::Cancelled, Next::Cancelled, 143),
            _ => return None,
        };
        Some(AttemptEnd {
            attempt: 0,
            time: start + 300.0,
            cause,
            exit_code: Some(code),
            signal: None,
            step: Some(250),
            checkpoint_step: Some(200),
            next,
            reason: (code == 1).then(|| "exited with code 1".to_owned()),
            stopped: None,
            saving: Some(1.0),
        })
    }

    fn metrics(&self, start: f64) -> Vec<MetricsLine> {
        let line = |step: u64| {
            let mut values = serde_json::Map::new();
            values.insert("loss".to_owned(), (self.loss + 10.0 / (step as f64)).into());
            MetricsLine {
                step: Some(step),
                attempt: 0,
                time: start + step as f64,
                values,
                validation: false,
            }
        };
        [10, 50, 100, 150, 200, 250].map(line).into()
    }
}

fn output(dir: &TrialDir, loss: f64) -> Result<()> {
    Ok(std::fs::write(dir.stdout(0), format!("step 250 loss {loss}\n"))?)
}

fn lines(path: &Path, rows: &[impl serde::Serialize]) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for row in rows {
        let mut line = checksum::to_vec(row)?;
        line.push(b'\n');
        file.write_all(&line)?;
    }
    Ok(())
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

/// Numbers that look random and are the same in every home (splitmix64).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit) as usize
    }
}
