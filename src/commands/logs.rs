//! `logs`: what trials wrote, attempt by attempt, also while they write.

mod lines;
mod printer;
mod source;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use regex::bytes::Regex;

use super::App;
use super::follow::{Ending, Outlook, standing};
use super::polling::{PolledStatus, StatusPoller};
use super::status::look;
use crate::error::{CommandError, ExitCode};
use crate::report::say;
use crate::since::Since;
use crate::status::{Status, meant};
use crate::store::{Stored, Target};
use printer::{LogLook, Printer};
use source::{attempt_exists, files, leaves_out_slurm};

/// A program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputStream {
    /// Standard output.
    Out,
    /// Standard error, and the messages of the harness.
    Err,
    /// Standard output, then standard error.
    Both,
}

/// `logs`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that the user types")]
#[command(
    after_help = "Examples:\n  nemo-slurm logs @/train/3\n  nemo-slurm logs @/train --follow\n  \
    nemo-slurm logs digits/train/0 --attempt 1 --stream err\n  \
    nemo-slurm logs @/train --grep '(?i)nan|error' --since 2h"
)]
pub struct LogsArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Keep printing new lines until the trials are over
    #[arg(long, short)]
    pub follow: bool,
    /// Only this attempt, counted from 0; by default all, in order
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Which output of the program
    #[arg(long, value_enum, default_value_t = OutputStream::Both)]
    pub stream: OutputStream,
    /// Slurm's own output instead of the program's
    #[arg(long)]
    pub slurm: bool,
    /// Only lines that a regular expression matches, as in `--grep 'loss: nan|error'`; `(?i)` ignores case
    #[arg(long, value_name = "RE")]
    pub grep: Option<Regex>,
    /// Only lines since then: `2h` (ago), `2026-11-28`, or `2026-11-28T14:30:00Z` (UTC)
    #[arg(long, value_name = "TIME", conflicts_with = "slurm")]
    pub since: Option<Since>,
    /// Only the last lines of each file; with `--grep`, of those that match
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<usize>,
    /// Print control characters as they are, also on a terminal
    #[arg(long)]
    pub raw: bool,
    /// Print a JSON object for each line
    #[arg(long)]
    pub json: bool,
}

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(500);

/// Prints the logs of a target.
pub(super) fn logs(app: &App, args: &LogsArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find(&args.target)?;
    let mut printer = Printer::new(args);
    let status = if args.follow {
        follow(app, &target, args, &mut printer)?
    } else {
        let status = look(app, &stored)?;
        attempt_exists(&status, &target, args)?;
        print(&mut printer, &stored, &status, &target, args, true)?;
        status
    };
    if leaves_out_slurm(&stored, &status, &target, args) {
        say(&format!(
            "note: Slurm's messages have no times and are left out; `nemo-slurm logs {target} --slurm` shows them"
        ));
    }
    if !printer.has_printed() {
        let has_output = !files(&stored, &status, &target, args).is_empty();
        say(&if has_output { no_line(args) } else { nothing(&status, &target) });
    }
    Ok(ExitCode::Fine)
}

/// Prints what comes until the target is over: also what later attempts write, and trials that are retried.
fn follow(
    app: &App,
    target: &Target,
    args: &LogsArgs,
    printer: &mut Printer<'_>,
) -> Result<Status, CommandError> {
    let mut looks = StatusPoller::default();
    let mut ending = Ending::default();
    loop {
        let stored = app.home.load(&target.id)?;
        let PolledStatus { status, is_new, pause } = looks.next(app, &stored)?;
        attempt_exists(&status, target, args)?;
        let (_, settled) = standing(&stored, &status, target)?;
        let ends = ending.see(settled, is_new) != Outlook::Open;
        let mut left = pause;
        loop {
            print(printer, &stored, &status, target, args, ends)?;
            if ends {
                return Ok(status);
            }
            std::thread::sleep(PAUSE);
            left = left.saturating_sub(PAUSE);
            if left.is_zero() {
                break;
            }
        }
    }
}

fn print(
    printer: &mut Printer<'_>,
    stored: &Stored,
    status: &Status,
    target: &Target,
    args: &LogsArgs,
    is_last: bool,
) -> Result<(), CommandError> {
    let files = files(stored, status, target, args);
    let trials: BTreeSet<(&str, u32)> =
        files.iter().map(|file| (file.task.as_str(), file.trial)).collect();
    let several_trials = trials.len() > 1;
    printer.print(files, LogLook { several_trials, is_last })
}

/// Why there is no line where there is output.
fn no_line(args: &LogsArgs) -> String {
    let since = args.since.map_or("", |_| " since then");
    match &args.grep {
        Some(grep) => format!("No line{since} matches `{grep}`."),
        None => format!("No line{since}."),
    }
}

fn nothing(status: &Status, target: &Target) -> String {
    let first = meant(status, &target.scope).next().map(|(_, trial)| trial);
    let state = first.map_or("pending", |trial| trial.state.as_str());
    let why = first.and_then(|trial| trial.reason.as_ref());
    let why = why.map_or_else(String::new, |reason| format!(": {reason}"));
    let id = &status.experiment.id;
    format!("No output yet: it is {state}{why}. `nemo-slurm status {id}` shows more.")
}
