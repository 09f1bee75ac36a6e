//! `compare`: what experiments, tasks or trials have in common, in what they differ, and what they came to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::App;
use super::results::read;
use super::retry::changes::TrialConfigs;
use crate::clock;
use crate::error::{CommandError, ExitCode};
use crate::git::GitState;
use crate::package::{self, UncommittedChanges};
use crate::report::{Page, comparison_text, out, out_json, say};
use crate::results::{
    ComparedTrial, Hashes, TrialResult, compare, representative, space_of, trial_config,
};
use crate::store::{ConfigFile, Stored};

/// `compare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm compare digits-1rsq9thy @\n  nemo-slurm compare @/train/3 @/train/7\n  \
    nemo-slurm compare a b c --json | jq .config.different"
)]
pub struct CompareArgs {
    /// Two or more of EXPERIMENT[/TASK[/TRIALS]]
    #[arg(value_name = "TARGET", num_args = 2.., required = true)]
    pub targets: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Compares targets.
pub(super) fn compare_targets(app: &App, args: &CompareArgs) -> Result<ExitCode, CommandError> {
    let mut warnings = Vec::new();
    let mut all: Vec<ComparedTrial> = Vec::new();
    for target in &args.targets {
        let one = compared(app, target, &mut warnings)?;
        if all.iter().any(|known| known.id == one.id) {
            let text = format!("`{target}` is `{}`, which is named already", one.id);
            return Err(CommandError::new(ExitCode::Usage, text)
                .hinted("`nemo-slurm list` shows the others"));
        }
        all.push(one);
    }
    let found = compare(&all);
    if args.json {
        let trials: BTreeMap<&str, &ComparedTrial> =
            all.iter().map(|one| (one.id.as_str(), one)).collect();
        return out_json(&json!({
            "schema": 1, "trials": trials, "config": found.config, "code": found.code, "metrics": found.metrics,
            "warnings": warnings,
        }));
    }
    out(&comparison_text(&all, &found, &Page::here(clock::now())))?;
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    Ok(ExitCode::Fine)
}

/// The trial that stands for a target.
fn compared(
    app: &App,
    text: &str,
    warnings: &mut Vec<String>,
) -> Result<ComparedTrial, CommandError> {
    let (target, stored) = app.find_silently(text)?;
    let (status, results) = read(app, &stored, &target, Hashes::Unwanted)?;
    // Two trials of one experiment have most warnings in common.
    for warning in status.warnings.iter().chain(&results.warnings) {
        if !warnings.contains(warning) {
            warnings.push(warning.clone());
        }
    }
    let ConfigFile { resolved, git } = ConfigFile::read(&stored.dir).unwrap_or_else(|error| {
        warnings.push(CommandError::from(error).one_line());
        ConfigFile::default()
    });
    let found = representative(&stored.experiment, &status, &results.trials);
    let (result, why) = found.ok_or_else(|| {
        CommandError::new(ExitCode::NotFound, format!("`{target}` has no trials"))
    })?;
    let task = target.scope.task.as_deref();
    let is_named = target.scope.trials.is_some();
    let is_alone = results.trials.len() == 1;
    let configs = TrialConfigs::new(&stored, &resolved);
    let own = configs.of(&result.task, result.trial).unwrap_or_else(|error| {
        warnings.push(error.one_line());
        Cow::Borrowed(&resolved)
    });
    let config = trial_config(&own, &result.task, result.params.as_ref(), task);
    let config = config.entries().into_iter().map(|(key, value)| (key, value.clone()));
    let metrics = result.metrics.iter();
    Ok(ComparedTrial {
        id: target.to_string(),
        task: result.task.clone(),
        trial: result.trial,
        state: result.state,
        why: if is_named && is_alone { "named".to_owned() } else { why },
        set: configs.set(&result.task, result.trial).cloned().unwrap_or_default(),
        trials_with_other_values: n_with_other_values(&configs, result, &results.trials),
        config: config.collect(),
        space: if is_named { Vec::new() } else { space_of(&resolved, task) },
        code: code_of(&stored, git),
        metrics: metrics.map(|(name, it)| (name.clone(), it.last)).collect(),
    })
}

/// How many of these trials had other values set by a retry than `result`.
fn n_with_other_values(
    configs: &TrialConfigs<'_>,
    result: &TrialResult,
    trials: &[TrialResult],
) -> usize {
    let set = configs.set(&result.task, result.trial);
    let has_other_values = |other: &&TrialResult| {
        // A trial of another task is compared with the configuration of the submission.
        let own = set.filter(|_| other.task == result.task);
        configs.set(&other.task, other.trial) != own
    };
    trials.iter().filter(has_other_values).count()
}

/// What tells two versions of the code apart.
fn code_of(stored: &Stored, git: Option<GitState>) -> Vec<(String, Value)> {
    let package = package::of(&stored.dir).map(|package| package.hash);
    let keys = &stored.experiment.package;
    let changes = UncommittedChanges::of(git.as_ref(), keys, package.is_some());
    let mut code = Vec::new();
    code.extend(package.map(|hash| ("package.hash".to_owned(), json!(hash))));
    if let Some(git) = git {
        code.push(("git.commit".to_owned(), json!(git.commit)));
        code.push(("git.dirty".to_owned(), json!(git.dirty)));
        code.push(("git.changes".to_owned(), json!(changes)));
    }
    code
}
