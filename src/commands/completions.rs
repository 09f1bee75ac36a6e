//! `completions` and `man`: made from the very definition of the command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use nemo_core::durable;

use crate::cli::Cli;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::humanize::count;
use crate::report::say;

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

/// Prints completions for a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nemo-slurm", &mut text);
    print(&text)?;
    Ok(ExitCode::Fine)
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
