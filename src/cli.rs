//! What can be typed: commands, options, and the text that teaches them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    cancel::CancelArgs,
    completions::{CompletionsArgs, ManArgs},
    goodput::GoodputArgs,
    init::InitArgs,
    list::ListArgs,
    logs::LogsArgs,
    pause::{PauseArgs, ResumeArgs},
    plan::PlanArgs,
    poll::PollArgs,
    preempt::PreemptArgs,
    rehearse::RehearseArgs,
    status::StatusArgs,
    submit::SubmitArgs,
    wait::WaitArgs,
};

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
    Resume(ResumeArgs),
    /// Have running trials save, stop, and run again
    Preempt(PreemptArgs),
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
