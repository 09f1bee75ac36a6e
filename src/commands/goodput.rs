//! `goodput`: where the time of an experiment's trials went.

use std::collections::BTreeMap;

use clap::Args;
use nemo_core::rundir::requests::{Request, RequestedAction};

use super::{App, control, status};
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{On, Task};
use crate::goodput::{self, Goodput, Ledger, LedgerState, Life, Micros, TrialLedger};
use crate::journal::Submitted;
use crate::query::SlurmSource;
use crate::report::{goodput_table, out, say};
use crate::slurm::IndexSet;
use crate::status::{State, Status, TaskStatus, TrialFiles, TrialStatus, final_state, join};
use crate::store::{Stored, Target};
use crate::{clock, journal, observe, remembered};

/// `goodput`.
#[derive(Debug, Args)]
#[command(
    after_help = "ETTR, the effective training time ratio, is productive time over the time in which a trial was to run, \
    queues included. docs/goodput.md defines every part.\n\n\
    Examples:\n  nemo-slurm goodput\n  nemo-slurm goodput digits/train --trials\n  \
    nemo-slurm goodput @ --price 2.50    # what a GPU-hour costs"
)]
pub struct GoodputArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Show every trial
    #[arg(long)]
    pub trials: bool,
    /// Price per GPU-hour (node- or core-hour without GPUs)
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub price: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

type Files = BTreeMap<String, BTreeMap<u32, TrialFiles>>;
type States = BTreeMap<(String, u32), State>;

/// Shows where the time of an experiment, a task or a trial went.
pub(super) fn goodput(app: &App, args: &GoodputArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let (files, states) = look(app, &stored)?;
    let requests = control::requests(&stored)?;
    let ledgers = ledgers(&stored, &files, &states, &requests);
    let goodput = account(&stored, &target, ledgers, args.price);
    if args.json {
        return out(&goodput::json(&goodput));
    }
    out(&goodput_table(&goodput, args.trials || target.scope.trials.is_some()))
}

/// The trials' records, and where each trial stands. Slurm is asked only where the folders do not tell.
fn look(app: &App, stored: &Stored) -> Result<(Files, States), CommandError> {
    let files = observe::all_files(stored).at("read", &stored.dir.0)?;
    let trials = |task: &Task| journal::trials(&stored.journal, task);
    let tasks = stored.experiment.tasks.iter().map(|task| (task, trials(task)));
    let of_task = |(task, trials): (&Task, IndexSet)| {
        trials.iter().map(|trial| (task.name.clone(), trial)).collect::<Vec<_>>()
    };
    let every = tasks.flat_map(of_task);
    let final_states: Option<States> = every
        .map(|(task, trial)| {
            let state = files.get(&task)?.get(&trial).and_then(final_state)?;
            Some(((task, trial), state))
        })
        .collect();
    if let Some(states) = final_states {
        return Ok((files, states));
    }
    let sources =
        status::sources(app, stored, SlurmSource::Slurm(&app.slurm), observe::Depth::All)?;
    let joined = join(&sources);
    remembered::keep(stored, &joined);
    for warning in joined.warnings.iter().filter(|_| joined.experiment.stale) {
        say(&format!("warning: {warning}"));
    }
    let states = states(&joined);
    Ok((sources.files, states))
}

/// The GPU-seconds that the trials of each executor have held so far.
pub(super) fn gpu_seconds(
    stored: &Stored,
    status: &Status,
) -> Result<BTreeMap<String, u64>, CommandError> {
    let files = observe::all_files(stored).at("read", &stored.dir.0)?;
    let requests = control::requests(stored)?;
    let ledgers = ledgers(stored, &files, &states(status), &requests);
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for task in &stored.experiment.tasks {
        let of_task = ledgers.get(&*task.name).map(Vec::as_slice).unwrap_or_default();
        let held: Micros = of_task.iter().map(|it| it.ledger.parts.held()).sum();
        let gpus = goodput::resources(&stored.experiment, task).gpus;
        let seconds = u64::try_from(held * Micros::from(gpus) / 1_000_000).unwrap_or(u64::MAX);
        let sum = sums.entry(task.executor.clone()).or_default();
        *sum = sum.saturating_add(seconds);
    }
    Ok(sums)
}

fn states(status: &Status) -> States {
    let of_task = |task: &TaskStatus| {
        let key = |trial: &TrialStatus| ((task.name.clone(), trial.index), trial.state);
        task.trials.iter().map(key).collect::<Vec<_>>()
    };
    status.tasks.iter().flat_map(of_task).collect()
}

/// Every trial's ledger. Parents come first: their ends tell when their children could start.
fn ledgers<'a>(
    stored: &'a Stored,
    files: &Files,
    states: &States,
    requests: &[Request],
) -> BTreeMap<&'a str, Vec<TrialLedger>> {
    let now = clock::now();
    let arrays = journal::submitted_arrays(&stored.journal);
    let mut ledgers: BTreeMap<&str, Vec<TrialLedger>> = BTreeMap::new();
    for task in &stored.experiment.tasks {
        let trials = journal::trials(&stored.journal, task);
        let of_task = trials.iter().map(|trial| {
            let eligible = eligible(task, trial, &ledgers, now);
            let state = states.get(&(task.name.clone(), trial)).copied().unwrap_or(State::Unknown);
            let files = files.get(&task.name).and_then(|task| task.get(&trial));
            let times = (eligible, now);
            let about = about(requests, &task.name, trial);
            let ledger = ledger(stored, &arrays, (&task.name, trial), files, state, about, times);
            TrialLedger { index: trial, ledger }
        });
        let of_task = of_task.collect();
        ledgers.insert(&task.name, of_task);
    }
    ledgers
}

/// The sums of all trials that are meant.
fn account(
    stored: &Stored,
    target: &Target,
    mut ledgers: BTreeMap<&str, Vec<TrialLedger>>,
    price: Option<f64>,
) -> Goodput {
    let unit = goodput::unit(&stored.experiment);
    let meant = stored.experiment.tasks.iter();
    let meant = meant.filter(|task| target.scope.covers_task(&task.name));
    let sums = meant.map(|task| {
        let trials = ledgers.remove(task.name.as_str()).unwrap_or_default().into_iter();
        let trials = trials.filter(|trial| target.scope.covers_trial(trial.index));
        let resources = goodput::resources(&stored.experiment, task);
        (task.name.clone(), unit.of(resources), trials.collect())
    });
    let sums = sums.collect();
    goodput::goodput(stored.id.to_string(), unit, price, sums)
}

fn ledger(
    stored: &Stored,
    arrays: &[Submitted<'_>],
    (task, trial): (&str, u32),
    files: Option<&TrialFiles>,
    state: State,
    requests: Vec<(RequestedAction, f64)>,
    (eligible, now): (f64, f64),
) -> Ledger {
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let made = stored.id.made_at() as f64;
    let submitted = journal::submitted_at(arrays, task, trial)
        .or(journal::began(&stored.journal))
        .unwrap_or(made);
    let records = files.map(|files| files.attempts.as_slice()).unwrap_or_default();
    let signs = observe::last_signs(&stored.dir.task(task).trial(trial), records);
    let standing = standing(state);
    goodput::ledger(&Life { records, submitted, eligible, requests, signs, standing, now })
}

/// What was requested of one trial, and when.
fn about(requests: &[Request], task: &str, trial: u32) -> Vec<(RequestedAction, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "unix seconds")]
    let timed = |request: &Request| (request.action, request.time as f64);
    requests.iter().filter(|request| request.covers(task, trial)).map(timed).collect()
}

fn standing(state: State) -> LedgerState {
    match state {
        State::Completed => LedgerState::Completed,
        State::Failed | State::Timeout | State::Cancelled | State::Blocked => LedgerState::GivenUp,
        State::Running | State::Unknown => LedgerState::Running,
        State::Pending | State::Preempted => LedgerState::Queued,
        State::Paused => LedgerState::Paused,
    }
}

/// When all that a trial waits for was over; now, where something is not.
fn eligible(task: &Task, trial: u32, ledgers: &BTreeMap<&str, Vec<TrialLedger>>, now: f64) -> f64 {
    let end = |trial: &TrialLedger| trial.ledger.end.unwrap_or(now);
    let parent = |parent: &[TrialLedger], on: On| match on {
        On::Each => parent.get(trial as usize).map(end),
        On::Ok | On::Failed | On::Any => parent.iter().map(end).reduce(f64::max),
    };
    let ends = task.after.iter().filter_map(|after| {
        ledgers.get(after.task.as_str()).and_then(|ledgers| parent(ledgers, after.on))
    });
    ends.fold(0.0, f64::max)
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        Ok(_) | Err(_) => Err("a price is a number, as in 2.50".to_owned()),
    }
}
