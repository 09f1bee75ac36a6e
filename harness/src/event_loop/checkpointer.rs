//! Runs `checkpoint.command`: another program that takes the checkpoints of this one, when it is asked for a save.
//!
//! Each run has an empty folder. What is in it after exit code 0 is a whole checkpoint, and takes its place in the staging
//! folder by a rename. The disk is touched by a thread.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nemo_core::stop_times::kill_before_deadline;

use super::EventLoop;
use crate::checkpoint::resume::step_of;
use crate::checkpoint::store::{DiskStore, Store};
use crate::monitor::alarms::Alarm;
use crate::os::clock::Time;
use crate::os::serial_queue::{PendingAnswer, SerialQueue};
use crate::os::subprocess::{Subprocess, SubprocessResult};
use crate::program::command::{self, AttemptNames, Shells};

/// How often a folder is tried to be removed, and the pause in between.
const REMOVALS: u32 = 5;
const REMOVE_AGAIN: Duration = Duration::from_millis(200);

/// The runs of one attempt.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    /// What the program was started with.
    pub(crate) env: Vec<(String, OsString)>,
    pub(crate) names: AttemptNames,
    pub(crate) shells: Shells,
    pub(crate) workdir: PathBuf,
    pub(crate) staging: PathBuf,
    /// How long a run may take.
    pub(crate) limit: Duration,
    n_runs: u32,
    phase: Phase,
    /// The newest request to save that a run answers. What it left may still be looked at.
    answered: u64,
    /// What a run put into the staging folder last, until it is refused.
    placed: Option<String>,
    /// What was refused before it was known whose it is.
    refused: Vec<String>,
    /// The newest step of what runs left.
    newest_step: Option<u64>,
    /// Removes what runs that failed left behind.
    removals: SerialQueue,
}

/// How far a run is.
#[derive(Debug)]
enum Phase {
    Idle,
    /// Its folder is being made.
    Preparing {
        folder: PathBuf,
        made: PendingAnswer<io::Result<()>>,
    },
    Running {
        folder: PathBuf,
        process: Subprocess,
        /// The program's step when it began.
        step: u64,
    },
    /// What it left is being put into its place.
    Placing {
        folder: PathBuf,
        placed: PendingAnswer<io::Result<String>>,
    },
}

impl Checkpointer {
    /// One that has not run yet. `names` are those of the program.
    pub(crate) fn new(
        env: Vec<(String, OsString)>,
        names: AttemptNames,
        shells: Shells,
        workdir: PathBuf,
        staging: PathBuf,
        limit: Duration,
    ) -> Self {
        Self {
            env,
            names,
            shells,
            workdir,
            staging,
            limit,
            n_runs: 0,
            phase: Phase::Idle,
            answered: 0,
            placed: None,
            refused: Vec::new(),
            newest_step: None,
            removals: SerialQueue::start("removals", None),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    pub(super) fn process(&self) -> Option<&Subprocess> {
        match &self.phase {
            Phase::Running { process, .. } => Some(process),
            Phase::Idle | Phase::Preparing { .. } | Phase::Placing { .. } => None,
        }
    }

    pub(super) fn process_mut(&mut self) -> Option<&mut Subprocess> {
        match &mut self.phase {
            Phase::Running { process, .. } => Some(process),
            Phase::Idle | Phase::Preparing { .. } | Phase::Placing { .. } => None,
        }
    }

    /// Begins a run, unless one is under way.
    pub(super) fn begin(&mut self, disk: &SerialQueue) {
        if self.is_busy() {
            return;
        }
        self.n_runs += 1;
        self.refused.clear();
        // The saver passes over names that begin with a dot.
        let folder = self.staging.join(format!(".tmp-command-{}", self.n_runs));
        let path = folder.clone();
        self.phase = Phase::Preparing { folder, made: disk.ask(move || fs::create_dir(path)) };
    }

    /// Whether what a run left is refused with this, and nothing else is under way.
    fn loses(&mut self, entry: &str) -> bool {
        match self.phase {
            Phase::Placing { .. } => self.refused.push(entry.to_owned()),
            Phase::Idle if self.has_placed(entry) => {
                self.placed = None;
                return true;
            }
            Phase::Idle | Phase::Preparing { .. } | Phase::Running { .. } => {}
        }
        false
    }

    fn has_placed(&self, entry: &str) -> bool {
        self.placed.as_deref() == Some(entry)
    }

    /// Notes what a run left. Returns whether it is refused already.
    fn note_placed(&mut self, name: String) -> bool {
        self.newest_step = self.newest_step.max(step_of(name.as_bytes()));
        let is_refused = self.refused.contains(&name);
        self.placed = Some(name).filter(|_| !is_refused);
        is_refused
    }

    /// Removes the folder of a run that failed. What was killed may still write for a moment.
    fn remove(&self, folder: PathBuf) {
        self.removals.add(0, move || {
            for _ in 0..REMOVALS {
                if matches!(DiskStore::default().remove_tree(&folder), Ok(())) {
                    return;
                }
                sleep(REMOVE_AGAIN);
            }
        });
    }

    /// Ends a run that nobody needs any more.
    pub(super) fn stop(&mut self) {
        if let Some(process) = self.process() {
            process.kill();
        }
        self.phase = Phase::Idle;
    }
}

/// Puts what a run left into the staging folder: the only entry if its name tells a step, else the folder.
fn place(folder: &Path, staging: &Path, step: u64) -> io::Result<String> {
    let is_shown = |name: &OsString| !name.to_string_lossy().starts_with('.');
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|own| own.file_name()));
    let names: Vec<OsString> = entries.collect::<io::Result<Vec<_>>>()?;
    let mut shown = names.iter().filter(|name| is_shown(name));
    let (first, second) = (shown.next(), shown.next());
    let first = first.ok_or_else(|| io::Error::other("it left nothing in $NEMO_CHECKPOINT_DIR"))?;
    let own = first.to_str().filter(|name| second.is_none() && step_of(name.as_bytes()).is_some());
    let name = own.map_or_else(|| format!("step-{step}"), str::to_owned);
    let from = own.map_or_else(|| folder.to_owned(), |own| folder.join(own));
    let mut disk = DiskStore::default();
    disk.rename_new(&from, &staging.join(&name))?;
    if own.is_some() {
        disk.remove_tree(folder).ok(); // it is empty, and passed over
    }
    Ok(name)
}

/// Why a run left no checkpoint; none if it left one.
fn why_failed(result: &SubprocessResult) -> Option<String> {
    match result {
        SubprocessResult::Ended { code: Some(0), .. } => None,
        SubprocessResult::Ended { code, text } => {
            let last = text.lines().last().unwrap_or_default();
            let how = code
                .map_or_else(|| "was killed".to_owned(), |code| format!("ended with code {code}"));
            Some(format!("it {how}: {last}"))
        }
        SubprocessResult::NoAnswer(_) => {
            Some("it took longer than the lead or the stop allows, and was killed".to_owned())
        }
    }
}

impl EventLoop<'_> {
    /// Begins a run of the checkpointer for the open request, unless one is under way, which answers it then.
    pub(super) fn begin_checkpoint(&mut self) {
        let Some(own) = &mut self.checkpointer else { return };
        own.answered = own.answered.max(self.monitor.session.open_save().unwrap_or(0));
        if !own.is_busy() {
            own.begin(&self.disk_queue);
            self.log.note("checkpoint.command takes a checkpoint");
        }
    }

    /// Takes the runs of the checkpointer further, and begins one that is due.
    pub(super) fn advance_checkpoint_command(&mut self) {
        let now = self.harness.clock.now();
        let Some(own) = &mut self.checkpointer else { return };
        match std::mem::replace(&mut own.phase, Phase::Idle) {
            Phase::Idle => self.begin_due_checkpoint(now),
            Phase::Preparing { folder, made } => match made.take() {
                None => own.phase = Phase::Preparing { folder, made },
                Some(Ok(())) => self.start_checkpointer(folder, now),
                Some(Err(error)) => self.checkpoint_failed(folder, &error.to_string()),
            },
            Phase::Running { folder, mut process, step } => {
                process.read();
                match process.outcome(now) {
                    None => own.phase = Phase::Running { folder, process, step },
                    Some(result) => self.checkpointer_ended(folder, &process, step, &result),
                }
            }
            Phase::Placing { folder, placed } => match placed.take() {
                None => own.phase = Phase::Placing { folder, placed },
                Some(Ok(name)) => self.checkpoint_placed(name, now),
                Some(Err(error)) => self.checkpoint_failed(folder, &error.to_string()),
            },
        }
        self.settle_after_checkpointer();
    }

    /// Begins a run for a request that none has answered, while the program runs.
    fn begin_due_checkpoint(&mut self, now: Time) {
        if self.exit.is_some() {
            return;
        }
        // A program that says nothing is saved at intervals too.
        self.monitor.session.begin_intervals(now);
        let answered = self.checkpointer.as_ref().map_or(0, |own| own.answered);
        // A request stays open until its checkpoint is committed; one run for it is enough.
        let is_new = self.monitor.session.open_save().is_some_and(|it| it > answered);
        if is_new && self.supervisor.stop().is_none() {
            self.begin_checkpoint();
        }
    }

    fn checkpointer_ended(
        &mut self,
        folder: PathBuf,
        process: &Subprocess,
        step: u64,
        result: &SubprocessResult,
    ) {
        if matches!(result, SubprocessResult::NoAnswer(_)) {
            process.kill();
        }
        match why_failed(result) {
            None => self.place_checkpoint(folder, step),
            Some(why) => self.checkpoint_failed(folder, &why),
        }
    }

    fn checkpoint_placed(&mut self, name: String, now: Time) {
        let Some(own) = &mut self.checkpointer else { return };
        let (entry, step) = (name.clone().into_bytes(), step_of(name.as_bytes()));
        if own.note_placed(name) {
            self.monitor.session.give_up_save(now);
        } else {
            // Where no watch is to be had, nothing else tells of the rename.
            self.saver.placed(entry, step, self.monitor.position(), now);
        }
    }

    /// Settles the attempt where its program has ended and only the checkpointer was waited for.
    fn settle_after_checkpointer(&mut self) {
        let is_busy = self.checkpointer.as_ref().is_some_and(Checkpointer::is_busy);
        if self.settles_later && !is_busy {
            self.settles_later = false;
            self.settle();
        }
    }

    fn start_checkpointer(&mut self, folder: PathBuf, now: Time) {
        let trial = &self.harness.trial;
        let latest = self.latest_end(now);
        let Some(own) = &mut self.checkpointer else { return };
        let last = own.newest_step.max(self.committed_steps.last().copied());
        let step = self.monitor.step_to_take().unwrap_or(last.map_or(1, |last| last + 1));
        let until = latest.map_or(now + own.limit, |latest| latest.min(now + own.limit));
        let names =
            AttemptNames { checkpoint_dir: folder.display().to_string(), ..own.names.clone() };
        let built = command::build_checkpoint(trial, &names, own.shells);
        let started = built.and_then(|built| {
            let mut env = own.env.clone();
            env.extend(built.env.into_iter().map(|(name, value)| (name, value.into())));
            let told = self.monitor.session.step.map_or_else(String::new, |step| step.to_string());
            env.push(("NEMO_CHECKPOINT_DIR".to_owned(), folder.clone().into()));
            env.push(("NEMO_PID".to_owned(), self.program.pid().to_string().into()));
            env.push(("NEMO_STEP".to_owned(), told.into()));
            Subprocess::start_beside(&built.argv, &env, &own.workdir, until)
                .map_err(|error| format!("`{}`: {error}", built.argv[0].to_string_lossy()))
        });
        match started {
            Ok(process) => own.phase = Phase::Running { folder, process, step },
            Err(why) => self.checkpoint_failed(folder, &why),
        }
    }

    /// When a run must end: before a stop's deadline there must be time to commit.
    fn latest_end(&self, now: Time) -> Option<Time> {
        let deadline = self.supervisor.deadline()?;
        Some(deadline.saturating_sub(kill_before_deadline(deadline.saturating_sub(now))))
    }

    /// A run that is under way has only the time that the stop leaves.
    pub(super) fn hurry_checkpointer(&mut self) {
        let latest = self.latest_end(self.harness.clock.now());
        let process = self.checkpointer.as_mut().and_then(Checkpointer::process_mut);
        if let (Some(process), Some(latest)) = (process, latest) {
            process.hurry(latest);
        }
    }

    /// A save is not committed. If a run has taken it, its request has no answer.
    pub(super) fn checkpoint_refused(&mut self, entry: &str) {
        if self.checkpointer.as_mut().is_some_and(|own| own.loses(entry)) {
            self.monitor.session.give_up_save(self.harness.clock.now());
        }
    }

    /// What can't be a checkpoint must not hold the name of the next one.
    pub(super) fn remove_refused(&mut self, entry: &str) {
        if let Some(own) = self.checkpointer.as_ref().filter(|own| own.has_placed(entry)) {
            own.remove(own.staging.join(entry));
        }
    }

    fn place_checkpoint(&mut self, folder: PathBuf, step: u64) {
        let Some(own) = &mut self.checkpointer else { return };
        let (staging, from) = (own.staging.clone(), folder.clone());
        let placed = self.disk_queue.ask(move || place(&from, &staging, step));
        own.phase = Phase::Placing { folder, placed };
    }

    fn checkpoint_failed(&mut self, folder: PathBuf, why: &str) {
        let now = self.harness.clock.now();
        if let Some(own) = &self.checkpointer {
            own.remove(folder);
        }
        self.monitor.session.give_up_save(now);
        self.raise_alarm(Alarm {
            code: "checkpoint-command-failed",
            message: format!("checkpoint.command took no checkpoint: {why}"),
            hint: "run it by hand beside the program, with NEMO_PID and NEMO_CHECKPOINT_DIR set",
        });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need no durable files")]
mod tests {
    use super::*;

    fn left(names: &[&str]) -> Result<String, String> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(".tmp-command-1");
        fs::create_dir(&folder).unwrap();
        for name in names {
            fs::write(folder.join(name), name).unwrap();
        }
        let placed = place(&folder, root.path(), 7).map_err(|error| error.to_string())?;
        let own = root.path().join(&placed);
        let mut entries: Vec<String> = match fs::read_dir(&own) {
            Ok(entries) => {
                entries.map(|own| own.unwrap().file_name().into_string().unwrap()).collect()
            }
            Err(_) => vec!["a file".to_owned()],
        };
        entries.sort();
        Ok(format!("{placed}: {}", entries.join(" ")))
    }

    #[test]
    fn what_is_refused_of_a_run_is_known_whichever_thread_tells_it_first() {
        let names = AttemptNames::default();
        let (env, folder) = (Vec::new(), PathBuf::from("/x"));
        let shells = Shells::default();
        let mut own =
            Checkpointer::new(env, names, shells, folder.clone(), folder, Duration::from_secs(1));
        assert!(!own.loses("step-7"), "it has run nothing");
        assert!(!own.note_placed("step-7".to_owned()));
        assert_eq!(own.newest_step, Some(7), "the next one without a step has another name");
        assert!(!own.loses("step-6"), "another save");
        assert!(own.loses("step-7") && !own.loses("step-7"));
        own.phase = Phase::Placing {
            folder: PathBuf::new(),
            placed: SerialQueue::at_once().ask(|| Ok(String::new())),
        };
        assert!(!own.loses("step-8"), "it is not known whose it is");
        own.phase = Phase::Idle;
        assert!(own.note_placed("step-8".to_owned()));
        assert!(!own.loses("step-8"), "that is settled");
    }

    #[test]
    fn a_run_that_failed_says_how_with_its_last_line() {
        let ended =
            |code, text: &str| why_failed(&SubprocessResult::Ended { code, text: text.to_owned() });
        assert_eq!(ended(Some(0), "warning"), None);
        assert_eq!(ended(Some(3), "a\nno space").unwrap(), "it ended with code 3: no space");
        assert_eq!(ended(None, "").unwrap(), "it was killed: ");
        let late = SubprocessResult::NoAnswer("it gave no answer in time".to_owned());
        assert!(why_failed(&late).unwrap().contains("took longer"));
    }

    #[test]
    fn what_a_run_left_is_one_checkpoint() {
        assert_eq!(left(&["step-60"]).unwrap(), "step-60: a file");
        assert_eq!(
            left(&["ckpt_python-40000.dmtcp", "restart.sh"]).unwrap(),
            "step-7: ckpt_python-40000.dmtcp restart.sh"
        );
        assert_eq!(left(&["ckpt-3"]).unwrap(), "step-7: ckpt-3");
        assert_eq!(left(&["step-60", "step-70"]).unwrap(), "step-7: step-60 step-70");
        assert!(left(&[".tmp"]).unwrap_err().contains("left nothing"));
    }
}
