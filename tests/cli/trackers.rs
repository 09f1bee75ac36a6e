//! Real trackers, without a network: a trial that is killed and resumed is one run of each.

use std::process::Command;

use crate::support::{World, printed};

/// Reports steps 1 to 6, saves after step 3, and is killed after step 5 at its first attempt.
const TRAIN: &str = r#"
import os, signal, time
import mlflow, wandb
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
resumed = os.environ["NEMO_RESUME_FROM"]
mlflow.start_run()
wandb.init(project="test")
logs = EventFileWriter(os.environ["TENSORBOARD_LOGDIR"] + "/own")
for step in range(4 if resumed else 1, 7):
    mlflow.log_metric("loss", 1 / step, step=step)
    wandb.log({"loss": 1 / step}, step=step)
    value = Summary(value=[Summary.Value(tag="loss", simple_value=1 / step)])
    logs.add_event(Event(wall_time=time.time(), step=step, summary=value))
    logs.flush()
    if step == 3:
        folder = os.environ["NEMO_CHECKPOINT_DIR"] + "/step-3"
        os.mkdir(folder + ".tmp")
        open(folder + ".tmp/state", "w").write("3")
        os.rename(folder + ".tmp", folder)
    if step == 5 and not resumed:
        os.kill(os.getpid(), signal.SIGKILL)
logs.close()
wandb.finish()
"#;

/// What the trackers hold: runs of W&B and of `MLflow`, and the steps that `TensorBoard` shows.
const LOOK: &str = r#"
import glob, sys
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
folder = sys.argv[1] + "/tracker"
runs = glob.glob(folder + "/wandb/offline-run-*")
print("wandb", len(runs), *{run.split("-", 4)[4] for run in runs})
client = MlflowClient("sqlite:///mlflow.db")
found = client.get_experiment_by_name("tracked")
runs = client.search_runs([found.experiment_id])
print("mlflow", *(run.data.tags["nemo.run_id"] + " " + run.info.status for run in runs))
print("mlflow steps", *sorted(m.step for m in client.get_metric_history(runs[0].info.run_id, "loss")))
logs = EventAccumulator(folder + "/tensorboard/own")
logs.Reload()
print("tensorboard", *(event.step for event in logs.Scalars("loss")))
"#;

#[test]
fn a_trial_that_was_killed_is_one_run_of_each_tracker() {
    let Some(python) = std::env::var_os("NEMO_TEST_TRACKERS") else {
        eprintln!("skipped: NEMO_TEST_TRACKERS names no Python that has the trackers");
        return;
    };
    let world = World::new();
    world.write("train.py", TRAIN);
    let look = world.write("look.py", LOOK);
    let python = python.to_string_lossy();
    world.write(
        "exp.toml",
        &format!(
            "name = \"tracked\"\n[executor.here]\nkind = \"local\"\n\
             env = {{ MLFLOW_TRACKING_URI = \"sqlite:///mlflow.db\", WANDB_MODE = \"offline\" }}\n\
             [task.train]\nrun = [\"{python}\", \"train.py\"]\ntracker = [\"wandb\", \"mlflow\", \"tensorboard\"]\n\
             restart.crashes = 1\n"
        ),
    );
    let submitted = world.run(&["submit", "exp.toml", "--wait"]);
    assert_eq!(submitted.code, 0, "{submitted:?} {}", world.ok(&["logs", "@"]));
    let id = submitted.stdout.trim();
    let trial = world.experiment(id).join("tasks/train/trials/0");
    let mut asked = Command::new(&*python);
    let asked = asked.arg(look).arg(&trial).current_dir(world.path("")).output().unwrap();
    let said = printed(&asked);
    let run = format!("{id}-train-0");
    let expected = [
        format!("wandb 2 {run}"),
        format!("mlflow {run} FINISHED"),
        "mlflow steps 1 2 3 4 4 5 5 6".to_owned(),
        "tensorboard 1 2 3 4 5 6".to_owned(),
    ];
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines, expected, "{said:?} {}", world.ok(&["logs", "@"]));
}
