//! `check`: everything that can be wrong with a file, without asking anybody.

use std::path::Path;

use serde_json::json;

use super::{paths, read_file};
use crate::cli::FileArgs;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{self, Loaded, Override, Problems};
use crate::humanize::count;
use crate::report::{out, out_json};

/// Prints what the file holds, or all that is wrong with it.
pub(super) fn check(args: &FileArgs) -> Result<ExitCode, CommandError> {
    match load(args) {
        Ok((_, Loaded { experiment, .. })) if args.json => out_json(&json!({
            "schema": 1,
            "ok": true,
            "name": experiment.name,
            "tasks": experiment.tasks.len(),
            "trials": experiment.n_trials(),
            "problems": [],
        })),
        Ok((_, Loaded { experiment, .. })) => {
            let tasks = count(experiment.tasks.len(), "task");
            let trials = count(experiment.n_trials(), "trial");
            out(&format!("`{}` is valid: {tasks}, {trials}.", experiment.name))
        }
        Err(error) => match error.error.downcast_ref::<Problems>() {
            Some(problems) if args.json => {
                let text =
                    json!({ "schema": 1, "ok": false, "problems": problems.0, "more": problems.1 });
                out_json(&text)?;
                Ok(ExitCode::Usage)
            }
            _ => Err(error),
        },
    }
}

/// Reads a file and what is changed in it. Returns its text too.
pub(super) fn load(args: &FileArgs) -> Result<(String, Loaded), CommandError> {
    let text = read_file(&args.file)?;
    let file: &Path = &std::path::absolute(&args.file).at("find", &args.file)?;
    paths::check(file)?;
    let overrides = args
        .set
        .iter()
        .map(|text| text.parse::<Override>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CommandError::from_error(ExitCode::Usage, error))?;
    let loaded = experiment::load(&text, file, &overrides, args.executor.as_deref())?;
    Ok((text, loaded))
}
