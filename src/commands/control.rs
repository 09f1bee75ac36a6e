//! What `cancel`, `pause`, `resume` and `preempt` share: a target's part in each job array, the request in the
//! experiment's folder, and what is said in the end.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use nemo_core::rundir::TrialDir;
use nemo_core::scope::TrialSet;
use nemo_core::{checksum, durable};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tracing::debug;

use super::App;
use super::status::look;
use crate::clock;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::executor::local;
use crate::experiment::{Executor, Task};
use crate::humanize::count;
use crate::journal::{self, ArrayRecord, Event};
use crate::observe;
use crate::plan::JobArray;
use crate::process::{self, Liveness};
use crate::report::{out_json, say};
use crate::script;
use crate::slurm::{Client, JobId, JobPhase, JobState, QueueRow, Recipient, SlurmError};
use crate::status::{Request, RequestedAction, State, Status, meant};
use crate::store::{Stored, Target};

/// What can be said to each of these commands.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    pub target: String,
    /// Show what would be done, do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A trial by its task and number.
pub(super) type TrialKey = (String, u32);

/// Seconds by which this machine's clock and Slurm's may differ.
const CLOCK_SLACK: i64 = 60;

/// What a target means of one job array that Slurm has.
#[derive(Clone, Debug)]
pub(super) struct ArrayPart<'a> {
    array: &'a JobArray,
    pub(super) token: String,
    job: JobId,
    trials: Option<&'a TrialSet>,
}

impl ArrayPart<'_> {
    /// The ids to name to Slurm: the whole array by its own, one for a thousand tasks.
    pub(super) fn ids(&self) -> Vec<String> {
        match self.trials {
            Some(_) => self.meant().map(|trial| self.task_id(trial)).collect(),
            None => vec![self.job.to_string()],
        }
    }

    /// The trials of the array that the target means.
    fn meant(&self) -> impl Iterator<Item = u32> + '_ {
        let is_meant = |trial: &u32| self.trials.is_none_or(|wanted| wanted.contains(*trial));
        self.array.trials.iter().filter(is_meant)
    }

    /// The id of the array task that runs a trial.
    pub(super) fn task_id(&self, trial: u32) -> String {
        format!("{}_{}", self.job, trial.saturating_sub(self.array.offset))
    }

    /// The trials of the target that a row of `squeue` speaks for.
    fn trials<'r>(&'r self, row: &'r QueueRow) -> impl Iterator<Item = u32> + 'r {
        let has = |index| row.array_job == self.job && row.tasks.contains(index);
        self.meant().filter(move |trial| self.array.index_of(*trial).is_some_and(has))
    }
}

/// The job arrays of a target that Slurm has, and those that it may have.
pub(super) struct Arrays<'a> {
    pub(super) known: Vec<ArrayPart<'a>>,
    /// Slurm gave no answer when it was asked for these.
    pub(super) unknown: Vec<(String, SlurmError)>,
}

/// The arrays of a target, also those whose `sbatch` was never heard to answer: they are found by their names.
pub(super) fn arrays<'a>(
    app: &App,
    stored: &'a Stored,
    journal: &[Event],
    target: &'a Target,
) -> Arrays<'a> {
    let mut arrays = Arrays { known: Vec::new(), unknown: Vec::new() };
    let is_meant = |array: &&JobArray| {
        target.scope.covers_task(&array.task)
            && array.trials.iter().any(|trial| target.scope.covers_trial(trial))
    };
    for array in journal::planned_arrays(&stored.journal).filter(is_meant) {
        let token = script::token(stored.id.as_str(), &array.task, array.index);
        let trials = target.scope.trials.as_ref();
        let part = |job| ArrayPart { array, token: token.clone(), job, trials };
        let submitted = journal::submitted(journal).into_iter().filter(|(name, _)| *name == token);
        arrays.known.extend(submitted.map(|(_, job)| part(job)));
        let ArrayRecord::Intended(time) = journal::entry(journal, &token) else { continue };
        #[expect(clippy::cast_possible_truncation, reason = "unix seconds")]
        match app.slurm.find(&token, time as i64 - CLOCK_SLACK) {
            Ok(found) => arrays.known.extend(found.jobs.into_iter().map(part)),
            Err(error) => arrays.unknown.push((token, error)),
        }
    }
    arrays
}

/// What of a target is in the queue.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Trials that wait or run.
    pub(super) alive: BTreeSet<TrialKey>,
    /// Those that run.
    pub(super) running: BTreeSet<TrialKey>,
    /// The ids of the arrays, or array tasks, that have any of them.
    pub(super) ids: Vec<String>,
    /// Whether something is over, but not yet tidied up: it can still be requeued.
    pub(super) is_completing: bool,
}

/// Looks into the queue: one `squeue`.
pub(super) fn queued(client: &Client, arrays: &[ArrayPart<'_>]) -> Result<Queued, SlurmError> {
    let mut queued = Queued::default();
    if arrays.is_empty() {
        return Ok(queued);
    }
    let names = arrays.iter().map(|part| part.token.clone()).collect();
    let jobs: Vec<JobId> = arrays.iter().map(|part| part.job).collect();
    let rows = client.for_names(names).queue(&jobs)?;
    if let Some(line) = rows.unread.first() {
        return Err(SlurmError::Unreadable { program: "squeue", output: line.text.clone() });
    }
    for part in arrays {
        let before = queued.alive.len();
        for row in &rows.rows {
            let mut keys = part.trials(row).map(|trial| (part.array.task.clone(), trial));
            match row.state {
                JobState::Completing => queued.is_completing |= keys.next().is_some(),
                JobState::Running => {
                    let keys: Vec<TrialKey> = keys.collect();
                    queued.running.extend(keys.iter().cloned());
                    queued.alive.extend(keys);
                }
                JobState::Requeued => queued.alive.extend(keys),
                _ if row.state.phase() == JobPhase::Ended => {}
                _ => queued.alive.extend(keys),
            }
        }
        if queued.alive.len() > before {
            queued.ids.extend(part.ids());
        }
    }
    Ok(queued)
}

/// The trials of a target whose state is as wanted.
pub(super) fn trials_in(
    status: Option<&Status>,
    target: &Target,
    wanted: impl Fn(State) -> bool,
) -> BTreeSet<TrialKey> {
    let meant = status.into_iter().flat_map(|status| meant(status, &target.scope));
    meant
        .filter(|(_, trial)| wanted(trial.state))
        .map(|(task, trial)| (task.to_owned(), trial.index))
        .collect()
}

/// What is known of the target. Slurm is told even where the folder can't be read: then the queue alone says whom.
pub(super) fn look_if_possible(app: &App, stored: &Stored) -> Option<Status> {
    match look(app, stored) {
        Ok(status) => Some(status),
        Err(error) => {
            say(&format!("warning: {}", error.one_line()));
            None
        }
    }
}

/// How a running trial learns what it is to do after its save, and what Slurm can do where that can't be written.
#[derive(Clone, Copy)]
pub(super) struct Telling {
    pub(super) mark: fn(&TrialDir) -> PathBuf,
    pub(super) without_mark: fn(&Client, &[String]) -> Result<(), SlurmError>,
}

/// Tells the running trials of each array. Whatever one answers, the others are told; returns those that were.
pub(super) fn tell_running(
    app: &App,
    stored: &Stored,
    arrays: &[ArrayPart<'_>],
    running: &BTreeSet<TrialKey>,
    telling: Telling,
    troubles: &mut Troubles,
) -> BTreeSet<TrialKey> {
    let mut told = BTreeSet::new();
    for part in arrays {
        let slurm = app.slurm.for_names(vec![part.token.clone()]);
        let (mut marked, mut unmarked) = (Vec::new(), Vec::new());
        for key in running.iter().filter(|(task, trial)| part.runs(task, *trial)) {
            match write_mark(stored, key, telling.mark) {
                Ok(()) => marked.push(key),
                Err(error) => {
                    troubles.unwritten.get_or_insert(error);
                    unmarked.push(key);
                }
            }
        }
        let signal = |ids: &[String]| slurm.signal(ids, "USR1", Recipient::Batch);
        told.extend(tell(part, &marked, &signal, troubles));
        let without_mark = |ids: &[String]| (telling.without_mark)(&slurm, ids);
        told.extend(tell(part, &unmarked, &without_mark, troubles));
    }
    told
}

impl ArrayPart<'_> {
    pub(super) fn runs(&self, task: &str, trial: u32) -> bool {
        self.array.task == task && self.array.trials.contains(trial)
    }
}

/// Says one thing to some tasks of an array. A refusal that names a task is about that task alone.
fn tell(
    part: &ArrayPart<'_>,
    keys: &[&TrialKey],
    say_to: &dyn Fn(&[String]) -> Result<(), SlurmError>,
    troubles: &mut Troubles,
) -> Vec<TrialKey> {
    let ids: Vec<String> = keys.iter().map(|(_, trial)| part.task_id(*trial)).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let refused = match say_to(&ids) {
        Ok(()) => String::new(),
        Err(SlurmError::Refused { reason, code: Some(_), .. }) if names_any(&reason, &ids) => {
            reason
        }
        Err(error) => {
            troubles.slurm.push(error);
            return Vec::new();
        }
    };
    let named = |id: &String| names(&refused, id);
    keys.iter().zip(&ids).filter(|(_, id)| !named(id)).map(|(key, _)| (*key).clone()).collect()
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

/// What went wrong on the way. What could be done was done all the same.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Slurm's answers.
    pub(super) slurm: Vec<SlurmError>,
    /// A file that can't be written.
    pub(super) unwritten: Option<CommandError>,
}

/// Writes the request down, in a file of its own.
pub(super) fn request(
    stored: &Stored,
    target: &Target,
    action: RequestedAction,
) -> Result<(), CommandError> {
    let now = clock::now();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "unix seconds")]
    let time = now as u64;
    let request = Request { action, scope: target.scope.clone(), time };
    let this = process::ProcessId::current();
    let name = format!("{now:.6}-{}-{}.json", this.node, this.pid);
    let folder = stored.dir.requests();
    durable::create_dir_all(&folder).at("make", &folder)?;
    let text = checksum::to_vec(&request).map_err(std::io::Error::from).at("write", &folder)?;
    let path = folder.join(name);
    debug!("request: `{}`", path.display());
    Ok(durable::replace_file_durably(&path, &text).at("write", &path)?)
}

/// Whether its trials run on this machine, without Slurm.
pub(super) fn is_local(stored: &Stored) -> bool {
    let executors = &stored.experiment.executors;
    let is_slurm = |task: &Task| matches!(executors.get(&task.executor), Some(Executor::Slurm(_)));
    !stored.experiment.tasks.iter().any(is_slurm)
}

/// A request about local trials is carried out by the runner alone. Where it is gone, what it left running is told
/// here, and the request holds for a later one.
pub(super) fn tell_left_behind(
    stored: &Stored,
    trials: &BTreeSet<TrialKey>,
    signal: Signal,
    mark: Option<fn(&TrialDir) -> PathBuf>,
) -> Result<(), CommandError> {
    if local::is_running(&stored.dir).at("read", &stored.dir.runner_log())?.is_some() {
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

/// Fails where no runner would start a trial again.
pub(super) fn require_runner(stored: &Stored) -> Result<(), CommandError> {
    if local::is_running(&stored.dir).at("read", &stored.dir.runner_log())?.is_some() {
        return Ok(());
    }
    let text = format!("the local runner of `{}` is not running here", stored.id);
    let start = format!("`nemo-slurm submit --continue {}` starts it", stored.id);
    Err(CommandError::new(ExitCode::Failed, text).hinted(start))
}

/// The ids of the array tasks that run these trials.
pub(super) fn job_ids(arrays: &[ArrayPart<'_>], trials: &BTreeSet<TrialKey>) -> Vec<String> {
    let of_part = |part: &ArrayPart<'_>| {
        let own = trials.iter().filter(|(task, trial)| part.runs(task, *trial));
        own.map(|(_, trial)| part.task_id(*trial)).collect::<Vec<_>>()
    };
    arrays.iter().flat_map(of_part).collect()
}

/// What is said in the end.
pub(super) struct ControlReport<'a> {
    pub(super) args: &'a ControlArgs,
    pub(super) stored: &'a Stored,
    /// `cancel`, `pause` …
    pub(super) action: &'static str,
    /// `Cancelled`, `Would cancel` …
    pub(super) what: &'a str,
    /// Said where there was nothing to do.
    pub(super) nothing: &'a str,
    pub(super) trials: usize,
    pub(super) jobs: Vec<String>,
}

impl ControlReport<'_> {
    /// Reports what was done. Fails if Slurm refused a part or did not answer.
    pub(super) fn finish(self, troubles: &Troubles) -> Result<ExitCode, CommandError> {
        let requested = troubles.unwritten.is_none();
        if let Some(error) = &troubles.unwritten {
            say(&format!("warning: Slurm accepted it, but {}", error.one_line()));
        }
        if !troubles.slurm.is_empty() {
            return Err(self.failure(&troubles.slurm));
        }
        if self.args.json {
            return out_json(&json!({
                "schema": 1,
                "id": self.stored.id,
                "action": self.action,
                "dry_run": self.args.dry_run,
                "trials": self.trials,
                "slurm_jobs": self.jobs,
                "requested": requested && !self.args.dry_run,
            }));
        }
        if self.trials == 0 {
            say(&format!("Nothing to do: {}.", self.nothing));
        } else {
            let trials = count(self.trials, "trial");
            say(&format!("{} {trials} of {}", self.what, self.stored.id));
        }
        Ok(ExitCode::Fine)
    }

    /// The error for what Slurm refused or did not answer.
    fn failure(&self, errors: &[SlurmError]) -> CommandError {
        let unanswered = errors.iter().any(SlurmError::is_no_answer);
        let code = if unanswered { ExitCode::NoAnswer } else { ExitCode::Failed };
        let mut reasons: Vec<String> = Vec::new();
        for error in errors {
            let reason = error.to_string();
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let text = format!(
            "could not {} all of `{}`: {}",
            self.action,
            self.args.target,
            reasons.join("; ")
        );
        let again = format!("nemo-slurm {} {}", self.action, self.args.target);
        CommandError::new(code, text)
            .hinted(format!("`{again}` does the rest; nothing is done twice"))
    }
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
