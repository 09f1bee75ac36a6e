//! `load` as a whole: what good files become, and what is said of bad ones.

mod files;
mod mistakes;
mod properties;
mod spaces;

use std::path::Path;

use nemo_core::rundir::Params;

use super::{Experiment, Loaded, Override, Problems, load};

const FILE: &str = "/home/ada/digits/exp.toml";

/// A file that has all that this version can do.
const WHOLE: &str = r#"
name = "digits"
description = "an MLP on the digits data"
tags = ["mlp"]
timeout = "2d"
seed = 42
[metadata]
dataset = "digits"

[executor.gpu]
kind = "slurm"
partition = "main"
nodes = 1
gpus_per_node = 1
cpus_per_task = 4
mem = "8G"
time = "4h"
env = { OMP_NUM_THREADS = "4" }
secrets = ["WANDB_API_KEY"]
setup = ["module load cuda"]
sbatch = { constraint = "a100", exclusive = true }

[executor.here]
kind = "local"
parallel = 2

[defaults]
executor = "gpu"

[task.evaluate]
after = ["train"]
run = "python evaluate.py {train.dirs}"

[task.prepare]
run = "python prepare.py --out {dir}/data"

[task.train]
after = [{ task = "prepare", on = "any" }]
run = ["python", "train.py", "--lr", "{lr}", "--data", "{prepare.dir}/data"]
[task.train.params]
lr = { log = [1e-4, 1e-1], count = 4 }
width = [32, 64]
model = { depth = 2, name = "mlp" }
[task.train.search]
method = "grid"
concurrent = 8
metric = "val_accuracy"
goal = "max"
[task.train.checkpoint]
signal = "SIGUSR2"
lead = "2m"
[task.train.restart]
crashes = 3
no_progress = 2
[task.train.metrics]
loss = 'loss: (\S+)'
"#;

fn read(text: &str) -> Result<Experiment, Problems> {
    load(text, Path::new(FILE), &[], None).map(|loaded| loaded.experiment)
}

#[track_caller]
fn good(text: &str) -> Experiment {
    read(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What each trial of a task is given.
#[track_caller]
fn trials(text: &str, task: &str, changes: &[&str]) -> Vec<Params> {
    let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
    let loaded = load(text, Path::new(FILE), &changes, None);
    let Loaded { experiment, mut params, .. } =
        loaded.unwrap_or_else(|problems| panic!("{problems}"));
    let trials = params.remove(task).unwrap();
    let counted = experiment.tasks.iter().find(|known| known.name == task).unwrap().n_trials;
    assert_eq!(trials.len(), counted as usize);
    trials
}

fn overridden(
    text: &str,
    changes: &[&str],
    executor: Option<&str>,
) -> Result<Experiment, Problems> {
    let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
    load(text, Path::new(FILE), &changes, executor).map(|loaded| loaded.experiment)
}

#[test]
fn a_whole_file() {
    let experiment = good(WHOLE);
    insta::assert_json_snapshot!(experiment);
    let last = serde_json::to_string(trials(WHOLE, "train", &[]).last().unwrap()).unwrap();
    assert_eq!(last, r#"{"lr":0.1,"model":{"depth":2,"name":"mlp"},"width":64}"#);
}

#[test]
fn an_experiment_survives_its_own_json() {
    let experiment = good(WHOLE);
    let json = serde_json::to_string(&experiment).unwrap();
    assert_eq!(serde_json::from_str::<Experiment>(&json).unwrap(), experiment);
}
