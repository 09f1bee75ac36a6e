//! `list`: the experiments of this home, newest first.

use clap::Args;
use serde_json::json;

use super::App;
use super::status::look;
use crate::error::{CommandError, ExitCode};
use crate::host;
use crate::report::{Page, list_table, out, say};

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

/// Lists experiments.
pub(super) fn list(app: &App, args: &ListArgs) -> Result<ExitCode, CommandError> {
    let ids = app.home.ids()?;
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut experiments = Vec::new();
    for id in ids.iter().rev().take(limit) {
        // One damaged folder must not hide the others.
        match app.home.load(id).map_err(CommandError::from).and_then(|stored| look(app, &stored)) {
            Ok(status) => experiments.push(status.experiment),
            Err(error) => say(&format!("warning: `{id}`: {}", error.error)),
        }
    }
    if args.json {
        return out(&json!({ "schema": 1, "experiments": experiments }));
    }
    if experiments.is_empty() {
        say("No experiments yet. `nemo-slurm init` writes a file to start from.");
        return Ok(ExitCode::Fine);
    }
    out(&list_table(&experiments, &Page::here(host::now())))?;
    if ids.len() > experiments.len() {
        say(&format!("… {} in all; `nemo-slurm list -n 0` shows them", ids.len()));
    }
    Ok(ExitCode::Fine)
}
