//! `watch`: shows a target live until it is over; the exit code is that of `wait`.

use std::io::IsTerminal;

use clap::Args;

use super::App;
use super::follow::until;
use super::follow_output::View;
use crate::error::{CommandError, ExitCode};
use crate::report::live::Stream;
use crate::report::say;

/// `watch`.
#[derive(Debug, Args)]
#[command(after_help = "Ctrl-C stops the display, not the experiment.\n\n\
    Examples:\n  nemo-slurm watch                  # the newest\n  nemo-slurm watch digits/train/3,17\n  \
    nemo-slurm watch @ --json | jq -c 'select(.state == \"failed\")'")]
pub struct WatchArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Print a line of JSON for each change
    #[arg(long)]
    pub json: bool,
}

/// Watches a target.
pub(super) fn watch(app: &App, args: &WatchArgs) -> Result<ExitCode, CommandError> {
    let (target, _) = app.find_silently(&args.target)?;
    if !args.json && std::io::stdout().is_terminal() {
        say(&format!("Watching {target} (Ctrl-C stops the display, not the experiment)."));
    }
    let view = if args.json { View::JsonLines } else { View::Live(Stream::Out) };
    until(app, &target, view, None)
}
