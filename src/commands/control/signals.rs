//! Signals running trials, through Slurm or on this machine, and tells each what to do after its save.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nemo_core::durable;
use nemo_core::rundir::TrialDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ArrayPart, TrialKey, Troubles};
use crate::commands::App;
use crate::error::{CommandError, IoResultExt};
use crate::executor::local;
use crate::observe;
use crate::process::Liveness;
use crate::report::say;
use crate::slurm::{JobControl, Recipient, SlurmError};
use crate::store::Stored;

/// What a running trial does after its save: the file that tells it so, and what Slurm does if that file can't be written.
#[derive(Clone, Copy)]
pub(in crate::commands) struct AfterSave {
    pub(in crate::commands) mark: fn(&TrialDir) -> PathBuf,
    pub(in crate::commands) without_mark: fn(&JobControl, &[String]) -> Result<(), SlurmError>,
}

/// Asks the running trials of each array, and returns those that were asked. A refusal of one does not stop the others.
///
/// A trial whose mark is written is asked: its harness reads that by itself. A trial without a mark is asked only if Slurm
/// says so. `marked`: whose marks are written already. Written twice, a mark would be obeyed twice.
pub(in crate::commands) fn signal_running(
    app: &App,
    stored: &Stored,
    arrays: &[ArrayPart<'_>],
    running: &BTreeSet<TrialKey>,
    after_save: AfterSave,
    marked: &BTreeSet<TrialKey>,
    troubles: &mut Troubles,
) -> BTreeSet<TrialKey> {
    let mut asked = BTreeSet::new();
    for part in arrays {
        let meant = running.iter().filter(|(task, trial)| part.runs(task, *trial));
        let (mut with_mark, unmarked): (Vec<_>, Vec<_>) =
            meant.partition(|key| marked.contains(*key));
        let (written, unmarked) = write_marks(stored, &unmarked, after_save.mark, troubles);
        with_mark.extend(written);
        asked.extend(signal_marked(app, part, &with_mark, troubles));
        let slurm = app.slurm.control(vec![part.token.clone()]);
        match send(part, &unmarked, &|ids| (after_save.without_mark)(&slurm, ids)) {
            Ok(sent) => asked.extend(sent),
            Err(error) => troubles.slurm.push(error),
        }
    }
    asked
}

/// Writes the marks of these trials. Returns those whose mark is written, and the others.
fn write_marks<'a>(
    stored: &Stored,
    keys: &[&'a TrialKey],
    mark: fn(&TrialDir) -> PathBuf,
    troubles: &mut Troubles,
) -> (Vec<&'a TrialKey>, Vec<&'a TrialKey>) {
    keys.iter().copied().partition(|key| match write_mark(stored, key, mark) {
        Ok(()) => true,
        Err(error) => {
            troubles.unwritten.get_or_insert(error);
            false
        }
    })
}

/// Marks trials before Slurm is asked, which may take a minute where it is away. Returns those whose marks are written; the
/// others are tried again later.
pub(in crate::commands) fn mark_early(
    stored: &Stored,
    keys: &BTreeSet<TrialKey>,
    mark: fn(&TrialDir) -> PathBuf,
) -> BTreeSet<TrialKey> {
    let is_written = |key: &&TrialKey| write_mark(stored, key, mark).is_ok();
    keys.iter().filter(is_written).cloned().collect()
}

/// Takes the marks back of trials that do not run.
pub(in crate::commands) fn unmark<'a>(
    stored: &Stored,
    keys: impl Iterator<Item = &'a TrialKey>,
    mark: fn(&TrialDir) -> PathBuf,
) {
    for (task, trial) in keys {
        // A harness removes one that is left when it begins an attempt.
        drop(std::fs::remove_file(mark(&stored.dir.task(task).trial(*trial))));
    }
}

/// Asks running trials by their marks alone, where Slurm gave this answer and no other. Returns those that were asked.
pub(in crate::commands) fn ask_by_marks(
    stored: &Stored,
    running: &BTreeSet<TrialKey>,
    mark: fn(&TrialDir) -> PathBuf,
    answer: &SlurmError,
    troubles: &mut Troubles,
) -> BTreeSet<TrialKey> {
    let mut asked = BTreeSet::new();
    for key in running {
        match write_mark(stored, key, mark) {
            Ok(()) => {
                troubles.unsignalled.insert(key.clone(), answer.to_string());
                asked.insert(key.clone());
            }
            Err(error) => drop(troubles.unwritten.get_or_insert(error)),
        }
    }
    asked
}

/// The longest that is waited for a signal which only hastens what a mark asks for. While a job is requeued, `scancel`
/// repeats it for half a minute.
const HASTEN: Duration = Duration::from_secs(5);

/// Signals trials whose marks are written. That Slurm gives no answer is told, and is no failure.
fn signal_marked(
    app: &App,
    part: &ArrayPart<'_>,
    keys: &[&TrialKey],
    troubles: &mut Troubles,
) -> Vec<TrialKey> {
    let control = app.slurm.within(HASTEN).control(vec![part.token.clone()]);
    match send(part, keys, &|ids| control.signal(ids, "USR1", Recipient::Batch)) {
        Ok(sent) => sent,
        Err(error) if error.is_no_answer() => {
            let reason = error.to_string();
            let unsignalled = keys.iter().map(|key| ((*key).clone(), reason.clone()));
            troubles.unsignalled.extend(unsignalled);
            keys.iter().map(|key| (*key).clone()).collect()
        }
        Err(error) => {
            troubles.slurm.push(error);
            Vec::new()
        }
    }
}

/// Sends one request to some tasks of an array. A refusal that names a task is about that task alone.
fn send(
    part: &ArrayPart<'_>,
    keys: &[&TrialKey],
    request: &dyn Fn(&[String]) -> Result<(), SlurmError>,
) -> Result<Vec<TrialKey>, SlurmError> {
    let ids: Vec<String> = keys.iter().map(|(_, trial)| part.task_id(*trial)).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let refused = match request(&ids) {
        Ok(()) => String::new(),
        Err(SlurmError::Refused { reason, code: Some(_), .. }) if names_any(&reason, &ids) => {
            reason
        }
        Err(error) => return Err(error),
    };
    let sent = keys.iter().zip(&ids).filter(|(_, id)| !names(&refused, id));
    Ok(sent.map(|(key, _)| (*key).clone()).collect())
}

fn names_any(reason: &str, ids: &[String]) -> bool {
    ids.iter().any(|id| names(reason, id))
}

/// Whether Slurm's words name this id, and not only a longer one.
fn names(reason: &str, id: &str) -> bool {
    reason.split(|c: char| !c.is_ascii_digit() && c != '_').any(|word| word == id)
}

fn write_mark(
    stored: &Stored,
    (task, trial): &TrialKey,
    mark: fn(&TrialDir) -> PathBuf,
) -> Result<(), CommandError> {
    let dir = stored.dir.task(task).trial(*trial);
    durable::create_dir_all(dir.path()).at("make", dir.path())?;
    let path = mark(&dir);
    Ok(durable::replace_file_durably(&path, b"{}\n").at("write", &path)?)
}

/// A request about local trials is carried out by the runner alone. Where it is gone, what it left running is told
/// here, and the request holds for a later one.
pub(in crate::commands) fn signal_orphans(
    stored: &Stored,
    trials: &BTreeSet<TrialKey>,
    signal: Signal,
    mark: Option<fn(&TrialDir) -> PathBuf>,
) -> Result<(), CommandError> {
    // It may have carried the request out by now.
    if local::is_running(&stored.dir)?.is_some() || local::has_finished(&stored.dir)? {
        return Ok(());
    }
    for key in trials {
        let dir = stored.dir.task(&key.0).trial(key.1);
        let files = observe::trial_files(&dir).at("read", dir.path())?;
        let last = files.attempts.iter().rev().find_map(|record| record.as_start());
        let process = last.map(|start| start.process.clone());
        let Some(process) = process.filter(|process| process.liveness() == Liveness::Alive) else {
            continue;
        };
        if let Some(mark) = mark {
            write_mark(stored, key, mark)?;
        }
        if let Ok(pid) = i32::try_from(process.pid) {
            // One that has just ended needs no word.
            let _ended = kill(Pid::from_raw(pid), signal);
        }
    }
    say("warning: the local runner is not running; the request applies once it starts again");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_about_the_tasks_that_it_names() {
        let check = |reason, id, expected| assert_eq!(names(reason, id), expected, "{reason}");
        check("Kill job error on job id 12_3: Invalid job id specified", "12_3", true);
        check("Kill job error on job id 12_33: Invalid job id specified", "12_3", false);
        check("Kill job error on job id 112_3: Job/step already completing", "12_3", false);
        check("Access/permission denied", "12_3", false);
    }
}
