//! Where each file of an experiment lies. No other code spells these names, but for the checkpoints of a trial and the files of a process (claims, temporary ones).

use std::path::{Path, PathBuf};

/// `experiments/<id>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentDir(pub PathBuf);

impl ExperimentDir {
    /// The file as the user gave it.
    pub fn experiment_toml(&self) -> PathBuf {
        self.0.join("experiment.toml")
    }
    /// The resolved experiment: enough to rebuild it anywhere.
    pub fn experiment_json(&self) -> PathBuf {
        self.0.join("experiment.json")
    }
    /// The file as it held at the submission, and where each of its keys is from.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }
    /// The code that was shipped with it: `nemo_core::package::ShippedPackage`.
    pub fn package(&self) -> PathBuf {
        self.0.join("package.json")
    }
    /// What was not committed of that code, as `git diff` prints it.
    pub fn uncommitted(&self) -> PathBuf {
        self.0.join("uncommitted.diff")
    }
    /// What was asked of Slurm and what came of it.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.jsonl")
    }
    /// The record of the local executor's runner, which alone writes it.
    pub fn runner_log(&self) -> PathBuf {
        self.0.join("runner.jsonl")
    }
    /// What a list shows of it, by whoever looked last.
    pub fn summary(&self) -> PathBuf {
        self.0.join("summary.json")
    }
    /// The environment that programs inherit: the variables of the shell that submitted.
    pub fn environment(&self) -> PathBuf {
        self.0.join("environment")
    }
    /// Those of them that the file calls secrets. Removed once no trial needs them any more.
    pub fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }
    /// What somebody wishes: one new file each, so that every file has one writer.
    pub fn requests(&self) -> PathBuf {
        self.0.join("requests")
    }
    /// What people say of it after its submission: one new file for each change.
    pub fn notes(&self) -> PathBuf {
        self.0.join("notes")
    }
    /// Experiments that wait for this one and are not submitted yet: an empty file each, by their ids.
    pub fn followers(&self) -> PathBuf {
        self.0.join("followers")
    }
    /// Who was told of its ends, and on which ways that failed: one file for each end that is told.
    pub fn notices(&self) -> PathBuf {
        self.0.join("notices")
    }
    /// `tasks/`.
    pub fn tasks(&self) -> PathBuf {
        self.0.join("tasks")
    }
    /// `tasks/<task>/`.
    pub fn task(&self, task: &str) -> TaskDir {
        TaskDir(self.tasks().join(task))
    }
    /// The experiment that a task belongs to.
    pub fn of_task(task: &TaskDir) -> Option<Self> {
        let tasks = task.0.parent().filter(|tasks| tasks.ends_with("tasks"))?;
        tasks.parent().map(|folder| Self(folder.to_owned()))
    }
}

/// `tasks/<task>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDir(pub PathBuf);

impl TaskDir {
    /// What the harness must know to run any trial of the task.
    pub fn spec(&self) -> PathBuf {
        self.0.join("task.json")
    }
    /// One line a trial: its parameters.
    pub fn trial_lines(&self) -> PathBuf {
        self.0.join("trials.jsonl")
    }
    /// The script of one job array, as submitted.
    pub fn script(&self, array: usize) -> PathBuf {
        self.0.join(format!("{array}.sbatch"))
    }
    /// Slurm's own output.
    pub fn slurm_output(&self) -> PathBuf {
        self.0.join("slurm")
    }
    /// `trials/`, which exists once the first trial runs.
    pub fn trials(&self) -> PathBuf {
        self.0.join("trials")
    }
    /// `trials/<index>/`, made by the harness when the trial first runs.
    pub fn trial(&self, index: u32) -> TrialDir {
        TrialDir(self.trials().join(index.to_string()))
    }
}

/// `trials/<index>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialDir(pub PathBuf);

impl TrialDir {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// One line for each thing that happened in an attempt: `AttemptRecord`.
    pub fn attempts(&self) -> PathBuf {
        self.0.join("attempts.jsonl")
    }
    /// The program's standard output of one attempt.
    pub fn stdout(&self, attempt: u32) -> PathBuf {
        self.0.join(format!("{attempt}.out"))
    }
    /// The program's standard error of one attempt, and what the harness has to say of it.
    pub fn stderr(&self, attempt: u32) -> PathBuf {
        self.0.join(format!("{attempt}.err"))
    }
    /// The standard output of one of several processes; that of rank 0 is the attempt's own.
    pub fn rank_stdout(&self, attempt: u32, rank: u32) -> PathBuf {
        if rank == 0 { self.stdout(attempt) } else { self.0.join(format!("{attempt}.{rank}.out")) }
    }
    /// The standard error of one of several processes.
    pub fn rank_stderr(&self, attempt: u32, rank: u32) -> PathBuf {
        if rank == 0 { self.stderr(attempt) } else { self.0.join(format!("{attempt}.{rank}.err")) }
    }
    /// The highest rank whose output is here; 0 where the program is one process.
    pub fn last_rank(&self, attempt: u32) -> u32 {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return 0 };
        let start = format!("{attempt}.");
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| rank_of(name.strip_prefix(&start)?)).max().unwrap_or(0)
    }
    /// What was seen of the processes of one rank of an attempt that hung.
    pub fn rank_evidence(&self, attempt: u32, rank: u32) -> PathBuf {
        let path = self.0.join(format!("{attempt}.{rank}.hang.txt"));
        if rank == 0 { self.evidence(attempt) } else { path }
    }
    /// What the processes of one rank of an attempt use, and their peaks.
    pub fn usage(&self, attempt: u32, rank: u32) -> PathBuf {
        let rank = if rank == 0 { String::new() } else { format!("{rank}.") };
        self.0.join(format!("{attempt}.{rank}usage.json"))
    }
    /// The metrics, one line a report.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }
    /// What the program gives to tasks that run after it, as a JSON object: `NEMO_RESULT`.
    pub fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }
    /// The same, as far as the program said it by message. The harness writes it.
    pub fn reported_result(&self) -> PathBuf {
        self.0.join("reported-result.json")
    }
    /// The trial's parameters for the program: `NEMO_PARAMS`.
    pub fn params(&self) -> PathBuf {
        self.0.join("params.json")
    }
    /// The committed checkpoints, `step-<N>/` each.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }
    /// One committed checkpoint.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step}"))
    }
    /// Where the program of one attempt saves: `NEMO_CHECKPOINT_DIR`. On the same file system as
    /// `checkpoints/`, so that a commit renames and does not copy.
    pub fn staging(&self, attempt: u32) -> PathBuf {
        self.0.join("staging").join(attempt.to_string())
    }
    /// What the program's own paths looked like when they were last committed.
    pub fn collected(&self) -> PathBuf {
        self.0.join("collected.json")
    }
    /// What was seen of the processes of an attempt that hung.
    pub fn evidence(&self, attempt: u32) -> PathBuf {
        self.0.join(format!("{attempt}.hang.txt"))
    }
    /// Every event and action of every attempt, where somebody asked for it.
    pub fn debug_log(&self) -> PathBuf {
        self.0.join("harness.debug.log")
    }
    /// How far the running attempt is, for those who look: replaced every few seconds, not durable.
    pub fn progress(&self) -> PathBuf {
        self.0.join("progress.json")
    }
    /// Somebody wants the trial to pause.
    pub fn pause(&self) -> PathBuf {
        self.0.join("pause-wanted")
    }
    /// Somebody wants the running attempt to save, stop and run again. The harness removes it.
    pub fn preempt(&self) -> PathBuf {
        self.0.join("preempt-wanted")
    }
    /// Slurm did not take the job back: `nemo-slurm poll` must requeue it.
    pub fn requeue_wanted(&self) -> PathBuf {
        self.0.join("requeue-wanted")
    }
    /// How often Slurm had restarted the job when it last left to wait for the trials before it, as JSON: that start left
    /// no attempt, and was not in vain.
    pub fn waited(&self) -> PathBuf {
        self.0.join("waited.json")
    }
    /// Where the program runs if its code was shipped.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }
    /// `work` is as it was shipped, durably: what differs from then on, the program has changed.
    pub fn work_is_whole(&self) -> PathBuf {
        self.0.join("work-is-whole")
    }
    /// What trackers keep of the trial; it lasts over all attempts.
    pub fn tracker(&self) -> PathBuf {
        self.0.join("tracker")
    }
    /// The program's own results.
    pub fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }
}

/// The rank of `3.out` or `3.err`.
fn rank_of(name: &str) -> Option<u32> {
    let (rank, kind) = name.split_once('.')?;
    matches!(kind, "out" | "err").then(|| rank.parse().ok())?
}
