//! Looks at the world for [`crate::status`]: folders, processes, and one call each of `squeue` and `sacct`.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use nemo_core::lines;
use nemo_core::open;
use nemo_core::rundir::runner::RunnerRecord;
use nemo_core::rundir::{
    AttemptEnd, AttemptRecord, ExperimentDir, MetricsLine, Next, Progress, TaskDir, TrialDir,
    requests, trials,
};
use nemo_core::scope::Scope;
use tracing::debug;

use crate::clock;
use crate::experiment::{Executor, Task};
use crate::file_error::IoResultExt;
use crate::journal::{self, Event};
use crate::parallel::{join_waiting, map_chunks};
use crate::process::{Liveness, ProcessId};
use crate::query::SlurmSource;
use crate::remembered;
use crate::slurm::{AccountRow, QueueRow};
use crate::status::{
    self, Certainty, QueryResult, RememberedStates, RunnerView, StatusInputs, TaskParams,
    TrialFiles,
};
use crate::store::{Stored, claim};

/// How much of a metrics file's end is read: the last reports are in it.
const METRICS_TAIL: u64 = 4096;

/// How many threads read the folders of trials, and how few folders are worth one.
const READERS: usize = 8;
const LEAST_PART: usize = 64;

/// What a trial's folder tells; nothing if the trial never ran.
pub fn trial_files(dir: &TrialDir) -> io::Result<TrialFiles> {
    let lines = lines::read::<AttemptRecord>(&dir.attempts()).named("read", &dir.attempts())?;
    let damage = lines.damage(&dir.attempts());
    let attempts = lines.rows;
    let (metrics, older_metrics, no_metrics) = match metrics_tail(&dir.metrics()) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let why = format!("`{}` is not read: {error}", dir.metrics().display());
            (Vec::new(), false, Some(why))
        }
        tail => {
            let (rows, older) = tail.named("read", &dir.metrics())?;
            (rows, older, None)
        }
    };
    let progress = progress(dir, &attempts);
    let wants = attempts.iter().rev().find_map(AttemptRecord::as_end);
    let wants = wants.is_some_and(|end| end.next == Next::Requeue);
    let requeue_wanted = wants && dir.requeue_wanted().exists();
    let alive = None;
    let guessed =
        attempts.iter().filter_map(AttemptRecord::as_end).filter(|end| status::is_guess(end));
    let sign = |end: &AttemptEnd| Some((end.attempt, last_sign(dir, end.attempt)?));
    let signs = guessed.filter_map(sign).collect();
    Ok(TrialFiles {
        signs,
        attempts,
        metrics,
        older_metrics,
        no_metrics,
        progress,
        alive,
        requeue_wanted,
        damage,
        retried_from: None,
    })
}

/// What the program of the last attempt told of itself, while that attempt has no end.
fn progress(dir: &TrialDir, attempts: &[AttemptRecord]) -> Option<Progress> {
    attempts.last().filter(|last| last.as_end().is_none())?;
    let last = attempts.iter().rev().find_map(AttemptRecord::as_start)?;
    let text = open::read(&dir.progress()).ok()?;
    let progress: Progress = serde_json::from_slice(&text).ok()?;
    (progress.attempt == last.attempt).then_some(progress)
}

/// When each attempt whose end nobody saw last wrote any output, in unix seconds.
#[must_use]
pub fn last_signs(dir: &TrialDir, records: &[AttemptRecord]) -> BTreeMap<u32, f64> {
    let starts = records.iter().filter_map(AttemptRecord::as_start);
    let unseen = starts.map(|start| start.attempt).filter(|number| !end_was_seen(records, *number));
    unseen.filter_map(|number| Some((number, last_sign(dir, number)?))).collect()
}

fn end_was_seen(records: &[AttemptRecord], number: u32) -> bool {
    let mut ends = records.iter().filter_map(AttemptRecord::as_end);
    ends.any(|end| end.attempt == number && (end.exit_code.is_some() || end.signal.is_some()))
}

fn last_sign(dir: &TrialDir, number: u32) -> Option<f64> {
    let files = [dir.stdout(number), dir.stderr(number)];
    let changed = files.iter().filter_map(|file| {
        let changed = std::fs::metadata(file).ok()?.modified().ok()?;
        Some(changed.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
    });
    changed.reduce(f64::max)
}

/// Says of the last attempt of a local trial whether its harness lives.
fn with_liveness(mut files: TrialFiles) -> TrialFiles {
    let last = files.attempts.iter().rev().find_map(AttemptRecord::as_start);
    files.alive = match last.map(|start| start.process.liveness()) {
        Some(Liveness::Alive) => Some(true),
        Some(Liveness::Dead) | None => Some(false),
        Some(Liveness::Elsewhere) => None,
    };
    files
}

/// The last lines of a metrics file, and whether there are others before them. The first may be a part of a line,
/// which is passed over.
fn metrics_tail(path: &Path) -> io::Result<(Vec<MetricsLine>, bool)> {
    let mut file = match open::to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
        file => file?,
    };
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    if length > METRICS_TAIL {
        file.seek(SeekFrom::Start(length - METRICS_TAIL))?;
    }
    file.take(METRICS_TAIL).read_to_end(&mut tail)?;
    Ok((lines::parse(&tail).rows, length > METRICS_TAIL))
}

/// The trials of a task that have a folder.
pub fn trial_folders(dir: &TaskDir) -> io::Result<Vec<u32>> {
    let entries = match std::fs::read_dir(dir.trials()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.named("read", &dir.trials())?,
    };
    let mut trials: Vec<u32> = Vec::new();
    for entry in entries {
        trials.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(trials)
}

/// The folders of some trials of a task, on Slurm or here. Many are read side by side: on a shared disk
/// each costs a round trip.
fn task_files(dir: &TaskDir, trials: &[u32], local: bool) -> io::Result<BTreeMap<u32, TrialFiles>> {
    let read = |trials: &[u32]| -> io::Result<Vec<(u32, TrialFiles)>> {
        trials
            .iter()
            .map(|&trial| {
                let files = trial_files(&dir.trial(trial))?;
                Ok((trial, if local { with_liveness(files) } else { files }))
            })
            .collect()
    };
    let part = trials.len().div_ceil(READERS).max(LEAST_PART);
    let parts: io::Result<Vec<Vec<(u32, TrialFiles)>>> =
        map_chunks(trials.chunks(part), read).into_iter().collect();
    Ok(parts?.into_iter().flatten().collect())
}

/// The local runner's record, and whether it lives.
pub fn runner(dir: &ExperimentDir) -> io::Result<RunnerView> {
    let lines = lines::read::<RunnerRecord>(&dir.runner_log()).named("read", &dir.runner_log())?;
    let damage = lines.damage(&dir.runner_log());
    let records = lines.rows;
    let last = RunnerRecord::last_runner(&records);
    let liveness = last.map(ProcessId::liveness);
    let is_of_this_boot = last.is_some_and(|last| last.boot_id == ProcessId::current().boot_id);
    let rebooted = liveness == Some(Liveness::Dead) && !is_of_this_boot;
    Ok(RunnerView { records, liveness, rebooted, damage })
}

/// How much of an experiment is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth<'a> {
    /// The folders of all trials, and the parameters of those that are shown.
    Shown(&'a Scope),
    /// The folders of all trials.
    All,
    /// On Slurm, those of trials that were not certain to be over: of the others only the state is known.
    Open,
}

/// Everything that a status follows from. Asks Slurm only where the folders do not tell all.
pub fn sources<'a>(
    stored: &'a Stored,
    source: SlurmSource<'_>,
    depth: Depth<'_>,
) -> io::Result<StatusInputs<'a>> {
    let earlier = remembered::read(stored);
    let asked = source.asked();
    // Before Slurm is asked: a submission may end meanwhile, whose journal was read before that.
    let submitting = is_submitting(&stored.dir, &stored.journal);
    let (QueueAndAccounts { queue, accounts }, Folders { files, params }) =
        ask_and_read(stored, source, depth, &earlier)?;
    let n_folders: usize = files.values().map(BTreeMap::len).sum();
    let was = if matches!(queue, QueryResult::NotAsked) { "not asked" } else { "asked" };
    debug!("trials: {n_folders} folders in `{}`; Slurm was {was}", stored.dir.0.display());
    let requests::Requests { whole: requests, damaged: damaged_requests } =
        requests::read_all(&stored.dir).named("read", &stored.dir.requests())?;
    let mut inputs = StatusInputs {
        submitting,
        files,
        params,
        requests: requests.into_iter().map(|(_, request)| request).collect(),
        damaged_requests,
        lost_outside: None,
        runner: runner(&stored.dir)?,
        earlier,
        now: clock::now(),
        asked,
        stored,
        queue,
        accounts: QueryResult::NotAsked,
    };
    inputs.accounts = match accounts {
        Some(accounts) => accounts,
        None if status::needs_accounts(&inputs) => source.accounts(stored),
        None => QueryResult::NotAsked,
    };
    Ok(inputs)
}

/// What Slurm said; no accounts where nobody asked for them yet.
struct QueueAndAccounts {
    queue: QueryResult<QueueRow>,
    accounts: Option<QueryResult<AccountRow>>,
}

/// What the folders of trials tell.
struct Folders {
    files: BTreeMap<String, BTreeMap<u32, TrialFiles>>,
    params: Vec<TaskParams>,
}

/// Asks Slurm while the folders are read.
fn ask_and_read(
    stored: &Stored,
    source: SlurmSource<'_>,
    depth: Depth<'_>,
    earlier: &RememberedStates,
) -> io::Result<(QueueAndAccounts, Folders)> {
    let was_final = |task: &str, trial: u32| {
        earlier.get(task, trial).is_some_and(|known| known.certainty == Certainty::Final)
    };
    let read = || -> io::Result<Folders> {
        let (files, params) = match depth {
            Depth::Shown(scope) => (all_files(stored), params(stored, scope)),
            Depth::All => (all_files(stored), Vec::new()),
            Depth::Open => (files_but(stored, &was_final), Vec::new()),
        };
        Ok(Folders { files: files?, params })
    };
    if !every_trial(stored, was_final) {
        let (rows, folders) = join_waiting(|waits| ask(stored, source, earlier, waits), read);
        return Ok((rows, folders?));
    }
    // Everything was over at the last look: its cost must not grow with what has not changed.
    let folders = read()?;
    let files = |task: &str, trial: u32| folders.files.get(task).and_then(|all| all.get(&trial));
    let is_over =
        every_trial(stored, |task, trial| files(task, trial).is_none_or(status::tells_all));
    let rows = if is_over {
        QueueAndAccounts { queue: QueryResult::NotAsked, accounts: None }
    } else {
        ask(stored, source, earlier, &|| ())
    };
    Ok((rows, folders))
}

/// Asks `squeue`. `sacct` is the slowest question of a large site, and is asked last, if need be. Where it is known to be
/// needed both are asked at once.
fn ask(
    stored: &Stored,
    source: SlurmSource<'_>,
    earlier: &RememberedStates,
    waits: &dyn Fn(),
) -> QueueAndAccounts {
    if source.is_slurm() && !earlier.need_accounts() {
        return QueueAndAccounts { queue: source.queue(stored, waits), accounts: None };
    }
    let (queue, accounts) = source.both(stored, waits);
    QueueAndAccounts { queue, accounts: Some(accounts) }
}

fn every_trial(stored: &Stored, holds: impl Fn(&str, u32) -> bool) -> bool {
    let of_task =
        |task: &Task| journal::trials(&stored.journal, task).iter().all(|it| holds(&task.name, it));
    stored.experiment.tasks.iter().all(of_task)
}

/// The folders of all trials, by task.
pub fn all_files(stored: &Stored) -> io::Result<BTreeMap<String, BTreeMap<u32, TrialFiles>>> {
    files_but(stored, &|_, _| false)
}

/// The same, without those of some trials on Slurm.
fn files_but(
    stored: &Stored,
    is_known: &(dyn Fn(&str, u32) -> bool + Sync),
) -> io::Result<BTreeMap<String, BTreeMap<u32, TrialFiles>>> {
    let of_task = |task: &Task| {
        let executor = stored.experiment.executors.get(&task.executor);
        let is_local = matches!(executor, Some(Executor::Local(_)));
        let dir = stored.dir.task(&task.name);
        let mut trials = trial_folders(&dir)?;
        trials.retain(|trial| is_local || !is_known(&task.name, *trial));
        let mut files = task_files(&dir, &trials, is_local)?;
        for (trial, retry) in journal::last_retries(&stored.journal, &task.name) {
            if let Some(files) = files.get_mut(&trial) {
                files.retried_from = Some(retry.from_attempt);
            }
        }
        Ok((task.name.clone(), files))
    };
    stored.experiment.tasks.iter().map(of_task).collect()
}

/// What the trials of the tasks that are meant were given: only who shows that needs it.
#[must_use]
pub fn params(stored: &Stored, scope: &Scope) -> Vec<TaskParams> {
    let of_task = |task: &Task| {
        let path = stored.dir.task(&task.name).trial_lines();
        TaskParams { task: task.name.clone(), lines: trials::read_all(&path), path }
    };
    let is_meant = |task: &&Task| scope.covers_task(&task.name);
    stored.experiment.tasks.iter().filter(is_meant).map(of_task).collect()
}

/// Whether a process still works on the submission, as far as can be told from here.
#[must_use]
pub fn is_submitting(dir: &ExperimentDir, journal: &[Event]) -> bool {
    !journal::is_complete(journal)
        && journal::refusal(journal).is_none()
        && claim::holder(dir, claim::ClaimKind::Submission)
            .is_some_and(|holder| holder.is_at_work())
}
