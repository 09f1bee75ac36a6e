//! What a program finds around it: its identity, the texts of the file, threads, its folder on the node, trackers.

use std::fs;

use serde_json::json;

use crate::support::{Task, wait_until};

#[test]
fn a_trial_has_one_name_in_all_attempts_and_its_variables_are_filled() {
    let program = "print(os.environ['NEMO_RUN_ID'], os.environ['OUT'], os.environ['SET'])\nsave(step + 1)\nsys.exit(75 if step == 0 else 0)";
    let mut task = Task::python(program)
        .with("/env", json!({"OUT": "{lr}/{{lr}}/{trial}"}))
        .with("/setup", json!(["SET='{resume_from} $(id)'", "export SET"]));
    task.params = json!({"lr": 0.5});
    assert_eq!((task.run(), task.run()), (75, 0));
    assert_eq!(task.stdout(0), "x-1-train-0 0.5/{lr}/0  $(id)\n");
    let from = task.dir().checkpoint(1);
    let resumed = format!("x-1-train-0 0.5/{{lr}}/0 {} $(id)\n", from.display());
    assert_eq!(task.stdout(1), resumed);
}

#[test]
fn a_variable_that_names_nothing_ends_the_trial_with_its_name() {
    let task = Task::sh("true").with("/env", json!({"OUT": "{nope}"}));
    assert_eq!(task.run(), 1);
    let reason = task.ends()[0].reason.clone().unwrap();
    assert!(reason.contains("`env.OUT`") && reason.contains("`{nope}`"), "{reason}");
}

#[test]
fn what_the_user_has_set_wins_over_trackers() {
    let program = "env | grep -E '^(WANDB|MLFLOW|TENSORBOARD)' | sort; test -d \"$WANDB_DIR\"";
    let mut task = Task::sh(program)
        .with("/trackers", json!(["wandb", "tensorboard"]))
        .with("/tags", json!(["a", "b"]))
        .with("/env", json!({"WANDB_RESUME": "must"}));
    task.env("WANDB_RUN_GROUP", "mine");
    assert_eq!(task.run(), 0);
    let out = task.stdout(0);
    let dir = task.dir().tracker().display().to_string();
    for line in [
        "WANDB_RUN_ID=x-1-train-0".to_owned(),
        "WANDB_RESUME=must".to_owned(),
        "WANDB_RUN_GROUP=mine".to_owned(),
        "WANDB_TAGS=a,b".to_owned(),
        format!("WANDB_DIR={dir}"),
        format!("TENSORBOARD_LOGDIR={dir}/tensorboard"),
    ] {
        assert!(out.lines().any(|own| own == line), "{line}: {out}");
    }
    assert!(!out.contains("MLFLOW"), "{out}");
}

/// The guard removes it. If that is killed too, the next attempt on the node does.
#[test]
fn the_folder_on_the_node_is_empty_at_the_start_and_gone_at_the_end() {
    let temporary = tempfile::tempdir().unwrap();
    let left = || fs::read_dir(temporary.path()).unwrap().count();
    let program = "own = os.environ['NEMO_SCRATCH']\nassert not os.listdir(own)\nopen(own + '/x', 'w')\n\
        print(own, flush=True); ready()\nif os.environ['NEMO_ATTEMPT'] == '0': pause()";
    let mut task = Task::python(program);
    task.env("TMPDIR", &temporary.path().display().to_string());
    let mut running = task.start();
    running.wait_for("ready-0");
    let own = task.stdout(0).trim().to_owned();
    task.kill_harness();
    running.finish();
    wait_until("the guard has removed it", || !fs::exists(&own).unwrap());
    fs::create_dir(&own).unwrap();
    fs::write(format!("{own}/left"), "").unwrap();
    assert_eq!(task.run(), 0);
    assert!(!fs::exists(&own).unwrap());
    assert_eq!(left(), 0, "{own} {}", task.stdout(1));
}
