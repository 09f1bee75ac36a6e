//! What can be typed: commands, options, and the text that teaches them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::rehearse::plan::Kind;

/// Experiments on Slurm, from a TOML file to a table of results
///
/// An experiment is a TOML file; its tasks become job arrays; each trial is saved when it is preempted and goes on
/// where it was. Start with `nemo-slurm init`, then `nemo-slurm submit exp.toml --follow`.
///
/// A TARGET is EXPERIMENT[/TASK[/TRIAL]]. An experiment is its id, a unique prefix of it, its name (the newest of that
/// name), or `@` (the newest of all).
#[derive(Debug, Parser)]
#[command(name = "nemo-slurm", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 fine, 1 the experiment failed, 2 wrong use or a wrong file, 3 not found, \
    4 Slurm did not answer (nothing is assumed), 5 refused for safety."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where experiments are kept; compute nodes must see it
    #[arg(
        long,
        global = true,
        env = "NEMO_SLURM_HOME",
        value_name = "FOLDER",
        help_heading = "Global options"
    )]
    pub home: Option<PathBuf>,
    /// How long one of Slurm's programs may take to answer, in seconds
    #[arg(
        long,
        global = true,
        env = "NEMO_SLURM_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = "Global options"
    )]
    pub slurm_timeout: u64,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an exp.toml to start from
    Init(InitArgs),
    /// Check a file without asking anybody
    Check(FileArgs),
    /// Show what a file would become: job arrays, their order, their scripts
    Plan(PlanArgs),
    /// Interrupt a trial in every way before anything is submitted, and tell whether it survives
    Rehearse(RehearseArgs),
    /// Submit an experiment
    Submit(SubmitArgs),
    /// Show where an experiment stands
    Status(StatusArgs),
    /// Show where the time went: work, saves, lost work, queues
    Goodput(GoodputArgs),
    /// List experiments, newest first
    List(ListArgs),
    /// Wait until an experiment is over
    Wait(WaitArgs),
    /// Print what trials wrote
    Logs(LogsArgs),
    /// Cancel an experiment, a task or a trial
    Cancel(CancelArgs),
    /// Pause an experiment, a task or a trial: save, stop, and wait
    Pause(PauseArgs),
    /// Let what was paused go on
    Resume(PauseArgs),
    /// Requeue what could not be requeued, because Slurm refused or was away
    Poll(PollArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write man pages
    Man(ManArgs),
    /// Carry out a local experiment (started by `submit`)
    #[command(hide = true)]
    RunLocal {
        /// The experiment's id.
        id: String,
    },
}

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nemo-slurm init my-experiment\n  nemo-slurm submit my-experiment/exp.toml --follow"
)]
pub struct InitArgs {
    /// The folder to write into
    #[arg(default_value = ".")]
    pub folder: PathBuf,
}

/// A file and what is changed in it.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The experiment's file
    #[arg(default_value = "exp.toml")]
    pub file: PathBuf,
    /// Change a key of the file, as in `--set task.train.params.lr=[0.1,0.2]`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Run every task on this executor
    #[arg(long, value_name = "NAME")]
    pub executor: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `plan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm plan exp.toml\n  nemo-slurm plan exp.toml --scripts"
)]
pub struct PlanArgs {
    /// What to plan.
    #[command(flatten)]
    pub file: FileArgs,
    /// Print the whole scripts too
    #[arg(long)]
    pub scripts: bool,
}

/// `rehearse`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1: the program is not safe to be interrupted; what is wrong is told, and what to change.\n\n\
    Examples:\n  nemo-slurm rehearse exp.toml train\n  \
    nemo-slurm rehearse exp.toml train --set task.train.params.steps=200 --time-limit 10m\n  \
    nemo-slurm rehearse exp.toml train --only killed --seed 7 --keep rehearsal\n  \
    nemo-slurm rehearse exp.toml train --executor cluster    # on Slurm, with its own signals"
)]
pub struct RehearseArgs {
    /// What to rehearse.
    #[command(flatten)]
    pub file: FileArgs,
    /// The task; not needed where there is only one
    pub task: Option<String>,
    /// Which of its trials
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub trial: u32,
    /// The moments of all interruptions follow from it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How often the preempted run is interrupted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub interruptions: u32,
    /// Only these, beside the undisturbed runs
    #[arg(long, value_name = "SCENARIO", value_enum, value_delimiter = ',')]
    pub only: Vec<Kind>,
    /// How long all of it may take, as in `10m`; what does not fit is left out, and said
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time_limit: Option<std::time::Duration>,
    /// Keep every run, in this folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}

/// `submit`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(after_help = "Examples:\n  nemo-slurm submit exp.toml --follow\n  \
    nemo-slurm submit exp.toml --executor cluster --set task.train.params.lr=0.1\n  \
    nemo-slurm submit --continue digits-3kz81q7m    # after a crash, or when Slurm was away")]
pub struct SubmitArgs {
    /// What to submit.
    #[command(flatten)]
    pub file: FileArgs,
    /// Go on with a submission that was interrupted: each job array is submitted once
    #[arg(long = "continue", value_name = "EXPERIMENT", conflicts_with_all = ["file", "set", "executor"])]
    pub resume: Option<String>,
    /// Wait until it is over, and exit 0 only if everything completed
    #[arg(long)]
    pub wait: bool,
    /// Show it live until it is over, as `--wait` does; Ctrl-C stops looking, not the experiment
    #[arg(long, conflicts_with = "wait")]
    pub follow: bool,
    /// Run at most one trial of a task at a time
    #[arg(long)]
    pub sequential: bool,
    /// Show the plan, submit nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm status            # the newest\n  nemo-slurm status digits/train --attempts\n  \
    nemo-slurm status @ --json | jq '.tasks[].counts'"
)]
pub struct StatusArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Show every attempt of every trial
    #[arg(long)]
    pub attempts: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `goodput`.
#[derive(Debug, Args)]
#[command(
    after_help = "ETTR, the effective training time ratio, is productive time over the time in which a trial was to run, \
    queues included. docs/goodput.md defines every part.\n\n\
    Examples:\n  nemo-slurm goodput\n  nemo-slurm goodput digits/train --trials\n  \
    nemo-slurm goodput @ --price 2.50    # what a GPU-hour costs"
)]
pub struct GoodputArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Show every trial
    #[arg(long)]
    pub trials: bool,
    /// What an hour costs of the unit that is shown: a GPU, else a node or a core
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub price: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        Ok(_) | Err(_) => Err("a price is a number, as in 2.50".to_owned()),
    }
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Show at most this many; 0 shows all
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Give up after this long, as in `2h`, with exit code 4
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<std::time::Duration>,
    /// Print the final status as JSON
    #[arg(long)]
    pub json: bool,
}

/// `logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm logs @/train/3\n  nemo-slurm logs @/train --follow\n  \
    nemo-slurm logs digits/train/0 --attempt 1 --stream err"
)]
pub struct LogsArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Go on as more is written, until the trials are over
    #[arg(long, short)]
    pub follow: bool,
    /// One attempt, from 0; else all, in order
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Which of a program's outputs
    #[arg(long, value_enum, default_value_t = Stream::Both)]
    pub stream: Stream,
    /// Slurm's own output instead of the program's
    #[arg(long)]
    pub slurm: bool,
    /// Only the last lines of each file
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<usize>,
    /// Print a JSON object for each line
    #[arg(long)]
    pub json: bool,
}

/// A program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error, and what the harness has to say.
    Err,
    /// First the one, then the other.
    Both,
}

/// `cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "A running trial is told, saves its checkpoint if there is time, and stays cancelled.\n\n\
    Examples:\n  nemo-slurm cancel digits\n  nemo-slurm cancel @/train/3\n  nemo-slurm cancel @/train --gentle    # save, stop, run again from the checkpoint"
)]
pub struct CancelArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    pub target: String,
    /// Preempt instead: running trials save, stop, and run again from their checkpoints
    #[arg(long)]
    pub gentle: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `pause` and `resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "A paused trial saves its checkpoint and keeps its job, which waits held in the queue; what waits for it goes on \
    waiting, and none of its budgets is touched.\n\n\
    Examples:\n  nemo-slurm pause digits\n  nemo-slurm pause @/train/3\n  nemo-slurm resume @/train/3"
)]
pub struct PauseArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `poll`.
#[derive(Debug, Args)]
#[command(
    after_help = "`nemo-slurm status` says when it is needed: a trial saved, and Slurm refused the requeue or was away; its harness was killed; or Slurm could not start it. \
    It does nothing twice, and may run from cron: every five minutes is best, since Slurm soon forgets a job that has ended. It exits 1 if a job can't be requeued.\n\n\
    Example:\n  nemo-slurm poll"
)]
pub struct PollArgs {
    /// EXPERIMENT[/TASK[/TRIAL]]; all experiments if there is none
    pub target: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nemo-slurm completions bash > ~/.local/share/bash-completion/completions/nemo-slurm"
)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nemo-slurm man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// The folder for the pages; without one the main page is printed
    pub folder: Option<PathBuf>,
}
