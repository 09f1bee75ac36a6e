//! `wait`: returns when an experiment is over; its exit code says how.

use clap::Args;

use super::App;
use super::follow::until;
use super::follow_output::View;
use crate::error::{CommandError, ExitCode};
use nemo_core::duration;

/// `wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 if everything completed, 1 if something did not, and 4 if the time ran out.\n\n\
    Examples:\n  nemo-slurm wait                   # the newest\n  nemo-slurm wait digits/train && nemo-slurm results digits/train\n  \
    nemo-slurm wait digits --timeout 2h"
)]
pub struct WaitArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Give up after this long, as in `2h`, with exit code 4
    #[arg(long, value_name = "TIME", value_parser = duration::option)]
    pub timeout: Option<std::time::Duration>,
    /// Print the final status as JSON
    #[arg(long)]
    pub json: bool,
}

/// Waits for a target.
#[expect(clippy::disallowed_methods, reason = "an edge: a time limit counts from now")]
pub(super) fn wait(app: &App, args: &WaitArgs) -> Result<ExitCode, CommandError> {
    let (target, _) = app.find(&args.target)?;
    let deadline = args.timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
    until(app, &target, if args.json { View::Json } else { View::Silent }, deadline)
}
