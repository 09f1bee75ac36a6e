//! One attempt from its claim to its record: the work before the program starts and after it ends.

pub(crate) mod history;
pub(crate) mod lease;
mod monitor_config;
pub(crate) mod nodes;
pub(crate) mod outcome;
pub(crate) mod own_paths;
mod records;
pub(crate) mod resume_point;
pub(crate) mod start;
pub(crate) mod start_error;
pub(crate) mod takeover;
mod tier;
pub(crate) mod verdict;

use std::io;
use std::path::Path;
use std::time::Duration;

use nemo_core::progress::{self, Counted};
use nemo_core::rundir::{AttemptRecord, Next};
use nemo_core::{claim, lines, open};

use crate::attempt::history::{AttemptJournal, HAD_NO_ROOM, History};
use crate::attempt::lease::{Lease, LeaseClaim, LeaseHolder, PreviousClaim};
use crate::attempt::outcome::AttemptReport;
use crate::attempt::records::{end_record, facts, start_record};
use crate::attempt::resume_point::{AttemptResume, ResumePoint};
use crate::attempt::start::{begin, kill_wait};
use crate::attempt::start_error::StartError;
use crate::attempt::verdict::{AttemptVerdict, Exit, ProgramReport};
use crate::checkpoint::prune::{self, RetentionRules, StillNeeded};
use crate::checkpoint::resume::SetAside;
use crate::checkpoint::store::DiskStore;
use crate::job::harness::Harness;
use crate::job::trial::with_path;
use crate::job::work_folder;
use crate::os::clock::{Time, unix_now};
use crate::os::log::Log;
use crate::os::proc_fs;
use crate::program::output;
use crate::slurm::exclude_nodes;
use crate::slurm::requeue::{self, Stopped};
use crate::supervise::StopCause;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum AttemptResult {
    /// The attempt has ended and its record says how.
    Recorded {
        verdict: AttemptVerdict,
        attempt: u32,
        stopped: Stopped,
        /// It committed a new checkpoint.
        progress: bool,
    },
    /// A later attempt has taken over. This one may not write any more.
    Superseded,
    /// A later run of the same job has claimed the trial already.
    Stale(LeaseHolder),
}

/// How long a disk may take to write a line, even if there is no time left.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// Runs one attempt. An error means that not even a record could be written.
pub(crate) fn run(harness: &mut Harness) -> Result<AttemptResult, String> {
    let began = unix_now();
    let path = harness.trial.dir.attempts();
    let nonce = claim::nonce().map_err(|error| format!("/dev/urandom: {error}"))?;
    let own = LeaseHolder::of(&harness.context, nonce);
    let (lease, before) = match claim_lease(harness, &own)? {
        LeaseClaim::Made(lease, before) => (lease, before),
        LeaseClaim::Stale(holder) => return Ok(AttemptResult::Stale(holder)),
    };
    let mut log = attempt_log(harness, lease.attempt);
    let opened = take_over(harness, &own, lease.attempt, &before, &mut log);
    let (journal, mut history) = opened.map_err(|error| with_path(&path, &error))?;
    let must_leave = exclude_nodes::must_leave(harness);
    let leaves = matches!(must_leave, Ok(true));
    let resumed = must_leave.and_then(|leaves| {
        if leaves {
            return Ok(ResumePoint::stopped());
        }
        lease.clean();
        check_progress(harness, &history)?;
        let changed = work_folder::prepare(&harness.trial, &harness.context, harness.patience())?;
        if let Some(changed) = changed {
            log.warn(&changed);
        }
        resume_point::find(harness, &lease, &history, &mut log)
    });
    let step = resumed.as_ref().ok().and_then(|point| point.resume.step());
    if matches!(lease.is_newest(), Ok(false)) {
        return Ok(AttemptResult::Superseded);
    }
    let start = AttemptRecord::Start(start_record(harness, &own, lease.attempt, step, began));
    journal.write(&start).map_err(|error| with_path(&path, &error))?;
    let resumed = resumed.and_then(|point| {
        let recorded = record_resume_point(point, lease.attempt, &journal, &mut history);
        recorded.map_err(|error| StartError::node(&path, &error))
    });
    let started = Started { at: harness.clock.now(), oom_kills: proc_fs::oom_kills() };
    let (attempt, held) = (lease.attempt, lease.clone());
    let report = match resumed {
        Ok(AttemptResume::Stopped) if leaves => Ok(leaving(harness, attempt, &journal, log)),
        Ok(AttemptResume::From(from)) => {
            begin(harness, lease, log, Some(&from), &history, &journal)
        }
        Ok(AttemptResume::Anew) => begin(harness, lease, log, None, &history, &journal),
        Ok(AttemptResume::Stopped) => Ok(stopped(harness, log)),
        Err(reason) => Err(reason),
    };
    let report =
        report.unwrap_or_else(|why| AttemptReport::start_error(why, attempt_log(harness, attempt)));
    Ok(conclude(harness, held, &journal, &history, report, started))
}

/// The state right before the program starts.
#[derive(Clone, Copy, Debug)]
struct Started {
    at: Time,
    oom_kills: Option<u64>,
}

fn attempt_log(harness: &Harness, attempt: u32) -> Log {
    Log::new(&harness.trial.dir.stderr(attempt), &harness.records)
}

fn claim_lease(harness: &Harness, own: &LeaseHolder) -> Result<LeaseClaim, String> {
    let dir = &harness.trial.dir;
    let claimed = harness
        .patience()
        .with(|| lease::claim(dir.path(), History::read(&dir.attempts())?.next, own));
    claimed.map_err(|error| with_path(dir.path(), &error))
}

/// Ends what an earlier attempt left running on this node, then opens and completes the record.
fn take_over(
    harness: &Harness,
    own: &LeaseHolder,
    attempt: u32,
    before: &[PreviousClaim],
    log: &mut Log,
) -> io::Result<(AttemptJournal, History)> {
    requeue::remove_marks(harness);
    let last = before.last();
    let was_alive = takeover::end_remnants(harness, last, log);
    // The earlier attempt may have written its last lines until now.
    let alive = last.filter(|_| was_alive).map(|last| last.attempt);
    let path = harness.trial.dir.attempts();
    harness.patience().with(|| {
        let journal = AttemptJournal::open(&path, &harness.records)?;
        complete(&journal, &path, (attempt, before), alive, own.slurm_job.as_deref())?;
        Ok((journal, read_history(&path, log)?))
    })
}

/// Decides what follows from the program's end, and records it.
fn conclude(
    harness: &Harness,
    lease: Lease,
    journal: &AttemptJournal,
    history: &History,
    mut report: AttemptReport,
    started: Started,
) -> AttemptResult {
    let (attempt, nonce) = (lease.attempt, lease.nonce.clone());
    let patience = patience(harness, &report);
    // An old run that learns late of a new one writes nothing more: the new one has written its end.
    let is_newest = harness.records.ask(move || lease.is_newest()).wait(patience);
    if report.stop == Some(StopCause::Superseded) || matches!(is_newest, Some(Ok(false))) {
        report.log.warn("a later attempt of this trial has taken over; this one leaves");
        return AttemptResult::Superseded;
    }
    let seconds = harness.clock.now().saturating_sub(started.at).as_secs_f64();
    let oom = proc_fs::oom_kills() > started.oom_kills;
    let last = last_line(harness, &report, attempt, patience);
    let verdict = verdict::decide(&facts(harness, history, &report, last, seconds, oom));
    report.log.note(&verdict.reason);
    let surplus = surplus(harness, &report, &verdict, attempt, journal);
    if report.notes.had_no_room && verdict.forgives_crash() {
        journal.write_within(&no_room(attempt), patience);
    }
    let end = AttemptRecord::End(end_record(history, &report, attempt, &verdict));
    // If there is no time left, the thread writes it once the disk answers: the job must be requeued before it is killed.
    if let Some(Err(error)) = journal.write_within(&end, patience) {
        report.log.warn(&with_path(&harness.trial.dir.attempts(), &error));
    }
    remove(harness, surplus, &nonce);
    let stopped = Stopped {
        cause: report.stop,
        is_confirmed: report.is_confirmed,
        deadline: report.deadline,
        is_by_hand: report.is_by_hand,
    };
    AttemptResult::Recorded { verdict, attempt, stopped, progress: report.committed.is_some() }
}

/// Why the next attempts save to the disk.
fn no_room(attempt: u32) -> AttemptRecord {
    AttemptRecord::Warning {
        attempt,
        code: HAD_NO_ROOM.to_owned(),
        message: "the program crashed where it saved to memory, perhaps for lack of room: later attempts save to the disk".to_owned(),
        hint: "ask for more `mem`, or remove `checkpoint.tier`".to_owned(),
        time: unix_now(),
    }
}

/// The last line of the error output of the rank that decided the end.
fn last_line(
    harness: &Harness,
    report: &AttemptReport,
    attempt: u32,
    limit: Duration,
) -> Option<String> {
    let rank = report.failed_rank.as_ref().map_or(0, |who| who.rank);
    let path = harness.trial.dir.rank_stderr(attempt, rank);
    harness.records.ask(move || output::last_line(&path)).wait(limit).flatten()
}

/// How long a disk that hangs may delay the end. It is a part of the time until the deadline: the requeue needs the rest.
fn patience(harness: &Harness, report: &AttemptReport) -> Duration {
    let Some(deadline) = report.deadline else { return Duration::MAX };
    (deadline.saturating_sub(harness.clock.now()) / 6).max(LEAST_PATIENCE)
}

/// Records a save of an earlier attempt that this one committed: it is a checkpoint even if the line can't be written. And
/// what was set aside: without that line the next attempt would do so again, with this one's own checkpoints.
fn record_resume_point(
    point: ResumePoint,
    attempt: u32,
    journal: &AttemptJournal,
    history: &mut History,
) -> io::Result<AttemptResume> {
    if let Some((step, bytes)) = point.finished {
        let (time, bytes) = (unix_now(), Some(bytes));
        let record = AttemptRecord::Checkpoint { attempt, step, time, saving: None, bytes };
        journal.write(&record).ok();
        history.steps.insert(step);
        history.stuck = 0;
    }
    if let Some(SetAside { from, steps }) = point.set_aside {
        let (generation, from_step, time) = (from.generation, from.step, unix_now());
        let record = AttemptRecord::SetAside { attempt, generation, from_step, steps, time };
        journal.write(&record)?;
        history.restarted(from);
    }
    history.leaves_own = point.leaves_own;
    if point.leaves_own {
        let message = "no file of `checkpoint.from` was saved so far; the program begins with the file at `restore_to` as it is";
        let hint = "compare `checkpoint.from` with where the program saves, and retry";
        warn(journal, attempt, "nothing-collected", message, hint);
    }
    if let Some(message) = point.begins_without {
        let hint = "if it should go on from there, put it back under its name, and submit without `restore_to`";
        warn(journal, attempt, "set-aside-at-start", &message, hint);
    }
    Ok(point.resume)
}

/// What a person should know. A line that can't be written costs no attempt.
fn warn(journal: &AttemptJournal, attempt: u32, code: &str, message: &str, hint: &str) {
    let [code, message, hint] = [code, message, hint].map(str::to_owned);
    let time = unix_now();
    journal.write(&AttemptRecord::Warning { attempt, code, message, hint, time }).ok();
}

/// Reads the record and logs its damaged lines.
fn read_history(path: &Path, log: &mut Log) -> io::Result<History> {
    open::refresh(path);
    let lines = lines::read(path)?;
    if let Some(damage) = lines.damage(path) {
        log.warn(&damage.to_string());
    }
    Ok(History::of(&lines.rows))
}

/// Writes the records that attempts before `own` could not: the end of each, and the starts of the last ones if they
/// were lost while they verified checkpoints.
fn complete(
    journal: &AttemptJournal,
    path: &Path,
    (own, before): (u32, &[PreviousClaim]),
    alive: Option<u32>,
    job: Option<&str>,
) -> io::Result<()> {
    let mut rows = lines::read(path)?.rows;
    for start in nodes::missing_starts(&rows, before, own, unix_now()) {
        let start = AttemptRecord::Start(start);
        journal.write(&start)?;
        rows.push(start);
    }
    for end in nodes::missing_ends(&rows, alive, job, unix_now()) {
        journal.write(&AttemptRecord::End(end))?;
    }
    Ok(())
}

/// Ends a loop of attempts that never reached their own end, where their budget is counted.
fn check_progress(harness: &Harness, history: &History) -> Result<(), StartError> {
    let (budget, stuck) = (harness.trial.spec.restart.no_progress, history.stuck);
    if progress::is_used_up(budget, stuck, Counted::BeforeStart) {
        return Err(format!("given up: {stuck} attempts in a row without a new checkpoint").into());
    }
    Ok(())
}

/// Removes checkpoints. If one stays, the trial is done all the same.
fn remove(harness: &Harness, steps: Vec<u64>, nonce: &str) {
    for step in steps {
        prune::remove(&mut DiskStore::default(), &harness.trial.dir.checkpoints(), step, nonce)
            .ok();
    }
}

/// Leaves this node, which failed the trial before. Another one may do better.
fn leaving(
    harness: &Harness,
    attempt: u32,
    journal: &AttemptJournal,
    mut log: Log,
) -> AttemptReport {
    let why = "this node failed the trial before".to_owned();
    let (node, reason) = (harness.context.node.clone(), why.clone());
    let time = unix_now();
    let record = AttemptRecord::ExcludeNode { attempt, node, reason, left: true, time };
    if let Err(error) = journal.write(&record) {
        log.warn(&format!("the excluded node could not be recorded: {error}"));
    }
    let from_program = ProgramReport { requeue: true, ..ProgramReport::default() };
    AttemptReport { from_program, ..AttemptReport::of(Exit::NotStarted(why), log) }
}

/// TERM came before the program was started, so no save is needed.
fn stopped(harness: &Harness, mut log: Log) -> AttemptReport {
    log.note("stopped while checkpoints were being verified; the program was not started");
    let deadline = harness.clock.now() + kill_wait(&harness.trial.spec);
    let (cause, is_confirmed) = resume_point::stop_cause(harness);
    let exit = Exit::NotStarted("checkpoints were still being verified".to_owned());
    AttemptReport {
        stop: Some(cause),
        is_confirmed,
        deadline: Some(deadline),
        ..AttemptReport::of(exit, log)
    }
}

/// The checkpoints of a finished trial that no rule keeps. Their removal is recorded, and must follow.
fn surplus(
    harness: &Harness,
    report: &AttemptReport,
    verdict: &AttemptVerdict,
    attempt: u32,
    journal: &AttemptJournal,
) -> Vec<u64> {
    // If a save could not be committed, all checkpoints stay.
    if verdict.next != Next::Done || !report.uncommitted.is_empty() {
        return Vec::new();
    }
    let rules = RetentionRules::of(&harness.trial);
    let steps = rules.removable(&DiskStore::default(), &StillNeeded::Nothing).unwrap_or_default();
    if steps.is_empty() {
        return steps;
    }
    let record = AttemptRecord::Removed { attempt, steps: steps.clone(), time: unix_now() };
    journal.write(&record).map_or_else(|_| Vec::new(), |()| steps)
}
