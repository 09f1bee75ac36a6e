//! One attempt from its claim to its record: what is prepared before the program starts, and concluded after.

pub(crate) mod history;
pub(crate) mod lease;
pub(crate) mod nodes;
pub(crate) mod outcome;
pub(crate) mod resume_point;
pub(crate) mod start;
pub(crate) mod start_error;
pub(crate) mod takeover;
pub(crate) mod verdict;

use std::io;
use std::path::Path;

use nemo_core::rundir::{AttemptEnd, AttemptRecord, AttemptStart, Next};
use nemo_core::{claim, lines};

use crate::attempt::history::{History, Journal};
use crate::attempt::lease::{Before, Claim, Holder, Lease};
use crate::attempt::outcome::Report;
use crate::attempt::resume_point::Resume;
use crate::attempt::start::{begin, kill_wait};
use crate::attempt::start_error::StartError;
use crate::attempt::verdict::{Budget, Exit, Facts, ProgramReport, Verdict};
use crate::checkpoint::prune::{self, Need, Rules};
use crate::checkpoint::store::Disk;
use crate::job::context::SlurmJob;
use crate::job::harness::Harness;
use crate::job::trial::with_path;
use crate::monitor::failure_class;
use crate::os::clock::unix_now;
use crate::os::log::Log;
use crate::os::proc_fs;
use crate::program::output;
use crate::slurm::requeue::{self, Stopped};
use crate::supervise::StopCause;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As its record says.
    Recorded {
        verdict: Verdict,
        attempt: u32,
        stopped: Stopped,
        /// It committed a new checkpoint.
        progress: bool,
    },
    /// A later attempt has taken over: this one may write nothing more.
    Superseded,
    /// A later run of the same job was here before.
    Stale(Holder),
}

/// How often a program that hangs is started again before it must make a new checkpoint.
const HANGS: u32 = 1;

/// Runs one attempt. An error means that not even a record could be written.
pub(crate) fn run(harness: &mut Harness) -> Result<Ended, String> {
    let came = unix_now();
    let dir = harness.trial.dir.clone();
    let path = dir.attempts();
    let history = History::read(&path).map_err(|error| with_path(&path, &error))?;
    let nonce = claim::nonce().map_err(|error| format!("/dev/urandom: {error}"))?;
    let own = Holder::of(&harness.context, nonce);
    let claim = lease::claim(dir.path(), history.next, &own);
    let (lease, before) = match claim.map_err(|error| with_path(dir.path(), &error))? {
        Claim::Made(lease, before) => (lease, before),
        Claim::Stale(holder) => return Ok(Ended::Stale(holder)),
    };
    let mut log = Log::new(&dir.stderr(lease.attempt));
    requeue::remove_marks(harness);
    let was_alive = takeover::end_remnants(harness, before.as_ref(), &mut log);
    // The one before may have written its last lines until now.
    let mut journal = Journal::open(&path).map_err(|error| with_path(&path, &error))?;
    complete(&mut journal, &path, before.as_ref(), was_alive, own.slurm_job.as_deref())
        .map_err(|error| with_path(&path, &error))?;
    let history = read_history(&path, &mut log).map_err(|error| with_path(&path, &error))?;
    let leaves = requeue::must_leave(harness);
    let resumed =
        if leaves { Ok(Resume::Stopped) } else { find(harness, &lease, &history, &mut log) };
    let step = resumed.as_ref().ok().and_then(Resume::step);
    if matches!(lease.is_newest(), Ok(false)) {
        return Ok(Ended::Superseded);
    }
    let start = start_record(harness, &own, lease.attempt, step, came);
    journal.write(&AttemptRecord::Start(start)).map_err(|error| with_path(&path, &error))?;
    let began = harness.clock.now();
    let oom_before = proc_fs::oom_kills();
    let attempt = lease.attempt;
    let held = lease.clone();
    let report = match resumed {
        Ok(Resume::Stopped) if leaves => Ok(leaving(harness, attempt, &mut journal, log)),
        Ok(Resume::From(from)) => begin(harness, lease, log, Some(&from), &history, &mut journal),
        Ok(Resume::Anew) => begin(harness, lease, log, None, &history, &mut journal),
        Ok(Resume::Stopped) => Ok(stopped(harness, log)),
        Err(reason) => Err(reason),
    };
    let mut report =
        report.unwrap_or_else(|why| Report::start_error(why, Log::new(&dir.stderr(attempt))));
    // An old run that hears late of a new one writes nothing more: the new one has written its end.
    if report.stop == Some(StopCause::Superseded) || matches!(held.is_newest(), Ok(false)) {
        report.log.warn("a later attempt of this trial has taken over; this one leaves");
        return Ok(Ended::Superseded);
    }
    let seconds = harness.clock.now().saturating_sub(began).as_secs_f64();
    let oom = proc_fs::oom_kills() > oom_before;
    let rank = report.who.as_ref().map_or(0, |who| who.rank);
    let last_line = output::last_line(&dir.rank_stderr(attempt, rank));
    let verdict = verdict::decide(&facts(harness, &history, &report, last_line, seconds, oom));
    report.log.note(&verdict.reason);
    let surplus = surplus(harness, &report, &verdict, attempt, &mut journal);
    let end = end_record(&history, &report, attempt, &verdict);
    if let Err(error) = journal.write(&AttemptRecord::End(end)) {
        report.log.warn(&with_path(&path, &error));
    }
    remove(harness, surplus, &own.nonce);
    let stopped = Stopped { cause: report.stop, sure: report.sure, deadline: report.deadline };
    Ok(Ended::Recorded { verdict, attempt, stopped, progress: report.committed.is_some() })
}

/// Reads the record, and tells of its damaged lines.
fn read_history(path: &Path, log: &mut Log) -> io::Result<History> {
    let lines = lines::read(path)?;
    if let Some(damage) = lines.damage(path) {
        log.warn(&damage.to_string());
    }
    Ok(History::of(&lines.rows))
}

/// Writes what earlier attempts left unwritten: the end of each, and the start of the one before, if it was lost while it
/// verified checkpoints.
fn complete(
    journal: &mut Journal,
    path: &Path,
    before: Option<&Before>,
    was_alive: bool,
    job: Option<&str>,
) -> io::Result<()> {
    let mut rows = lines::read(path)?.rows;
    let start = before.and_then(|before| nodes::missing_start(&rows, before));
    if let Some(start) = start.map(AttemptRecord::Start) {
        journal.write(&start)?;
        rows.push(start);
    }
    let alive = before.filter(|_| was_alive).map(|before| before.attempt);
    for end in nodes::missing_ends(&rows, alive, job, unix_now()) {
        journal.write(&AttemptRecord::End(end))?;
    }
    Ok(())
}

/// Where to go on from. It also ends a loop of attempts that never came to their own end, where their budget is counted:
/// so twice as much is allowed here.
fn find(
    harness: &Harness,
    lease: &Lease,
    history: &History,
    log: &mut Log,
) -> Result<Resume, StartError> {
    let limit = harness.trial.spec.restart.no_progress.saturating_mul(2);
    if limit > 0 && history.stuck >= limit {
        let stuck = history.stuck;
        return Err(format!("given up: {stuck} attempts in a row without a new checkpoint").into());
    }
    resume_point::find(harness, lease, history, log)
}

/// Removes checkpoints. One that stays is in nobody's way: the trial is done all the same.
fn remove(harness: &Harness, steps: Vec<u64>, nonce: &str) {
    for step in steps {
        prune::remove(&mut Disk::default(), &harness.trial.dir.checkpoints(), step, nonce).ok();
    }
}

/// This node failed the trial before: another one may do better.
fn leaving(harness: &Harness, attempt: u32, journal: &mut Journal, mut log: Log) -> Report {
    let why = "this node failed the trial before".to_owned();
    let (node, reason) = (harness.context.node.clone(), why.clone());
    let time = unix_now();
    let record = AttemptRecord::ExcludeNode { attempt, node, reason, left: true, time };
    if let Err(error) = journal.write(&record) {
        log.warn(&format!("that the node is left could not be recorded: {error}"));
    }
    let from_program = ProgramReport { requeue: true, ..ProgramReport::default() };
    Report { from_program, ..Report::of(Exit::NotStarted(why), log) }
}

/// TERM came before the program was started: nobody needs to be asked to save.
fn stopped(harness: &Harness, mut log: Log) -> Report {
    log.note("stopped while checkpoints were being verified; the program was not started");
    let deadline = harness.clock.now() + kill_wait(&harness.trial.spec);
    let (cause, sure) = resume_point::stop_cause(harness);
    let exit = Exit::NotStarted("checkpoints were still being verified".to_owned());
    Report { stop: Some(cause), sure, deadline: Some(deadline), ..Report::of(exit, log) }
}

/// The checkpoints of a trial that is done which nothing keeps any longer: recorded, and still to be removed.
fn surplus(
    harness: &Harness,
    report: &Report,
    verdict: &Verdict,
    attempt: u32,
    journal: &mut Journal,
) -> Vec<u64> {
    // Where something could not be committed, all that is there stays.
    if verdict.next != Next::Done || !report.refused.is_empty() {
        return Vec::new();
    }
    let rules = Rules::of(&harness.trial);
    let steps = rules.removable(&Disk::default(), &Need::Nothing).unwrap_or_default();
    if steps.is_empty() {
        return steps;
    }
    let record = AttemptRecord::Removed { attempt, steps: steps.clone(), time: unix_now() };
    journal.write(&record).map_or_else(|_| Vec::new(), |()| steps)
}

fn start_record(
    harness: &Harness,
    own: &Holder,
    attempt: u32,
    step: Option<u64>,
    began: f64,
) -> AttemptStart {
    AttemptStart {
        attempt,
        slurm_job: harness.context.slurm.as_ref().map(SlurmJob::id),
        restarts: own.restarts,
        process: own.process.clone(),
        time: unix_now(),
        resume_step: step,
        began: Some(began),
    }
}

fn end_record(history: &History, report: &Report, attempt: u32, verdict: &Verdict) -> AttemptEnd {
    let (exit_code, signal) = match report.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::StartFailed(_) | Exit::NotStarted(_) => (None, None),
    };
    AttemptEnd {
        attempt,
        time: unix_now(),
        cause: verdict.cause,
        exit_code,
        signal,
        step: report.step,
        checkpoint_step: history.steps.iter().copied().chain(report.committed).max(),
        next: verdict.next,
        reason: Some(verdict.reason.clone()),
        stopped: report.noted.stopped,
        saving: report.saving.map(|saving| saving.as_secs_f64()),
    }
}

fn facts(
    harness: &Harness,
    history: &History,
    report: &Report,
    last_line: Option<String>,
    seconds: f64,
    oom: bool,
) -> Facts {
    let spec = &harness.trial.spec;
    let code = if let Exit::Code(code) = report.exit { Some(code) } else { None };
    Facts {
        exit: report.exit.clone(),
        stop: report.stop,
        was_asked: report.was_asked,
        from_program: report.from_program.clone(),
        failure_class: failure_class::judge(
            code,
            last_line.as_deref().unwrap_or_default(),
            report.noted.worked,
        ),
        stop_restarting: report.noted.stop_restarting.clone(),
        leave_node: report.noted.leave_node,
        // An earlier kill for memory, of a process that was not missed, is not what ended the program.
        oom: oom && !report.killed,
        progress: report.committed.is_some(),
        crashes: Budget { used: history.crashes, limit: spec.restart.crashes },
        hangs: Budget { used: history.hangs, limit: HANGS },
        stuck: Budget { used: history.stuck, limit: spec.restart.no_progress },
        #[expect(clippy::cast_precision_loss, reason = "unix seconds fit")]
        over: spec.deadline.is_some_and(|at| at as f64 <= unix_now()),
        story: report.story(seconds, last_line),
    }
}
