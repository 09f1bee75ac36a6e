//! What trackers of experiments read from the environment, so that a trial is one run of theirs in all of its attempts. What
//! the user has set always wins.

mod mlflow;
mod tensorboard;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nemo_core::durable;
use nemo_core::rundir::Tracker;

use crate::checkpoint::resume::VerifiedCheckpoint;
use crate::job::harness::Harness;
use crate::job::trial::{Trial, with_path};
use crate::os::clock::unix_now;
use crate::os::log::Log;
use crate::program::command::AttemptNames;

/// The longest id of a run that W&B's server takes in its addresses without trouble.
const LONGEST_ID: usize = 64;
/// What names the folder of logs to programs that write `TensorBoard`'s files.
const LOG_FOLDERS: [&str; 2] = ["TENSORBOARD_LOGDIR", "TENSORBOARD_LOGGING_DIR"];

/// What each tracker of the trial reads, but for what the user has set.
pub(crate) fn variables(
    trial: &Trial,
    is_set: impl Fn(&str) -> bool,
) -> Vec<(&'static str, OsString)> {
    let mut all = Vec::new();
    let spec = &trial.spec;
    let folder = trial.dir.tracker();
    let run = trial.run_id();
    for tracker in &spec.trackers {
        match tracker {
            Tracker::Wandb => all.extend([
                ("WANDB_RUN_ID", short(&run).into()),
                ("WANDB_RESUME", "allow".into()),
                ("WANDB_NAME", format!("{}/{}", spec.task, trial.index).into()),
                ("WANDB_RUN_GROUP", spec.experiment.clone().into()),
                ("WANDB_JOB_TYPE", spec.task.clone().into()),
                ("WANDB_TAGS", spec.tags.join(",").into()),
                ("WANDB_DIR", folder.clone().into()),
            ]),
            // MLflow refuses a name and an id that don't mean the same.
            Tracker::Mlflow if is_set("MLFLOW_EXPERIMENT_ID") => {}
            Tracker::Mlflow => {
                all.push(("MLFLOW_EXPERIMENT_NAME", experiment_name(&spec.experiment).into()));
            }
            Tracker::Tensorboard => {
                let logs = folder.join("tensorboard");
                all.extend(LOG_FOLDERS.map(|name| (name, logs.clone().into())));
            }
            // Aim joins this to the folder of its repository, where the program names none. `aim up --repo` looks for `.aim`.
            Tracker::Aim => all.push(("__AIM_REPO_NAME__", folder.join("aim/.aim").into())),
        }
    }
    all.retain(|(name, value): &(&str, OsString)| !value.is_empty() && !is_set(name));
    all
}

/// Prepares what the trackers need before the program starts: `env` is what it will be given. A program that
/// may go on by itself, from what nobody here knows, keeps its logs as they are.
pub(crate) fn prepare(
    harness: &Harness,
    resumed: Option<&VerifiedCheckpoint>,
    may_go_on: bool,
    names: &AttemptNames,
    env: &mut Vec<(String, OsString)>,
    log: &mut Log,
) {
    let trial = &harness.trial;
    if trial.spec.trackers.is_empty() {
        return;
    }
    if let Err(error) = durable::create_dir_below(trial.dir.path(), &trial.dir.tracker()) {
        log.warn(&with_path(&trial.dir.tracker(), &error));
    }
    if trial.spec.trackers.contains(&Tracker::Tensorboard) && !may_go_on {
        // Without a checkpoint all of it is done again.
        let saved_at = resumed.map_or(0.0, |resumed| saved_at(&resumed.from));
        for folder in log_folders(trial, env) {
            if let Err(error) = tensorboard::cut_back(&folder, saved_at, unix_now()) {
                log.warn(&with_path(&folder, &error));
            }
        }
    }
    let has_run = env.iter().any(|(name, _)| name == mlflow::RUN_ID);
    if trial.spec.trackers.contains(&Tracker::Mlflow)
        && !has_run
        && !harness.context.is_set(mlflow::RUN_ID)
    {
        match mlflow::run_id(harness, names, env) {
            Ok(run) => env.push((mlflow::RUN_ID.to_owned(), run.into())),
            Err(why) => log.warn(&format!(
                "the trial may begin another MLflow run, since that of its earlier attempts is not known: {why}"
            )),
        }
    }
}

/// The folders of logs that are the trial's own. What several trials share is not touched.
fn log_folders(trial: &Trial, env: &[(String, OsString)]) -> Vec<PathBuf> {
    let named = env.iter().filter(|(name, _)| LOG_FOLDERS.contains(&name.as_str()));
    let mut folders: Vec<PathBuf> = named.map(|(_, folder)| PathBuf::from(folder)).collect();
    folders.retain(|folder| folder.starts_with(trial.dir.path()) && folder.is_dir());
    folders.sort();
    folders.dedup();
    folders
}

/// When the program wrote the last file of a checkpoint, in unix seconds.
fn saved_at(checkpoint: &Path) -> f64 {
    fn newest(path: &Path, deeper: u32) -> f64 {
        let Ok(state) = path.symlink_metadata() else { return 0.0 };
        if state.is_dir() && deeper > 0 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let own = entries.filter(|entry| entry.file_name() != "MANIFEST");
            return own.map(|entry| newest(&entry.path(), deeper - 1)).fold(0.0, f64::max);
        }
        let written = state.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        written.map_or(0.0, |since| since.as_secs_f64())
    }
    newest(checkpoint, 4)
}

/// The name of an experiment, without what its id has behind it.
fn experiment_name(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(name, _)| name)
}

/// An id that is not too long: its beginning, and a hash of the whole.
fn short(id: &str) -> String {
    if id.len() <= LONGEST_ID {
        return id.to_owned();
    }
    let hash = blake3::hash(id.as_bytes()).to_hex();
    let begin: String = id.chars().take(LONGEST_ID - 17).collect();
    format!("{begin}-{}", &hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::trial::tests::trial;

    #[test]
    fn a_run_of_a_tracker_is_named_by_the_trial() {
        let mut trial = trial(serde_json::json!({}));
        let unset = |_: &str| false;
        assert!(variables(&trial, unset).is_empty());
        trial.spec.trackers = vec![Tracker::Wandb, Tracker::Mlflow, Tracker::Aim];
        trial.spec.tags = vec!["a".into(), "b".into()];
        let all = variables(&trial, unset);
        let value = |wanted| all.iter().find(|(name, _)| *name == wanted).unwrap().1.to_str();
        assert_eq!(value("WANDB_RUN_ID"), Some("x-1-train-2"));
        assert_eq!(value("WANDB_TAGS"), Some("a,b"));
        assert_eq!(value("WANDB_RUN_GROUP"), Some("x-1"));
        assert_eq!(value("MLFLOW_EXPERIMENT_NAME"), Some("x"));
        trial.spec.tags.clear();
        assert!(variables(&trial, unset).iter().all(|(name, _)| *name != "WANDB_TAGS"));
        let own = ["WANDB_RUN_ID", "MLFLOW_EXPERIMENT_ID"];
        let rest = variables(&trial, |name| own.contains(&name));
        assert!(rest.iter().all(|(name, _)| !own.contains(name) && !name.starts_with("MLFLOW")));
    }

    #[test]
    fn a_long_id_is_cut_and_stays_unique() {
        let long = |end| format!("{}{end}", "x".repeat(100));
        assert_eq!(short("x-1-train-0"), "x-1-train-0");
        assert_eq!(short(&long("1")).len(), LONGEST_ID);
        assert_ne!(short(&long("1")), short(&long("2")));
    }
}
