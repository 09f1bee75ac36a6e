//! `list`: the experiments of this home, newest first.

use clap::Args;

use super::App;
use super::filter_args::FilterArgs;
use super::listing::Listing;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::report::{Page, list_table, out, out_json_text, say};
use crate::summary::Index;

/// `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  nemo-slurm list --state failed --since 2d\n  \
    nemo-slurm list --tag paper --name 'digits-*' --where model=gpt --where 'lr<0.01'\n  \
    nemo-slurm list -n 0 --json | jq -r '.experiments[].id'")]
pub struct ListArgs {
    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The jobs of scripts that run `nemo-harness wrap`, instead of experiments
    #[arg(long)]
    pub jobs: bool,
}

/// Lists experiments.
pub(super) fn list(app: &App, args: &ListArgs) -> Result<ExitCode, CommandError> {
    let filter = &args.filter;
    // Jobs are not in the index.
    let index = if args.jobs { Index::default() } else { Index::read(&app.home) };
    let ids = if args.jobs { app.home.job_ids()? } else { app.home.ids()? };
    let mut listing = Listing::new(app, &ids, &index);
    listing.choose(filter, None);
    if let Some(sort) = &filter.sort {
        listing.sort(sort);
    }
    if !args.jobs {
        listing.keep_index();
    }
    if filter.json {
        return out_json_text(&listing.json(filter));
    }
    if ids.is_empty() && args.jobs {
        say(
            "No wrapped jobs yet. `exec nemo-harness wrap -- python train.py` is the last line of a script.",
        );
        return Ok(ExitCode::Fine);
    }
    if ids.is_empty() {
        say("No experiments yet. `nemo-slurm init` writes a file to start from.");
        return Ok(ExitCode::Fine);
    }
    print(&listing, filter, "`nemo-slurm list -n 0` shows them all")
}

/// Prints the experiments that are shown, what can't be read of them, and how many match.
pub(super) fn print(
    listing: &Listing<'_>,
    filter: &FilterArgs,
    how_to_see_all: &str,
) -> Result<ExitCode, CommandError> {
    let lines = listing.lines(filter.limit);
    if !lines.is_empty() {
        out(&list_table(&lines, &Page::here(clock::now())))?;
    }
    let interrupted = listing.interrupted(filter.limit);
    for warning in listing.damaged(filter.limit).into_iter().chain(interrupted) {
        say(&format!("warning: {warning}"));
    }
    say(&listing.total(filter, how_to_see_all));
    for hint in listing.why_none(filter) {
        say(&format!("hint: {hint}"));
    }
    Ok(ExitCode::Fine)
}
