//! Starts `nemo-slurm poll` for the experiment, so that trials which nobody else could bring back are brought back
//! without cron: by the guard of a killed harness, by jobs that end, by a trial whose parents are not to be had.
//!
//! It never changes the end of this job: what goes wrong is only logged.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nemo_core::claim::{self, ClaimDecision, ClaimOutcome, Claims};
use nemo_core::rundir::{AttemptRecord, ExperimentDir, Next, PollFrequency, TaskDir, TaskSpec};
use nemo_core::{checksum, exit, lines, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::job::context::{SlurmJob, payer, slurm_job};
use crate::job::harness::Harness;
use crate::job::run::TrialSelector;
use crate::job::trial::{TaskSource, with_path};
use crate::os::clock::{Clock, unix_now};
use crate::os::log::{log_info, log_stderr};
use crate::os::signals;
use crate::os::subprocess::{self, SubprocessResult};

/// How long it may take. Slurm's programs block for some seconds where the controller is away.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long one program of Slurm's may take in it.
const ANSWER: &str = "10";

/// The exit code by which it says that Slurm gave no answer.
const NO_ANSWER: i32 = 4;
/// How long a guard waits before it asks such a Slurm again.
const AGAIN: Duration = Duration::from_secs(5);

/// Seconds between two of them where no task waits for another: as often as cron would.
const SELDOM: f64 = 300.0;
/// How many seconds the clocks of two nodes may differ for one to rely on what another one announced.
const CLOCKS: f64 = 1.0;
/// No announcement is for a later time.
const LATEST: f64 = 30.0;

/// The content of `poll.<n>.json`: when the `nemo-slurm poll` of the job that claimed it begins, in unix seconds. It looks
/// after every end that was recorded before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct PollTurn {
    begins: f64,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Turn {
    /// This job's, at that time.
    Own(f64),
    /// Another job will do it at that time.
    OfAnother(f64),
    /// It was done a short time ago, which is enough.
    Nobodys,
}

/// Looks after the experiment's other trials when a trial has ended by itself. Returns whether that took time.
pub(crate) fn at_end(harness: &Harness) -> bool {
    match turn_of(harness) {
        // Nobody comes after the last one who could bring back what was killed since the last turn.
        Some(Turn::Nobodys) if is_last(harness) => {
            run(harness);
            true
        }
        Some(Turn::Own(begins)) => {
            if wait_until(harness, begins) {
                run(harness);
            }
            true
        }
        Some(Turn::OfAnother(_) | Turn::Nobodys) | None => false,
    }
}

/// Looks after the trials that this one waits for. Returns when that is done, by this job or another.
pub(crate) fn before_start(harness: &Harness) {
    match turn_of(harness) {
        Some(Turn::Own(begins)) if wait_until(harness, begins) => run(harness),
        Some(Turn::OfAnother(begins)) => drop(wait_until(harness, begins + CLOCKS * 5.0)),
        Some(Turn::Own(_) | Turn::Nobodys) | None => {}
    }
}

/// Looks after the experiment before a trial runs again, where it may have to wait instead: no end of a job may have come
/// since what the trials may use up was spent.
pub(crate) fn before_restart(harness: &Harness) {
    if harness.trial.spec.poll.as_ref().is_some_and(|poll| poll.at_restarts) {
        before_start(harness);
    }
}

/// Whether no other trial of the job's array waits or runs, where the experiment is to be looked after at all. Where Slurm
/// gives no answer, `nemo-slurm poll` would get none either.
fn is_last(harness: &Harness) -> bool {
    let spec = harness.trial.spec.poll.as_ref();
    let is_meant = spec.is_some_and(|poll| poll.at_ends == PollFrequency::Seldom);
    let Some(job) = harness.context.slurm.as_ref().filter(|_| is_meant) else { return false };
    let array = job.array.as_ref().map_or(&*job.raw, |(array, _)| array);
    let jobs = format!("--jobs={array}");
    let words =
        ["squeue", "--noheader", "--states=PENDING,RUNNING,SUSPENDED", "--format=%i", &jobs];
    match subprocess::ask(&words, &harness.clock, Duration::from_secs(10)) {
        SubprocessResult::Ended { code: Some(0), text } => is_alone(&text, &job.id()),
        SubprocessResult::Ended { .. } | SubprocessResult::NoAnswer(_) => false,
    }
}

/// Whether `squeue` shows no job but this one.
fn is_alone(shown: &str, own: &str) -> bool {
    shown.lines().map(str::trim).all(|id| id.is_empty() || id == own)
}

fn turn_of(harness: &Harness) -> Option<Turn> {
    harness.context.slurm.as_ref()?;
    let spec = harness.trial.spec.poll.as_ref()?;
    let dir = ExperimentDir::of_task(&harness.trial.task)?;
    let turn = take_turn(&dir, spec.at_ends, unix_now());
    turn.inspect_err(|error| log_stderr(&format!("`nemo-slurm poll` is not run: {error}"))).ok()
}

/// Claims the next turn, where there is to be one and no other job has.
fn take_turn(dir: &ExperimentDir, frequency: PollFrequency, now: f64) -> io::Result<Turn> {
    let claims = Claims::new(&dir.0, "poll");
    loop {
        let newest = claims.newest()?;
        let before = newest.and_then(|number| Some((number, read(&claims, number)?)));
        let begins = match next_turn(frequency, before, now) {
            Turn::Own(begins) => begins,
            turn @ (Turn::OfAnother(_) | Turn::Nobodys) => return Ok(turn),
        };
        let content = checksum::to_vec(&PollTurn { begins })?;
        let outcome = claims.take(&claim::nonce()?, &content, |now_newest| {
            if now_newest == newest {
                ClaimDecision::Claim(newest.map_or(0, |number| number + 1))
            } else {
                ClaimDecision::Leave(())
            }
        })?;
        if let ClaimOutcome::Claimed(_) = outcome {
            return Ok(Turn::Own(begins));
        }
    }
}

fn read(claims: &Claims, number: u32) -> Option<PollTurn> {
    checksum::from_slice(&open::read(&claims.path(number)).ok()?).ok()
}

/// Whose turn it is after an end at `now`, by the newest claim. Pure.
fn next_turn(frequency: PollFrequency, newest: Option<(u32, PollTurn)>, now: f64) -> Turn {
    let newest = newest.filter(|(_, turn)| turn.begins <= now + LATEST);
    match (frequency, newest) {
        (PollFrequency::Never, _) => Turn::Nobodys,
        (PollFrequency::Seldom, Some((_, turn))) if turn.begins + SELDOM > now => Turn::Nobodys,
        (_, None) | (PollFrequency::Seldom, Some(_)) => Turn::Own(now),
        (PollFrequency::Often, Some((_, turn))) if turn.begins > now + CLOCKS => {
            Turn::OfAnother(turn.begins)
        }
        (PollFrequency::Often, Some((number, turn))) => {
            Turn::Own(now.max(turn.begins + pause_after(number)))
        }
    }
}

/// Seconds between two turns: many ends of a large sweep share one, few ends of a small experiment don't wait long.
fn pause_after(number: u32) -> f64 {
    match number {
        0..16 => 2.0,
        16..64 => 5.0,
        _ => 10.0,
    }
}

/// Waits until then. False where a signal came: whoever stops this job will not wait for it.
fn wait_until(harness: &Harness, begins: f64) -> bool {
    loop {
        let heard = signals::read(&harness.signals);
        if heard.into_iter().any(|signal| signal != Signal::SIGCHLD) {
            return false;
        }
        let left = begins - unix_now();
        if left <= 0.0 {
            return true;
        }
        let left = Duration::try_from_secs_f64(left).unwrap_or_default();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        poll(&mut [PollFd::new(harness.signals.as_fd(), PollFlags::POLLIN)], timeout).ok();
    }
}

fn run(harness: &Harness) {
    start(&harness.trial.spec, &harness.trial.task, &harness.clock, None);
}

/// Runs it. `ended` is the run of this job that has lost its harness. Returns whether Slurm answered, as far as is known.
fn start(spec: &TaskSpec, task: &TaskDir, clock: &Clock, ended: Option<&SlurmJob>) -> bool {
    let Some(poll) = &spec.poll else { return true };
    let Some(experiment) = ExperimentDir::of_task(task) else { return true };
    let (program, home) = (poll.program.to_string_lossy(), home_of(&experiment));
    let mut words = vec![&*program];
    words.extend(home.as_deref().into_iter().flat_map(|home| ["--home", home]));
    words.extend(["--slurm-timeout", ANSWER, "poll", &spec.experiment]);
    let run = ended.map(|job| format!("--ended-run={}:{}", job.id(), job.restarts));
    words.extend(run.as_deref());
    match subprocess::ask_in(&words, &payer(), clock, PATIENCE) {
        SubprocessResult::Ended { code: Some(0), text } if text.starts_with("Nothing to do") => {}
        SubprocessResult::Ended { code: Some(0), text } => log_info(&text),
        SubprocessResult::Ended { code, text } => {
            log_stderr(&format!("`nemo-slurm poll` failed: {text}"));
            return code != Some(NO_ANSWER);
        }
        SubprocessResult::NoAnswer(why) => log_stderr(&format!("`nemo-slurm poll`: {why}")),
    }
    true
}

/// The home of an experiment. A wrapped job may lie anywhere: of it the environment tells the home, as it told `wrap`.
fn home_of(experiment: &ExperimentDir) -> Option<String> {
    let experiments = experiment.0.parent().filter(|all| all.ends_with("experiments"))?;
    Some(experiments.parent()?.to_string_lossy().into_owned())
}

/// What the guard does once its harness was killed, all else of which is ended: it has the job requeued, unless the trial
/// is over. Returns the exit code that the harness would have had then.
pub(crate) fn after_kill(source: &TaskSource, which: TrialSelector) -> Option<u8> {
    let job = slurm_job()?;
    let task = source.task_dir().ok()?;
    let spec: TaskSpec = checksum::from_slice(&source.text(&task).ok()?).ok()?;
    let trial = task.trial(which.index(job.array.as_ref().map_or(0, |&(_, index)| index)));
    let rows = lines::read(&trial.attempts()).ok()?.rows;
    if let Some(code) = recorded_exit(&rows, &job.id()) {
        return Some(code);
    }
    log_stderr("the harness was killed; its guard asks for the requeue of the job");
    ask_for_requeue(&spec, &task, &job);
    None
}

/// What the guard does once its harness could not write that the trial began: it has the job requeued, as often as
/// `nemo-slurm poll` brings a job back that starts in vain.
pub(crate) fn after_lost_start(source: &TaskSource) {
    let Some(job) = slurm_job() else { return };
    let found = source.task_dir().and_then(|task| {
        let spec = checksum::from_slice::<TaskSpec>(&source.text(&task)?)?;
        Ok((task, spec))
    });
    match found {
        Ok((task, spec)) => ask_for_requeue(&spec, &task, &job),
        Err(error) => log_stderr(&format!(
            "`nemo-slurm poll` requeues the job; it is not run here: {}",
            with_path(&source.dir, &error)
        )),
    }
}

fn ask_for_requeue(spec: &TaskSpec, task: &TaskDir, job: &SlurmJob) {
    // Nobody else may come to ask for it: a controller that restarts is waited for.
    let clock = Clock::start();
    while !start(spec, task, &clock, Some(job)) && clock.now() + AGAIN < PATIENCE {
        std::thread::sleep(AGAIN);
    }
}

/// The exit code that follows from a record that ends with a final end of this job. An end before that is of a trial that
/// somebody has retried since.
pub(crate) fn recorded_exit(rows: &[AttemptRecord], job: &str) -> Option<u8> {
    let end = rows.last()?.as_end()?;
    let mut starts = rows.iter().rev().filter_map(AttemptRecord::as_start);
    let start = starts.find(|start| start.attempt == end.attempt)?;
    if start.slurm_job.as_deref() != Some(job) {
        return None;
    }
    match end.next {
        Next::Done => Some(exit::DONE),
        Next::Failed => Some(exit::NEVER),
        Next::Cancelled => Some(exit::CANCELLED),
        Next::Timeout => Some(exit::TIMEOUT),
        Next::Requeue | Next::Restart => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1000.0;

    #[track_caller]
    fn check(frequency: PollFrequency, newest: Option<(u32, f64)>, expected: Turn) {
        let newest = newest.map(|(number, begins)| (number, PollTurn { begins }));
        assert_eq!(next_turn(frequency, newest, NOW), expected, "{newest:?}");
    }

    #[test]
    fn each_end_is_looked_after_and_many_ends_share_a_turn() {
        use PollFrequency::Often;
        check(Often, None, Turn::Own(NOW));
        check(Often, Some((0, 900.0)), Turn::Own(NOW));
        check(Often, Some((0, 999.5)), Turn::Own(1001.5));
        // One that is announced for a moment later looks after this end as well.
        check(Often, Some((0, 1001.5)), Turn::OfAnother(1001.5));
        // By the clock of another node it may have begun before this end.
        check(Often, Some((0, 1000.5)), Turn::Own(1002.5));
        check(Often, Some((70, 995.0)), Turn::Own(1005.0));
        // A clock that went wrong keeps nobody waiting.
        check(Often, Some((0, 9000.0)), Turn::Own(NOW));
    }

    #[test]
    fn a_sweep_alone_is_looked_after_as_by_cron() {
        use PollFrequency::{Never, Seldom};
        check(Seldom, None, Turn::Own(NOW));
        check(Seldom, Some((3, 701.0)), Turn::Nobodys);
        check(Seldom, Some((3, 700.0)), Turn::Own(NOW));
        check(Never, None, Turn::Nobodys);
    }

    #[test]
    fn the_last_one_of_an_array_is_told_from_the_others() {
        assert!(is_alone("41_3\n", "41_3") && is_alone("", "41_3"));
        assert!(!is_alone("41_3\n41_[4-9]\n", "41_3") && !is_alone("41_33\n", "41_3"));
    }

    #[test]
    fn of_many_ends_at_once_two_take_a_turn() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ExperimentDir(folder.path().to_owned());
        let take = || take_turn(&dir, PollFrequency::Often, NOW).unwrap();
        let turns: Vec<Turn> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let own = turns.iter().filter(|turn| matches!(turn, Turn::Own(_)));
        assert_eq!(own.count(), 2, "one at once, one for all others: {turns:?}");
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::OfAnother(1002.0)).count(), 14);
    }
}
