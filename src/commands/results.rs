//! `results`: what the trials of an experiment came to, and which values of parameters fail.

use clap::Args;
use serde_json::json;

use super::App;
use super::output_format::OutputFormat;
use super::status::{look_by, narrow};
use crate::error::{CommandError, ExitCode};
use crate::observe::Depth;
use crate::query::SlurmSource;
use crate::report::{
    Page, by_parameter_csv, by_parameter_table, out, out_json, results_csv, results_table, say,
};
use crate::results::{self, Hashes, Results};
use crate::status::Status;
use crate::store::{Stored, Target};
use crate::{clock, trial_error};

/// `results`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm results             # the newest\n  nemo-slurm results digits/train --by-parameter\n  \
    nemo-slurm results @ --format csv > results.csv\n  nemo-slurm results @ --json | jq '.trials[].metrics.loss.best'"
)]
pub struct ResultsArgs {
    /// EXPERIMENT[/TASK[/TRIALS]]
    #[arg(default_value = "@")]
    pub target: String,
    /// Show for each value of each parameter how many trials failed
    #[arg(long)]
    pub by_parameter: bool,
    /// Hash the artifacts (BLAKE3), which reads all of them
    #[arg(long)]
    pub hash: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub format: OutputFormat,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows the results of a target.
pub(super) fn results(app: &App, args: &ResultsArgs) -> Result<ExitCode, CommandError> {
    let (target, stored) = app.find_silently(&args.target)?;
    let (status, results) = read(app, &stored, &target, hashes(args))?;
    let format = args.format.with_json(args.json);
    let mut warnings = status.warnings.clone();
    warnings.extend(results.warnings.iter().cloned());
    if args.by_parameter {
        print_by_parameter(&stored, &results, format, &warnings)?;
    } else {
        match format {
            OutputFormat::Table => out(&results_table(&results.trials, &Page::here(clock::now())))?,
            OutputFormat::Csv => out(&results_csv(&results.trials))?,
            OutputFormat::Json => out_json(&json!({
                "schema": 1, "id": stored.id.to_string(), "trials": results.trials, "warnings": warnings,
            }))?,
        };
    }
    if format != OutputFormat::Json {
        for warning in &warnings {
            say(&format!("warning: {warning}"));
        }
    }
    Ok(ExitCode::Fine)
}

/// The states of what a target means, and their results.
pub(super) fn read(
    app: &App,
    stored: &Stored,
    target: &Target,
    hashes: Hashes,
) -> Result<(Status, Results), CommandError> {
    let source = SlurmSource::Slurm(&app.slurm);
    let (mut status, _) = look_by(app, stored, source, Depth::Shown(&target.scope))?;
    narrow(&mut status, target);
    trial_error::set_errors(&mut status, stored);
    let results = results::read(stored, &status, hashes);
    Ok((status, results))
}

fn hashes(args: &ResultsArgs) -> Hashes {
    if args.hash { Hashes::Wanted } else { Hashes::Unwanted }
}

fn print_by_parameter(
    stored: &Stored,
    results: &Results,
    format: OutputFormat,
    warnings: &[String],
) -> Result<ExitCode, CommandError> {
    let tasks = &stored.experiment.tasks;
    let metric = |name: &str| tasks.iter().find(|task| task.name == name)?.metric.as_deref();
    let values = results::by_parameter(&results.trials, metric);
    match format {
        OutputFormat::Table if values.is_empty() => {
            out("No parameter has several values among these trials.")
        }
        OutputFormat::Table => out(&by_parameter_table(&values, &Page::here(clock::now()))),
        OutputFormat::Csv => out(&by_parameter_csv(&values)),
        OutputFormat::Json => out_json(&json!({
            "schema": 1, "id": stored.id.to_string(), "parameters": values, "warnings": warnings,
        })),
    }
}
