//! `check`: everything that can be wrong with a file, without asking anybody.

use std::path::Path;

use serde_json::json;

use super::{paths, read_file, warnings};
use crate::cli::FileArgs;
use crate::error::{CommandError, ExitCode, IoResultExt};
use crate::experiment::{self, Loaded, Override, Problems};
use crate::git;
use crate::humanize::count;
use crate::job_script;
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
            warnings::say_unread(&experiment);
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

/// What to type for a job script instead.
fn is_a_script(path: &Path) -> CommandError {
    let path = path.display();
    let text = format!("`{path}` is a job script, not an experiment's file");
    CommandError::new(ExitCode::Usage, text)
        .hinted(format!("`nemo-slurm submit {path}` submits it, wrapped; `--dry-run` shows what"))
        .hinted(format!("`nemo-slurm init --from {path}` turns it into an experiment's file"))
}

/// Reads a file and what is changed in it. Returns its text too.
pub(super) fn load(args: &FileArgs) -> Result<(String, Loaded), CommandError> {
    let text = read_file(&args.file)?;
    if job_script::is_script(text.as_bytes()) {
        return Err(is_a_script(&args.file));
    }
    let file: &Path = &std::path::absolute(&args.file).at("find", &args.file)?;
    paths::check(file)?;
    let overrides = args
        .set
        .iter()
        .map(|text| text.parse::<Override>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CommandError::from_error(ExitCode::Usage, error))?;
    let in_work_tree = file.parent().is_some_and(git::is_work_tree);
    let loaded =
        experiment::load_in(in_work_tree, &text, file, &overrides, args.executor.as_deref())?;
    Ok((text, loaded))
}
