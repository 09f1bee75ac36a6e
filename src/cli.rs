//! What can be typed: commands, options, and the text that teaches them.

use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands::{
    archive::{ArchiveArgs, RestoreArgs},
    cancel::CancelArgs,
    compare::CompareArgs,
    completions::{CompletionsArgs, ManArgs},
    debug::DebugArgs,
    doctor::DoctorArgs,
    explain::ExplainArgs,
    goodput::GoodputArgs,
    init::InitArgs,
    list::ListArgs,
    logs::LogsArgs,
    metrics::MetricsArgs,
    note::NoteArgs,
    pause::{PauseArgs, ResumeArgs},
    plan::PlanArgs,
    plot::PlotArgs,
    poll::PollArgs,
    preempt::PreemptArgs,
    rehearse::RehearseArgs,
    resources::ResourcesArgs,
    results::ResultsArgs,
    retry::RetryArgs,
    search::SearchArgs,
    show::ShowArgs,
    status::StatusArgs,
    submit::SubmitArgs,
    wait::WaitArgs,
    watch::WatchArgs,
};
use crate::error::{ExitCode, error_json};
use crate::report;

/// Experiments on Slurm, from a TOML file to a table of results
///
/// An experiment is a TOML file. Its tasks become job arrays. A trial that is preempted saves a checkpoint and resumes
/// from it. Start with `nemo-slurm init`, then `nemo-slurm submit exp.toml --follow`.
///
/// A TARGET is EXPERIMENT[/TASK[/TRIALS]]. EXPERIMENT is an id, a unique prefix of an id, a name (the newest
/// experiment of that name), or `@` (the newest of all that Slurm did not refuse
/// and that is not archived). TRIALS are one, or several as in `@/train/3,17,40-49`.
#[derive(Debug, Parser)]
#[command(name = "nemo-slurm", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 success, 1 the experiment or this command failed, 2 usage error or invalid file, 3 not found, \
    4 not known (Slurm did not answer, or a wait timed out), 5 refused for safety."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Folder that holds all experiments; the compute nodes must see it
    #[arg(
        long,
        global = true,
        env = "NEMO_SLURM_HOME",
        value_name = "FOLDER",
        help_heading = "Global options"
    )]
    pub home: Option<PathBuf>,
    /// How long to wait for an answer of `squeue`, `sbatch` and the like, in seconds or as in `2min`
    #[arg(
        long,
        global = true,
        env = "NEMO_SLURM_TIMEOUT",
        value_name = "TIME",
        default_value = "30",
        value_parser = nemo_core::duration::option_in_seconds,
        help_heading = "Global options"
    )]
    pub slurm_timeout: std::time::Duration,
    /// Show each Slurm program that is run, its duration and result, and the files that are used; -vv shows their output
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Log filter in place of -v: `debug`, `trace`, or one module as in `nemo_slurm::slurm=debug`
    #[arg(
        long,
        global = true,
        env = "NEMO_LOG",
        value_name = "FILTER",
        help_heading = "Global options"
    )]
    pub log: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an exp.toml to start from
    Init(InitArgs),
    /// Check a file, without contacting Slurm
    #[command(
        after_help = "Every mistake is shown with its line and what to write instead. The exit code is 2 if there is one.\n\n\
        Examples:\n  nemo-slurm check exp.toml\n  nemo-slurm check exp.toml --set task.train.params.lr=[0.1,0.2]\n  \
        nemo-slurm check exp.toml --json | jq '.problems'"
    )]
    Check(FileArgs),
    /// Show the job arrays that a file would become, with their order and their scripts
    Plan(PlanArgs),
    /// Run a trial, interrupt it in every way that Slurm might, and report whether it survives
    Rehearse(RehearseArgs),
    /// Submit an experiment
    Submit(SubmitArgs),
    /// Show the state of an experiment and its trials
    Status(StatusArgs),
    /// Show where the time went: work, saves, lost work, queues
    Goodput(GoodputArgs),
    /// Explain why trials wait, and what would start them sooner
    Explain(ExplainArgs),
    /// List experiments, newest first
    List(ListArgs),
    /// Find experiments by words, the best first
    Search(SearchArgs),
    /// Show an experiment's configuration, code, notes, generations and files
    Show(ShowArgs),
    /// Show the results of trials: metrics, checkpoints, artifacts, errors
    Results(ResultsArgs),
    /// Show how much CPU, memory and GPU trials use, or used
    Resources(ResourcesArgs),
    /// Show the values of metrics, step by step
    Metrics(MetricsArgs),
    /// Draw a metric over steps, or parameters against a metric
    Plot(PlotArgs),
    /// Compare configuration, code and metrics of experiments, tasks or trials
    Compare(CompareArgs),
    /// Add a text to an experiment, or change its tags, description and metadata
    Note(NoteArgs),
    /// Put experiments away: `list` and `search` leave them out, and nothing is moved or deleted
    Archive(ArchiveArgs),
    /// Take archived experiments back
    Restore(RestoreArgs),
    /// Show an experiment live until it is over
    Watch(WatchArgs),
    /// Wait until an experiment is over
    Wait(WaitArgs),
    /// Print the output of trials
    Logs(LogsArgs),
    /// Cancel an experiment, a task or a trial
    Cancel(CancelArgs),
    /// Pause an experiment, a task or a trial: it saves, stops, and keeps its place in the queue
    Pause(PauseArgs),
    /// Resume what was paused
    Resume(ResumeArgs),
    /// Run failed, timed-out or cancelled trials again, from their checkpoints
    Retry(RetryArgs),
    /// Run a failed trial here, in the foreground, from a copy of its checkpoint
    Debug(DebugArgs),
    /// Make running trials save, stop, and go back into the queue
    Preempt(PreemptArgs),
    /// Requeue trials that Slurm did not requeue
    Poll(PollArgs),
    /// Check this cluster and your setup, and say what to change
    Doctor(DoctorArgs),
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
    /// Override a key of the file, as in `--set task.train.params.lr=[0.1,0.2]`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Run every task on this executor
    #[arg(long, value_name = "NAME")]
    pub executor: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was typed, or what is wrong with it.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse().map_err(|error| hinted(with_usage_as_typed(error)))
}

/// The same with a usage that does not show what only the environment says: clap takes that for typed.
fn with_usage_as_typed(mut error: clap::Error) -> clap::Error {
    let typed = Cli::command().mut_args(|argument| argument.env(Resettable::Reset));
    let same = typed.try_get_matches().err().filter(|typed| typed.kind() == error.kind());
    if let Some(usage) = same.as_ref().and_then(|same| same.get(ContextKind::Usage)) {
        error.insert(ContextKind::Usage, usage.clone());
    }
    error
}

/// The same with what to type where an option is a value of another one, as in `--csv`.
fn hinted(mut error: clap::Error) -> clap::Error {
    let unknown = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let name = unknown.as_deref().and_then(|name| name.strip_prefix("--"));
    if let Some(name @ ("csv" | "table" | "parquet")) = name {
        let tip = format!("write `--format {name}`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Which build this program is: a line, or JSON.
pub fn version(is_json: bool) -> std::process::ExitCode {
    let build = crate::commands::build::own();
    let text = format!("{} {}", build.name, build.text());
    let printed =
        if is_json { report::out_json(&build).map(drop) } else { report::out(&text).map(drop) };
    // Where nobody reads, the exit code still tells.
    drop(printed);
    std::process::ExitCode::SUCCESS
}

/// What is wrong with a command line, for a script: `--json` is among the arguments.
pub fn usage_error(error: &clap::Error) -> std::process::ExitCode {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (mut message, mut hints) = (Vec::new(), Vec::new());
    for line in lines.take_while(|line| !is_usage(line)) {
        match line.strip_prefix("tip: ") {
            Some(tip) => hints.push(tip.to_owned()),
            None => message.push(line.strip_prefix("error: ").unwrap_or(line)),
        }
    }
    hints.push("`nemo-slurm --help` shows the commands and their options".to_owned());
    // Where nobody reads, the exit code still tells.
    drop(report::out_json(&error_json(&message.join(" "), &hints, ExitCode::Usage)));
    std::process::ExitCode::from(ExitCode::Usage as u8)
}

fn is_usage(line: &str) -> bool {
    line.starts_with("Usage:") || line.starts_with("For more")
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Every source file of both programs.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files =
            entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
        files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
    }

    /// What a text tells to type: from `nemo-slurm` to the closing backtick.
    fn commands(text: &str) -> impl Iterator<Item = &str> {
        let parts = text.split(concat!("`nemo-", "slurm ")).skip(1);
        parts.filter_map(|part| part.split(['`', '\n']).next())
    }

    #[test]
    fn hints_name_commands_and_options_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut cli = Cli::command();
        cli.build();
        let (mut n_seen, mut wrong) = (0, Vec::new());
        for folder in ["src", "harness/src", "harness/core/src"] {
            for path in sources(&root.join(folder)) {
                let text = std::fs::read_to_string(&path).unwrap();
                for typed in commands(&text) {
                    n_seen += 1;
                    if !exists(&cli, typed) {
                        wrong.push(format!("{}: nemo-slurm {typed}", path.display()));
                    }
                }
            }
        }
        assert!(n_seen > 30, "the hints are found: {n_seen}");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn exists(cli: &clap::Command, typed: &str) -> bool {
        let mut words = typed.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let command = match cli.find_subcommand(verb) {
            Some(command) => command,
            None if verb.starts_with('-') => cli,
            None => return false,
        };
        let options = typed.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        let mut names = options.filter_map(|option| option.split('=').next());
        names.all(|name| {
            name == "help" || command.get_arguments().any(|own| own.get_long() == Some(name))
        })
    }
}
