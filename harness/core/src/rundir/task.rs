//! `task.json`: all that the harness must know to run any trial of a task. Written once, at submission.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::environment::InheritSpec;

/// A task as the harness sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// 1, until the format changes in a way that an older harness can't read.
    pub schema: u32,
    /// The experiment's id.
    pub experiment: String,
    /// The task's name.
    pub task: String,
    /// The command, its placeholders not yet filled.
    pub command: CommandSpec,
    /// Where the program runs, if its code was not shipped.
    pub workdir: PathBuf,
    /// Shell lines that run before the program, in its environment (`module load cuda`).
    #[serde(default)]
    pub setup: Vec<String>,
    /// Environment for the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the program inherits from the shell that submitted; the harness's own environment where nothing is said.
    #[serde(default)]
    pub inherit: Option<InheritSpec>,
    /// The experiment's seed; a trial's is this plus its index.
    pub seed: u64,
    /// How the program is asked to save.
    pub checkpoint: CheckpointSpec,
    /// When a trial is given up.
    pub restart: RestartSpec,
    /// Metrics by pattern: name to regular expression with one group.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
    /// The tasks before this one that its texts name, as in `{task.dir}` and `{task.dirs}`.
    #[serde(default)]
    pub inputs: BTreeMap<String, InputSpec>,
    /// The tasks that this one waits for, and what must have become of them.
    #[serde(default)]
    pub after: Vec<ParentSpec>,
    /// Whether a sentinel step must listen for the start of a preemption's grace.
    #[serde(default)]
    pub sentinel: bool,
    /// When the whole experiment must be over, in unix seconds.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Seconds between the scheduler's SIGTERM and its SIGKILL, where it told.
    #[serde(default)]
    pub kill_wait: Option<u64>,
    /// The exit code with which Slurm requeues a job, where it has one.
    #[serde(default)]
    pub requeue_exit: Option<u8>,
    /// How long one segment may last, in seconds, where no scheduler sees to it (local executor).
    #[serde(default)]
    pub time_limit: Option<u64>,
    /// The metric that ranks checkpoints.
    #[serde(default)]
    pub metric: Option<MetricSpec>,
    /// What lines of the output lead to.
    #[serde(default)]
    pub log_policy: Vec<LogPolicy>,
    /// Which convention the program follows.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// Where a trial is more than one process.
    #[serde(default)]
    pub launch: Option<LaunchSpec>,
    /// To which trackers the program reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<Tracker>,
    /// The experiment's tags, for trackers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How many threads each process is given, where the file says how many processors it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// What the end of a job starts for the other trials of its experiment; nothing on the local executor.
    #[serde(default)]
    pub poll: Option<PollSpec>,
    /// `package.json` of the experiment, where its code was shipped: then each trial has a working folder of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PathBuf>,
    /// Where a retry begins, if that is not the newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_from: Option<RestartFrom>,
}

impl TaskSpec {
    /// Its texts that may hold placeholders.
    pub fn templates(&self) -> impl Iterator<Item = &str> {
        let checkpoint = &self.checkpoint;
        let commands =
            [Some(&self.command), checkpoint.command.as_ref(), checkpoint.resume.as_ref()];
        let commands = commands.into_iter().flatten().flat_map(CommandSpec::texts);
        let paths = checkpoint.from.iter().chain(&checkpoint.restore_to);
        let around = self.env.values().chain(&self.setup);
        commands.chain(paths.chain(around).map(String::as_str))
    }
}

/// Where a retry begins. Later checkpoints are set aside, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartFrom {
    /// The generation of trials that the retry began.
    pub generation: u32,
    /// The step of a checkpoint; the start where there is none.
    pub step: Option<u64>,
}

impl RestartFrom {
    /// Whether a checkpoint of this step is not gone on from.
    #[must_use]
    pub fn leaves_out(&self, step: u64) -> bool {
        self.step.is_none_or(|from| step > from)
    }
}

/// The program that a job starts at its end, to bring back trials of its experiment that nobody else could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollSpec {
    /// The copy of `nemo-slurm` beside the harness.
    pub program: PathBuf,
    /// The harness that the experiment's jobs run.
    pub harness: PathBuf,
    /// How often ends of its jobs do it.
    pub at_ends: PollFrequency,
    /// Whether a job that runs again does it first: what all trials may use up may be spent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_restarts: bool,
}

/// How often the ends of jobs look after the other trials of their experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollFrequency {
    /// There is one trial only.
    Never,
    /// No task waits for another one: as often as cron would.
    Seldom,
    /// A task waits for another one: after every end, together with the ends of the next seconds.
    Often,
}

/// The program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandSpec {
    /// A text for `sh`, in which every value is only ever data.
    Shell(String),
    /// A list, run as it is.
    Exec(Vec<String>),
}

impl CommandSpec {
    /// Its texts.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Shell(text) => vec![text],
            Self::Exec(list) => list.iter().map(String::as_str).collect(),
        }
    }
}

/// The signals by which a program may be asked to save.
pub const SAVE_SIGNALS: [&str; 5] = ["USR1", "USR2", "TERM", "INT", "HUP"];

/// In place of a signal: the program is never asked, and saves by itself.
pub const NO_SIGNAL: &str = "none";

/// One of them, with or without `SIG`.
#[must_use]
pub fn save_signal(name: &str) -> Option<&'static str> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    SAVE_SIGNALS.into_iter().find(|signal| *signal == short)
}

/// How the program is asked to save, and how long before the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// One of [`SAVE_SIGNALS`], or [`NO_SIGNAL`].
    pub signal: String,
    /// Seconds before the end of a segment at which it is told.
    pub lead: u64,
    /// How often a program that speaks the protocol is asked to save.
    #[serde(default)]
    pub every: Option<Every>,
    /// Which checkpoints stay.
    #[serde(default)]
    pub keep: Keep,
    /// Paths of the program's own, to which it saves: patterns, relative to its working folder, with placeholders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Where the program looks for its checkpoint by itself; a folder where it ends with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_to: Option<String>,
    /// A folder in memory of the node, to which the program saves in place of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<PathBuf>,
    /// Another program that takes the checkpoints of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandSpec>,
    /// What runs in place of the program where there is a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<CommandSpec>,
}

/// How often to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// From the measured cost of a save and the time between interruptions (Young and Daly).
    Auto,
    /// Seconds.
    Seconds(u64),
    /// Completed steps.
    Steps(u64),
}

/// How many checkpoints of each sort stay; the union of the sorts does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The newest of each trial.
    pub trial_latest: u32,
    /// The best of each trial.
    pub trial_best: u32,
    /// The best of all trials.
    pub experiment_best: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { trial_latest: 1, trial_best: 1, experiment_best: 0 }
    }
}

/// When a trial is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// How many crashes are followed by another attempt.
    pub crashes: u32,
    /// After how many attempts in a row without a new checkpoint the trial fails (0: never). Those that were killed before
    /// their own end count half.
    pub no_progress: u32,
    /// After how many seconds without a sign of life a program counts as hung.
    #[serde(default)]
    pub hang: Option<u64>,
}

/// What a line of the program's output leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPolicy {
    /// For people.
    pub name: String,
    /// A regular expression.
    pub pattern: String,
    /// What is done once a line matches.
    pub action: LogAction,
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAction {
    /// Should the attempt fail, the next one runs on another node.
    ExcludeNode,
    /// Should the attempt fail, there is no next one.
    StopRestarting,
    /// It is only noted.
    Label,
}

/// The metric that ranks trials and checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Its name in the reports.
    pub name: String,
    /// Whether larger is better.
    pub larger_is_better: bool,
}

impl MetricSpec {
    /// The one whose value is the best; the first of equals.
    pub fn best<T>(&self, all: impl IntoIterator<Item = (T, f64)>) -> Option<T> {
        let is_better =
            |value: f64, than: f64| if self.larger_is_better { value > than } else { value < than };
        let mut best: Option<(T, f64)> = None;
        for (one, value) in all {
            if best.as_ref().is_none_or(|(_, so_far)| is_better(value, *so_far)) {
                best = Some((one, value));
            }
        }
        best.map(|(one, _)| one)
    }
}

/// How a program that knows nothing of this one is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// PyTorch Lightning.
    Lightning,
    /// Hugging Face Transformers' `Trainer`.
    Transformers,
    /// `torchrun`: signals go to its workers, never to its agent.
    Torchrun,
    /// submitit and what follows its convention.
    Submitit,
    /// HTCondor's convention: exit code 85.
    Condor,
}

/// A program's tracker of experiments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracker {
    /// Weights & Biases.
    Wandb,
    /// `MLflow`.
    Mlflow,
    /// `TensorBoard`.
    Tensorboard,
    /// Aim.
    Aim,
}

/// A trial of several processes, started through `srun`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// How many nodes.
    pub nodes: u32,
    /// How many processes on each, where it is said.
    #[serde(default)]
    pub tasks_per_node: Option<u32>,
    /// Whether each node runs one `torchrun`, which starts the workers.
    #[serde(default)]
    pub torchrun: bool,
    /// How many workers each `torchrun` starts.
    #[serde(default)]
    pub workers_per_node: Option<u32>,
    /// Whether each process was asked to have GPUs of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gpus_per_task: bool,
}

/// Another task whose folders a command names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpec {
    /// `tasks/<task>/`.
    pub dir: PathBuf,
    /// How many trials it has.
    pub trials: u32,
    /// Trial by trial: `{task.dir}` is the folder of the trial with the same index.
    #[serde(default)]
    pub per_trial: bool,
    /// What ranks its trials.
    #[serde(default)]
    pub metric: Option<MetricSpec>,
}

/// A task that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentSpec {
    /// Its name.
    pub task: String,
    /// `tasks/<task>/`.
    pub dir: PathBuf,
    /// How many trials it has.
    pub trials: u32,
    /// What must have become of them.
    pub on: Condition,
}

/// What must have become of a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// All of its trials are done.
    Ok,
    /// The trial of the same index is done.
    Each,
    /// A trial of it failed.
    Failed,
    /// All of its trials are over.
    Any,
}
