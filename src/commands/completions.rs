//! `completions` and `man`: made from the very definition of the command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use nemo_core::durable;

use super::complete;
use super::filter_args::DAMAGED;
use crate::cli::Cli;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::humanize::count;
use crate::report::say;
use crate::status::State;

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
    /// Folder to write the pages to; by default the main page is printed
    pub folder: Option<PathBuf>,
}

const STDOUT: &str = "standard output";

fn print(text: &[u8]) -> Result<(), CommandError> {
    Ok(std::io::stdout().write_all(text).at("write", Path::new(STDOUT))?)
}

/// Prints what makes a shell ask this program for completions, while a command line is typed.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, CommandError> {
    let shells = Shells::builtins();
    let shell = args.shell.to_string();
    let completer = shells.completer(&shell).ok_or_else(|| {
        CommandError::new(ExitCode::Usage, format!("there are no completions for `{shell}`"))
            .hinted("write for example `nemo-slurm completions bash`")
    })?;
    let mut text = Vec::new();
    completer
        .write_registration(VARIABLE, NAME, NAME, NAME, &mut text)
        .at("write", Path::new(STDOUT))?;
    print(&text)?;
    Ok(ExitCode::Fine)
}

/// The variable by which a shell asks, and the program that it asks.
const VARIABLE: &str = "COMPLETE";
const NAME: &str = "nemo-slurm";

/// Answers a shell that asks what a command line may become. Does nothing otherwise.
pub fn answer_shell() {
    CompleteEnv::with_factory(completed).var(VARIABLE).complete();
}

/// The command line, with what its arguments may become.
fn completed() -> clap::Command {
    let states = || {
        let known = State::ALL.iter().map(|state| state.as_str()).chain([DAMAGED]);
        known.map(CompletionCandidate::new).collect()
    };
    Cli::command().mut_subcommands(|command| {
        let (is_restore, is_retry) =
            (command.get_name() == "restore", command.get_name() == "retry");
        command.mut_args(|argument| match argument.get_id().as_str() {
            "targets" if is_restore => argument.add(ArgValueCompleter::new(complete::archived)),
            "target" | "targets" => argument.add(ArgValueCompleter::new(complete::targets)),
            "resume" => argument.add(ArgValueCompleter::new(complete::experiments)),
            // It offers the states that it takes by itself.
            "state" if !is_retry => argument.add(ArgValueCandidates::new(states)),
            _ => argument,
        })
    })
}

/// Writes one page a command into a folder, or prints the main page.
pub(super) fn man(args: &ManArgs) -> Result<ExitCode, CommandError> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).at("write", Path::new(STDOUT))?;
        print(&page)?;
        return Ok(ExitCode::Fine);
    };
    durable::create_dir_all(folder).at("make", folder)?;
    let mut root = Cli::command();
    root.build();
    let mut pages = 1;
    page(root.clone(), "nemo-slurm", folder)?;
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        page(command.clone(), &format!("nemo-slurm-{}", command.get_name()), folder)?;
        pages += 1;
    }
    say(&format!("Wrote {} into `{}`.", count(pages, "page"), folder.display()));
    Ok(ExitCode::Fine)
}

fn page(command: clap::Command, name: &str, folder: &Path) -> Result<(), CommandError> {
    let mut text = Vec::new();
    let name: &'static str = name.to_owned().leak();
    let path = folder.join(format!("{name}.1"));
    clap_mangen::Man::new(command.name(name)).render(&mut text).at("write", &path)?;
    Ok(durable::write_synced(&path, &text).at("write", &path)?)
}
